"""The ops, with the signatures and semantics of ``torch.nn.functional``.

All take float32, float64, bfloat16 and float16 tensors (the last two are summed in float32) on the CPU or, in
a build with CUDA, on a GPU; anything else raises ``RuntimeError`` naming the argument, what was expected and
what came. Autograd of any order, ``torch.func``, ``torch.compile`` and autocast work; ``docs/drop-in.md`` has
the few exceptions.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary, has_torch_function_variadic

from cisdl_ops._load import _C

IntOrPair = int | Sequence[int]
OutputSize = int | Sequence[int | None]
ACTIVATIONS = ("relu", "leaky_relu", "sigmoid", "tanh")  # that a layer may apply to its output
LARGEST_SIZE = 2**31 - 1  # of one dimension, so that products of a few stay within int64


def _integer(op: str, name: str, value: Any) -> int:
    """``value`` as an ``int``: torch takes whatever can index a list, but no bool.

    Raises:
        TypeError: anything else.
    """
    if type(value) is int:
        return value
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{op}: {name}: expected an integer, got {value!r}")
    return value if isinstance(value, int) else operator.index(value)


def _pair(op: str, name: str, value: IntOrPair) -> list[int]:
    """``value`` as two integers, height first.

    Raises:
        TypeError: something else than integers.
        ValueError: a sequence of neither one nor two.
    """
    if type(value) is int:
        return [value, value]
    if not isinstance(value, (list, tuple)):
        return [_integer(op, name, value)] * 2
    if len(value) not in (1, 2):
        raise ValueError(f"{op}: {name}: expected an integer or two, got {value!r}")
    return [_integer(op, name, value[0]), _integer(op, name, value[-1])]


def check_activation(op: str, activation: Any) -> None:
    """Refuses what is not the name of an activation.

    Raises:
        ValueError: it is none of :data:`ACTIVATIONS`.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(
            f"{op}: activation: expected None or one of {', '.join(ACTIVATIONS)}, got {activation!r}"
        )


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


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: IntOrPair = 1,
    padding: IntOrPair | str = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
) -> Tensor:
    """2-D cross-correlation; see ``torch.nn.functional.conv2d``.

    ``y[n,k,p,q] = b[k] + sum_{c,r,s} x[n,c, p*stride + r*dilation - padding, ...] w[k,c,r,s]``

    Args:
        input: ``[N, C, H, W]`` or ``[C, H, W]``; contiguous or channels_last, which the result keeps.
        weight: ``[K, C/groups, R, S]``.
        bias: ``[K]``, or None.
        stride: integer or pair (height, width).
        padding: integer, pair, ``"valid"`` (none) or ``"same"`` (output as large as the input; stride 1 only;
            an odd total puts the extra row or column at the bottom or right).
        dilation: integer or pair.
        groups: divides C and K.

    Returns:
        ``[N, K, P, Q]`` with ``P = (H + padding - dilation*(R-1) - 1) // stride + 1``, or ``[K, P, Q]``.
    """
    if has_torch_function_variadic(input, weight, bias):
        overridden: Tensor = handle_torch_function(
            conv2d, (input, weight, bias), input, weight, bias, stride, padding, dilation, groups
        )
        return overridden
    strides = _pair("conv2d", "stride", stride)
    dilations = _pair("conv2d", "dilation", dilation)
    groups = _integer("conv2d", "groups", groups)
    if isinstance(padding, str):
        padding4 = _named_padding(padding, weight, strides, dilations)
    else:
        top, left = _pair("conv2d", "padding", padding)
        padding4 = [top, top, left, left]
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
        _pair("conv_transpose2d", "stride", stride),
        _pair("conv_transpose2d", "padding", padding),
        _pair("conv_transpose2d", "output_padding", output_padding),
        _integer("conv_transpose2d", "groups", groups),
        _pair("conv_transpose2d", "dilation", dilation),
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


def _flag(op: str, name: str, value: bool) -> bool:
    """``value``, which must be a bool: a number is most likely another argument in the wrong place.

    Raises:
        TypeError: anything else.
    """
    if not isinstance(value, bool):
        raise TypeError(f"{op}: {name}: expected True or False, got {value!r}")
    return value


