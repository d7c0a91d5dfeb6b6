"""The tensor core kernels, emulated: fragments, swizzled tiles, copies under way, split depth."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from cisdl_ops import tolerance
from cisdl_ops.cases import OPS, Case
from cisdl_ops.cases.build import cell

from .emulated import Emulated
from .machine import ORDERS, Machine


def make_case(name: str, op: str, shapes: dict[str, tuple[int, ...]], **kwargs: Any) -> Case:
    return Case(op, f"tensor_cores_{name}", shapes, kwargs)


def make_linear(name: str, batch: int, inputs: int, outputs: int, **kwargs: Any) -> Case:
    shapes = {"input": (batch, inputs), "weight": (outputs, inputs), "bias": (outputs,)}
    return make_case(name, "linear", shapes, **kwargs)


def make_conv(name: str, input: tuple[int, ...], weight: tuple[int, ...], **kwargs: Any) -> Case:
    transposed = kwargs.pop("transposed", False)
    bias = weight[1] * kwargs.get("groups", 1) if transposed else weight[0]
    op = "conv_transpose2d" if transposed else "conv2d"
    return make_case(name, op, {"input": input, "weight": weight, "bias": (bias,)}, **kwargs)


def _cell(name: str, op: str, batch: int, inputs: int, hidden: int) -> Case:
    return cell(op, "test", f"tensor_cores_{name}", batch, inputs, hidden)


# Sizes that are no multiple of a tile or step in any of the three products, both widths of tiles, depths of
# one step and of many; the depth of the weight gradients of the two "split" ones is cut into slices.
CASES = (
    make_linear("small", 3, 16, 8),
    make_linear("wide", 40, 104, 200),
    make_linear("tiles", 136, 104, 136),
    make_linear("split", 1100, 16, 24),
    make_conv("padded", (2, 16, 9, 11), (24, 16, 3, 3), padding=1, activation="relu"),
    make_conv("strided_groups", (2, 32, 10, 9), (48, 16, 3, 2), stride=2, padding=(2, 1), groups=2),
    make_conv("dilated", (1, 8, 12, 13), (8, 8, 3, 3), dilation=2, padding=2),
    make_conv("pointwise", (2, 24, 12, 12), (80, 24, 1, 1)),
    make_conv("same", (1, 8, 7, 7), (16, 8, 4, 2), padding="same"),
    make_conv("split", (5, 8, 16, 16), (8, 8, 3, 3), padding=1),
    make_conv("transposed", (2, 16, 5, 6), (16, 8, 4, 4), stride=2, padding=1, transposed=True),
)
ACTIVATIONS = tuple(
    make_linear(f, 5, 16, 40, activation=f) for f in ("relu", "leaky_relu", "sigmoid", "tanh")
)
# In 16 bits only.
CELLS = tuple(
    _cell(name, op, *sizes)
    for op in ("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell")
    for name, sizes in (("small", (3, 16, 8)), ("tiles", (130, 40, 24)), ("split", (1100, 8, 8)))
)
# What tensor cores leave to others: no whole chunks of 16 bytes.
REFUSED = (
    make_linear("odd", 5, 18, 7),
    make_conv("odd", (2, 6, 7, 7), (10, 6, 3, 3)),
    make_conv("odd_groups", (1, 24, 6, 6), (24, 6, 3, 3), groups=4),
    _cell("odd", "lstm_cell", 3, 12, 8),
    _cell("odd", "gru_cell", 3, 8, 12),
    _cell("odd", "rnn_tanh_cell", 3, 12, 8),
)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")  # torch about itself
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
@pytest.mark.parametrize("case", [*CASES, *ACTIVATIONS, *CELLS, *REFUSED], ids=lambda case: case.id)
def test_reduced_precision(case: Case, dtype: torch.dtype, machine: Machine) -> None:
    """Within the error that torch earns in the same precision, the same bits in every order."""
    inputs = case.inputs(dtype, requires_grad=True)
    exact = tolerance.exact(case, inputs)
    by_torch = tolerance.run(case, OPS[case.op].torch, tolerance.copies(inputs))
    function = Emulated(machine).function(case.op)
    # Forward and two gradients, or an LSTM cell's backward; of other cells two gradients for each weight.
    problems = {"linear": 3, "conv2d": 3, "conv_transpose2d": 3, "lstm_cell": 2}
    first: tolerance.Outcome | None = None
    for order in ORDERS:
        machine.configure(order)
        before = machine.on_tensor_cores
        outcome = tolerance.run(case, function, inputs)
        assert machine.on_tensor_cores - before == (0 if case in REFUSED else problems.get(case.op, 6))
        first = first or outcome
        complaints = [one.complaint for one in tolerance.compare(outcome, by_torch, exact) if one.complaint]
        assert not complaints, f"{order.name}: {complaints}"
        for name, tensor in outcome.tensors.items():
            assert torch.equal(tensor, first.tensors[name]), f"{name} differs in {order.name} order"


def _as_tf32(tensor: Tensor) -> Tensor:
    """The numbers that TF32 has, so that products of them are exact in float32."""
    return ((tensor.view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_tf32(case: Case, machine: Machine) -> None:
    """Of numbers that TF32 has, the result is as good as float32's, gradients included."""
    inputs = {name: _as_tf32(tensor).requires_grad_() for name, tensor in case.inputs().items()}
    exact_inputs = tolerance.copies(inputs, torch.float64)
    [exact] = case.call(OPS[case.op].torch, exact_inputs)
    [by_torch] = case.call(OPS[case.op].torch, inputs)
    incoming = _as_tf32(torch.randn(exact.shape, generator=torch.Generator().manual_seed(3)))
    exact_grads = torch.autograd.grad(exact, list(exact_inputs.values()), incoming.double())
    torch_grads = torch.autograd.grad(by_torch, list(inputs.values()), incoming)
    for order in ORDERS:
        machine.configure(order)
        before = machine.on_tensor_cores
        [ours] = case.call(Emulated(machine, tf32=True).function(case.op), inputs)
        grads = torch.autograd.grad(ours, list(inputs.values()), incoming)
        assert machine.on_tensor_cores == before + 3
        results = [("output", ours, by_torch, exact)]
        results += zip(inputs, grads, torch_grads, exact_grads, strict=True)
        for name, result, other, right in results:
            compared = tolerance.compare_tensor(name, result.detach(), other.detach(), right.detach())
            assert not compared.complaint, f"{order.name}: {compared.complaint}"


