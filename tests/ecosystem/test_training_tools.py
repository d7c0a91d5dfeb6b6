"""What people put around a training loop works with accelerated models as with plain ones."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

import cisdl_ops
from tests.ecosystem.recording import Recorder, operators
from tests.zoo.tasks import TASKS, Task

# Convolution with dropout and pooling, transposed convolution, packed recurrent layers, cells.
NAMES = ["alexnet", "unet", "tagger", "translator"]


@pytest.fixture(params=NAMES)
def task(request: pytest.FixtureRequest) -> Task:
    return TASKS[request.param]


def gradients(model: nn.Module, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(model.parameters())))


def step(task: Task, model: nn.Module) -> tuple[Tensor, list[Tensor]]:
    batch = task.batch(4)
    torch.manual_seed(3)  # dropout
    loss = next(task.losses(model, batch))[1]
    return loss.detach(), gradients(model, loss)


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_checkpointing(task: Task, use_reentrant: bool) -> None:
    """The forward runs again in the backward, with the same dropout, to the same bits."""
    model = cisdl_ops.accelerate(task.model())
    expected = step(task, model)

    class Checkpointed(nn.Module):
        def forward(self, *inputs: Any) -> Any:
            inputs = tuple(t.requires_grad_() if t.is_floating_point() else t for t in inputs)
            # The reentrant kind wants an input with a gradient.
            anchor = torch.zeros(0, requires_grad=True)
            return checkpoint(lambda _, *args: model(*args), anchor, *inputs, use_reentrant=use_reentrant)

    batch = task.batch(4)
    torch.manual_seed(3)
    loss = next(task.losses(Checkpointed(), batch))[1]
    model.zero_grad()
    with Recorder() as recorder:
        loss.backward()
    got = [p.grad for p in model.parameters()]
    assert torch.equal(loss, expected[0])
    assert all(torch.equal(a, b) for a, b in zip(got, expected[1], strict=True))  # type: ignore[arg-type]
    ours = {name.removesuffix("_training") for name in recorder.called if name.startswith("cisdl::")}
    assert {name for name in ours if not name.endswith("_backward")}  # the forward ran again


def test_checkpoint_sequential() -> None:
    task = TASKS["alexnet"]
    model = cisdl_ops.accelerate(task.model())
    expected = step(task, model)
    x, y = task.batch(4)
    torch.manual_seed(3)
    scores = checkpoint_sequential(model, 3, x, use_reentrant=False)
    loss = nn.functional.cross_entropy(scores, y)
    assert torch.equal(loss, expected[0])
    assert all(torch.equal(a, b) for a, b in zip(gradients(model, loss), expected[1], strict=True))


def test_saved_tensors_go_through_hooks(task: Task) -> None:
    model = cisdl_ops.accelerate(task.model())
    expected = step(task, model)
    packed: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        packed.append(tensor)
        return tensor.clone()

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        hooked = step(task, model)
    assert packed
    with torch.autograd.graph.save_on_cpu():
        saved = step(task, model)
    for loss, grads in (hooked, saved):
        assert torch.equal(loss, expected[0])
        assert all(torch.equal(a, b) for a, b in zip(grads, expected[1], strict=True))


def test_saved_weight_changed_before_backward() -> None:
    """As in torch, a weight that was overwritten between forward and backward is noticed."""
    module = cisdl_ops.accelerate(nn.Linear(3, 3))
    loss = module(torch.randn(2, 3, requires_grad=True)).sum()
    with torch.no_grad():
        module.weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def test_deterministic_algorithms(task: Task) -> None:
    """No error, and the same bits every time, on two threads."""
    torch.set_num_threads(2)
    model = cisdl_ops.accelerate(task.model())
    with deterministic():
        loss, grads = step(task, model)
        for _ in range(3):
            again = step(task, model)
            assert torch.equal(again[0], loss)
            assert all(torch.equal(a, b) for a, b in zip(again[1], grads, strict=True))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients(task: Task, mode: Callable[[], Any]) -> None:
    model = cisdl_ops.accelerate(task.model()).eval()
    batch = task.batch(4)
    expected = next(task.losses(model, batch))[1].detach()
    with mode():
        loss = next(task.losses(model, batch))[1]
        called = operators(lambda: next(task.losses(model, batch)))
    assert torch.equal(loss, expected)
    assert not loss.requires_grad
    assert loss.is_inference() == (mode is torch.inference_mode)
    assert not {name for name in called if name.endswith("_training")}  # nothing is kept for a backward


def test_functional_call() -> None:
    task = TASKS["lenet"]
    model = cisdl_ops.accelerate(task.model())
    x, y = task.batch(4)
    doubled = {name: 2 * p.detach() for name, p in model.named_parameters()}

    def loss(parameters: dict[str, Tensor]) -> Tensor:
        return nn.functional.cross_entropy(functional_call(model, parameters, (x,)), y)

    other = copy.deepcopy(model)
    other.load_state_dict(doubled)
    by_func = grad(loss)(doubled)
    by_autograd = gradients(other, nn.functional.cross_entropy(other(x), y))
    torch.testing.assert_close(list(by_func.values()), by_autograd)


@pytest.mark.parametrize("randomness", ["same", "different"])
def test_ensemble(randomness: str) -> None:
    """Models stacked and run as one by vmap, on the same data and on data of their own."""
    task = TASKS["lenet"]
    models = []
    for seed in range(3):
        torch.manual_seed(seed)
        models.append(cisdl_ops.accelerate(task.build()))
    parameters, buffers = stack_module_state(models)
    skeleton = copy.deepcopy(models[0]).to("meta")
    x = torch.randn(4, 1, 28, 28) if randomness == "same" else torch.randn(3, 4, 1, 28, 28)
    dims = (0, 0, None if randomness == "same" else 0)

    def run(p: Any, b: Any, images: Tensor) -> Tensor:
        return functional_call(skeleton, (p, b), (images,))

    got = vmap(run, in_dims=dims)(parameters, buffers, x)
    for i, model in enumerate(models):
        expected = model(x if randomness == "same" else x[i])
        torch.testing.assert_close(got[i], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [{"foreach": True}, {"fused": True}], ids=["foreach", "fused"])
def test_clipping_and_optimisers(options: dict[str, bool]) -> None:
    task = TASKS["unet"]
    trained = []
    for swap in (False, True):
        model = cisdl_ops.accelerate(task.model()) if swap else task.model()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, **options)
        for _ in range(3):
            optimizer.zero_grad()
            next(task.losses(model, task.batch(4)))[1].backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), 0.5, foreach=True)
            optimizer.step()
        trained.append([norm, *model.state_dict().values()])
    torch.testing.assert_close(trained[1], trained[0], rtol=1e-4, atol=1e-5)
