"""Cross-entropy on the emulated GPU against torch's, and the same in every order of threads."""

from __future__ import annotations

from functools import partial
from itertools import product

import pytest
import torch
from torch import Tensor

from cisdl_ops import tolerance

from ..ops.test_cross_entropy import SHAPES, batch, outcome
from .emulated_loss import REDUCTIONS, cross_entropy
from .machine import ORDERS, Machine

F = torch.nn.functional


def _same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a.nan_to_num(1e9), b.nan_to_num(1e9)) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("shape", [*SHAPES, (3, 2500)])
def test_agrees_with_torch(shape: tuple[int, int], dtype: torch.dtype, machine: Machine) -> None:
    scores, target, weight = batch(*shape, dtype)
    for reduction, smoothing, weighted in product(REDUCTIONS, (0.0, 0.1), (False, True)):
        options = {"reduction": reduction, "label_smoothing": smoothing}
        w = weight if weighted else None
        found = []
        for order in ORDERS:
            machine.configure(order)
            found.append(outcome(partial(cross_entropy, machine), scores, target, w, **options))
        assert all(_same(one, found[0]) for one in found[1:])
        theirs = outcome(F.cross_entropy, scores, target, w, **options)
        exact = outcome(
            F.cross_entropy, scores.double(), target, None if w is None else w.double(), **options
        )
        for name, *three in zip(("loss", "gradient"), found[0], theirs, exact, strict=True):
            complaint = tolerance.compare_tensor(name, *three).complaint
            assert complaint is None, f"{options}, weighted: {weighted}: {complaint}"


@pytest.mark.parametrize("special", [torch.nan, torch.inf, -torch.inf, 1e30])
def test_special_values(special: float, machine: Machine) -> None:
    """Scores that are masked, first and last of a row; a row of nothing else."""
    machine.configure(ORDERS[0])
    scores, target, _ = batch(4, 40)
    target[1] = 5
    scores[0, 37], scores[1, 0], scores[2], scores[3, :8] = special, special, special, special
    found = [
        outcome(f, scores, target, reduction="none")
        for f in (partial(cross_entropy, machine), F.cross_entropy)
    ]
    torch.testing.assert_close(*found, equal_nan=True)


def test_a_class_that_there_is_not(machine: Machine) -> None:
    """Nothing outside is read; the row's loss and gradient, and any mean, are NaN."""
    machine.configure(ORDERS[0])
    scores, target, weight = batch(6, 9)
    target[:2] = torch.tensor([9, -1])
    loss, grad = outcome(partial(cross_entropy, machine), scores, target, weight, reduction="none")
    assert loss[:2].isnan().all()
    assert grad[:2].isnan().all()
    assert not loss[2:].isnan().any()
    assert not grad[2:].isnan().any()
    assert cross_entropy(machine, scores, target).isnan()
