"""Cross-entropy on the emulated GPU, as csrc/ops/cross_entropy.cpp puts it together."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .machine import Machine, bits

REDUCTIONS = ("none", "mean", "sum")


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        machine: Machine,
        scores: Tensor,
        target: Tensor,
        weight: Tensor | None,
        reduction: str,
        ignored: int,
        smoothing: float,
    ) -> Tensor:
        problem = (*scores.shape, ignored, bits(smoothing))
        losses, kept = scores.new_empty(scores.shape[0]), scores.new_empty(2, scores.shape[0])
        machine.run("cross_entropy_forward", problem, [scores, target, weight], [losses, kept])
        ctx.machine, ctx.problem, ctx.reduction = machine, problem, reduction
        ctx.tensors = scores.detach(), target, weight, kept
        if reduction == "none":
            return losses
        loss = scores.new_empty(())
        numbers = (*problem, reduction == "mean")
        tensors = [target, weight, losses]
        machine.run("cross_entropy_reduction", numbers, tensors, [loss, None], dtype=scores.dtype)
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        scores, target, weight, kept = ctx.tensors
        totals, grad_scores = torch.empty(2, dtype=torch.float64), torch.empty_like(scores)
        numbers = (*ctx.problem, ctx.reduction == "mean")
        run = ctx.machine.run
        run("cross_entropy_reduction", numbers, [target, weight, None], [None, totals], dtype=scores.dtype)
        inputs = [scores, target, weight, kept, grad.contiguous()]
        run(
            "cross_entropy_backward",
            (*ctx.problem, ctx.reduction == "none"),
            inputs,
            [grad_scores],
            behind=[totals],
        )
        return None, grad_scores, None, None, None, None, None


def cross_entropy(
    machine: Machine,
    scores: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    reduction: str = "mean",
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
) -> Tensor:
    result: Tensor = _CrossEntropy.apply(  # type: ignore[no-untyped-call]
        machine, scores, target, weight, reduction, ignore_index, label_smoothing
    )
    return result
