"""Runs a model of one ONNX node on our ops.

What ONNX has and torch's signatures have not is expressed exactly: uneven padding by padding first, an uneven
crop by cropping after, windows of uint8 in float32. What cannot be is refused with :class:`NotExpressible`,
whose words say why.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import onnx
import torch
from torch import Tensor
from torch.nn.functional import pad

import cisdl_ops
from tests.conformance import onnx_recurrent
from tests.conformance.onnx_recurrent import NotExpressible

Attributes = dict[str, Any]


def run_model(model: onnx.ModelProto, inputs: Sequence[Tensor]) -> list[Tensor]:
    """The outputs that the node names, in order."""
    (node,) = model.graph.node
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    feed = iter(inputs)
    arguments = [next(feed) if name else None for name in node.input]
    outputs = NODES[node.op_type](attributes, *arguments)
    return [output for output, name in zip(outputs, node.output, strict=False) if name]


def images_only(x: Tensor) -> None:
    if x.dim() != 4:
        raise NotExpressible(
            "the kernels are for images: one and three spatial dimensions are not implemented"
        )


def pair(attributes: Attributes, name: str, default: int = 1) -> list[int]:
    return list(attributes.get(name, (default, default)))


def pads_of(
    attributes: Attributes,
    size: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
) -> list[int]:
    """Top, left, bottom, right."""
    auto = attributes.get("auto_pad", b"NOTSET").decode()
    if auto == "NOTSET":
        return list(attributes.get("pads", (0, 0, 0, 0)))
    if auto == "VALID":
        return [0, 0, 0, 0]
    before, after = [], []
    for n, k, s, d in zip(size, kernel, stride, dilation, strict=True):
        total = max((math.ceil(n / s) - 1) * s + (k - 1) * d + 1 - n, 0)
        less = total // 2
        before.append(less if auto == "SAME_UPPER" else total - less)
        after.append(total - before[-1])
    return [*before, *after]


# ------------------------------------------------------------------------------------------- convolution


def conv(attributes: Attributes, x: Tensor, w: Tensor, b: Tensor | None = None) -> tuple[Tensor]:
    images_only(x)
    stride, dilation = pair(attributes, "strides"), pair(attributes, "dilations")
    top, left, bottom, right = pads_of(attributes, x.shape[2:], w.shape[2:], stride, dilation)
    groups = attributes.get("group", 1)
    if (top, left) == (bottom, right):
        return (cisdl_ops.conv2d(x, w, b, stride, (top, left), dilation, groups),)
    return (cisdl_ops.conv2d(pad(x, (left, right, top, bottom)), w, b, stride, 0, dilation, groups),)


def conv_transpose(attributes: Attributes, x: Tensor, w: Tensor, b: Tensor | None = None) -> tuple[Tensor]:
    """ONNX's pads crop the output; ``output_shape`` chooses them."""
    images_only(x)
    stride, dilation = pair(attributes, "strides"), pair(attributes, "dilations")
    extra, groups = pair(attributes, "output_padding", 0), attributes.get("group", 1)
    pads = list(attributes.get("pads", (0, 0, 0, 0)))
    auto = attributes.get("auto_pad", b"NOTSET").decode()
    wanted = attributes.get("output_shape")
    if auto.startswith("SAME") and wanted is None:
        wanted = [n * s for n, s in zip(x.shape[2:], stride, strict=True)]
    if wanted is not None:
        for i, target in enumerate(wanted):
            full = (x.shape[2 + i] - 1) * stride[i] + extra[i] + (w.shape[2 + i] - 1) * dilation[i] + 1
            total = max(full - target, 0)
            extra[i] += max(target - full, 0)
            less = total // 2
            # The specification: SAME_UPPER crops less at the beginning, everything else more.
            pads[i] = less if auto == "SAME_UPPER" else total - less
            pads[2 + i] = total - pads[i]
    function = cisdl_ops.conv_transpose2d
    if pads[:2] == pads[2:]:
        return (function(x, w, b, stride, pads[:2], extra, groups, dilation),)
    y = function(x, w, b, stride, 0, extra, groups, dilation)
    return (y[:, :, pads[0] : y.shape[2] - pads[2], pads[1] : y.shape[3] - pads[3]],)


# ----------------------------------------------------------------------------------------------- pooling


