"""On a GPU: streams, graphs, another device, which kernels run, and the same bits again.

Skipped where there is none. That results are right is what the other tests of this folder say of each device.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import torch
from torch import Tensor

import cisdl_ops
from cisdl_ops import tolerance
from cisdl_ops.cases import OPS, Case

from .running import DEVICES, GRAD_CASES, case_named, name_of

pytestmark = pytest.mark.skipif("cuda" not in DEVICES, reason="no GPU, or a build without CUDA kernels")

LONG = 50_000_000  # cycles: far longer than it takes to enqueue an op
TO_BE_PADDED = ("conv2d/lenet_conv2_b64", "conv2d/alexnet_conv1_b16")  # 6 and 3 channels
FOR_TENSOR_CORES = ("linear/square_1024_b256", "conv2d/resnet18_layer2_conv2_b8")


def _inputs(case: Case, dtype: torch.dtype = torch.float32, device: str = "cuda") -> dict[str, Tensor]:
    return case.inputs(dtype, device, requires_grad=True)


def _outcome(case: Case, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return tolerance.run(case, OPS[case.op].ours, tensors).tensors


@pytest.mark.parametrize("case", GRAD_CASES, ids=name_of)
def test_current_stream(case: Case) -> None:
    """A kernel waits for what its stream did before, which a kernel on the default stream would not."""
    expected = _outcome(case, _inputs(case))
    stream = torch.cuda.Stream()
    late = {name: torch.full_like(tensor, torch.nan) for name, tensor in _inputs(case).items()}
    right = {name: tensor.detach() for name, tensor in _inputs(case).items()}
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(LONG)
        for name, tensor in late.items():
            tensor.detach().copy_(right[name])
        outcome = _outcome(case, {name: tensor.requires_grad_() for name, tensor in late.items()})
    stream.synchronize()
    for name, tensor in expected.items():
        assert torch.equal(outcome[name].nan_to_num(1e9), tensor.nan_to_num(1e9)), name


@pytest.mark.parametrize("case", GRAD_CASES, ids=name_of)
def test_graph(case: Case) -> None:
    """Captured with its backward and replayed on other values: the launchers neither allocate nor wait."""
    tensors = _inputs(case)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        _outcome(case, tensors)
        graph = torch.cuda.CUDAGraph()
        outputs = [one for one in case.call(OPS[case.op].ours, tensors) if one.is_floating_point()]
        incoming = [torch.randn_like(one) for one in outputs]
        with torch.cuda.graph(graph, stream=stream):
            outputs = [one for one in case.call(OPS[case.op].ours, tensors) if one.is_floating_point()]
            grads = torch.autograd.grad(outputs, list(tensors.values()), incoming)
    with torch.no_grad():
        for tensor in tensors.values():
            tensor.mul_(0.5)
    graph.replay()
    torch.cuda.synchronize()
    expected = [one for one in case.call(OPS[case.op].ours, tensors) if one.is_floating_point()]
    expected += torch.autograd.grad(expected, list(tensors.values()), incoming)
    for one, other in zip([*outputs, *grads], expected, strict=True):
        assert torch.equal(one, other)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one GPU")
@pytest.mark.parametrize("case", GRAD_CASES, ids=name_of)
def test_second_device(case: Case) -> None:
    """While the first is the current one."""
    for name, tensor in _outcome(case, _inputs(case, device="cuda:1")).items():
        assert tensor.device == torch.device("cuda", 1)
        torch.testing.assert_close(tensor.cpu(), _outcome(case, _inputs(case))[name].cpu(), equal_nan=True)


@pytest.fixture(params=[False, True], ids=["ieee", "tf32"])
def tf32(request: pytest.FixtureRequest) -> Iterator[bool]:
    """torch's flags for matrix products and convolutions."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = request.param
    yield request.param
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@pytest.mark.parametrize("identifier", FOR_TENSOR_CORES)
def test_tf32_only_where_it_is_allowed(identifier: str, tf32: bool) -> None:
    case = case_named(identifier)
    inputs = _inputs(case)
    _outcome(case, inputs)
    expected = "cuda_mma" if tf32 and torch.cuda.get_device_capability() >= (8, 0) else "cuda"
    for part in ("", "_backward_input", "_backward_weight"):
        assert cisdl_ops.last_implementation(case.op + part) == expected


@pytest.mark.skipif(
    "cuda" in DEVICES and torch.cuda.get_device_capability() < (8, 0), reason="compute capability below 8.0"
)
@pytest.mark.parametrize("kernels", ["cuda_mma", "cuda_hopper"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=name_of)
@pytest.mark.parametrize("identifier", [*FOR_TENSOR_CORES, *TO_BE_PADDED])
def test_reduced_precision_on_tensor_cores(identifier: str, dtype: torch.dtype, kernels: str) -> None:
    """Right, by the kernels meant, and the same bits again: parts of weight gradients are added in order."""
    if kernels == "cuda_hopper" and torch.cuda.get_device_capability() != (9, 0):
        pytest.skip("compute capability 9.0 alone has these kernels")
    if kernels == "cuda_hopper" and identifier in TO_BE_PADDED:
        pytest.skip("too few channels for a step of depth")
    case = case_named(identifier)
    parts = [case.op + part for part in ("", "_backward_input", "_backward_weight")]
    inputs = _inputs(case, dtype)
    with ExitStack() as forced:
        for part in parts:
            forced.enter_context(cisdl_ops.force_implementation(part, kernels))
        ours = tolerance.run(case, OPS[case.op].ours, inputs)
        again = tolerance.run(case, OPS[case.op].ours, inputs)
    assert {cisdl_ops.last_implementation(part) for part in parts} == {kernels}
    by_torch = tolerance.run(case, OPS[case.op].torch, tolerance.copies(inputs))
    exact = tolerance.exact(case, inputs, use_torch=True)
    assert not [one.complaint for one in tolerance.compare(ours, by_torch, exact) if one.complaint]
    assert all(torch.equal(tensor, again.tensors[name]) for name, tensor in ours.tensors.items())


@pytest.mark.skipif(
    "cuda" in DEVICES and torch.cuda.get_device_capability() < (8, 0), reason="compute capability below 8.0"
)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=name_of)
@pytest.mark.parametrize("op", ["lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"])
def test_cells_on_tensor_cores(op: str, dtype: torch.dtype) -> None:
    """Right, by the kernel meant."""
    case = case_named(f"{op}/h128_b64")
    inputs = _inputs(case, dtype)
    ours = tolerance.run(case, OPS[case.op].ours, inputs)
    assert cisdl_ops.last_implementation(op) == "cuda_mma"
    by_torch = tolerance.run(case, OPS[case.op].torch, tolerance.copies(inputs))
    exact = tolerance.exact(case, inputs, use_torch=True)
    assert not [one.complaint for one in tolerance.compare(ours, by_torch, exact) if one.complaint]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=name_of)
@pytest.mark.parametrize("case", [one for one in GRAD_CASES if "pool2d" in one.op], ids=name_of)
def test_pools_in_16_bits(case: Case, dtype: torch.dtype) -> None:
    """What float32 gives for the same numbers, rounded once."""
    inputs = _inputs(case, dtype)
    floats = tolerance.copies(inputs, torch.float32)
    expected = tolerance.run(case, OPS[case.op].ours, floats, grad_dtype=dtype)
    for name, tensor in _outcome(case, inputs).items():
        assert torch.equal(tensor, expected.tensors[name].to(tensor.dtype)), name
