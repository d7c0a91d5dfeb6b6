"""Derivatives: numerical checks, second derivatives, forward mode, functorch, and saved tensors.

A derivative is right or refused with an error that says what is not supported. It is never silently wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.gradcheck import GradcheckError

from cisdl_ops.cases import OPS, Case
from tests.ops.running import GRAD_CASES, case_named, name_of

FIRST_OF_OP = [next(case for case in GRAD_CASES if case.op == op) for op in OPS]


def as_function(
    case: Case, function: Callable[..., Any], names: list[str]
) -> Callable[..., tuple[Tensor, ...]]:
    """The case as a function of its tensors in the order of ``names``."""

    def call(*tensors: Tensor) -> tuple[Tensor, ...]:
        return case.call(function, dict(zip(names, tensors, strict=True)))

    return call


def attempt(call: Callable[[], Any]) -> tuple[Any, str | None]:
    """(the result, None), or (None, the words of the refusal). A failed check is no refusal."""
    try:
        return call(), None
    except GradcheckError:
        raise
    except (RuntimeError, NotImplementedError) as refusal:
        return None, str(refusal)


def assert_clear(refusal: str, case: Case) -> None:
    """The words name our op, or say that C++ autograd functions like ours do not know this transform."""
    known = ("cisdl", case.op, "C++ torch::autograd::Function", "c++ API of custom Function")
    assert any(words in refusal for words in known), f"not a clear refusal: {refusal}"


def right_or_refused(case: Case, ours: Callable[[], Any], theirs: Callable[[], Any]) -> None:
    """``ours`` raises an error that says what is not supported, or equals ``theirs``."""
    expected = theirs()
    got, refusal = attempt(ours)
    if refusal is None:
        torch.testing.assert_close(got, expected)
    else:
        assert_clear(refusal, case)


@pytest.mark.parametrize("case", GRAD_CASES, ids=name_of)
def test_gradcheck(case: Case) -> None:
    tensors = case.inputs(torch.float64, requires_grad=True)
    function = as_function(case, OPS[case.op].ours, list(tensors))
    assert torch.autograd.gradcheck(function, tuple(tensors.values()), fast_mode=False)


@pytest.mark.parametrize("case", GRAD_CASES, ids=name_of)
def test_second_derivative_is_right_or_refused(case: Case) -> None:
    tensors = case.inputs(torch.float64, requires_grad=True)
    function = as_function(case, OPS[case.op].ours, list(tensors))
    values = tuple(tensors.values())
    right, refusal = attempt(lambda: torch.autograd.gradgradcheck(function, values, fast_mode=True))
    if refusal is None:
        assert right
    else:
        assert_clear(refusal, case)


@pytest.mark.parametrize("case", FIRST_OF_OP, ids=name_of)
def test_gradient_penalty_is_right_or_refused(case: Case) -> None:
    """The everyday second derivative: the norm of the input's gradient, differentiated by every tensor."""

    def penalty(function: Callable[..., Any]) -> list[Tensor]:
        tensors = case.inputs(torch.float64, requires_grad=True)
        output = case.call(function, tensors)[0].square().sum()
        (gradient,) = torch.autograd.grad(output, tensors["input"], create_graph=True)
        return [
            g
            for g in torch.autograd.grad(gradient.square().sum(), list(tensors.values()), allow_unused=True)
            if g is not None
        ]

    right_or_refused(case, lambda: penalty(OPS[case.op].ours), lambda: penalty(OPS[case.op].torch))


@pytest.mark.parametrize("case", FIRST_OF_OP, ids=name_of)
@pytest.mark.parametrize("requires_grad", [False, True])
def test_forward_mode_is_right_or_refused(case: Case, requires_grad: bool) -> None:
    """A dual number must not lose its tangent on the way."""

    def tangent(function: Callable[..., Any]) -> Tensor | None:
        tensors = case.inputs(torch.float64, requires_grad=requires_grad)
        with forward_ad.dual_level():
            tensors["input"] = forward_ad.make_dual(tensors["input"], torch.ones_like(tensors["input"]))
            return forward_ad.unpack_dual(case.call(function, tensors)[0]).tangent

    right_or_refused(case, lambda: tangent(OPS[case.op].ours), lambda: tangent(OPS[case.op].torch))


@pytest.mark.parametrize("case", FIRST_OF_OP, ids=name_of)
def test_functorch_is_right_or_refused(case: Case) -> None:
    """torch.func.grad, jvp, vmap, and vmap over grad (per-sample gradients)."""
    tensors = case.inputs(torch.float64)
    names, values = list(tensors), tuple(tensors.values())
    batch = tuple(torch.stack([value, 2 * value, value - 1]) for value in values)

    def transforms(function: Callable[..., Any]) -> dict[str, Callable[[], Any]]:
        whole = as_function(case, function, names)
        numbers = tuple(range(len(names)))

        def loss(*tensors: Tensor) -> Tensor:
            return sum(
                (output.square().sum() for output in whole(*tensors)), torch.zeros((), dtype=torch.float64)
            )

        gradient = torch.func.grad(loss, argnums=numbers)
        return {
            "grad": lambda: gradient(*values),
            "jvp": lambda: torch.func.jvp(whole, values, values),
            "vmap": lambda: torch.func.vmap(whole)(*batch),
            "vmap of the input alone": lambda: torch.func.vmap(
                whole, in_dims=(0, *(None,) * (len(names) - 1))
            )(batch[0], *values[1:]),
            "vmap over grad": lambda: torch.func.vmap(gradient)(*batch),
        }

    # The reference is plain arithmetic, so every transform knows it (torch.lstm_cell has no vmap).
    ours, theirs = transforms(OPS[case.op].ours), transforms(OPS[case.op].reference)
    for name in theirs:
        right_or_refused(case, ours[name], theirs[name])


SAVED = [
    ("linear/grad", "weight"),
    ("linear/grad", "input"),
    ("conv2d/grad", "input"),
    ("conv2d/grad", "weight"),
    ("lstm_cell/grad", "w_hh"),
    ("lstm_cell/grad", "cx"),
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


def test_changing_an_output_is_noticed_or_harmless() -> None:
    """The backward of the cell may read the new cell state: changing it must not change the gradient."""
    case = case_named("lstm_cell/grad")

    def gradient(function: Callable[..., Any], spoil: bool) -> Tensor:
        tensors = case.inputs(torch.float64, requires_grad=True)
        _, cell = case.call(function, tensors)
        loss = cell.sum()
        if spoil:
            with torch.no_grad():
                cell.mul_(0)
        return torch.autograd.grad(loss, tensors["w_ih"])[0]

    spoiled, refusal = attempt(lambda: gradient(OPS[case.op].ours, spoil=True))
    if refusal is None:
        torch.testing.assert_close(spoiled, gradient(OPS[case.op].torch, spoil=False))
    else:
        assert "modified by an inplace operation" in refusal


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
