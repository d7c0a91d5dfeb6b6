"""Views of every kind: strides, offsets, layouts, and memory around a tensor that must stay as it is."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from cisdl_ops import tolerance
from cisdl_ops.cases import OPS, Case
from tests.ops.running import TEST_CASES, case_named, check_case, layouts, name_of

REPRESENTATIVE = [
    case_named(identifier)
    for identifier in (
        "linear/odd_blocks",
        "linear/three_dims",
        "linear/rows_1",
        "conv2d/everything",
        "conv2d/resnet_like",
        "conv2d/same_even_kernel",
        "conv2d/depthwise",
        "conv2d/one_by_one",
        "conv2d/lenet_like",
        "conv_transpose2d/dcgan_like",
        "conv_transpose2d/depthwise_multiplier",
        "max_pool2d/pairs",
        "max_pool2d/indices_overlapping",
        "avg_pool2d/exclude_pad_ceil",
        "avg_pool2d/stride_1",
        "adaptive_max_pool2d/indices",
        "adaptive_avg_pool2d/channels_33",
        "adaptive_avg_pool2d/large_plane",
        "lstm_cell/hidden_33",
        "lstm_cell/batch_1",
        "gru_cell/hidden_33",
        "rnn_relu_cell/hidden_33",
    )
]


def transposed(tensor: Tensor) -> Tensor:
    """Same values, dimensions laid out in reverse order."""
    order = list(range(tensor.dim()))[::-1]
    return tensor.permute(order).contiguous().permute(order)


def strided(tensor: Tensor) -> Tensor:
    """Same values, every second element of a larger tensor that holds NaN in between."""
    larger = tensor.new_full([2 * size + 1 for size in tensor.shape], torch.nan)
    view = larger[tuple(slice(1, 2 * size + 1, 2) for size in tensor.shape)]
    return view.copy_(tensor)


def shifted(tensor: Tensor) -> Tensor:
    """Same values, contiguous, at an address that no vector load likes."""
    return torch.cat([tensor.new_full((1,), torch.nan), tensor.reshape(-1)])[1:].view(tensor.shape)


def expanded(tensor: Tensor) -> Tensor:
    """The first slice repeated with stride 0."""
    return tensor[:1].expand_as(tensor)


VIEWS: list[Callable[[Tensor], Tensor]] = [transposed, strided, shifted, expanded]


def viewed(
    tensors: dict[str, Tensor], view: Callable[[Tensor], Tensor], names: set[str]
) -> dict[str, Tensor]:
    return {
        name: (view(tensor.detach()) if name in names else tensor.detach()).requires_grad_()
        for name, tensor in tensors.items()
    }


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("case", REPRESENTATIVE, ids=name_of)
def test_views_of_every_input(case: Case, view: Callable[[Tensor], Tensor]) -> None:
    """One view at a time, then all together; each against torch on the same values."""
    names = [{name} for name in case.shapes]
    for chosen in [*names, set(case.shapes)]:
        check_case(case, viewed(case.inputs(), view, chosen))


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("case", REPRESENTATIVE, ids=name_of)
def test_views_of_the_incoming_gradient(case: Case, view: Callable[[Tensor], Tensor]) -> None:
    def gradients(make: Callable[[Tensor], Tensor]) -> tuple[Tensor, ...]:
        tensors = case.inputs(torch.float64, requires_grad=True)
        outputs = [output for output in case.call(OPS[case.op].ours, tensors) if output.is_floating_point()]
        torch.manual_seed(3)
        incoming = [make(view(torch.randn_like(output))) for output in outputs]
        return torch.autograd.grad(outputs, list(tensors.values()), incoming)

    torch.testing.assert_close(gradients(lambda g: g), gradients(torch.Tensor.clone), rtol=0, atol=1e-12)


@pytest.mark.parametrize("case", [case for case in TEST_CASES if len(layouts(case)) == 2], ids=name_of)
def test_memory_format_is_torchs(case: Case) -> None:
    """Outputs and gradients of contiguous and channels_last inputs lie in memory as torch's do."""
    for layout in layouts(case):
        ours = tolerance.run(case, OPS[case.op].ours, case.inputs(memory_format=layout, requires_grad=True))
        theirs = tolerance.run(
            case, OPS[case.op].torch, case.inputs(memory_format=layout, requires_grad=True)
        )
        for name, expected in theirs.tensors.items():
            if name.startswith("output") and 1 not in expected.shape and expected.numel():
                assert ours.tensors[name].stride() == expected.stride(), f"{name} of {case.id} in {layout}"


