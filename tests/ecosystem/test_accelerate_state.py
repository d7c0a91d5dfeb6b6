"""accelerate() changes the class of a module and nothing else: what hangs on it stays, and can be saved."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import cisdl_ops


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3)
    )


IMAGES = (2, 1, 8, 8)


def is_ours(model: nn.Sequential) -> list[bool]:
    return [type(module).__module__.startswith("cisdl_ops.nn") for module in model]


OURS = [True, False, False, True, False, True]


def test_every_hook_still_runs() -> None:
    model = network()
    seen: list[str] = []

    def note(name: str) -> Callable[..., None]:
        return lambda *_: seen.append(name)

    for module in (model[0], model[3], model[5]):
        module.register_forward_pre_hook(note("forward_pre"))
        module.register_forward_hook(note("forward"))
        module.register_full_backward_pre_hook(note("backward_pre"))
        module.register_full_backward_hook(note("backward"))
        module.register_state_dict_pre_hook(note("state_dict_pre"))
        module.register_state_dict_post_hook(note("state_dict_post"))
        module.register_load_state_dict_pre_hook(note("load_pre"))
        module.register_load_state_dict_post_hook(note("load_post"))

    def use() -> list[str]:
        seen.clear()
        model(torch.randn(IMAGES, requires_grad=True)).sum().backward()
        model.load_state_dict(model.state_dict())
        return list(seen)

    before = use()
    assert len(before) == 24
    cisdl_ops.accelerate(model)
    assert use() == before


def test_attributes_modes_and_identities() -> None:
    model = network()
    model[5].note = "mine"  # type: ignore[assignment]
    model[0].weight.requires_grad_(False)
    model.eval()
    model[0].train()
    modules, tensors = list(model.modules()), [*model.parameters(), *model.buffers()]
    described, names = repr(model), [name for name, _ in model.named_modules()]
    assert cisdl_ops.accelerate(model) is model
    assert is_ours(model) == OURS
    assert repr(model) == described
    assert [name for name, _ in model.named_modules()] == names
    assert all(a is b for a, b in zip(model.modules(), modules, strict=True))
    assert all(a is b for a, b in zip([*model.parameters(), *model.buffers()], tensors, strict=True))
    assert [m.training for m in model] == [True, False, False, False, False, False]
    assert model[5].note == "mine"
    assert not model[0].weight.requires_grad


def test_optimiser_goes_on_with_its_state() -> None:
    """Accelerated between two steps, Adam carries on as if nothing had happened."""
    # No BatchNorm: Adam makes whole steps of the rounding errors that are the gradient of a bias before it.
    models = [nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(144, 3)) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    x = torch.randn(IMAGES)
    for model, swap in zip(models, (False, True), strict=True):
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for step in range(4):
            if swap and step == 2:
                cisdl_ops.accelerate(model)
            optimizer.zero_grad()
            model(x).square().sum().backward()
            optimizer.step()
        assert len(optimizer.state) == len(list(model.parameters()))
    torch.testing.assert_close(models[1].state_dict(), models[0].state_dict(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("assign", [False, True])
def test_state_dict_goes_both_ways(assign: bool) -> None:
    plain, ours = network(), cisdl_ops.accelerate(network())
    x = torch.randn(IMAGES)
    ours.load_state_dict(plain.state_dict(), assign=assign)
    torch.testing.assert_close(ours(x), plain(x))
    other = network()
    other.load_state_dict(ours.state_dict(), assign=assign)
    torch.testing.assert_close(other(x), ours(x))
    assert (other[0].weight.data_ptr() == ours[0].weight.data_ptr()) == assign


def saved_and_loaded(thing: Any, **options: Any) -> Any:
    file = io.BytesIO()
    torch.save(thing, file)
    file.seek(0)
    return torch.load(file, **options)


def test_state_dict_in_a_file() -> None:
    model = cisdl_ops.accelerate(network())
    loaded = saved_and_loaded(model.state_dict(), weights_only=True)
    torch.testing.assert_close(loaded, model.state_dict())


@pytest.mark.parametrize(
    "clone",
    [
        copy.deepcopy,
        copy.copy,
        lambda m: pickle.loads(pickle.dumps(m)),
        lambda m: saved_and_loaded(m, weights_only=False),
    ],
    ids=["deepcopy", "copy", "pickle", "file"],
)
def test_whole_model_is_copied(clone: Callable[[nn.Sequential], nn.Sequential]) -> None:
    model = cisdl_ops.accelerate(network())
    other = clone(model)
    assert is_ours(other) == OURS
    x = torch.randn(IMAGES)
    assert torch.equal(other(x), model(x))


def test_whole_model_in_a_file_with_named_classes() -> None:
    """weights_only takes a whole model once its classes are allowed, ours as torch's."""
    model = cisdl_ops.accelerate(nn.Sequential(nn.Linear(2, 2)))
    with torch.serialization.safe_globals([nn.Sequential, cisdl_ops.nn.Linear, set]):
        other = saved_and_loaded(model, weights_only=True)
    assert type(other[0]) is cisdl_ops.nn.Linear


