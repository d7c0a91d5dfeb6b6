"""Our optimisers take torch's steps, save torch's state, and leave to torch what the kernels do not take."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_pre_hook

import cisdl_ops
from tests.ops.running import DEVICES, DTYPES

SHAPES = ((3, 5), (1031,), (2, 3, 4, 5), ())
CASES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("Adam", {}),
    ("Adam", {"weight_decay": 0.1, "amsgrad": True, "maximize": True, "betas": (0.8, 0.99), "eps": 1e-3}),
    ("AdamW", {}),
    ("AdamW", {"amsgrad": True, "lr": torch.tensor(0.01, dtype=torch.float64)}),
    ("SGD", {"weight_decay": 0.1, "maximize": True}),
    ("SGD", {"momentum": 0.9, "weight_decay": 0.01, "dampening": 0.3}),
    ("SGD", {"momentum": 0.9, "nesterov": True}),
)


def parameters(dtype: torch.dtype, device: str = "cpu") -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    tensors = [torch.randn(shape, dtype=dtype, generator=generator) for shape in SHAPES]
    tensors[2] = tensors[2].contiguous(memory_format=torch.channels_last)
    return [tensor.to(device).requires_grad_() for tensor in tensors]


def give_gradients(*models: list[Tensor], step: int) -> None:
    """The same gradients to all; now and then a parameter gets none."""
    generator = torch.Generator().manual_seed(step)
    for i, same in enumerate(zip(*models, strict=True)):
        grad = torch.randn(same[0].shape, dtype=same[0].dtype, generator=generator)
        for parameter in same:
            keep = grad.contiguous(memory_format=torch.channels_last) if grad.dim() == 4 else grad.clone()
            parameter.grad = None if i == 1 and step == 2 else keep.to(parameter.device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_steps_and_state_are_torchs(
    name: str, options: dict[str, Any], dtype: torch.dtype, device: str
) -> None:
    """Half-way each goes on from the other's saved state."""
    kinds = [getattr(cisdl_ops.optim, name), getattr(torch.optim, name)]
    models = [parameters(dtype, device), parameters(dtype, device)]
    optimizers = [kind(model, **options) for kind, model in zip(kinds, models, strict=True)]
    assert isinstance(optimizers[0], kinds[1])
    for step in range(6):
        if step == 3:
            saved = [optimizer.state_dict() for optimizer in optimizers]
            optimizers = [kind(model, **options) for kind, model in zip(kinds, models, strict=True)]
            for optimizer, state in zip(optimizers, reversed(saved), strict=True):
                optimizer.load_state_dict(state)
        give_gradients(*models, step=step)
        for optimizer in optimizers:
            optimizer.step()
    rtol = 1e-5 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(*models, rtol=rtol, atol=rtol)
    ours, theirs = (optimizer.state_dict() for optimizer in optimizers)
    assert ours["param_groups"] == theirs["param_groups"]
    torch.testing.assert_close(ours["state"], theirs["state"], rtol=rtol, atol=rtol)


def test_a_step_is_noticed_by_autograd() -> None:
    """What was saved for a backward must not be used after the step overwrote it."""
    w = torch.randn(3, requires_grad=True)
    loss = (w * w).sum()
    w.grad = torch.ones(3)
    cisdl_ops.optim.SGD([w], lr=0.1).step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()  # type: ignore[no-untyped-call]


def test_closures_hooks_and_threads() -> None:
    w = torch.ones(100_000, requires_grad=True)
    optimizer = cisdl_ops.optim.Adam([w])
    called = []
    optimizer.register_step_post_hook(lambda *_: called.append(1))

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = w.square().sum()
        torch.autograd.backward(loss)
        return loss

    assert optimizer.step(closure).item() == 100_000
    assert called == [1]
    assert w.unique().numel() == 1
    assert w[0] < 1


def test_who_watches_a_step_sees_it() -> None:
    """The profiler, hooks on all optimisers, a scheduler; and gradients may be kept as zeros."""
    w = torch.ones(3, requires_grad=True)
    optimizer = cisdl_ops.optim.SGD([w], lr=0.5)
    w.grad = torch.ones(3)
    with torch.profiler.profile() as profiler:
        optimizer.step()
        optimizer.zero_grad()
    names = {event.name for event in profiler.events()}
    assert {"Optimizer.step#SGD.step", "Optimizer.zero_grad#SGD.zero_grad"} <= names
    assert w.grad is None

    w.grad = torch.ones(3)
    seen: list[object] = []
    handle = register_optimizer_step_pre_hook(lambda which, *_: seen.append(which))
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    optimizer.step()
    scheduler.step()
    handle.remove()
    assert seen == [optimizer]
    optimizer.step()
    assert (w == 1 - 0.5 - 0.5 - 0.25).all()
    optimizer.zero_grad(set_to_none=False)
    assert (w.grad == 0).all()


@pytest.mark.parametrize("name", ["Adam", "SGD"])
def test_other_tensors_are_torchs_work(name: str) -> None:
    """bfloat16, and a gradient that lies in another order than its parameter."""
    for dtype, order in ((torch.bfloat16, (0, 1)), (torch.float32, (1, 0))):
        pair = [torch.ones(4, 4, dtype=dtype, requires_grad=True) for _ in range(2)]
        for module, parameter in zip((cisdl_ops.optim, torch.optim), pair, strict=True):
            parameter.grad = torch.arange(16.0).to(dtype).view(4, 4).permute(order)
            getattr(module, name)([parameter], lr=0.1).step()
        torch.testing.assert_close(*pair)
