"""Linear layers with an activation inside, beyond what the table's cases show of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import cisdl_ops
from cisdl_ops import nn, reference
from cisdl_ops.functional import ACTIVATIONS


def tensors() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, w, b = (torch.randn(s, dtype=torch.float64, generator=generator) for s in ((3, 5), (4, 5), (4,)))
    return x.requires_grad_(), w.requires_grad_(), b.requires_grad_()


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_transforms(activation: str) -> None:
    """torch.func over the fused op gives what it gives for the formula."""

    def of(linear: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda x, w, b: linear(x, w, b, activation=activation).square().sum()

    values = tuple(one.detach() for one in tensors())
    for transform in (
        lambda f: torch.func.hessian(f, argnums=(0, 1, 2)),
        lambda f: torch.func.vmap(torch.func.grad(f, argnums=(0, 1, 2)), in_dims=(0, None, None)),
        lambda f: lambda *at: torch.func.jvp(f, at, at)[1],
    ):
        torch.testing.assert_close(
            transform(of(cisdl_ops.linear))(*values), transform(of(reference.linear))(*values)
        )


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_batched_gradients(activation: str) -> None:
    """vmap over the backward op itself, which is what a vectorized jacobian does."""
    given = tensors()
    found = [
        torch.autograd.functional.jacobian(
            lambda *at, f=linear: f(*at, activation=activation), given, vectorize=True
        )
        for linear in (cisdl_ops.linear, reference.linear)
    ]
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_special_values(activation: str) -> None:
    x = torch.tensor([[torch.nan, -torch.inf, torch.inf, -0.0, 100.0, -100.0]]).T.requires_grad_()
    one = torch.ones(1, 1)
    y = cisdl_ops.linear(x, one, activation=activation)
    expected = getattr(torch.nn.functional, activation)(torch.nn.functional.linear(x, one))
    torch.testing.assert_close(y, expected, equal_nan=True)
    grads = [torch.autograd.grad(each.sum(), x)[0] for each in (y, expected)]
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
