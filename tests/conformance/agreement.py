"""Ours against torch's on any arguments: forward and gradients, by the rule of ``cisdl_ops.tolerance``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map

from cisdl_ops import tolerance

FLOATING = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def name_of(value: object) -> str:
    """The part of a test's name that stands for a dtype."""
    return str(value).removeprefix("torch.")


@dataclass(frozen=True)
class Arguments:
    """Positional and keyword arguments, tensors anywhere among them."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)

    def map(self, change: Callable[[Tensor], Tensor]) -> Arguments:
        return Arguments(
            *tree_map(
                lambda value: change(value) if isinstance(value, Tensor) else value, (self.args, self.kwargs)
            )
        )

    def tensors(self) -> list[Tensor]:
        return [value for value in tree_flatten((self.args, self.kwargs))[0] if isinstance(value, Tensor)]

    def __str__(self) -> str:
        def show(value: Any) -> Any:
            return f"{name_of(value.dtype)}{list(value.shape)}" if isinstance(value, Tensor) else value

        args, kwargs = tree_map(show, (self.args, self.kwargs))
        return f"{args} {kwargs}"


def leaf(tensor: Tensor) -> Tensor:
    """The same memory and strides, without history."""
    return tensor.detach().requires_grad_(tensor.requires_grad)


def in_double(tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    return tensor.detach().double().requires_grad_(tensor.requires_grad)


def run(
    function: Callable[..., Any],
    arguments: Arguments,
    more: tuple[Tensor, ...] = (),
    grad_dtype: torch.dtype | None = None,
) -> dict[str, Tensor]:
    """Outputs, and the gradients of every tensor that wants one, of ``arguments`` and of ``more``.

    The outputs' gradients are standard normal, the same in every run, rounded to ``grad_dtype``.
    """
    result = function(*arguments.args, **arguments.kwargs)
    outputs = [value for value in tree_flatten(result)[0] if isinstance(value, Tensor)]
    named = {f"output {i}": output.detach() for i, output in enumerate(outputs)}
    wanted = [t for t in (*arguments.tensors(), *more) if t.requires_grad]
    differentiable = [output for output in outputs if output.requires_grad]
    if wanted and differentiable:
        generator = torch.Generator().manual_seed(1)
        grad_outputs = [
            torch.randn(o.shape, generator=generator, dtype=torch.float64)
            .to(grad_dtype or o.dtype)
            .to(o.dtype)
            for o in differentiable
        ]
        grads = torch.autograd.grad(differentiable, wanted, grad_outputs, allow_unused=True)
        named |= {f"grad {i}": grad for i, grad in enumerate(grads) if grad is not None}
    return named


def complaints(ours: dict[str, Tensor], theirs: dict[str, Tensor], exact: dict[str, Tensor]) -> list[str]:
    """What is wrong with ``ours``, held against torch in the same and in double precision."""
    if ours.keys() != theirs.keys():
        return [f"expected {sorted(theirs)}, got {sorted(ours)}"]
    compared = [tolerance.compare_tensor(name, ours[name], theirs[name], exact[name]) for name in theirs]
    return [one.complaint for one in compared if one.complaint]


def assert_agree(
    ours: Callable[..., Any], theirs: Callable[..., Any], arguments: Arguments, dtype: torch.dtype
) -> None:
    """Both functions on the same values; ours gets the tensors with the strides they have."""
    by_ours = run(ours, arguments.map(leaf))
    by_torch = run(theirs, arguments.map(leaf))
    exact = run(theirs, arguments.map(in_double), grad_dtype=dtype)
    wrong = complaints(by_ours, by_torch, exact)
    assert not wrong, f"{arguments}: " + "; ".join(wrong)
