"""accelerate() on every kind of module: what becomes ours, and what has to be left alone to go on working."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

import cisdl_ops
from tests.ecosystem.recording import operators


def is_ours(module: nn.Module) -> bool:
    return type(module).__module__.startswith("cisdl_ops.nn")


def same_step(model: nn.Module, x: Tensor) -> set[str]:
    """Runs ``model``, forward and backward, before and after it is accelerated; says what ran in ours."""

    def step() -> list[Tensor]:
        torch.manual_seed(1)
        model.zero_grad()
        y = model(x)
        y.square().sum().backward()
        return [y.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]

    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    expected = step()
    model.load_state_dict(state)
    cisdl_ops.accelerate(model)
    got: list[Tensor] = []
    called = operators(lambda: got.extend(step()))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    return called


def old_norm(function: Any) -> Callable[[nn.Module], nn.Module]:
    def wrap(module: nn.Module) -> nn.Module:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # deprecated, and in many a model
            return function(module)

    return wrap


def remove_parametrization(module: nn.Module) -> None:
    parametrize.remove_parametrizations(module, "weight")


# name: what is done to a module, and how it is undone
REPARAMETRISED: dict[str, tuple[Callable[[Any], nn.Module], Callable[[Any], object]]] = {
    "weight_norm": (parametrizations.weight_norm, remove_parametrization),
    "spectral_norm": (parametrizations.spectral_norm, remove_parametrization),
    "orthogonal": (parametrizations.orthogonal, remove_parametrization),
    "weight_norm_hook": (old_norm(nn.utils.weight_norm), nn.utils.remove_weight_norm),
    "spectral_norm_hook": (nn.utils.spectral_norm, nn.utils.remove_spectral_norm),
    "pruned": (lambda m: prune.l1_unstructured(m, "weight", 0.4), lambda m: prune.remove(m, "weight")),
}

# kind of module: its arguments, the shape of an input, the operator
KINDS: dict[str, tuple[tuple[int, ...], tuple[int, ...], str]] = {
    "Linear": ((6, 4), (2, 6), "cisdl::linear"),
    "Conv2d": ((3, 4, 2), (2, 3, 5, 5), "cisdl::conv2d"),
    "ConvTranspose2d": ((3, 4, 2), (2, 3, 5, 5), "cisdl::conv_transpose2d"),
}


@pytest.mark.parametrize("name", REPARAMETRISED)
@pytest.mark.parametrize("kind", KINDS)
def test_reparametrised(name: str, kind: str) -> None:
    (arguments, shape, op), (reparametrise, undo) = KINDS[kind], REPARAMETRISED[name]
    x = torch.randn(shape)
    module = getattr(nn, kind)(*arguments)
    names = module.state_dict().keys()
    module = reparametrise(module)
    parametrised = parametrize.is_parametrized(module)
    assert op in same_step(module, x)
    assert isinstance(module, getattr(cisdl_ops.nn, kind))
    assert parametrize.is_parametrized(module) == parametrised

    y = module.eval()(x)
    undo(module)
    assert type(module) is getattr(cisdl_ops.nn, kind)
    torch.testing.assert_close(module(x), y)
    assert module.state_dict().keys() == names


def test_copies_of_a_parametrised_module_do_not_follow() -> None:
    """torch gives copies the class of the original; ours is given to one module alone."""
    module = parametrizations.weight_norm(nn.Linear(3, 3))
    other = copy.deepcopy(module)
    cisdl_ops.accelerate(module)
    assert not isinstance(other, cisdl_ops.nn.Linear)
    assert isinstance(copy.deepcopy(module), cisdl_ops.nn.Linear)


def test_parametrised_after_it_was_accelerated() -> None:
    module = parametrizations.weight_norm(cisdl_ops.accelerate(nn.Linear(3, 3)))
    assert "cisdl::linear" in operators(lambda: module(torch.zeros(1, 3)))
    cisdl_ops.restore(module)
    assert "cisdl::linear" not in operators(lambda: module(torch.zeros(1, 3)))


@pytest.mark.parametrize("kind", KINDS)
def test_lazy_modules_become_ours(kind: str) -> None:
    arguments, shape, op = KINDS[kind]
    x = torch.randn(shape)
    plain = getattr(nn, f"Lazy{kind}")(*arguments[1:])
    model = cisdl_ops.accelerate(nn.Sequential(copy.deepcopy(plain)))
    torch.manual_seed(0)
    expected = plain(x)
    torch.manual_seed(0)
    got: list[Tensor] = []
    assert op in operators(lambda: got.append(model(x)))  # in the very first call
    torch.testing.assert_close(got[0], expected)
    assert type(model[0]) is getattr(cisdl_ops.nn, kind)


def test_lazy_module_takes_a_state_dict() -> None:
    model = cisdl_ops.accelerate(nn.LazyLinear(4))
    full = nn.Linear(3, 4)
    model.load_state_dict(full.state_dict())
    x = torch.randn(2, 3)
    torch.testing.assert_close(model(x), full(x))
    assert type(model) is cisdl_ops.nn.Linear


def test_containers_and_shared_modules() -> None:
    shared = nn.Linear(4, 4)
    tied = nn.Linear(4, 4)
    tied.weight = shared.weight

    class Custom(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ModuleDict({"a": nn.ModuleList([shared, tied]), "b": nn.Sequential(shared)})

        def forward(self, x: Tensor) -> Tensor:
            for layer in (*self.parts["a"], self.parts["b"]):  # type: ignore[misc]
                x = layer(x)
            return x

    model = Custom()
    names = [name for name, _ in model.named_modules(remove_duplicate=False)]
    assert "cisdl::linear" in same_step(model, torch.randn(2, 4))
    assert [name for name, _ in model.named_modules(remove_duplicate=False)] == names
    assert model.parts["b"][0] is shared  # type: ignore[index]
    assert is_ours(shared)
    assert tied.weight is shared.weight
    assert len(list(model.parameters())) == 3


def test_attention_and_transformer() -> None:
    """MultiheadAttention reads its projection's weight itself; the feed-forward layers are ours."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    x = torch.randn(3, 5, 8)
    plain = copy.deepcopy(model)
    assert "cisdl::linear" in same_step(model, x)
    attention: Any = model.layers[0].self_attn
    assert type(attention.out_proj).__name__ == "NonDynamicallyQuantizableLinear"
    assert not isinstance(attention.out_proj, cisdl_ops.nn.Linear)
    padding = torch.arange(5) >= torch.tensor([[5], [3], [2]])
    with torch.no_grad():  # torch's fused path, which goes around the modules
        torch.testing.assert_close(
            model.eval()(x, src_key_padding_mask=padding), plain.eval()(x, src_key_padding_mask=padding)
        )