@pytest.mark.parametrize("which", ["input", "weight"])
def test_mixed_layouts_of_conv2d(which: str) -> None:
    """Only one of the two tensors in channels_last: right values, torch's output layout."""
    case = case_named("conv2d/resnet_like")
    tensors = case.inputs()
    tensors[which] = tensors[which].to(memory_format=torch.channels_last)
    tensors = {name: tensor.requires_grad_() for name, tensor in tensors.items()}
    ours = check_case(case, tensors).tensors["output 0"]
    assert ours.stride() == case.call(OPS[case.op].torch, tensors)[0].stride()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("case", REPRESENTATIVE, ids=name_of)
def test_sentinels_around_inputs(case: Case, layout: torch.memory_format) -> None:
    """Inputs inside a buffer of NaN: nothing outside them is read, nothing at all is written to it."""
    if layout not in layouts(case):
        pytest.skip("the op has no channels_last")
    margin = 67
    buffers, tensors = {}, {}
    for name, tensor in case.inputs(memory_format=layout).items():
        buffer = tensor.new_full((tensor.numel() + 2 * margin,), torch.nan)
        buffers[name] = buffer
        tensors[name] = buffer[margin:-margin].as_strided(tensor.shape, tensor.stride()).copy_(tensor)
    before = {name: buffer.clone() for name, buffer in buffers.items()}

    guarded = tolerance.run(case, OPS[case.op].ours, {n: t.requires_grad_() for n, t in tensors.items()})
    plain = tolerance.run(case, OPS[case.op].ours, case.inputs(memory_format=layout, requires_grad=True))
    for name, expected in plain.tensors.items():
        torch.testing.assert_close(guarded.tensors[name], expected, rtol=1e-6, atol=1e-6)
    for name, buffer in buffers.items():
        torch.testing.assert_close(buffer.detach(), before[name], rtol=0, atol=0, equal_nan=True)


def test_results_do_not_share_memory_with_inputs() -> None:
    """Not even where the op is the identity."""
    x = torch.randn(1, 2, 3, 3)
    for output in (OPS["max_pool2d"].ours(x, 1), OPS["avg_pool2d"].ours(x, 1)):
        assert torch.equal(output, x)
        assert output.data_ptr() != x.data_ptr()


def test_weights_changed_in_place_are_seen() -> None:
    """Nothing packed from an old weight may survive a change, however the weight was changed."""
    for identifier in ("linear/odd_blocks", "conv2d/resnet_like", "lstm_cell/hidden_33"):
        case = case_named(identifier)
        op, tensors = OPS[case.op], case.inputs()
        weight = "w_ih" if case.op == "lstm_cell" else "weight"
        changes: list[Callable[[Tensor], object]] = [
            lambda w: w.mul_(2),
            lambda w: w.data.add_(1),
            lambda w: w.copy_(torch.zeros_like(w)),
            lambda w: w.detach().numpy().__imul__(0) if w.any() else w.fill_(0.5),
        ]
        with torch.no_grad():
            for change in changes:
                case.call(op.ours, tensors)
                change(tensors[weight])
                torch.testing.assert_close(
                    case.call(op.ours, tensors), case.call(op.torch, tensors), rtol=1e-4, atol=1e-4
                )
            for _ in range(3):  # a new tensor, probably at the address of the old one
                del tensors[weight]
                tensors[weight] = torch.randn(case.shapes[weight])
                torch.testing.assert_close(
                    case.call(op.ours, tensors), case.call(op.torch, tensors), rtol=1e-4, atol=1e-4
                )


def test_large_results_take_the_memory_of_those_freed() -> None:
    """From 32 MiB on; never that of a tensor that is still there, and only up to a bound in all."""
    x, w = torch.ones(1, 2304), torch.zeros(4096, 2304)

    def gradient(value: float) -> Tensor:
        g = torch.full((1, 4096), float(value))
        result: Tensor = torch.ops.cisdl.linear_backward(g, x, w, [False, True, False])[1]
        return result

    first = gradient(1)
    places = {first.data_ptr()}
    del first
    kept = [gradient(value) for value in range(5)]
    assert places & {one.data_ptr() for one in kept}
    assert len({one.data_ptr() for one in kept}) == 5
    for value, one in enumerate(kept):
        assert (one == value).all()


FREED = """
import resource
import torch, cisdl_ops

x, w, g = torch.ones(1, 2304), torch.zeros(4096, 2304), torch.ones(1, 4096)
for _ in range(8):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ops.cisdl.linear_backward(g, x, w, [False, True, False])
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults)
"""


def test_freed_memory_is_given_back_on_demand() -> None:
    """Pages that are taken from the system anew are faulted in again."""

    def python(keep: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "CISDL_KEEP_MEMORY": keep}
        command = [sys.executable, "-c", FREED]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    kept, given_back = (int(python(keep).stdout) for keep in ("", "0"))
    assert kept < 8 <= given_back
    refused = python("no")
    assert "CISDL_KEEP_MEMORY: expected 0 or 1, got no" in refused.stderr
