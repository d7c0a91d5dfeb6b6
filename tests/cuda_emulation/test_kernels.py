"""Every CUDA kernel, compiled for the CPU, on every case: right, and the same in every order of threads."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cisdl_ops import tolerance
from cisdl_ops.cases import CASES, OPS, Case, select
from cisdl_ops.reference import Pair

from .emulated import Emulated, as_pair
from .machine import ORDERS, Machine
from .test_tensor_cores import CASES as TENSOR_CORE_CASES


def _name(value: object) -> str:
    return value.id if isinstance(value, Case) else str(value).removeprefix("torch.")


def _case(identifier: str) -> Case:
    return next(case for case in CASES if case.id == identifier)


def _image_layouts(case: Case) -> tuple[bool, ...]:
    return (False, True) if OPS[case.op].images else (False,)


def window_places(
    input: Tensor,
    places: Tensor,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
) -> Tensor | None:
    """Places in the plane as places in the window, in a byte; None where a window has too many cells."""
    (height, width), (ph, pw), (dh, dw) = (as_pair(one) for one in (kernel_size, padding, dilation))
    if height * width > 255:
        return None
    sh, sw = as_pair(stride or kernel_size)
    rows, columns = torch.arange(places.shape[-2])[:, None], torch.arange(places.shape[-1])
    r = (places // input.shape[-1] - (rows * sh - ph)) // dh
    s = (places % input.shape[-1] - (columns * sw - pw)) // dw
    return (r * width + s).to(torch.uint8)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")  # torch about itself
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=_name)
@pytest.mark.parametrize("case", select("test"), ids=_name)
def test_forward_and_backward(case: Case, dtype: torch.dtype, machine: Machine) -> None:
    """Outputs and gradients within the tolerance that torch's own error earns, the same bits in each order.

    float64 runs in one order: it is the same source, and float32 has been through all of them.
    """
    orders = ORDERS if dtype == torch.float32 else ORDERS[-1:]
    inputs = case.inputs(dtype, requires_grad=True)
    exact = tolerance.exact(case, inputs)
    by_torch = tolerance.run(case, OPS[case.op].torch, tolerance.copies(inputs))
    for channels_last in _image_layouts(case):
        function = Emulated(machine, channels_last).function(case.op)
        first: tolerance.Outcome | None = None
        for order in orders:
            machine.configure(order)
            outcome = tolerance.run(case, function, inputs)
            if first is None:
                first = outcome
                compared = tolerance.compare(outcome, by_torch, exact)
                complaints = [one.complaint for one in compared if one.complaint]
                assert not complaints, f"channels_last={channels_last}: " + "; ".join(complaints)
            for name, tensor in outcome.tensors.items():
                same = torch.equal(tensor.nan_to_num(1e9), first.tensors[name].nan_to_num(1e9))
                assert same, f"channels_last={channels_last}: {name} differs in {order.name} order"


def _equal(one: Tensor, other: Tensor) -> bool:
    """The same bits, or NaN in both."""
    return one.dtype == other.dtype and torch.equal(one.nan_to_num(1e9), other.nan_to_num(1e9))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=_name)
@pytest.mark.parametrize("case", [one for one in select("test") if "pool2d" in one.op], ids=_name)
def test_pools_in_16_bits(case: Case, dtype: torch.dtype, machine: Machine) -> None:
    """What float32 gives for the same numbers, rounded once, torch's rule; maxima are exactly torch's own."""
    inputs = case.inputs(dtype, requires_grad=True)
    floats = {name: tensor.detach().float().requires_grad_() for name, tensor in inputs.items()}
    by_torch = case.call(OPS[case.op].torch, tolerance.copies(inputs))
    for channels_last in (False, True):
        function = Emulated(machine, channels_last).function(case.op)
        machine.configure(ORDERS[0])
        expected = tolerance.run(case, function, floats, grad_dtype=dtype)
        for order in ORDERS:
            machine.configure(order)
            outcome = tolerance.run(case, function, inputs)
            for name, tensor in outcome.tensors.items():
                rounded = expected.tensors[name].to(tensor.dtype)
                assert _equal(tensor, rounded), f"channels_last={channels_last}: {name} in {order.name} order"
            if "max" in case.op:
                assert all(map(_equal, case.call(function, inputs), by_torch))


@pytest.mark.parametrize("flat", [True, False], ids=["flat", "window"])
@pytest.mark.parametrize("case", [one for one in select("test") if one.op == "max_pool2d"], ids=_name)
def test_gather(case: Case, flat: bool, machine: Machine) -> None:
    """The input at the places of its maxima is what max_pool2d gives; any other input as torch gathers it."""
    other_options = ("return_indices", "activation")
    window = {name: value for name, value in case.kwargs.items() if name not in other_options}
    input = case.inputs()["input"]
    output, places = torch.nn.functional.max_pool2d(input, **window, return_indices=True)
    other = torch.randn(input.shape, generator=torch.Generator().manual_seed(2))
    expected = other.flatten(-2).gather(-1, places.flatten(-2)).view(places.shape)
    indices = places if flat else window_places(input, places, **window)
    if indices is None:
        pytest.skip("a window of more than 255 cells")
    for channels_last in (False, True):
        gather = Emulated(machine, channels_last).max_pool2d_gather
        for order in ORDERS:
            machine.configure(order)
            torch.testing.assert_close(
                gather(input, indices, **window), output, rtol=0, atol=0, equal_nan=True
            )
            assert torch.equal(gather(other, indices, **window), expected)


@pytest.mark.parametrize("case", select("test", "lstm_cell"), ids=_name)
def test_lstm_cell_as_a_step_of_a_layer(case: Case, machine: Machine) -> None:
    """The kernels of cisdl::lstm_layer, which no case of the table reaches."""
    inputs = case.inputs(requires_grad=True)
    machine.configure(ORDERS[-1])
    outcome = tolerance.run(case, Emulated(machine).lstm_step, inputs)
    by_torch = tolerance.run(case, OPS[case.op].torch, tolerance.copies(inputs))
    compared = tolerance.compare(outcome, by_torch, tolerance.exact(case, inputs))
    assert not [one.complaint for one in compared if one.complaint]


@pytest.mark.parametrize("case", select("grad"), ids=_name)
def test_without_gradient(case: Case, machine: Machine) -> None:
    """Inference (no pooling indices, no LSTM gates) gives what training gives."""
    function = Emulated(machine).function(case.op)
    training = case.call(function, case.inputs(requires_grad=True))
    inference = case.call(function, case.inputs())
    for one, other in zip(training, inference, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("identifier", ["linear/grad", "conv2d/grad", "lstm_cell/grad", "gru_cell/grad"])
def test_single_gradients(identifier: str, machine: Machine) -> None:
    """Each gradient asked for alone, the others null pointers, is what it is among all."""
    case = _case(identifier)
    function = Emulated(machine).function(case.op)
    together = tolerance.run(case, function, case.inputs(requires_grad=True))
    for name in case.shapes:
        alone = tolerance.run(case, function, case.inputs(requires_grad=[name]))
        assert torch.equal(alone.tensors[f"grad {name}"], together.tensors[f"grad {name}"]), name


def test_lstm_cell_with_one_grad_output(machine: Machine) -> None:
    """A missing grad_h or grad_c is a zero."""
    case = _case("lstm_cell/grad")
    for used in (0, 1):
        grads = []
        for function in (Emulated(machine).lstm_cell, OPS[case.op].torch):
            inputs = case.inputs(torch.float64, requires_grad=True)
            total = case.call(function, inputs)[used].sum()
            grads.append(torch.autograd.grad(total, list(inputs.values()), allow_unused=True))
        for ours, by_torch in zip(*grads, strict=True):
            expected = torch.zeros(()) if by_torch is None else by_torch
            torch.testing.assert_close(ours, expected.to(ours).expand_as(ours))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=_name)
@pytest.mark.parametrize("case", [one for one in TENSOR_CORE_CASES if "split" in one.name], ids=_name)
def test_split_depth(case: Case, dtype: torch.dtype, machine: Machine) -> None:
    """Gradients of weights whose depth is cut in slices: right, and the same bits in every order."""
    inputs = case.inputs(dtype, requires_grad=True)
    exact = tolerance.exact(case, inputs)
    by_torch = tolerance.run(case, OPS[case.op].torch, tolerance.copies(inputs))
    for channels_last in _image_layouts(case):
        outcomes = []
        for order in ORDERS:
            machine.configure(order)
            outcomes.append(tolerance.run(case, Emulated(machine, channels_last).function(case.op), inputs))
        compared = tolerance.compare(outcomes[0], by_torch, exact)
        assert not [one.complaint for one in compared if one.complaint]
        for other in outcomes[1:]:
            assert all(map(torch.equal, other.tensors.values(), outcomes[0].tensors.values()))
