"""Our modules are torch's with another forward: same constructor, same state_dict, same results."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import cisdl_ops
from cisdl_ops import nn

IMAGE = (2, 4, 9, 10)

# name: constructor arguments, and the shape of an input
MODULES: dict[str, tuple[str, tuple[object, ...], dict[str, object], tuple[int, ...]]] = {
    "linear": ("Linear", (7, 5), {}, (3, 7)),
    "linear_no_bias_3d": ("Linear", (7, 5), {"bias": False}, (2, 3, 7)),
    "conv2d": ("Conv2d", (4, 6, 3), {"stride": 2, "padding": 1}, IMAGE),
    "conv2d_groups": ("Conv2d", (4, 6, (3, 2)), {"groups": 2, "dilation": 2, "bias": False}, IMAGE),
    "conv2d_same": ("Conv2d", (4, 6, (4, 3)), {"padding": "same"}, IMAGE),
    "conv2d_reflect": ("Conv2d", (4, 6, 3), {"padding": 2, "padding_mode": "reflect"}, IMAGE),
    "conv2d_circular": ("Conv2d", (4, 6, 3), {"padding": (1, 2), "padding_mode": "circular"}, IMAGE),
    "conv2d_unbatched": ("Conv2d", (4, 6, 3), {}, IMAGE[1:]),
    "conv_transpose2d": ("ConvTranspose2d", (4, 6, 3), {"stride": 2, "output_padding": 1}, IMAGE),
    "conv_transpose2d_groups": (
        "ConvTranspose2d",
        (4, 6, (3, 2)),
        {"groups": 2, "dilation": 2, "bias": False, "padding": 1},
        IMAGE,
    ),
    "conv_transpose2d_unbatched": ("ConvTranspose2d", (4, 6, 3), {}, IMAGE[1:]),
    "max_pool2d": ("MaxPool2d", (3,), {"stride": 2, "padding": 1}, IMAGE),
    "max_pool2d_ceil": ("MaxPool2d", (2,), {"ceil_mode": True}, IMAGE[1:]),
    "avg_pool2d": ("AvgPool2d", ((3, 2),), {"padding": 1, "count_include_pad": False}, IMAGE),
    "avg_pool2d_divisor": ("AvgPool2d", (3,), {"divisor_override": 5}, IMAGE),
    "adaptive_max_pool2d": ("AdaptiveMaxPool2d", (4,), {}, IMAGE),
    "adaptive_max_pool2d_own_width": ("AdaptiveMaxPool2d", ((3, None),), {}, IMAGE[1:]),
    "adaptive_avg_pool2d": ("AdaptiveAvgPool2d", ((4, 7),), {}, IMAGE),
    "adaptive_avg_pool2d_global": ("AdaptiveAvgPool2d", (1,), {}, IMAGE),
    "adaptive_avg_pool2d_own_size": ("AdaptiveAvgPool2d", ((None, 3),), {}, IMAGE),
}


@pytest.fixture(params=MODULES)
def pair(request: pytest.FixtureRequest) -> tuple[torch.nn.Module, torch.nn.Module, Tensor]:
    """Ours, torch's with the same weights, and an input."""
    name, args, kwargs, shape = MODULES[request.param]
    torch.manual_seed(0)
    theirs = getattr(torch.nn, name)(*args, **kwargs)
    torch.manual_seed(0)
    ours = getattr(nn, name)(*args, **kwargs)
    return ours, theirs, torch.randn(shape)


def gradients(module: torch.nn.Module, x: Tensor) -> list[Tensor]:
    x = x.clone().requires_grad_()
    out = module(x)
    (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
    assert x.grad is not None
    return [out.detach(), x.grad, *(p.grad for p in module.parameters() if p.grad is not None)]


def test_same_seed_same_weights(pair: tuple[torch.nn.Module, torch.nn.Module, Tensor]) -> None:
    ours, theirs, _ = pair
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b)


def test_same_outputs_and_gradients(pair: tuple[torch.nn.Module, torch.nn.Module, Tensor]) -> None:
    ours, theirs, x = pair
    for a, b in zip(gradients(ours, x), gradients(theirs, x), strict=True):
        # Sums that cancel keep the rounding of their largest terms.
        torch.testing.assert_close(a, b, rtol=1.3e-6, atol=max(1e-5, 1e-6 * b.abs().max().item()))


