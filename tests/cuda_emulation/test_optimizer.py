"""The steps of optimisers on the emulated GPU against torch's, many tensors at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from .machine import ORDERS, Machine, bits

# More than a table has room for; none, one, not whole 16 bytes, more than a block's piece of 4096.
SIZES = (*range(1, 24), 0, 4, 4096, 4097, 9001)
DTYPES = [torch.float32, torch.float64]


def _tensors(dtype: torch.dtype, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(size, dtype=dtype, generator=generator) for size in SIZES]


def _in_every_order(
    machine: Machine,
    problem: str,
    numbers: Sequence[int | bool],
    grads: list[Tensor],
    updated: list[list[Tensor]],
    absent: int = 0,
) -> None:
    """``updated`` in place, the same bits in each order; behind them ``absent`` null arrays."""
    results = []
    for order in ORDERS:
        machine.configure(order)
        arrays = [tensor.clone() for tensors in updated for tensor in tensors]
        nulls = [None] * (absent * len(grads))
        machine.run(problem, (*numbers, len(grads), *map(len, grads)), grads, nulls, updated=arrays)
        results.append(arrays)
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))
    for tensor, result in zip((one for tensors in updated for one in tensors), results[0], strict=True):
        tensor.copy_(result)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"amsgrad": True, "weight_decay": 0.1},
        {"maximize": True, "weight_decay": 0.1, "decoupled_weight_decay": True},
    ],
    ids=["plain", "amsgrad", "decoupled"],
)
def test_adam(options: dict[str, Any], dtype: torch.dtype, machine: Machine) -> None:
    ours, theirs = _tensors(dtype, 1), _tensors(dtype, 1)
    state = [[torch.zeros_like(one) for one in ours] for _ in range(3 if options.get("amsgrad") else 2)]
    optimizer = torch.optim.Adam(theirs, lr=0.01, **options)
    decay, decoupled = options.get("weight_decay", 0.0), options.get("decoupled_weight_decay", False)
    for step in (1, 2, 3):
        grads = _tensors(dtype, 1 + step)
        for tensor, grad in zip(theirs, grads, strict=True):
            tensor.grad = grad.clone()
        optimizer.step()
        rates = (
            *(0.9, 1 - 0.9, 0.999, 1 - 0.999, 1e-8),
            *((0.0, 1 - 0.01 * decay) if decoupled else (decay, 1.0)),
            *(0.01 / (1 - 0.9**step), math.sqrt(1 - 0.999**step)),
        )
        numbers = (*map(bits, rates), options.get("maximize", False))
        _in_every_order(machine, "adam_step", numbers, grads, [ours, *state], 3 - len(state))
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "options",
    [
        {"weight_decay": 0.1},
        {"momentum": 0.9, "dampening": 0.2, "maximize": True},
        {"momentum": 0.9, "nesterov": True},
    ],
    ids=["plain", "momentum", "nesterov"],
)
def test_sgd(options: dict[str, Any], dtype: torch.dtype, machine: Machine) -> None:
    ours, theirs = _tensors(dtype, 1), _tensors(dtype, 1)
    buffers = [[torch.full_like(one, torch.nan) for one in ours]] if "momentum" in options else []
    optimizer = torch.optim.SGD(theirs, lr=0.1, **options)
    for step in (1, 2, 3):
        grads = _tensors(dtype, 1 + step)
        for tensor, grad in zip(theirs, grads, strict=True):
            tensor.grad = grad.clone()
        optimizer.step()
        rates = (0.1, *(options.get(name, 0.0) for name in ("momentum", "dampening", "weight_decay")))
        flags = (options.get("nesterov", False), options.get("maximize", False), step == 1)
        _in_every_order(
            machine, "sgd_step", (*map(bits, rates), *flags), grads, [ours, *buffers], 1 - len(buffers)
        )
        torch.testing.assert_close(ours, theirs)
