"""What ``torch.func.vmap`` does with our operators.

A batch dimension is folded into one that the kernels know, so one call serves the whole batch: into the
images of a pooling op or of a convolution whose weight is shared, and, where every sample has its own
weight, into groups (sample b of B reads channels b*C .. b*C + C and group b of the weight). Linear layers
with a weight for every sample, and their weight gradients, run sample by sample. The recurrent cells are
taken apart in C++, by formula.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Dims = tuple[Any, ...]
Result = tuple[Any, Any]


def _front(tensor: Tensor, dim: int | None, size: int) -> Tensor:
    """The batch dimension first; a tensor without one is repeated."""
    return tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)


def _fold(tensor: Tensor, dim: int | None, size: int) -> Tensor:
    """Images ``[N, C, H, W]`` or ``[C, H, W]`` of every sample as one batch of images."""
    tensor = _front(tensor, dim, size)
    return tensor.flatten(0, 1) if tensor.dim() == 5 else tensor


def _split(tensor: Tensor, dim: int, size: int) -> Tensor:
    """Dimension ``dim`` as two, of which the first is the batch."""
    shape = tensor.shape
    return tensor.reshape(*shape[:dim], size, shape[dim] // size, *shape[dim + 1 :])


def _unfold(tensor: Tensor, size: int, dims: int) -> Tensor:
    return _split(tensor, 0, size) if dims == 4 else tensor


def _into_channels(tensor: Tensor, dim: int | None, size: int) -> Tensor:
    """``[N, C, H, W]`` (or ``[C, H, W]``) of every sample as ``[N, size*C, H, W]``."""
    tensor = _front(tensor, dim, size)
    if tensor.dim() == 4:
        tensor = tensor.unsqueeze(1)
    return tensor.transpose(0, 1).flatten(1, 2)


def _out_of_channels(tensor: Tensor, size: int, dims: int) -> Tensor:
    """The reverse: the batch dimension first."""
    tensor = _split(tensor, 1, size).transpose(0, 1)
    return tensor if dims == 4 else tensor.squeeze(1)


def _loop(op: Any, size: int, in_dims: Dims, args: Sequence[Any]) -> list[Any]:
    """The op's results for every sample, stacked; None where it gives none."""
    results = []
    for i in range(size):
        sample = [arg if dim is None else arg.select(dim, i) for arg, dim in zip(args, in_dims, strict=True)]
        result = op(*sample)
        results.append([result] if isinstance(result, Tensor) else list(result))
    return [None if each[0] is None else torch.stack(each) for each in zip(*results, strict=True)]


