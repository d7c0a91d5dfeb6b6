"""Derivatives of every order and mode against finite differences, torch and the reference; saved tensors.

``torch.func`` has its own file, ``test_transforms.py``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from cisdl_ops.cases import OPS, Case
from tests.ops.running import GRAD_CASES, case_named, name_of
from tests.ops.samples import Sample, samples

FIRST_OF_OP = [next(case for case in GRAD_CASES if case.op == op) for op in OPS]


def as_function(
    case: Case, function: Callable[..., Any], names: list[str]
) -> Callable[..., tuple[Tensor, ...]]:
    """The case as a function of its tensors in the order of ``names``."""

    def call(*tensors: Tensor) -> tuple[Tensor, ...]:
        return case.call(function, dict(zip(names, tensors, strict=True)))

    return call


@pytest.mark.parametrize("case", GRAD_CASES, ids=name_of)
def test_first_derivatives(case: Case) -> None:
    """Reverse and forward mode against finite differences; both under vmap as well."""
    tensors = case.inputs(torch.float64, requires_grad=True)
    function = as_function(case, OPS[case.op].ours, list(tensors))
    assert torch.autograd.gradcheck(
        function,
        tuple(tensors.values()),
        check_forward_ad=True,
        check_batched_grad=True,
        check_batched_forward_grad=True,
    )


@pytest.mark.parametrize("case", GRAD_CASES, ids=name_of)
def test_second_derivatives(case: Case) -> None:
    """Reverse over reverse, and forward over reverse, against finite differences of the first derivative."""
    tensors = case.inputs(torch.float64, requires_grad=True)
    function = as_function(case, OPS[case.op].ours, list(tensors))
    assert torch.autograd.gradgradcheck(
        function, tuple(tensors.values()), fast_mode=True, check_fwd_over_rev=True, check_batched_grad=True
    )


@pytest.mark.parametrize("case", FIRST_OF_OP, ids=name_of)
def test_gradient_penalty(case: Case) -> None:
    """The everyday second derivative: the norm of the input's gradient, differentiated by every tensor."""

    def penalty(function: Callable[..., Any]) -> list[Tensor]:
        tensors = case.inputs(torch.float64, requires_grad=True)
        output = case.call(function, tensors)[0].square().sum()
        (gradient,) = torch.autograd.grad(output, tensors["input"], create_graph=True)
        grads = torch.autograd.grad(gradient.square().sum(), list(tensors.values()), allow_unused=True)
        pairs = zip(tensors.values(), grads, strict=True)
        return [torch.zeros_like(tensor) if grad is None else grad for tensor, grad in pairs]

    torch.testing.assert_close(penalty(OPS[case.op].ours), penalty(OPS[case.op].torch))


@pytest.mark.parametrize("case", FIRST_OF_OP, ids=name_of)
def test_third_derivative(case: Case) -> None:
    """The nodes of a second derivative are differentiable in their turn."""

    def third(function: Callable[..., Any]) -> Tensor:
        tensors = case.inputs(torch.float64, requires_grad=True)
        total = case.call(function, tensors)[0].pow(4).sum()
        for _ in range(3):
            (gradient,) = torch.autograd.grad(total, tensors["input"], create_graph=True)
            total = gradient.square().sum()
        return total.detach()

    torch.testing.assert_close(third(OPS[case.op].ours), third(OPS[case.op].reference))


def test_a_state_computed_from_the_input() -> None:
    """The second derivative of a cell counts each path once when one of its inputs depends on another."""
    case = case_named("lstm_cell/grad")

    def penalty(function: Callable[..., Any]) -> Tensor:
        tensors = case.inputs(torch.float64, requires_grad=True)
        leaf = tensors["cx"]
        tensors["cx"], tensors["hx"] = leaf * 2, leaf.sin()
        total = case.call(function, tensors)[0].square().sum()
        (gradient,) = torch.autograd.grad(total, leaf, create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), leaf)[0]

    torch.testing.assert_close(penalty(OPS[case.op].ours), penalty(OPS[case.op].reference))