class Scaled(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


class Labelled(Tensor):
    """A tensor subclass with a ``__torch_function__`` of its own."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return super().__torch_function__(func, types, args, kwargs)


@pytest.mark.parametrize(
    "module",
    [
        Scaled(3, 3),
        nn.Linear(3, 3, dtype=torch.complex64),
        nn.Identity(),
        nn.Bilinear(3, 3, 3),
        nn.Conv1d(3, 3, 1),
        nn.LazyConv1d(3, 1),
    ],
    ids=lambda m: type(m).__name__,
)
def test_left_alone(module: nn.Module) -> None:
    kind = type(module)
    assert type(cisdl_ops.accelerate(nn.Sequential(module))[0]) is kind


def test_tensor_subclass_weights_are_left_alone() -> None:
    module = nn.Linear(3, 3)
    module.weight = nn.Parameter(module.weight.detach().as_subclass(Labelled))
    assert type(cisdl_ops.accelerate(module)) is nn.Linear
    assert type(module(torch.zeros(1, 3))) is Labelled


def test_subclass_of_parameter_is_taken() -> None:
    class Sharded(nn.Parameter):
        """As in many libraries, a Parameter that only carries attributes."""

    module = nn.Linear(3, 3)
    module.weight = Sharded(module.weight.detach())
    assert is_ours(cisdl_ops.accelerate(module))
    assert "cisdl::linear" in operators(lambda: module(torch.zeros(1, 3)).sum().backward())


def test_replaced_forward_stays() -> None:
    module = nn.Linear(3, 3)
    module.forward = lambda input: input + 1  # type: ignore[method-assign]
    assert torch.equal(cisdl_ops.accelerate(module)(torch.zeros(3)), torch.ones(3))


def test_meta_device() -> None:
    with torch.device("meta"):
        model = cisdl_ops.accelerate(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(36, 2)))
    assert is_ours(model[0])
    assert model(torch.empty(2, 3, 5, 5, device="meta")).shape == (2, 2)
    model.to_empty(device="cpu")
    assert model(torch.zeros(2, 3, 5, 5)).device.type == "cpu"


def neighbours(inplace: bool = False) -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(1, 2, 1), nn.ReLU(inplace), nn.Conv2d(2, 3, 3), nn.ReLU(inplace), nn.MaxPool2d(2)),
        nn.Flatten(),
        *(nn.Linear(27, 5), nn.ReLU(inplace), nn.Linear(5, 2)),
    )


IMAGES = (2, 1, 8, 8)


@pytest.mark.parametrize("inplace", [False, True])
def test_neighbours_in_a_sequential_are_joined(inplace: bool) -> None:
    model = neighbours(inplace)
    called = same_step(model, torch.randn(IMAGES))
    assert {"cisdl::linear_activation", "cisdl::conv2d_activation", "cisdl::conv2d"} <= called
    assert not {"aten::relu", "aten::relu_"} & called
    kinds = [type(module) for module in model]
    assert kinds.count(nn.ReLU) == 3
    assert isinstance(model, nn.Sequential)
    assert type(cisdl_ops.restore(model)) is nn.Sequential


def test_a_joined_sequential_is_compiled_traced_and_copied() -> None:
    model, x = cisdl_ops.accelerate(neighbours()), torch.randn(IMAGES)
    expected = model(x)
    torch.testing.assert_close(model[6:](model[:6](x)), expected)
    for same in (copy.deepcopy(model), torch.fx.symbolic_trace(model), torch.compile(model, backend="eager")):
        torch.testing.assert_close(same(x), expected)


@pytest.mark.parametrize("watch", ["register_forward_hook", "register_forward_pre_hook"])
@pytest.mark.parametrize("which", [0, 1, 3, 4, 6, 7])
def test_a_hook_sees_what_it_saw_before(which: int, watch: str) -> None:
    model, x = neighbours(), torch.randn(IMAGES)
    seen: list[Tensor] = []

    def hook(*given: Any) -> None:
        seen.extend(one[0] if isinstance(one, tuple) else one for one in given[1:])

    getattr(model[which], watch)(hook)
    model(x)
    expected = [one.clone() for one in seen]
    seen.clear()
    cisdl_ops.accelerate(model)(x)
    torch.testing.assert_close(seen, expected)
    assert seen


def test_what_relu_does_in_place_is_seen() -> None:
    """Of an input, and of an output that a hook keeps."""
    x = torch.randn(1, 2, 4, 4)
    cisdl_ops.accelerate(nn.Sequential(nn.ReLU(inplace=True), nn.MaxPool2d(2)))(x)
    assert (x >= 0).all()

    model = cisdl_ops.accelerate(neighbours(inplace=True))
    kept: list[Tensor] = []
    model[0].register_forward_hook(lambda module, given, output: kept.append(output))
    model(torch.randn(IMAGES))
    assert (kept[0] >= 0).all()


def test_a_function_mode_sees_every_module() -> None:
    class Names(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            names.append(getattr(function, "__name__", ""))
            return function(*args, **(kwargs or {}))

    names: list[str] = []
    model = cisdl_ops.accelerate(neighbours())
    with Names():
        model(torch.zeros(IMAGES))
    assert names.count("relu") == 3