def _linear(info: Any, in_dims: Dims, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Result:
    op = torch.ops.cisdl.linear.default
    x_dim, w_dim, b_dim = dims = (*in_dims, None)[:3]  # a bias left at its default has no entry
    if w_dim is not None:
        return _loop(op, info.batch_size, dims, (input, weight, bias))[0], 0
    input = _front(input, x_dim, info.batch_size)
    if b_dim is None:
        return op(input, weight, bias), 0
    assert bias is not None
    bias = bias.movedim(b_dim, 0)
    return op(input, weight, None) + bias.view(bias.shape[0], *(1,) * (input.dim() - 2), -1), 0


def _linear_backward(
    info: Any, in_dims: Dims, grad_output: Tensor, input: Tensor, weight: Tensor, mask: list[bool]
) -> Result:
    op, size = torch.ops.cisdl.linear_backward.default, info.batch_size
    dims = (*in_dims[:3], None)
    if dims[2] is not None:
        grads = _loop(op, size, dims, (grad_output, input, weight, mask))
    else:
        grads = [None, None, None]
        if mask[1] or mask[2]:
            args = (grad_output, input, weight, [False, *mask[1:]])
            grads = _loop(op, size, dims, args)
        if mask[0]:
            whole = [_front(t, dim, size) for t, dim in ((grad_output, dims[0]), (input, dims[1]))]
            grads[0] = op(*whole, weight, [True, False, False])[0]
    return tuple(grads), tuple(None if grad is None else 0 for grad in grads)


def _activated(tensor: Tensor, activation: str, slope: float) -> Tensor:
    if activation == "leaky_relu":
        return torch.nn.functional.leaky_relu(tensor, slope)
    function: Callable[[Tensor], Tensor] = getattr(torch, activation)
    return function(tensor)


def _through(grad_output: Tensor, output: Tensor, activation: str, slope: float) -> Tensor:
    """The gradient of what the activation was given, from its output."""
    aten = torch.ops.aten
    result: Tensor
    if activation == "relu":
        result = aten.threshold_backward(grad_output, output, 0)
    elif activation == "leaky_relu":
        result = aten.leaky_relu_backward(grad_output, output, slope, True)
    elif activation == "sigmoid":
        result = aten.sigmoid_backward(grad_output, output)
    else:
        result = aten.tanh_backward(grad_output, output)
    return result


def _linear_activation(
    info: Any,
    in_dims: Dims,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    activation: str,
    slope: float,
) -> Result:
    return _activated(_linear(info, in_dims[:3], input, weight, bias)[0], activation, slope), 0


def _linear_activation_backward(
    info: Any,
    in_dims: Dims,
    grad_output: Tensor,
    output: Tensor,
    input: Tensor,
    weight: Tensor,
    activation: str,
    slope: float,
    mask: list[bool],
) -> Result:
    g_dim, y_dim, x_dim, w_dim = in_dims[:4]
    size = info.batch_size
    through = _through(_front(grad_output, g_dim, size), _front(output, y_dim, size), activation, slope)
    return _linear_backward(info, (0, x_dim, w_dim, None), through, input, weight, mask)


def _convolution(op: Any, groups_at: int) -> Callable[..., Result]:
    """The rule of conv2d and conv_transpose2d; ``options[groups_at]`` is groups."""

    def rule(
        info: Any, in_dims: Dims, input: Tensor, weight: Tensor, bias: Tensor | None, *options: Any
    ) -> Result:
        size, (x_dim, w_dim, b_dim) = info.batch_size, in_dims[:3]
        dims = input.dim() - (x_dim is not None)
        if w_dim is None and b_dim is None:
            return _unfold(op(_fold(input, x_dim, size), weight, bias, *options), size, dims), 0
        changed = list(options)
        changed[groups_at] *= size
        bias = None if bias is None else _front(bias, b_dim, size).flatten()
        weight = _front(weight, w_dim, size).flatten(0, 1)
        output = op(_into_channels(input, x_dim, size), weight, bias, *changed)
        return _out_of_channels(output, size, dims), 0

    return rule


def _convolution_backward(op: Any, groups_at: int) -> Callable[..., Result]:
    def rule(
        info: Any, in_dims: Dims, grad_output: Tensor, input: Tensor, weight: Tensor, *options: Any
    ) -> Result:
        size, (g_dim, x_dim, w_dim) = info.batch_size, in_dims[:3]
        dims = input.dim() - (x_dim is not None)
        mask = options[-1]
        grads: list[Any] = [None, None, None]
        shared = w_dim is None
        if mask[0] and shared:
            images = (_fold(grad_output, g_dim, size), _fold(input, x_dim, size))
            folded = op(*images, weight, *options[:-1], [True, False, False])[0]
            grads[0] = _unfold(folded, size, dims)
        rest = [mask[0] and not shared, *mask[1:]]
        if any(rest):
            changed = list(options[:-1])
            changed[groups_at] *= size
            whole = (_into_channels(grad_output, g_dim, size), _into_channels(input, x_dim, size))
            of_input, of_weight, of_bias = op(
                *whole, _front(weight, w_dim, size).flatten(0, 1), *changed, rest
            )
            if rest[0]:
                grads[0] = _out_of_channels(of_input, size, dims)
            grads[1:] = [None if grad is None else _split(grad, 0, size) for grad in (of_weight, of_bias)]
        return tuple(grads), tuple(None if grad is None else 0 for grad in grads)

    return rule


def _conv2d_activation(
    info: Any, in_dims: Dims, input: Tensor, weight: Tensor, bias: Tensor | None, *options: Any
) -> Result:
    *geometry, activation, slope = options
    rule = _convolution(torch.ops.cisdl.conv2d.default, 3)
    return _activated(rule(info, in_dims, input, weight, bias, *geometry)[0], activation, slope), 0


def _conv2d_activation_backward(
    info: Any,
    in_dims: Dims,
    grad_output: Tensor,
    output: Tensor,
    input: Tensor,
    weight: Tensor,
    *options: Any,
) -> Result:
    *geometry, activation, slope, mask = options
    g_dim, y_dim, x_dim, w_dim = in_dims[:4]
    size = info.batch_size
    through = _through(_front(grad_output, g_dim, size), _front(output, y_dim, size), activation, slope)
    rule = _convolution_backward(torch.ops.cisdl.conv2d_backward.default, 3)
    return rule(info, (0, x_dim, w_dim), through, input, weight, *geometry, mask)


def _images(op: Any, size_at: int | None = None) -> Callable[..., Result]:
    """The rule of an op on images alone; ``args[size_at]`` is the size of its result, if it has one."""

    def rule(info: Any, in_dims: Dims, *args: Any) -> Result:
        size = info.batch_size
        dims = args[0].dim() - (in_dims[0] is not None)
        changed = [
            _fold(arg, dim, size) if isinstance(arg, Tensor) else arg
            for arg, dim in zip(args, in_dims, strict=True)
        ]
        if size_at is not None:
            shape = args[size_at]
            changed[size_at] = [size * shape[0], *shape[1:]] if dims == 4 else [size, *shape]
        result = op(*changed)
        if isinstance(result, Tensor):
            return _unfold(result, size, dims), 0
        return tuple(_unfold(one, size, dims) for one in result), (0,) * len(result)

    return rule


def _each_sample(op: Any) -> Callable[..., Result]:
    def rule(info: Any, in_dims: Dims, *args: Any) -> Result:
        # A list argument has a list of dimensions, of which none is batched.
        dims = tuple(None if isinstance(dim, list) else dim for dim in in_dims)
        results = _loop(op, info.batch_size, dims, args)
        return tuple(results), tuple(None if result is None else 0 for result in results)

    return rule


def _first_of(rule: Callable[..., Result]) -> Callable[..., Result]:
    """The rule of an op with one result."""

    def first(*args: Any) -> Result:
        results, dims = rule(*args)
        return results[0], dims[0]

    return first


def _register() -> None:
    ops = torch.ops.cisdl
    rules: dict[str, Any] = {
        "linear": _linear,
        "linear_backward": _linear_backward,
        "linear_activation": _linear_activation,
        "linear_activation_backward": _linear_activation_backward,
        "conv2d": _convolution(ops.conv2d.default, 3),
        "conv2d_backward": _convolution_backward(ops.conv2d_backward.default, 3),
        "conv2d_activation": _conv2d_activation,
        "conv2d_activation_backward": _conv2d_activation_backward,
        "conv_transpose2d": _convolution(ops.conv_transpose2d.default, 3),
        "conv_transpose2d_backward": _convolution_backward(ops.conv_transpose2d_backward.default, 3),
    }
    rules["cross_entropy_training"] = _each_sample(ops.cross_entropy_training.default)
    for name in ("cross_entropy", "cross_entropy_backward"):
        rules[name] = _first_of(_each_sample(getattr(ops, name).default))
    cells = ("lstm_cell", "lstm_layer", "gru_cell", "gru_layer", "rnn_cell", "rnn_layer")
    rules |= {f"{name}_backward": _each_sample(getattr(ops, f"{name}_backward").default) for name in cells}
    # Pooling, and where among its arguments the size of its result is, if there is one.
    pooling = {
        "max_pool2d": None,
        "max_pool2d_with_indices": None,
        "max_pool2d_window": None,
        "max_pool2d_backward": 2,
        "max_pool2d_gather": None,
        "avg_pool2d": None,
        "avg_pool2d_backward": 1,
        "adaptive_avg_pool2d": None,
        "adaptive_avg_pool2d_backward": 1,
        "adaptive_max_pool2d": None,
        "adaptive_max_pool2d_with_indices": None,
        "adaptive_max_pool2d_backward": 2,
        "adaptive_max_pool2d_gather": None,
    }
    rules |= {name: _images(getattr(ops, name).default, at) for name, at in pooling.items()}
    for name, rule in rules.items():
        torch.library.register_vmap(f"cisdl::{name}", rule)


_register()
