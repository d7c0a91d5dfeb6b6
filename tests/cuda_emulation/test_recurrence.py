"""All steps of a recurrent layer in one kernel, emulated: blocks that await each other's numbers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from cisdl_ops import tolerance

from .emulated_recurrence import Layer, by_formula, emulated
from .machine import ORDERS, EmulationError, Machine, NotForTensorCores

# Several blocks, groups and tiles of rows; a piece of the depth that is not full; more pieces than warps;
# one row; sequences that end, and that begin late in the opposite direction.
LAYERS = (
    Layer("lstm", 40, (4, 4, 4)),
    Layer("lstm", 40, (5, 4, 4, 1), reverse=True),
    Layer("gru", 24, (4,)),
    Layer("gru", 40, (4, *[3] * 16, 1, 1)),
    Layer("gru", 40, (3, 3, 2), reverse=True),
    Layer("rnn_tanh", 40, (3, 2, 2, 1), bias=False),
    Layer("rnn_relu", 16, (3,) * 20, reverse=True),
    Layer("lstm", 72, (2,) * 81, bias=False),
    Layer("lstm", 264, (3, 3)),
)

Outcome = dict[str, Tensor]


def _run(function: Callable[..., tuple[Tensor, ...]], tensors: dict[str, Tensor]) -> Outcome:
    """Results and gradients, those of each result different ones."""
    results = function(tensors)
    generator = torch.Generator().manual_seed(1)
    grads = [torch.randn(one.shape, generator=generator).to(one.dtype) for one in results]
    inputs = torch.autograd.grad(results, list(tensors.values()), grads)
    names = ("output", "h_n", "c_n")
    outcome = dict(zip(names, results, strict=False))
    return {
        name: one.detach()
        for name, one in (outcome | {f"grad {n}": g for n, g in zip(tensors, inputs, strict=True)}).items()
    }


def _as(dtype: torch.dtype, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: one.detach().to(dtype).requires_grad_() for name, one in tensors.items()}


@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, torch.float16, torch.float32], ids=lambda one: str(one)[6:]
)
@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.id)
def test_forward_and_backward(layer: Layer, dtype: torch.dtype, machine: Machine) -> None:
    """Within the error that torch earns in the same precision, the same bits in every order."""
    if dtype != torch.bfloat16 and layer.hidden > 72:
        pytest.skip("as in bfloat16, and slow to emulate")
    tensors = layer.inputs(dtype)
    exact = _run(lambda t: by_formula(layer, t), _as(torch.float64, tensors))
    by_torch = _run(lambda t: by_formula(layer, t), tensors)
    first: Outcome | None = None
    for order in ORDERS:
        machine.configure(order)
        outcome = _run(lambda t: emulated(machine, layer, t), tensors)
        if first is None:
            first = outcome
            compared = [
                tolerance.compare_tensor(name, one, by_torch[name], exact[name])
                for name, one in outcome.items()
            ]
            assert not [one.complaint for one in compared if one.complaint]
        for name, one in outcome.items():
            assert torch.equal(one, first[name]), f"{name} differs in {order.name} order"


@pytest.mark.parametrize("layer", [LAYERS[0], LAYERS[4]], ids=lambda layer: layer.id)
def test_tf32(layer: Layer, machine: Machine) -> None:
    """Allowed to round factors to TF32, results are off by that and no more."""
    tensors = layer.inputs(torch.float32)
    exact = _run(lambda t: by_formula(layer, t), _as(torch.float64, tensors))
    rounded = _run(lambda t: emulated(machine, layer, t, tf32=True), tensors)
    errors = {name: float((one - exact[name]).abs().max()) for name, one in rounded.items()}
    assert max(errors.values()) > 1e-5
    assert max(errors.values()) < 2e-2


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn_tanh"])
def test_without_gradient(cell: str, machine: Machine) -> None:
    """Inference, in which nothing is kept, gives what training gives."""
    layer = Layer(cell, 24, (3, 2))
    tensors = layer.inputs(torch.bfloat16)
    training = emulated(machine, layer, tensors)
    inference = emulated(machine, layer, {name: one.detach() for name, one in tensors.items()})
    assert all(map(torch.equal, training, inference))


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn_tanh"])
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_single_gradients(cell: str, reverse: bool, machine: Machine) -> None:
    """Each gradient alone, and each result's gradient missing in turn: null pointers on either side."""
    layer = Layer(cell, 24, (3, 2), reverse=reverse)
    tensors = layer.inputs(torch.bfloat16)
    together = _run(lambda t: emulated(machine, layer, t), tensors)
    generator = torch.Generator().manual_seed(1)
    results = emulated(machine, layer, tensors)
    grads = [torch.randn(one.shape, generator=generator).to(one.dtype) for one in results]
    for name in tensors:
        alone = {other: one.detach() for other, one in tensors.items()}
        alone[name].requires_grad_()
        [grad] = torch.autograd.grad(emulated(machine, layer, alone), [alone[name]], grads)
        assert torch.equal(grad, together[f"grad {name}"]), name
    for used, grad in enumerate(grads):
        leaves = list(tensors.values())
        ours = torch.autograd.grad(emulated(machine, layer, tensors)[used], leaves, grad)
        zeros = [grad if i == used else torch.zeros_like(one) for i, one in enumerate(grads)]
        by_zeros = torch.autograd.grad(emulated(machine, layer, tensors), leaves, zeros)
        assert all(map(torch.equal, ours, by_zeros))


@pytest.mark.parametrize("bits", [torch.int16, torch.int32], ids=["bfloat16", "float32"])
def test_nan_is_published(bits: torch.dtype, machine: Machine) -> None:
    """A NaN in the input reaches its own row, and nobody waits for it."""
    layer = Layer("lstm", 16, (3, 3))
    dtype = torch.bfloat16 if bits == torch.int16 else torch.float32
    tensors = {name: one.detach() for name, one in layer.inputs(dtype).items()}
    tensors["x_part"].view(bits)[0, 5] = -1  # all ones: what stands for nothing yet
    tensors["hx"].view(bits)[1, 3] = -1
    output, h_n, _ = emulated(machine, layer, tensors)
    expected, expected_h, _ = by_formula(layer, tensors)
    assert torch.equal(output.isnan(), expected.isnan())
    assert torch.equal(h_n.isnan(), expected_h.isnan())


@pytest.mark.parametrize(
    "layer",
    [Layer("lstm", 20, (2,)), Layer("gru", 8 * 41, (2,)), Layer("rnn_tanh", 160, (1,) * 300)],
    ids=["hidden_size", "blocks", "rows"],
)
def test_what_does_not_fit(layer: Layer, machine: Machine) -> None:
    """A hidden size that is no multiple of 8; more blocks than find room; more rows than a group takes."""
    with pytest.raises(NotForTensorCores):
        emulated(machine, layer, layer.inputs(torch.bfloat16))


def test_missing_publication(machine: Machine) -> None:
    """Who waits for what nobody publishes is named, with the place."""
    machine.configure(ORDERS[0])
    numbers = torch.arange(512.0)
    words = "deadlock: thread 0 waits at faulty.cu:.* for what nobody publishes"
    with pytest.raises(EmulationError, match=words):
        machine.run_faulty("never_published", numbers)
    assert torch.equal(machine.run_faulty("published", numbers), numbers)
