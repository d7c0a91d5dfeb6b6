"""Max, average and adaptive pooling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from cisdl_ops._load import _C
from cisdl_ops.functional.arguments import LARGEST_SIZE, IntOrPair, OutputSize, flag, integer, pair


def _pool_stride(op: str, stride: IntOrPair | None, kernel_size: list[int]) -> list[int]:
    """The kernel's size where no stride is given; torch takes an empty list or tuple for "not given", too."""
    if stride is None or (isinstance(stride, (list, tuple)) and not stride):
        return kernel_size
    return pair(op, "stride", stride)


def max_pool2d(
    input: Tensor,
    kernel_size: IntOrPair,
    stride: IntOrPair | None = None,
    padding: IntOrPair = 0,
    dilation: IntOrPair = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    *,
    activation: str | None = None,
) -> Any:
    """Maximum over windows; see ``torch.nn.functional.max_pool2d``. Padding never wins; a NaN always does.

    With ``activation="relu"``, which torch's function does not have, it is ``max_pool2d(relu(input))`` as one
    op, in value and gradient: the maximum is rectified, a fraction of what ``relu`` would read and write.

    Args:
        input: ``[N, C, H, W]`` or ``[C, H, W]``; contiguous or channels_last, which the result keeps.
        kernel_size, stride, padding, dilation: integer or pair; ``stride`` is ``kernel_size`` by default.
        ceil_mode: round the output size up instead of down.
        return_indices: also return where each maximum lies, ``h*W + w``, as int64; without an activation.
        activation: None or ``"relu"``.

    Returns:
        ``[N, C, P, Q]``, or the pair of it and its indices.
    """
    if has_torch_function_unary(input):
        options = {} if activation is None else {"activation": activation}
        return handle_torch_function(
            max_pool2d,
            (input,),
            input,
            kernel_size,
            stride,
            padding,
            dilation,
            ceil_mode,
            return_indices,
            **options,
        )
    if activation is not None and (activation != "relu" or return_indices):
        raise ValueError(
            f"max_pool2d: activation: expected None, or 'relu' without return_indices, got {activation!r}"
        )
    relu = activation is not None
    kernel = pair("max_pool2d", "kernel_size", kernel_size)
    window = (
        kernel,
        _pool_stride("max_pool2d", stride, kernel),
        pair("max_pool2d", "padding", padding),
        pair("max_pool2d", "dilation", dilation),
        flag("max_pool2d", "ceil_mode", ceil_mode),
    )
    if torch.compiler.is_compiling():
        if return_indices:
            return torch.ops.cisdl.max_pool2d_with_indices(input, *window)
        return torch.ops.cisdl.max_pool2d(input, *window, relu)
    if return_indices:
        return _C.max_pool2d_with_indices(input, *window)
    return _C.max_pool2d(input, *window, relu)


