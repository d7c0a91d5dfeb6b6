"""The fully connected layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_variadic

from cisdl_ops._load import _C
from cisdl_ops.functional.arguments import check_activation


def linear(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    activation: str | None = None,
    negative_slope: float = 0.01,
) -> Tensor:
    """``y = f(x W^T + b)`` over the last dimension; see ``torch.nn.functional.linear``, which has no ``f``.

    With an activation it is one op: no pass through memory of its own, and its derivative comes from ``y``.

    Args:
        input: ``[..., in_features]``.
        weight: ``[out_features, in_features]``.
        bias: ``[out_features]``, or None.
        activation: ``f``, one of :data:`ACTIVATIONS`; None for none.
        negative_slope: of ``"leaky_relu"`` below zero, not negative.

    Returns:
        ``[..., out_features]``.
    """
    if has_torch_function_variadic(input, weight, bias):
        options: dict[str, Any] = (
            {} if activation is None else {"activation": activation, "negative_slope": negative_slope}
        )
        overridden: Tensor = handle_torch_function(
            linear, (input, weight, bias), input, weight, bias, **options
        )
        return overridden
    if activation is not None:
        check_activation("linear", activation)
        if torch.compiler.is_compiling():
            fused: Tensor = torch.ops.cisdl.linear_activation(input, weight, bias, activation, negative_slope)
            return fused
        return _C.linear_activation(input, weight, bias, activation, negative_slope)
    if torch.compiler.is_compiling():
        result: Tensor = torch.ops.cisdl.linear(input, weight, bias)
        return result
    return _C.linear(input, weight, bias)
