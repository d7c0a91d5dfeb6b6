"""cross_entropy: every option against torch, in value, gradient and transforms."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

import cisdl_ops
from cisdl_ops import tolerance

from .running import DEVICES

F = torch.nn.functional
SHAPES = [(1, 1), (3, 2), (5, 10), (4, 16), (3, 33), (70, 300), (0, 4)]


def batch(rows: int, classes: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """Scores, classes of which some do not count, weights."""
    generator = torch.Generator().manual_seed(rows + classes)
    scores = 3 * torch.randn(rows, classes, dtype=dtype, generator=generator)
    target = torch.randint(0, classes, (rows,), generator=generator)
    target[1::3] = -100
    return scores, target, torch.rand(classes, dtype=dtype, generator=generator) + 0.5


def outcome(function: Any, scores: Tensor, *args: Any, **options: Any) -> list[Tensor]:
    x = scores.detach().requires_grad_()
    loss = function(x, *args, **options)
    upstream = torch.linspace(0.5, 2, 100).to(loss)[: loss.numel()] if loss.dim() else None
    return [loss.detach(), *torch.autograd.grad(loss, x, upstream)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_agrees_with_torch(shape: tuple[int, int], dtype: torch.dtype, device: str) -> None:
    scores, target, weight = (tensor.to(device) for tensor in batch(*shape, dtype))
    for reduction, smoothing, weighted in product(("none", "mean", "sum"), (0.0, 0.1, 1.0), (False, True)):
        options = {"reduction": reduction, "label_smoothing": smoothing}
        ours, theirs, exact = (
            outcome(function, x, target, w, **options)
            for function, x, w in (
                (cisdl_ops.cross_entropy, scores, weight if weighted else None),
                (F.cross_entropy, scores, weight if weighted else None),
                (F.cross_entropy, scores.double(), weight.double() if weighted else None),
            )
        )
        for name, *three in zip(("loss", "gradient"), ours, theirs, exact, strict=True):
            complaint = tolerance.compare_tensor(name, *three).complaint
            assert complaint is None, f"{options}, weighted: {weighted}: {complaint}"


def test_ignored_class() -> None:
    scores, target, weight = batch(6, 5)
    target[1::3] = 2
    for ignored in (2, 7):
        found = [
            outcome(f, scores, target, weight, ignore_index=ignored)
            for f in (cisdl_ops.cross_entropy, F.cross_entropy)
        ]
        torch.testing.assert_close(*found)
    nothing = torch.full((6,), -100)
    found = [outcome(f, scores, nothing) for f in (cisdl_ops.cross_entropy, F.cross_entropy)]
    torch.testing.assert_close(*found, equal_nan=True)


@pytest.mark.parametrize("special", [torch.nan, torch.inf, -torch.inf, 1e30])
def test_special_values(special: float) -> None:
    scores, target, _ = batch(3, 20)
    scores[0, 17], scores[2] = special, special
    found = [outcome(f, scores, target, reduction="none") for f in (cisdl_ops.cross_entropy, F.cross_entropy)]
    torch.testing.assert_close(*found, equal_nan=True)


def test_strides() -> None:
    scores, target, weight = batch(6, 5)
    strided = (
        scores.t().contiguous().t(),
        target.repeat_interleave(2)[::2],
        weight.repeat_interleave(2)[::2],
    )
    torch.testing.assert_close(cisdl_ops.cross_entropy(*strided), F.cross_entropy(scores, target, weight))


def test_transforms_and_derivatives() -> None:
    scores, target, weight = batch(4, 5, torch.float64)

    def of(f: Any) -> Any:
        return lambda x: f(x, target, weight, label_smoothing=0.2)

    for transform in (
        lambda f: torch.func.jacrev(torch.func.jacrev(f)),
        torch.func.grad,
        lambda f: lambda x: torch.func.jvp(f, (x,), (x,))[1],
        lambda f: lambda x: torch.func.vmap(torch.func.grad(f))(torch.stack([x, 2 * x])),
        lambda f: lambda x: torch.func.vmap(f)(torch.stack([x, 2 * x])),
        lambda f: lambda x: torch.autograd.functional.hessian(f, x),
    ):
        torch.testing.assert_close(
            transform(of(cisdl_ops.cross_entropy))(scores), transform(of(F.cross_entropy))(scores)
        )


def test_number_of_threads_changes_nothing() -> None:
    scores, target, weight = batch(257, 300)
    threads = torch.get_num_threads()
    try:
        found = []
        for n in (1, 2):
            torch.set_num_threads(n)
            found.append(outcome(cisdl_ops.cross_entropy, scores, target, weight, label_smoothing=0.1))
    finally:
        torch.set_num_threads(threads)
    for one, two in zip(*found, strict=True):
        assert torch.equal(one, two)


def test_compiled_and_autocast() -> None:
    scores, target, _ = batch(4, 5)
    scores.requires_grad_()
    compiled = torch.compile(cisdl_ops.cross_entropy, fullgraph=True)
    found = [torch.autograd.grad(f(scores, target), scores) for f in (compiled, cisdl_ops.cross_entropy)]
    torch.testing.assert_close(*found)
    torch.library.opcheck(torch.ops.cisdl.cross_entropy.default, (scores, target, None, 1, -100, 0.1))
    with torch.autocast("cpu"):
        assert cisdl_ops.cross_entropy(scores.bfloat16(), target).dtype == torch.float32


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"input": torch.randn(4)}, RuntimeError, r"input: expected shape \[N, C\]"),
        ({"input": torch.randn(3, 5, 2)}, RuntimeError, r"input: expected shape \[N, C\]"),
        ({"input": torch.randn(3, 5).half()}, RuntimeError, "input: expected dtype"),
        ({"target": torch.rand(3, 5)}, RuntimeError, "target: expected classes of dtype int64"),
        ({"target": torch.zeros(4, dtype=torch.int64)}, RuntimeError, r"target: expected shape \[3\]"),
        ({"target": torch.tensor([0, 5, 1])}, IndexError, "target: expected classes from 0 to 4 .*, got 5"),
        ({"target": torch.tensor([0, -1, 1])}, IndexError, "target: expected classes from 0 to 4 .*, got -1"),
        ({"weight": torch.rand(4)}, RuntimeError, r"weight: expected shape \[5\]"),
        ({"weight": torch.rand(5).double()}, RuntimeError, "weight: expected dtype"),
        ({"reduction": "average"}, ValueError, "reduction: expected none, mean or sum, got 'average'"),
        ({"size_average": True}, ValueError, "size_average, reduce: expected None"),
        ({"label_smoothing": 1.5}, RuntimeError, "label_smoothing: expected a number from 0 to 1"),
    ],
)
def test_bad_arguments(changes: dict[str, Any], error: type[Exception], words: str) -> None:
    arguments: dict[str, Any] = {"input": torch.randn(3, 5), "target": torch.tensor([0, 4, 1])} | changes
    with pytest.raises(error, match=words):
        cisdl_ops.cross_entropy(**arguments)


def test_module_leaves_other_targets_to_torch() -> None:
    options: dict[str, Any] = {"weight": torch.rand(5), "label_smoothing": 0.1}
    ours, theirs = cisdl_ops.nn.CrossEntropyLoss(**options), torch.nn.CrossEntropyLoss(**options)
    assert type(cisdl_ops.accelerate(torch.nn.CrossEntropyLoss())) is cisdl_ops.nn.CrossEntropyLoss
    classes = torch.tensor([0, 4, 1])
    for scores, target in (
        (torch.randn(3, 5), classes),
        (torch.randn(3, 5), torch.rand(3, 5).softmax(1)),
        (torch.randn(3, 5, 2), classes[:, None].expand(3, 2)),
        (torch.randn(5), classes[0]),
    ):
        torch.testing.assert_close(ours(scores, target), theirs(scores, target))
