"""exp, sigmoid and tanh of csrc/cpu/simd_math.h in float32: units in the last place, over the whole range."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import cisdl_ops

Function = Callable[[Tensor], Tensor]


def everything() -> Tensor:
    """Random bit patterns, so all exponents alike; and, densely, where the functions are not constant."""
    generator = torch.Generator().manual_seed(0)
    bits = torch.randint(-(2**31), 2**31, (300_000,), generator=generator).to(torch.int32)
    return torch.cat([bits.view(torch.float32), torch.linspace(-110, 110, 300_001), torch.linspace(-1, 1, 9)])


def apply(name: str, x: Tensor) -> Tensor:
    """The kernel's function: that of a linear layer with the weight 1."""
    return cisdl_ops.linear(x.unsqueeze(1), torch.ones(1, 1), activation=name).squeeze(1)


def largest_error(got: Tensor, exact: Tensor) -> float:
    """In units in the last place of the exact value; NaN and infinities have to agree."""
    rounded = exact.float()
    special = ~rounded.isfinite()
    torch.testing.assert_close(got[special], rounded[special], rtol=0, atol=0, equal_nan=True)
    _, exponent = torch.frexp(exact)
    unit = torch.ldexp(torch.ones_like(exact), torch.clamp(exponent - 24, min=-149))
    return float(((got.double() - exact).abs() / unit)[~special].max())


@pytest.mark.parametrize(("name", "bound"), [("sigmoid", 2.5), ("tanh", 2.5)])
def test_error(name: str, bound: float) -> None:
    x = everything()
    function: Function = getattr(torch, name)
    assert largest_error(apply(name, x), function(x.double())) <= bound


def test_exp() -> None:
    """Left of -18 sigmoid(x) is exp(x): 1 + exp(x) rounds to 1."""
    x = torch.linspace(-110, -18, 300_001)
    assert largest_error(apply("sigmoid", x), torch.exp(x.double())) <= 1.01


def test_limits() -> None:
    x = torch.tensor([-torch.inf, 0.0, torch.inf])
    torch.testing.assert_close(apply("tanh", x), torch.tensor([-1.0, 0.0, 1.0]), rtol=0, atol=0)
    torch.testing.assert_close(apply("sigmoid", x), torch.tensor([0.0, 0.5, 1.0]), rtol=0, atol=0)
