"""Output shapes in Python's unbounded integers: what is valid where 64 bits overflow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.conformance.fuzz_arguments import Arguments


class Invalid(Exception):
    """The arguments have no result."""


def two(value: Any) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    return (value[0], value[0]) if len(value) == 1 else (value[0], value[1])


def at_least(least: int, *pairs: tuple[int, int]) -> None:
    if any(number < least for pair in pairs for number in pair):
        raise Invalid


def image_shape(arguments: Arguments, channels: int, size: list[int]) -> tuple[int, ...]:
    return (*arguments["input"].shape[:-3], channels, *size)


def conv2d(a: Arguments) -> tuple[int, ...]:
    stride, dilation, weight = two(a["stride"]), two(a["dilation"]), a["weight"].shape
    at_least(1, stride, dilation, (a["groups"], 1))
    channels = a["input"].shape[-3]
    if channels != weight[1] * a["groups"] or weight[0] % a["groups"]:
        raise Invalid
    if a["padding"] == "same":
        if stride != (1, 1):
            raise Invalid
        total = [d * (k - 1) for d, k in zip(dilation, weight[2:], strict=True)]
    else:
        padding = (0, 0) if a["padding"] == "valid" else two(a["padding"])
        at_least(0, padding)
        total = [2 * p for p in padding]
    size = []
    for n, k, s, d, p in zip(a["input"].shape[-2:], weight[2:], stride, dilation, total, strict=True):
        span = n + p - d * (k - 1) - 1
        if span < 0:
            raise Invalid
        size.append(span // s + 1)
    return image_shape(a, weight[0], size)


def conv_transpose2d(a: Arguments) -> tuple[int, ...]:
    stride, dilation, padding, extra = (
        two(a[name]) for name in ("stride", "dilation", "padding", "output_padding")
    )
    at_least(1, stride, dilation, (a["groups"], 1))
    at_least(0, padding, extra)
    weight = a["weight"].shape
    if a["input"].shape[-3] != weight[0] or weight[0] % a["groups"]:
        raise Invalid
    size = []
    for n, k, s, d, p, e in zip(
        a["input"].shape[-2:], weight[2:], stride, dilation, padding, extra, strict=True
    ):
        if e >= max(s, d):
            raise Invalid
        size.append((n - 1) * s - 2 * p + d * (k - 1) + e + 1)
    if min(size) < 1:
        raise Invalid
    return image_shape(a, weight[1] * a["groups"], size)


def pool2d(a: Arguments) -> tuple[int, ...]:
    kernel, padding, dilation = two(a["kernel_size"]), two(a["padding"]), two(a.get("dilation", 1))
    stride = kernel if a["stride"] is None else two(a["stride"])
    at_least(1, kernel, stride, dilation)
    at_least(0, padding)
    if a.get("divisor_override") == 0:
        raise Invalid
    size = []
    for n, k, s, p, d in zip(a["input"].shape[-2:], kernel, stride, padding, dilation, strict=True):
        reach = d * (k - 1) + 1
        span = n + 2 * p - reach
        if p > k // 2 or span + (s - 1 if a["ceil_mode"] else 0) < 0:
            raise Invalid
        count = -(-span // s) + 1 if a["ceil_mode"] else span // s + 1
        if a["ceil_mode"] and (count - 1) * s >= n + p:
            count -= 1
        size.append(count)
    return image_shape(a, a["input"].shape[-3], size)


def adaptive_pool2d(a: Arguments) -> tuple[int, ...]:
    size = a["output_size"]
    pair = (size, size) if size is None or isinstance(size, int) else size
    if any(number is not None and number < 0 for number in pair):
        raise Invalid
    height, width = (n if one is None else one for one, n in zip(pair, a["input"].shape[-2:], strict=True))
    return image_shape(a, a["input"].shape[-3], [height, width])


SHAPES: dict[str, Callable[[Arguments], tuple[int, ...]]] = {
    "conv2d": conv2d,
    "conv_transpose2d": conv_transpose2d,
    "max_pool2d": pool2d,
    "avg_pool2d": pool2d,
    "adaptive_avg_pool2d": adaptive_pool2d,
    "adaptive_max_pool2d": adaptive_pool2d,
}


def expected_shape(op: str, arguments: Arguments) -> tuple[int, ...] | None:
    """The shape of the (first) output, or None for arguments that have none."""
    try:
        return SHAPES[op](arguments)
    except Invalid:
        return None
