"""torch.func: grad, vmap, jvp, hessian and their nesting give what they give for the plain reference."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain, combinations
from typing import Any

import pytest
import torch
from torch import Tensor

from cisdl_ops.cases import OPS, Case
from tests.ops.running import GRAD_CASES, case_named, name_of

FIRST_OF_OP = [next(case for case in GRAD_CASES if case.op == op) for op in OPS]
SAMPLES = 3

# Cases whose shapes or options a batching rule has to look at: no batch dimension of their own, groups.
SPECIAL = [
    case_named(identifier)
    for identifier in (
        "linear/vector",
        "linear/three_dims",
        "conv2d/unbatched",
        "conv2d/groups_2",
        "conv_transpose2d/unbatched",
        "conv_transpose2d/groups_2",
        "max_pool2d/unbatched",
        "max_pool2d/indices_unbatched",
        "avg_pool2d/unbatched",
        "adaptive_max_pool2d/indices_unbatched",
        "adaptive_avg_pool2d/unbatched",
    )
]


def whole(case: Case, function: Callable[..., Any]) -> Callable[..., tuple[Tensor, ...]]:
    """The case as a function of its tensors, in order."""
    names = list(case.shapes)
    return lambda *tensors: case.call(function, dict(zip(names, tensors, strict=True)))


def loss(case: Case, function: Callable[..., Any]) -> Callable[..., Tensor]:
    def total(*tensors: Tensor) -> Tensor:
        outputs = whole(case, function)(*tensors)
        return torch.stack([output.square().sum() for output in outputs if output.is_floating_point()]).sum()

    return total


def values_of(case: Case) -> tuple[Tensor, ...]:
    return tuple(case.inputs(torch.float64).values())


def subsets(count: int) -> list[tuple[int, ...]]:
    """Every non-empty choice of inputs, or one and all where those would be many."""
    numbers = range(count)
    sizes = range(1, count + 1) if count <= 3 else (1, count)
    return list(chain.from_iterable(combinations(numbers, size) for size in sizes))


def batches(values: tuple[Tensor, ...], chosen: tuple[int, ...], at: int) -> tuple[list[Tensor], list[Any]]:
    """SAMPLES versions of the chosen tensors along dimension ``at`` (negative: from the end), and in_dims."""
    tensors, in_dims = list(values), [None] * len(values)
    for i in chosen:
        versions = [values[i] * (1 + 0.3 * k) - 0.1 * k for k in range(SAMPLES)]
        in_dims[i] = at if at >= 0 else values[i].dim() + 1 + at
        tensors[i] = torch.stack(versions, in_dims[i])
    return tensors, in_dims


def one_by_one(function: Callable[..., Any], tensors: list[Tensor], in_dims: list[Any]) -> Any:
    """What vmap promises: the function for each sample, stacked."""
    results = [
        function(*(t if dim is None else t.select(dim, k) for t, dim in zip(tensors, in_dims, strict=True)))
        for k in range(SAMPLES)
    ]
    return tuple(torch.stack(each) for each in zip(*results, strict=True))


@pytest.mark.parametrize("at", [0, -1])
@pytest.mark.parametrize("case", [*FIRST_OF_OP, *SPECIAL], ids=name_of)
def test_vmap(case: Case, at: int) -> None:
    """Each choice of batched tensors, the batch dimension first or last: as one sample after another."""
    function = whole(case, OPS[case.op].ours)
    for chosen in subsets(len(case.shapes)):
        tensors, in_dims = batches(values_of(case), chosen, at)
        got = torch.func.vmap(function, in_dims=tuple(in_dims))(*tensors)
        torch.testing.assert_close(got, one_by_one(function, tensors, in_dims))


@pytest.mark.parametrize("case", [*FIRST_OF_OP, *SPECIAL], ids=name_of)
def test_per_sample_gradients(case: Case) -> None:
    """vmap over grad, each choice of batched tensors."""
    numbers = tuple(range(len(case.shapes)))
    function = torch.func.grad(loss(case, OPS[case.op].ours), argnums=numbers)
    for chosen in subsets(len(case.shapes)):
        tensors, in_dims = batches(values_of(case), chosen, 0)
        got = torch.func.vmap(function, in_dims=tuple(in_dims))(*tensors)
        torch.testing.assert_close(got, one_by_one(function, tensors, in_dims))


@pytest.mark.parametrize("case", [*FIRST_OF_OP, *SPECIAL], ids=name_of)
def test_gradient_of_a_vmap(case: Case) -> None:
    numbers = tuple(range(len(case.shapes)))

    def through_vmap(function: Callable[..., Any]) -> Any:
        tensors, in_dims = batches(values_of(case), numbers, 0)
        mapped = torch.func.vmap(loss(case, function), in_dims=tuple(in_dims))
        return torch.func.grad(lambda *each: mapped(*each).sum(), argnums=numbers)(*tensors)

    torch.testing.assert_close(through_vmap(OPS[case.op].ours), through_vmap(OPS[case.op].reference))


@pytest.mark.parametrize("case", [*FIRST_OF_OP, *SPECIAL], ids=name_of)
def test_jvp(case: Case) -> None:
    values = values_of(case)
    for chosen in subsets(len(values)):
        tangents = tuple(v.cos() if i in chosen else torch.zeros_like(v) for i, v in enumerate(values))

        def pushed(function: Callable[..., Any], tangents: tuple[Tensor, ...] = tangents) -> Any:
            outputs, changes = torch.func.jvp(whole(case, function), values, tangents)
            return [
                (out, change) for out, change in zip(outputs, changes, strict=True) if out.is_floating_point()
            ]

        torch.testing.assert_close(pushed(OPS[case.op].ours), pushed(OPS[case.op].reference))


# A gradient taken after its level has ended, under forward mode: the cells have no formula at hand there.
# jacrev of jacrev gives the same second derivatives.
REFUSED = {(op, "hessian") for op in ("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell")}


@pytest.mark.parametrize("nested", ["hessian", "jacrev", "jacfwd", "jacrev of jacrev", "jacrev of jacfwd"])
@pytest.mark.parametrize("case", FIRST_OF_OP, ids=name_of)
def test_jacobians(case: Case, nested: str) -> None:
    """By the input and by the last tensor."""
    if (case.op, nested) in REFUSED:
        with pytest.raises(NotImplementedError, match=r"forward AD with cisdl::\w+_backward"):
            jacobian(case, OPS[case.op].ours, nested)
        return
    got = jacobian(case, OPS[case.op].ours, nested)
    torch.testing.assert_close(got, jacobian(case, OPS[case.op].reference, nested))


def jacobian(case: Case, function: Callable[..., Any], nested: str) -> Any:
    func = torch.func
    total = loss(case, function)
    by = (0, len(case.shapes) - 1) if len(case.shapes) > 1 else (0,)
    transforms: dict[str, Callable[[], Any]] = {
        "hessian": lambda: func.hessian(total, argnums=by),
        "jacrev": lambda: func.jacrev(total, argnums=by),
        "jacfwd": lambda: func.jacfwd(total, argnums=by),
        "jacrev of jacrev": lambda: func.jacrev(func.jacrev(total, argnums=by), argnums=by),
        "jacrev of jacfwd": lambda: func.jacrev(func.jacfwd(total, argnums=by), argnums=by),
    }
    return transforms[nested]()(*values_of(case))
