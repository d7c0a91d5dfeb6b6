"""torch.autocast over accelerated models: torch's dtypes everywhere, training that follows torch's."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import cisdl_ops
from tests.ecosystem.recording import Recorder
from tests.zoo.tasks import TASKS, Task


def dtypes(model: nn.Module, task: Task) -> dict[str, list[torch.dtype]]:
    """What every module of a model gives, by name, in a forward under autocast."""
    seen: dict[str, list[torch.dtype]] = {}

    def note(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            tensors = [t for t in torch.utils._pytree.tree_leaves(output) if isinstance(t, Tensor)]
            seen[name] = [t.dtype for t in tensors if t.is_floating_point()]

        return hook

    for name, module in model.named_modules():
        module.register_forward_hook(note(name))
    with torch.autocast("cpu", torch.bfloat16):
        next(task.losses(model, task.batch(2)))
    return seen


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_every_module_gives_the_dtype_of_torch(task: Task) -> None:
    seen = dtypes(cisdl_ops.accelerate(task.model()), task)
    assert seen == dtypes(task.model(), task)
    assert any(torch.bfloat16 in of_module for of_module in seen.values())


def trained(model: nn.Module, steps: int = 20) -> list[float]:
    """Losses of training without a GradScaler: bfloat16 has float32's range."""
    x, y = TASKS["lenet"].batch(8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            scores = model(x)
            loss = nn.functional.cross_entropy(scores, y)
        assert scores.dtype == torch.bfloat16
        loss.backward()
        assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.parameters())
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_training() -> None:
    """bfloat16 keeps 8 bits: the losses agree to a few of its last places."""
    plain = trained(TASKS["lenet"].model())
    ours = trained(cisdl_ops.accelerate(TASKS["lenet"].model()))
    assert ours[-1] < 0.3 * ours[0]
    assert all(math.isclose(a, b, rel_tol=0.02, abs_tol=0.002) for a, b in zip(ours, plain, strict=True))


def casts(model: nn.Module, forwards: int) -> int:
    x = TASKS["lenet"].batch(2)[0]
    with Recorder() as recorder, torch.autocast("cpu", torch.bfloat16):
        for _ in range(forwards):
            model(x)
    return recorder.called.count("aten::_to_copy")


def test_weights_are_cast_once() -> None:
    """autocast keeps the cast weights until its block ends; ours are found there like torch's."""
    plain, ours = TASKS["lenet"].model(), cisdl_ops.accelerate(TASKS["lenet"].model())
    weights = len(list(ours.parameters()))
    assert casts(ours, 1) == casts(plain, 1) == weights + 1  # and the image
    assert casts(ours, 3) == casts(plain, 3) == weights + 3


def test_off_inside() -> None:
    model = cisdl_ops.accelerate(TASKS["lenet"].model())
    x = TASKS["lenet"].batch(2)[0]
    with torch.autocast("cpu", torch.bfloat16), torch.autocast("cpu", enabled=False):
        assert model(x).dtype == torch.float32