def test_state_dict_goes_both_ways(pair: tuple[torch.nn.Module, torch.nn.Module, Tensor]) -> None:
    ours, theirs, _ = pair
    theirs.load_state_dict(ours.state_dict())
    ours.load_state_dict(theirs.state_dict())


@pytest.mark.parametrize(
    "clone", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"]
)
def test_survives_copying(
    pair: tuple[torch.nn.Module, torch.nn.Module, Tensor], clone: Callable[[torch.nn.Module], torch.nn.Module]
) -> None:
    ours, _, x = pair
    assert torch.equal(clone(ours)(x), ours(x))


def test_conv_transpose2d_takes_an_output_size() -> None:
    layer, x = nn.ConvTranspose2d(3, 2, 3, stride=2), torch.randn(1, 3, 4, 4)
    assert layer(x, output_size=[10, 9]).shape == (1, 2, 10, 9)
    with pytest.raises(ValueError, match="requested an output size"):
        layer(x, output_size=[20, 9])


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("given", [True, False])
def test_lstm_cell(batched: bool, bias: bool, given: bool) -> None:
    torch.manual_seed(0)
    theirs = torch.nn.LSTMCell(5, 7, bias=bias)
    ours = nn.LSTMCell(5, 7, bias=bias)
    ours.load_state_dict(theirs.state_dict())
    lead = (3,) if batched else ()
    x = torch.randn(*lead, 5)
    hx = (torch.randn(*lead, 7), torch.randn(*lead, 7)) if given else None
    for a, b in zip(ours(x, hx), theirs(x, hx), strict=True):
        torch.testing.assert_close(a, b)


def test_lstm_cell_refuses_a_sequence() -> None:
    with pytest.raises(
        ValueError, match=r"LSTMCell: input: expected shape \[batch, 5\] or \[5\], got \[2, 3, 5\]"
    ):
        nn.LSTMCell(5, 7)(torch.zeros(2, 3, 5))


def small_model() -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Sequential(torch.nn.AvgPool2d(2), torch.nn.Flatten(), torch.nn.Linear(16, 3)),
    )


def test_accelerate_swaps_in_place_and_keeps_everything() -> None:
    model = small_model()
    plain = copy.deepcopy(model)
    parameters = list(model.parameters())
    seen: list[str] = []
    model[0].register_forward_hook(lambda *_: seen.append("hook"))
    model.eval()

    assert cisdl_ops.accelerate(model) is model
    kinds = {type(m).__name__: type(m).__module__ for m in model.modules()}
    assert {kinds[k] for k in ("Conv2d", "MaxPool2d", "AvgPool2d", "Linear")} == {"cisdl_ops.nn.layers"}
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))
    assert not any(m.training for m in model.modules())

    x = torch.randn(2, 1, 10, 10)
    torch.testing.assert_close(model(x), plain(x))
    assert seen == ["hook"]
    assert cisdl_ops.last_implementation("conv2d") in cisdl_ops.implementations("conv2d")


def test_accelerate_leaves_derived_classes_alone() -> None:
    class Mine(torch.nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input) + 1

    model = cisdl_ops.accelerate(torch.nn.Sequential(Mine(2, 2)))
    assert type(model[0]) is Mine


def test_trains_like_torch() -> None:
    """Twenty steps of SGD, plain and accelerated: the same losses."""
    losses: list[list[float]] = []
    for accelerated in (False, True):
        model: torch.nn.Module = small_model()
        if accelerated:
            model = cisdl_ops.accelerate(model)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        torch.manual_seed(1)
        x, y = torch.randn(16, 1, 10, 10), torch.randint(3, (16,))
        steps = []
        for _ in range(20):
            loss = torch.nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps.append(loss.item())
        losses.append(steps)
    torch.testing.assert_close(torch.tensor(losses[1]), torch.tensor(losses[0]), rtol=1e-4, atol=0)


def test_pooling_with_an_activation() -> None:
    """It is torch's two layers in one, says so, and cannot be turned into one of torch's."""
    ours = nn.MaxPool2d(2, activation="relu")
    theirs = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.MaxPool2d(2))
    x = torch.randn(IMAGE)
    assert torch.equal(ours(x), theirs(x))
    assert "activation=relu" in repr(ours)
    with pytest.raises(ValueError, match="MaxPool2d has no activation"):
        cisdl_ops.restore(torch.nn.ModuleDict({"pool": ours}))