def _pool_stride(op: str, stride: IntOrPair | None, kernel_size: list[int]) -> list[int]:
    """The kernel's size where no stride is given; torch takes an empty list or tuple for "not given", too."""
    if stride is None or (isinstance(stride, (list, tuple)) and not stride):
        return kernel_size
    return _pair(op, "stride", stride)


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
    kernel = _pair("max_pool2d", "kernel_size", kernel_size)
    window = (
        kernel,
        _pool_stride("max_pool2d", stride, kernel),
        _pair("max_pool2d", "padding", padding),
        _pair("max_pool2d", "dilation", dilation),
        _flag("max_pool2d", "ceil_mode", ceil_mode),
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
    kernel = _pair("avg_pool2d", "kernel_size", kernel_size)
    window = (
        kernel,
        _pool_stride("avg_pool2d", stride, kernel),
        _pair("avg_pool2d", "padding", padding),
        _flag("avg_pool2d", "ceil_mode", ceil_mode),
        _flag("avg_pool2d", "count_include_pad", count_include_pad),
        None if divisor_override is None else _integer("avg_pool2d", "divisor_override", divisor_override),
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


def lstm_cell(
    input: Tensor,
    hx: Sequence[Tensor],
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """One step of a long short-term memory (Hochreiter & Schmidhuber 1997); see ``torch.lstm_cell``.

    ``i, f, o = sigmoid(.)`` and ``g = tanh(.)`` of the four parts, in the order i, f, g, o, of
    ``x W_ih^T + b_ih + h W_hh^T + b_hh``; then ``c' = f c + i g`` and ``h' = o tanh(c')``.

    Args:
        input: ``[batch, input_size]``.
        hx: ``(h, c)``, each ``[batch, hidden_size]``.
        w_ih: ``[4*hidden_size, input_size]``.
        w_hh: ``[4*hidden_size, hidden_size]``.
        b_ih, b_hh: ``[4*hidden_size]``, or None.

    Returns:
        ``(h', c')``, each ``[batch, hidden_size]``.
    """
    if isinstance(hx, Tensor):
        raise ValueError("lstm_cell: hx: expected a pair (h, c), got a tensor")
    try:
        h, c = hx
    except (TypeError, ValueError):
        got = f"{len(hx)} tensors" if isinstance(hx, list | tuple) else type(hx).__name__
        raise ValueError(f"lstm_cell: hx: expected a pair (h, c), got {got}") from None
    if has_torch_function_variadic(input, h, c, w_ih, w_hh, b_ih, b_hh):
        overridden: tuple[Tensor, Tensor] = handle_torch_function(
            lstm_cell, (input, h, c, w_ih, w_hh, b_ih, b_hh), input, hx, w_ih, w_hh, b_ih, b_hh
        )
        return overridden
    if torch.compiler.is_compiling():
        result: tuple[Tensor, Tensor] = torch.ops.cisdl.lstm_cell(input, h, c, w_ih, w_hh, b_ih, b_hh)
        return result
    return _C.lstm_cell(input, h, c, w_ih, w_hh, b_ih, b_hh)


def gru_cell(
    input: Tensor,
    hx: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> Tensor:
    """One step of a gated recurrent unit (Cho et al. 2014); see ``torch.gru_cell``.

    With ``a = x W_ih^T + b_ih`` and ``u = h W_hh^T + b_hh``, each in three parts in the order r, z, n:
    ``r = sigmoid(a_r + u_r)``, ``z = sigmoid(a_z + u_z)``, ``n = tanh(a_n + r u_n)``;
    then ``h' = (1 - z) n + z h``.

    Args:
        input: ``[batch, input_size]``.
        hx: ``h``, ``[batch, hidden_size]``.
        w_ih: ``[3*hidden_size, input_size]``.
        w_hh: ``[3*hidden_size, hidden_size]``.
        b_ih, b_hh: ``[3*hidden_size]``, or None.

    Returns:
        ``h'``, ``[batch, hidden_size]``.
    """
    if has_torch_function_variadic(input, hx, w_ih, w_hh, b_ih, b_hh):
        overridden: Tensor = handle_torch_function(
            gru_cell, (input, hx, w_ih, w_hh, b_ih, b_hh), input, hx, w_ih, w_hh, b_ih, b_hh
        )
        return overridden
    if torch.compiler.is_compiling():
        result: Tensor = torch.ops.cisdl.gru_cell(input, hx, w_ih, w_hh, b_ih, b_hh)
        return result
    return _C.gru_cell(input, hx, w_ih, w_hh, b_ih, b_hh)


def rnn_tanh_cell(
    input: Tensor,
    hx: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> Tensor:
    """One step of a plain recurrent network (Elman 1990); see ``torch.rnn_tanh_cell``.

    ``h' = tanh(x W_ih^T + b_ih + h W_hh^T + b_hh)``

    Args:
        input: ``[batch, input_size]``.
        hx: ``h``, ``[batch, hidden_size]``.
        w_ih: ``[hidden_size, input_size]``.
        w_hh: ``[hidden_size, hidden_size]``.
        b_ih, b_hh: ``[hidden_size]``, or None.

    Returns:
        ``h'``, ``[batch, hidden_size]``.
    """
    if has_torch_function_variadic(input, hx, w_ih, w_hh, b_ih, b_hh):
        overridden: Tensor = handle_torch_function(
            rnn_tanh_cell, (input, hx, w_ih, w_hh, b_ih, b_hh), input, hx, w_ih, w_hh, b_ih, b_hh
        )
        return overridden
    if torch.compiler.is_compiling():
        result: Tensor = torch.ops.cisdl.rnn_tanh_cell(input, hx, w_ih, w_hh, b_ih, b_hh)
        return result
    return _C.rnn_tanh_cell(input, hx, w_ih, w_hh, b_ih, b_hh)


def rnn_relu_cell(
    input: Tensor,
    hx: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> Tensor:
    """One step of a plain recurrent network with ``relu``; see ``torch.rnn_relu_cell``.

    ``h' = max(0, x W_ih^T + b_ih + h W_hh^T + b_hh)``, a NaN staying one; shapes as in :func:`rnn_tanh_cell`.
    """
    if has_torch_function_variadic(input, hx, w_ih, w_hh, b_ih, b_hh):
        overridden: Tensor = handle_torch_function(
            rnn_relu_cell, (input, hx, w_ih, w_hh, b_ih, b_hh), input, hx, w_ih, w_hh, b_ih, b_hh
        )
        return overridden
    if torch.compiler.is_compiling():
        result: Tensor = torch.ops.cisdl.rnn_relu_cell(input, hx, w_ih, w_hh, b_ih, b_hh)
        return result
    return _C.rnn_relu_cell(input, hx, w_ih, w_hh, b_ih, b_hh)