def avg_pool2d(
    input: Tensor,
    kernel_size: IntOrPair,
    stride: IntOrPair | None = None,
    padding: IntOrPair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """Mean over windows; see ``torch.nn.functional.avg_pool2d``.

    Args:
        input: ``[N, C, H, W]`` or ``[C, H, W]``; contiguous or channels_last, which the result keeps.
        kernel_size, stride, padding: integer or pair; ``stride`` is ``kernel_size`` by default.
        ceil_mode: round the output size up instead of down.
        count_include_pad: padded zeros count in the divisor.
        divisor_override: divide by this instead.

    Returns:
        ``[N, C, P, Q]``.
    """
    if has_torch_function_unary(input):
        overridden: Tensor = handle_torch_function(
            avg_pool2d,
            (input,),
            input,
            kernel_size,
            stride,
            padding,
            ceil_mode,
            count_include_pad,
            divisor_override,
        )
        return overridden
    kernel = pair("avg_pool2d", "kernel_size", kernel_size)
    window = (
        kernel,
        _pool_stride("avg_pool2d", stride, kernel),
        pair("avg_pool2d", "padding", padding),
        flag("avg_pool2d", "ceil_mode", ceil_mode),
        flag("avg_pool2d", "count_include_pad", count_include_pad),
        None if divisor_override is None else integer("avg_pool2d", "divisor_override", divisor_override),
    )
    if torch.compiler.is_compiling():
        result: Tensor = torch.ops.cisdl.avg_pool2d(input, *window)
        return result
    return _C.avg_pool2d(input, *window)


def _output_size(op: str, value: OutputSize, input: Tensor) -> list[int]:
    """``value`` as two integers, height first; None in a pair stands for the input's own size.

    Raises:
        ValueError: neither an integer nor two of them, or the input has no height and width.
    """
    sizes = [value, value] if isinstance(value, (int, torch.SymInt)) else value
    if not isinstance(sizes, Sequence) or len(sizes) != 2:
        raise ValueError(f"{op}: output_size: expected an integer or two, got {value!r}")
    if any(isinstance(size, int) and not 0 <= size <= LARGEST_SIZE for size in sizes):
        raise ValueError(f"{op}: output_size: expected sizes from 0 to {LARGEST_SIZE}, got {value!r}")
    if not isinstance(input, Tensor):
        raise TypeError(f"{op}: input: expected a tensor, got {type(input).__name__}")
    if input.dim() < 3:
        raise ValueError(f"{op}: input: expected shape [N, C, H, W] or [C, H, W], got {list(input.shape)}")
    return [own if size is None else size for size, own in zip(sizes, input.shape[-2:], strict=True)]


def adaptive_max_pool2d(
    input: Tensor,
    output_size: OutputSize,
    return_indices: bool = False,
) -> Any:
    """Maximum over as many windows as asked for; see ``torch.nn.functional.adaptive_max_pool2d``.

    The windows are those of :func:`adaptive_avg_pool2d`; ties and NaN are taken as in :func:`max_pool2d`.

    Args:
        input: ``[N, C, H, W]`` or ``[C, H, W]``; contiguous or channels_last, which the result keeps.
        output_size: integer or pair (height, width), of which None keeps the input's size.
        return_indices: also return where each maximum lies, ``h*W + w``, as int64.

    Returns:
        ``[N, C, P, Q]`` with ``(P, Q) = output_size``, or the pair of it and its indices.
    """
    if has_torch_function_unary(input):
        return handle_torch_function(adaptive_max_pool2d, (input,), input, output_size, return_indices)
    size = _output_size("adaptive_max_pool2d", output_size, input)
    if torch.compiler.is_compiling():
        if return_indices:
            return torch.ops.cisdl.adaptive_max_pool2d_with_indices(input, size)
        return torch.ops.cisdl.adaptive_max_pool2d(input, size)
    if return_indices:
        return _C.adaptive_max_pool2d_with_indices(input, size)
    return _C.adaptive_max_pool2d(input, size)


def adaptive_avg_pool2d(input: Tensor, output_size: OutputSize) -> Tensor:
    """Mean over as many windows as asked for; see ``torch.nn.functional.adaptive_avg_pool2d``.

    Window ``p`` of ``P`` along ``H`` rows is ``floor(p*H/P) <= h < ceil((p+1)*H/P)``, and so along columns:
    windows differ in size by at most one, and overlap where ``P`` does not divide ``H``.

    Args:
        input: ``[N, C, H, W]`` or ``[C, H, W]``; contiguous or channels_last, which the result keeps.
        output_size: integer or pair (height, width), of which None keeps the input's size.

    Returns:
        ``[N, C, P, Q]`` with ``(P, Q) = output_size``.
    """
    if has_torch_function_unary(input):
        overridden: Tensor = handle_torch_function(adaptive_avg_pool2d, (input,), input, output_size)
        return overridden
    size = _output_size("adaptive_avg_pool2d", output_size, input)
    if torch.compiler.is_compiling():
        result: Tensor = torch.ops.cisdl.adaptive_avg_pool2d(input, size)
        return result
    return _C.adaptive_avg_pool2d(input, size)
