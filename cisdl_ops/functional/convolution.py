"""Convolution and transposed convolution."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_variadic

from cisdl_ops._load import _C
from cisdl_ops.functional.arguments import IntOrPair, check_activation, integer, pair


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: IntOrPair = 1,
    padding: IntOrPair | str = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
    *,
    activation: str | None = None,
    negative_slope: float = 0.01,
) -> Tensor:
    """2-D cross-correlation; see ``torch.nn.functional.conv2d``, which has no activation ``f``.

    ``y[n,k,p,q] = f(b[k] + sum_{c,r,s} x[n,c, p*stride + r*dilation - padding, ...] w[k,c,r,s])``

    With an activation it is one op whose derivative comes from ``y``; ``"relu"`` costs the kernels nothing.

    Args:
        input: ``[N, C, H, W]`` or ``[C, H, W]``; contiguous or channels_last, which the result keeps.
        weight: ``[K, C/groups, R, S]``.
        bias: ``[K]``, or None.
        stride: integer or pair (height, width).
        padding: integer, pair, ``"valid"`` (none) or ``"same"`` (output as large as the input; stride 1 only;
            an odd total puts the extra row or column at the bottom or right).
        dilation: integer or pair.
        groups: divides C and K.
        activation: ``f``, one of :data:`ACTIVATIONS`; None for none.
        negative_slope: of ``"leaky_relu"`` below zero, not negative.

    Returns:
        ``[N, K, P, Q]`` with ``P = (H + padding - dilation*(R-1) - 1) // stride + 1``, or ``[K, P, Q]``.
    """
    if has_torch_function_variadic(input, weight, bias):
        options: dict[str, Any] = (
            {} if activation is None else {"activation": activation, "negative_slope": negative_slope}
        )
        overridden: Tensor = handle_torch_function(
            conv2d, (input, weight, bias), input, weight, bias, stride, padding, dilation, groups, **options
        )
        return overridden
    strides = pair("conv2d", "stride", stride)
    dilations = pair("conv2d", "dilation", dilation)
    groups = integer("conv2d", "groups", groups)
    if isinstance(padding, str):
        padding4 = _named_padding(padding, weight, strides, dilations)
    else:
        top, left = pair("conv2d", "padding", padding)
        padding4 = [top, top, left, left]
    if activation is not None:
        check_activation("conv2d", activation)
        function: Any = (
            torch.ops.cisdl.conv2d_activation if torch.compiler.is_compiling() else _C.conv2d_activation
        )
        fused: Tensor = function(
            input, weight, bias, strides, padding4, dilations, groups, activation, negative_slope
        )
        return fused
    if torch.compiler.is_compiling():
        result: Tensor = torch.ops.cisdl.conv2d(input, weight, bias, strides, padding4, dilations, groups)
        return result
    return _C.conv2d(input, weight, bias, strides, padding4, dilations, groups)


def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: IntOrPair = 1,
    padding: IntOrPair = 0,
    output_padding: IntOrPair = 0,
    groups: int = 1,
    dilation: IntOrPair = 1,
) -> Tensor:
    """Transposed 2-D convolution (Zeiler et al. 2010); see ``torch.nn.functional.conv_transpose2d``.

    The gradient of :func:`conv2d` with respect to its input, as an op: input pixel ``(p, q)`` adds
    ``x[n,c,p,q] w[c,k,r,s]`` to output pixel ``(p*stride - padding + r*dilation, ...)``.

    Args:
        input: ``[N, C, H, W]`` or ``[C, H, W]``; contiguous or channels_last, which the result keeps.
        weight: ``[C, K/groups, R, S]``.
        bias: ``[K]``, or None.
        stride, dilation: integer or pair (height, width).
        padding: integer or pair; so many rows and columns are cut off each side of the output.
        output_padding: integer or pair, less than stride or dilation; so many rows and columns are added at
            the bottom and right.
        groups: divides C and K.

    Returns:
        ``[N, K, P, Q]`` with ``P = (H-1)*stride - 2*padding + dilation*(R-1) + output_padding + 1``, or
        ``[K, P, Q]``.
    """
    if has_torch_function_variadic(input, weight, bias):
        overridden: Tensor = handle_torch_function(
            conv_transpose2d,
            (input, weight, bias),
            input,
            weight,
            bias,
            stride,
            padding,
            output_padding,
            groups,
            dilation,
        )
        return overridden
    options = (
        pair("conv_transpose2d", "stride", stride),
        pair("conv_transpose2d", "padding", padding),
        pair("conv_transpose2d", "output_padding", output_padding),
        integer("conv_transpose2d", "groups", groups),
        pair("conv_transpose2d", "dilation", dilation),
    )
    if torch.compiler.is_compiling():
        result: Tensor = torch.ops.cisdl.conv_transpose2d(input, weight, bias, *options)
        return result
    return _C.conv_transpose2d(input, weight, bias, *options)


def _named_padding(padding: str, weight: Tensor, stride: list[int], dilation: list[int]) -> list[int]:
    """Top, bottom, left, right of ``"same"`` and ``"valid"``."""
    if padding == "valid":
        return [0, 0, 0, 0]
    if padding != "same":
        raise ValueError(f"conv2d: padding: expected integers, 'valid' or 'same', got {padding!r}")
    if stride != [1, 1]:
        raise ValueError(f"conv2d: padding: 'same' expects a stride of 1, got {stride}")
    if not isinstance(weight, Tensor):
        raise TypeError(f"conv2d: weight: expected a tensor, got {weight!r}")
    if weight.dim() != 4:
        raise ValueError(f"conv2d: weight: expected shape [K, C/groups, R, S], got {list(weight.shape)}")
    sides: list[int] = []
    for size, step in zip(weight.shape[2:], dilation, strict=True):
        total = step * (size - 1)
        sides += [total // 2, total - total // 2]
    return sides