def test_tf32_with_an_activation(machine: Machine) -> None:
    """The forward of test_tf32; the gradient behind an activation is no number of TF32."""
    for case in ACTIVATIONS:
        inputs = {name: _as_tf32(tensor) for name, tensor in case.inputs().items()}
        [exact] = case.call(OPS[case.op].torch, tolerance.copies(inputs, torch.float64))
        [by_torch] = case.call(OPS[case.op].torch, inputs)
        before = machine.on_tensor_cores
        [ours] = case.call(Emulated(machine, tf32=True).function(case.op), inputs)
        assert machine.on_tensor_cores == before + 1
        compared = tolerance.compare_tensor("output", ours, by_torch, exact)
        assert not compared.complaint, f"{case.id}: {compared.complaint}"


def test_tf32_rounds_to_nearest(machine: Machine) -> None:
    """Tensor cores cut a float off; unrounded factors would make every product too small."""
    generator = torch.Generator().manual_seed(0)
    input, weight = (torch.rand(64, 32, generator=generator) + 1 for _ in range(2))
    result = Emulated(machine, tf32=True).linear(input, weight)
    exact = input.double() @ weight.double().T
    assert ((result - exact) / exact).mean().abs() < 2e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
def test_conversions(dtype: torch.dtype, machine: Machine) -> None:
    """Sums of two numbers are rounded as torch rounds, subnormal, overflowing, infinite and NaN ones too."""
    bits = torch.arange(-(2**15), 2**15, 37, dtype=torch.int32).to(torch.int16)
    numbers = bits.view(dtype)
    input = torch.zeros(numbers.numel(), 8, dtype=dtype)
    input[:, 0], input[:, 1] = numbers, numbers.roll(5)
    weight = torch.zeros(8, 8, dtype=dtype)
    weight[0, :2] = 1
    expected = (numbers.float() + numbers.roll(5).float()).to(dtype)
    result = Emulated(machine).linear(input, weight)[:, 0]
    torch.testing.assert_close(result, expected, rtol=0, atol=0, equal_nan=True)
