"""Batch normalisation over the rows of all processes: what one process computes of the whole mini-batch.

torch.nn.SyncBatchNorm is the same for GPUs, and refuses the CPU.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class SumOverProcesses(torch.autograd.Function):
    """The sum of every process's tensor. Each counts in the losses of all, so gradients are summed too."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total


class JointBatchNorm(_BatchNorm):
    """In training, mean and variance are those of all processes' rows, of which one may have none."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        dims = [0, *range(2, input.dim())]
        shape = [1, -1] + [1] * (input.dim() - 2)
        count = input.new_tensor([input.numel() / input.shape[1]])
        summed: Tensor = SumOverProcesses.apply(torch.cat([input.sum(dims), count]))  # type: ignore[no-untyped-call]
        total = summed[-1]
        mean = summed[:-1] / total
        centred = input - mean.view(shape)
        squares: Tensor = SumOverProcesses.apply(centred.square().sum(dims))  # type: ignore[no-untyped-call]
        variance = squares / total
        self.follow(mean.detach(), variance.detach() * (total / (total - 1)))
        scale = torch.rsqrt(variance + self.eps) * self.weight
        return centred * scale.view(shape) + self.bias.view(shape)

    @torch.no_grad()
    def follow(self, mean: Tensor, variance: Tensor) -> None:
        """The averages kept for later, with the variance that estimates that of all data."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)

    def _check_input_dim(self, input: Tensor) -> None:
        pass


def joined(model: nn.Module) -> nn.Module:
    """`model` with its batch normalisation over all processes; parameters and state_dict are the same."""
    for name, child in model.named_children():
        if isinstance(child, _BatchNorm):
            norm = JointBatchNorm(child.num_features, child.eps, child.momentum)
            norm.__dict__.update(child.__dict__)
            setattr(model, name, norm)
        else:
            joined(child)
    return model
