"""Linear layers and convolutions with an activation inside, beyond what the table's cases show of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import cisdl_ops
from cisdl_ops import nn, reference
from cisdl_ops.functional import ACTIVATIONS

SHAPES = {"linear": ((3, 5), (4, 5), (4,)), "conv2d": ((3, 2, 3, 4), (3, 2, 2, 2), (3,))}


def tensors(op: str) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, w, b = (torch.randn(s, dtype=torch.float64, generator=generator) for s in SHAPES[op])
    return x.requires_grad_(), w.requires_grad_(), b.requires_grad_()


def ours_and_formula(op: str) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    return getattr(cisdl_ops, op), getattr(reference, op)


@pytest.mark.parametrize("op", SHAPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_transforms(activation: str, op: str) -> None:
    """torch.func over the fused op gives what it gives for the formula."""

    def of(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda x, w, b: function(x, w, b, activation=activation).square().sum()

    ours, formula = ours_and_formula(op)
    values = tuple(one.detach() for one in tensors(op))
    for transform in (
        lambda f: torch.func.hessian(f, argnums=(0, 1, 2)),
        lambda f: torch.func.vmap(torch.func.grad(f, argnums=(0, 1, 2)), in_dims=(0, None, None)),
        lambda f: lambda *at: torch.func.jvp(f, at, at)[1],
    ):
        torch.testing.assert_close(transform(of(ours))(*values), transform(of(formula))(*values))


@pytest.mark.parametrize("op", SHAPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_batched_gradients(activation: str, op: str) -> None:
    """vmap over the backward op itself, which is what a vectorized jacobian does."""
    given = tensors(op)
    found = [
        torch.autograd.functional.jacobian(
            lambda *at, f=function: f(*at, activation=activation), given, vectorize=True
        )
        for function in ours_and_formula(op)
    ]
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("op", SHAPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_special_values(activation: str, op: str) -> None:
    x = torch.tensor([[torch.nan, -torch.inf, torch.inf, -0.0, 100.0, -100.0]]).T.requires_grad_()
    given, one = (x, torch.ones(1, 1)) if op == "linear" else (x.view(6, 1, 1, 1), torch.ones(1, 1, 1, 1))
    y = getattr(cisdl_ops, op)(given, one, activation=activation)
    functions = torch.nn.functional
    expected = getattr(functions, activation)(getattr(functions, op)(given, one))
    torch.testing.assert_close(y, expected, equal_nan=True)
    grads = [torch.autograd.grad(each.sum(), x, retain_graph=True)[0] for each in (y, expected)]
    torch.testing.assert_close(*grads, equal_nan=True)


def test_the_bias_gradient_of_many_rows_keeps_its_digits() -> None:
    x, w, b = torch.ones(100_003, 1), torch.ones(7, 1), torch.zeros(7, requires_grad=True)
    y = cisdl_ops.linear(x, w, b, activation="relu")
    (grad,) = torch.autograd.grad(y, b, torch.full_like(y, 0.1))
    torch.testing.assert_close(grad, torch.full((7,), 10_000.3), rtol=1e-5, atol=0)


def test_module() -> None:
    layer = nn.Linear(5, 4, activation="leaky_relu", negative_slope=0.3)
    x = torch.randn(3, 5)
    plain = torch.nn.Linear(5, 4)
    plain.load_state_dict(layer.state_dict())
    torch.testing.assert_close(layer(x), torch.nn.functional.leaky_relu(plain(x), 0.3))
    assert "activation=leaky_relu" in repr(layer)
    with pytest.raises(ValueError, match="activation"):
        cisdl_ops.restore(torch.nn.Sequential(layer))
    with pytest.raises(
        ValueError, match="expected None or one of relu, leaky_relu, sigmoid, tanh, got 'gelu'"
    ):
        nn.Linear(5, 4, activation="gelu")
    with pytest.raises(
        ValueError, match="expected None or one of relu, leaky_relu, sigmoid, tanh, got 'gelu'"
    ):
        cisdl_ops.linear(x, plain.weight, activation="gelu")
    with pytest.raises(RuntimeError, match="negative_slope: expected a number that is not negative, got -1"):
        cisdl_ops.linear(x, plain.weight, activation="leaky_relu", negative_slope=-1.0)


def test_compiled_and_autocast() -> None:
    layer, x = nn.Linear(5, 4, activation="tanh"), torch.randn(3, 5)
    compiled = torch.compile(layer, fullgraph=True)
    torch.testing.assert_close(compiled(x), layer(x))
    found = [torch.autograd.grad(f(x).sum(), list(layer.parameters())) for f in (compiled, layer)]
    torch.testing.assert_close(*found)
    with torch.autocast("cpu"):
        assert layer(x).dtype == torch.bfloat16


def test_convolution_module() -> None:
    layer = nn.Conv2d(
        2, 4, 3, padding=1, padding_mode="circular", activation="leaky_relu", negative_slope=0.3
    )
    x = torch.randn(3, 2, 5, 6)
    plain = torch.nn.Conv2d(2, 4, 3, padding=1, padding_mode="circular")
    plain.load_state_dict(layer.state_dict())
    torch.testing.assert_close(layer(x), torch.nn.functional.leaky_relu(plain(x), 0.3))
    assert "activation=leaky_relu" in repr(layer)
    with pytest.raises(ValueError, match="Conv2d has no activation"):
        cisdl_ops.restore(torch.nn.Sequential(layer))
    for build in (nn.Conv2d, lambda *_, **options: cisdl_ops.conv2d(x, layer.weight, **options)):
        with pytest.raises(
            ValueError, match="expected None or one of relu, leaky_relu, sigmoid, tanh, got 'gelu'"
        ):
            build(2, 4, 3, activation="gelu")
    compiled = torch.compile(layer, fullgraph=True)
    torch.testing.assert_close(compiled(x), layer(x))
    found = [torch.autograd.grad(f(x).sum(), list(layer.parameters())) for f in (compiled, layer)]
    torch.testing.assert_close(*found)
    with torch.autocast("cpu"):
        assert layer(x).dtype == torch.bfloat16