def test_twice_is_once_and_restore_undoes_it() -> None:
    model = network()
    kinds = [type(module) for module in model]
    cisdl_ops.accelerate(cisdl_ops.accelerate(model))
    assert is_ours(model) == OURS
    assert cisdl_ops.restore(model) is model
    assert [type(module) for module in model] == kinds
    cisdl_ops.restore(model)
    assert [type(module) for module in model] == kinds


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_moves_to_another_type_and_layout(dtype: torch.dtype, layout: torch.memory_format) -> None:
    plain = network().to(dtype=dtype, memory_format=layout)
    ours = cisdl_ops.accelerate(network())
    ours.load_state_dict(plain.state_dict())
    ours = ours.to(dtype=dtype, memory_format=layout)
    x = torch.randn(IMAGES, dtype=dtype).contiguous(memory_format=layout)
    got, expected = ours[0](x), plain[0](x)
    assert (got.dtype, got.stride()) == (expected.dtype, expected.stride())
    torch.testing.assert_close(ours(x), plain(x))


def test_fuse_conv_bn() -> None:
    model = cisdl_ops.accelerate(network())
    model(torch.randn(IMAGES))  # statistics that are not the initial ones
    model.eval()
    fused: Any = nn.utils.fuse_conv_bn_eval(model[0], model[1])  # type: ignore[type-var]
    assert type(fused) is cisdl_ops.nn.Conv2d
    x = torch.randn(IMAGES)
    torch.testing.assert_close(fused(x), model[1](model[0](x)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "arguments"), [("Linear", (3, 4)), ("Conv2d", (3, 4, 2)), ("LSTMCell", (3, 4))]
)
def test_skip_init(kind: str, arguments: tuple[int, ...]) -> None:
    module = nn.utils.skip_init(getattr(cisdl_ops.nn, kind), *arguments)
    assert type(module) is getattr(cisdl_ops.nn, kind)
    shapes = {name: tensor.shape for name, tensor in getattr(nn, kind)(*arguments).state_dict().items()}
    assert {name: tensor.shape for name, tensor in module.state_dict().items()} == shapes


def test_parametrised_model_is_copied() -> None:
    model = cisdl_ops.accelerate(nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)))
    other = copy.deepcopy(model)
    x = torch.randn(2, 3)
    assert torch.equal(other(x), model(x))
    with torch.no_grad():
        other.parametrizations.weight.original0.mul_(2)  # type: ignore[union-attr]
    assert not torch.equal(other(x), model(x))
    with pytest.raises(RuntimeError, match="only supported through state_dict"):  # as for torch's own
        pickle.dumps(model)


def test_buffers_of_a_gradient_are_kept() -> None:
    """A gradient that was there before stays, and is added to."""
    model = network()
    x = torch.randn(IMAGES)
    model(x).sum().backward()
    before: list[Tensor] = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    cisdl_ops.accelerate(model)
    for parameter, grad in zip(model.parameters(), before, strict=True):
        assert torch.equal(parameter.grad, grad)  # type: ignore[arg-type]