def padded_for_windows(
    attributes: Attributes, x: Tensor, fill: float
) -> tuple[Tensor, Tensor, list[int], list[int], list[int], tuple[int, int]]:
    """(x with its padding, which cells of it are padding or image, kernel, stride, dilation, (top, left)).

    A window that ``ceil_mode`` adds hangs over the end: cells there are neither image nor padding (0 in the
    mask), so that a plain, unpadded pooling gives the result.
    """
    images_only(x)
    kernel, stride, dilation = (
        list(attributes["kernel_shape"]),
        pair(attributes, "strides"),
        pair(attributes, "dilations"),
    )
    pads = pads_of(attributes, x.shape[2:], kernel, stride, dilation)
    over = [0, 0]
    if attributes.get("ceil_mode", 0):
        for i in range(2):
            reach = (kernel[i] - 1) * dilation[i] + 1
            span = x.shape[2 + i] + pads[i] + pads[2 + i] - reach
            last = -(-span // stride[i])
            if last * stride[i] >= x.shape[2 + i] + pads[i]:
                last -= 1
            over[i] = max(last * stride[i] - span, 0)
    top, left, bottom, right = pads
    image = torch.ones_like(x[:1, :1])
    cells = pad(image, (left, right, top, bottom), value=float(attributes.get("count_include_pad", 0)))
    cells = pad(cells, (0, over[1], 0, over[0]))
    return (
        pad(x, (left, right + over[1], top, bottom + over[0]), value=fill),
        cells,
        kernel,
        stride,
        dilation,
        (top, left),
    )


def direct_padding(attributes: Attributes) -> tuple[int, int] | None:
    """The padding as torch's pools take it: even, and at most half of the kernel; None if it is not."""
    pads, kernel = attributes.get("pads", (0, 0, 0, 0)), attributes["kernel_shape"]
    auto = attributes.get("auto_pad", b"NOTSET").decode()
    even = auto in ("NOTSET", "VALID") and list(pads[:2]) == list(pads[2:])
    return (
        tuple(pads[:2]) if even and all(p <= k // 2 for p, k in zip(pads[:2], kernel, strict=True)) else None
    )


def max_pool(attributes: Attributes, x: Tensor) -> tuple[Tensor, Tensor]:
    images_only(x)
    dtype = x.dtype
    if not x.is_floating_point():
        x = x.float()  # exact for 8 bits, the only integers that ONNX's MaxPool takes
    function = cisdl_ops.max_pool2d
    padding = direct_padding(attributes)
    if padding is not None:
        y, index = function(
            x,
            attributes["kernel_shape"],
            pair(attributes, "strides"),
            padding,
            pair(attributes, "dilations"),
            bool(attributes.get("ceil_mode", 0)),
            return_indices=True,
        )
    else:
        padded, _, kernel, stride, dilation, (top, left) = padded_for_windows(attributes, x, -math.inf)
        y, index = function(padded, kernel, stride, 0, dilation, return_indices=True)
        row, column = index // padded.shape[3] - top, index % padded.shape[3] - left
        index = row * x.shape[3] + column
    if attributes.get("storage_order", 0):
        index = index % x.shape[3] * x.shape[2] + index // x.shape[3]
    plane = torch.arange(x.shape[0] * x.shape[1]).reshape(*x.shape[:2], 1, 1)
    return y.to(dtype), index + plane * x.shape[2] * x.shape[3]


def average_pool(attributes: Attributes, x: Tensor) -> tuple[Tensor]:
    images_only(x)
    padding = direct_padding(attributes)
    if padding is not None and pair(attributes, "dilations") == [1, 1]:
        return (
            cisdl_ops.avg_pool2d(
                x,
                attributes["kernel_shape"],
                pair(attributes, "strides"),
                padding,
                bool(attributes.get("ceil_mode", 0)),
                bool(attributes.get("count_include_pad", 0)),
            ),
        )
    padded, cells, kernel, stride, dilation, _ = padded_for_windows(attributes, x, 0.0)
    if dilation == [1, 1]:

        def total(t: Tensor) -> Tensor:
            return cisdl_ops.avg_pool2d(t, kernel, stride, divisor_override=1)  # type: ignore[no-any-return]
    else:  # a window with holes is a depthwise convolution with ones

        def total(t: Tensor) -> Tensor:
            ones = torch.ones(t.shape[1], 1, *kernel)
            return cisdl_ops.conv2d(t, ones, None, stride, 0, dilation, t.shape[1])  # type: ignore[no-any-return]

    return (total(padded) / total(cells),)


def global_average_pool(attributes: Attributes, x: Tensor) -> tuple[Tensor]:
    images_only(x)
    return (cisdl_ops.adaptive_avg_pool2d(x, 1),)


def global_max_pool(attributes: Attributes, x: Tensor) -> tuple[Tensor]:
    images_only(x)
    return (cisdl_ops.adaptive_max_pool2d(x, 1),)


NODES: dict[str, Callable[..., tuple[Tensor, ...]]] = {
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "MaxPool": max_pool,
    "AveragePool": average_pool,
    "GlobalAveragePool": global_average_pool,
    "GlobalMaxPool": global_max_pool,
    "LSTM": onnx_recurrent.lstm,
    "GRU": onnx_recurrent.gru,
    "RNN": onnx_recurrent.rnn,
}