CELL_BACKWARDS = [one for one in samples(torch.float64) if re.match("(lstm|gru|rnn).*_backward", one.op)]


@pytest.mark.parametrize("sample", CELL_BACKWARDS, ids=lambda sample: sample.op)
def test_the_kernel_of_a_cells_gradient_refuses_to_be_differentiated(sample: Sample) -> None:
    """Called directly, past the formula that stands in for it: an error, not a missing derivative."""
    weight = sample.arguments["w_hh"].clone().requires_grad_()
    total = sum(out.sum() for out in sample.call(w_hh=weight) if out is not None)
    with pytest.raises(RuntimeError, match=f"derivative for cisdl::{sample.op} is not implemented"):
        total.backward()


SAVED = [
    ("linear/grad", "weight"),
    ("linear/grad", "input"),
    ("conv2d/grad", "input"),
    ("conv2d/grad", "weight"),
    ("lstm_cell/grad", "w_hh"),
    ("lstm_cell/grad", "cx"),
    ("gru_cell/grad", "hx"),
    ("rnn_tanh_cell/grad", "w_hh"),
]


@pytest.mark.parametrize(("identifier", "name"), SAVED)
def test_changing_a_saved_tensor_is_noticed(identifier: str, name: str) -> None:
    case = case_named(identifier)
    tensors = case.inputs(requires_grad=True)
    output = case.call(OPS[case.op].ours, tensors)[0]
    with torch.no_grad():
        tensors[name].add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


def test_changing_an_output_is_noticed() -> None:
    """The backward of the cell reads the new cell state."""
    case = case_named("lstm_cell/grad")

    def gradient(function: Callable[..., Any], spoil: bool) -> Tensor:
        tensors = case.inputs(torch.float64, requires_grad=True)
        _, cell = case.call(function, tensors)
        loss = cell.sum()
        if spoil:
            with torch.no_grad():
                cell.mul_(0)
        return torch.autograd.grad(loss, tensors["w_ih"])[0]

    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        gradient(OPS[case.op].ours, spoil=True)
    torch.testing.assert_close(
        gradient(OPS[case.op].ours, spoil=False), gradient(OPS[case.op].torch, spoil=False)
    )


@pytest.mark.parametrize("case", FIRST_OF_OP, ids=name_of)
def test_backward_twice(case: Case) -> None:
    """The same gradient again with retain_graph; a clear refusal without."""
    tensors = case.inputs(requires_grad=True)
    total = case.call(OPS[case.op].ours, tensors)[0].square().sum()
    first = torch.autograd.grad(total, tensors["input"], retain_graph=True)
    second = torch.autograd.grad(total, tensors["input"])
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(total, tensors["input"])


@pytest.mark.parametrize("case", FIRST_OF_OP, ids=name_of)
def test_no_graph_without_need(case: Case) -> None:
    """Nothing is recorded when no input wants a gradient, or under no_grad."""
    assert all(not output.requires_grad for output in case.call(OPS[case.op].ours, case.inputs()))
    with torch.no_grad():
        outputs = case.call(OPS[case.op].ours, case.inputs(requires_grad=True))
    assert all(not output.requires_grad for output in outputs)


def test_unused_output_has_zero_gradient() -> None:
    """Only h or only c of the cell in the loss: the other counts as zero."""
    case = case_named("lstm_cell/grad")
    for which in (0, 1):
        ours, theirs = (
            case.inputs(torch.float64, requires_grad=True),
            case.inputs(torch.float64, requires_grad=True),
        )
        case.call(OPS[case.op].ours, ours)[which].square().sum().backward()
        case.call(OPS[case.op].torch, theirs)[which].square().sum().backward()
        for name, tensor in theirs.items():
            expected = torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
            got = ours[name].grad
            torch.testing.assert_close(torch.zeros_like(tensor) if got is None else got, expected)


def test_indices_have_no_gradient() -> None:
    case = case_named("max_pool2d/indices_overlapping")
    values, indices = case.call(OPS[case.op].ours, case.inputs(requires_grad=True))
    assert values.requires_grad
    assert not indices.requires_grad
