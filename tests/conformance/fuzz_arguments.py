"""What the fuzzer calls the ops with: hypothesis strategies for good, bad and absurd arguments.

A tensor is drawn as a :class:`TensorSpec`, whose repr is short and says everything: the log names a call that
crashed the process in one line.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from tests.ops.samples import samples

Arguments = dict[str, Any]
Draw = Callable[[st.SearchStrategy[Any]], Any]

DTYPES = (torch.float32, torch.float64)
OTHER_DTYPES = (torch.int64, torch.uint8, torch.bool, torch.complex64, torch.float8_e5m2)
# Real memory seen in a legal but unusual way; ours must give what torch gives.
VIEWS = ("contiguous", "transposed", "strided", "offset", "expanded", "channels_last", "negative", "zero")
# Not plain CPU memory: to be refused.
STRANGE = ("meta", "sparse", "mkldnn")
HUGE = (2**31 - 1, 2**31, 2**32, 2**61, 2**62, 2**63 - 1, 2**63, 2**64 + 1)


@dataclass(frozen=True)
class TensorSpec:
    """Standard normal values (the same for the same spec) in a shape, a dtype and a kind of memory."""

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    view: str = "contiguous"
    grad: bool = False

    def make(self) -> Tensor:
        generator = torch.Generator().manual_seed(prod(self.shape) + len(self.shape))
        values = torch.randn(self.shape, generator=generator).to(self.dtype)
        return _SEEN_AS[self.view](values).requires_grad_(self.grad and self.dtype.is_floating_point)


def _strided(t: Tensor) -> Tensor:
    return t.repeat_interleave(2, -1)[..., ::2] if t.dim() else t


def _offset(t: Tensor) -> Tensor:
    return torch.cat([t.new_zeros(1), t.flatten()])[1:].view(t.shape)


def _expanded(t: Tensor) -> Tensor:
    return t[:1].expand(t.shape) if t.dim() else t


def _channels_last(t: Tensor) -> Tensor:
    return t.contiguous(memory_format=torch.channels_last) if t.dim() == 4 else t


def _negative(t: Tensor) -> Tensor:
    """The negative bit is set: memory holds the values with the other sign."""
    return torch._neg_view(-t) if t.dtype.is_floating_point else t


_SEEN_AS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda t: t,
    "transposed": lambda t: t.transpose(0, -1).contiguous().transpose(0, -1) if t.dim() else t,
    "strided": _strided,
    "offset": _offset,
    "expanded": _expanded,
    "channels_last": _channels_last,
    "negative": _negative,
    "zero": lambda t: torch._efficientzerotensor(t.shape, dtype=t.dtype),
    "meta": lambda t: t.to("meta"),
    "sparse": lambda t: t.to_sparse() if t.dim() else t,
    "mkldnn": lambda t: t.to_mkldnn() if t.dtype == torch.float32 else t,
}


def make(value: Any) -> Any:
    """``value`` with its specs made tensors."""
    if isinstance(value, TensorSpec):
        return value.make()
    if isinstance(value, dict):
        return {key: make(one) for key, one in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(make(one) for one in value)
    return value


# ------------------------------------------------------------------------------------------- good arguments


def integers(low: int, high: int) -> st.SearchStrategy[int]:
    return st.integers(low, high)


def pair(low: int, high: int) -> st.SearchStrategy[Any]:
    one = integers(low, high)
    return st.one_of(one, st.tuples(one, one), st.tuples(one), st.lists(one, min_size=2, max_size=2))


def tensor(draw: Draw, shape: tuple[int, ...], dtype: torch.dtype) -> TensorSpec:
    return TensorSpec(shape, dtype, draw(st.sampled_from(VIEWS)), draw(st.booleans()))


def image(draw: Draw, channels: int, dtype: torch.dtype) -> TensorSpec:
    size = (draw(integers(0, 9)), draw(integers(0, 9)))
    batch = () if draw(st.booleans()) else (draw(integers(0, 3)),)
    return tensor(draw, (*batch, channels, *size), dtype)


def optional_tensor(draw: Draw, shape: tuple[int, ...], dtype: torch.dtype) -> TensorSpec | None:
    return tensor(draw, shape, dtype) if draw(st.booleans()) else None


def linear(draw: Draw, dtype: torch.dtype) -> Arguments:
    lead = tuple(draw(st.lists(integers(0, 4), max_size=3)))
    features, out = draw(integers(0, 9)), draw(integers(0, 9))
    return {
        "input": tensor(draw, (*lead, features), dtype),
        "weight": tensor(draw, (out, features), dtype),
        "bias": optional_tensor(draw, (out,), dtype),
    }


def conv2d(draw: Draw, dtype: torch.dtype) -> Arguments:
    groups, channels, out = draw(integers(1, 3)), draw(integers(0, 3)), draw(integers(0, 3))
    kernel = (draw(integers(1, 4)), draw(integers(1, 4)))
    named = st.sampled_from(["same", "valid"])
    return {
        "input": image(draw, channels * groups, dtype),
        "weight": tensor(draw, (out * groups, channels, *kernel), dtype),
        "bias": optional_tensor(draw, (out * groups,), dtype),
        "stride": draw(pair(1, 4)),
        "padding": draw(st.one_of(pair(0, 4), named)),
        "dilation": draw(pair(1, 3)),
        "groups": groups,
    }


def conv_transpose2d(draw: Draw, dtype: torch.dtype) -> Arguments:
    groups, channels, out = draw(integers(1, 3)), draw(integers(0, 3)), draw(integers(0, 3))
    kernel = (draw(integers(1, 4)), draw(integers(1, 4)))
    return {
        "input": image(draw, channels * groups, dtype),
        "weight": tensor(draw, (channels * groups, out, *kernel), dtype),
        "bias": optional_tensor(draw, (out * groups,), dtype),
        "stride": draw(pair(1, 4)),
        "padding": draw(pair(0, 3)),
        "output_padding": draw(pair(0, 3)),
        "groups": groups,
        "dilation": draw(pair(1, 3)),
    }


def max_pool2d(draw: Draw, dtype: torch.dtype) -> Arguments:
    return {
        "input": image(draw, draw(integers(0, 4)), dtype),
        "kernel_size": draw(pair(1, 4)),
        "stride": draw(st.one_of(st.none(), pair(1, 4))),
        "padding": draw(pair(0, 2)),
        "dilation": draw(pair(1, 3)),
        "ceil_mode": draw(st.booleans()),
        "return_indices": draw(st.booleans()),
    }


def avg_pool2d(draw: Draw, dtype: torch.dtype) -> Arguments:
    return {
        "input": image(draw, draw(integers(0, 4)), dtype),
        "kernel_size": draw(pair(1, 4)),
        "stride": draw(st.one_of(st.none(), pair(1, 4))),
        "padding": draw(pair(0, 2)),
        "ceil_mode": draw(st.booleans()),
        "count_include_pad": draw(st.booleans()),
        "divisor_override": draw(st.one_of(st.none(), integers(-3, 5))),
    }


def adaptive_pool(draw: Draw, dtype: torch.dtype) -> Arguments:
    one = st.one_of(st.none(), integers(0, 6))
    return {
        "input": image(draw, draw(integers(0, 4)), dtype),
        "output_size": draw(st.one_of(integers(0, 6), st.tuples(one, one))),
    }


def cell(gates: int, draw: Draw, dtype: torch.dtype) -> Arguments:
    batch, inputs, hidden = draw(integers(0, 4)), draw(integers(0, 6)), draw(integers(0, 6))
    rows, bias = gates * hidden, draw(st.booleans())
    state = tensor(draw, (batch, hidden), dtype)
    return {
        "input": tensor(draw, (batch, inputs), dtype),
        "hx": (state, tensor(draw, (batch, hidden), dtype)) if gates == 4 else state,
        "w_ih": tensor(draw, (rows, inputs), dtype),
        "w_hh": tensor(draw, (rows, hidden), dtype),
        "b_ih": tensor(draw, (rows,), dtype) if bias else None,
        "b_hh": tensor(draw, (rows,), dtype) if bias else None,
    }


GOOD: dict[str, Callable[[Draw, torch.dtype], Arguments]] = {
    "linear": linear,
    "conv2d": conv2d,
    "conv_transpose2d": conv_transpose2d,
    "max_pool2d": max_pool2d,
    "avg_pool2d": avg_pool2d,
    "adaptive_avg_pool2d": adaptive_pool,
    "adaptive_max_pool2d": adaptive_pool,
    "lstm_cell": lambda draw, dtype: cell(4, draw, dtype),
    "gru_cell": lambda draw, dtype: cell(3, draw, dtype),
    "rnn_tanh_cell": lambda draw, dtype: cell(1, draw, dtype),
    "rnn_relu_cell": lambda draw, dtype: cell(1, draw, dtype),
}


@st.composite
def good(draw: Draw, op: str) -> Arguments:
    """Most such calls are valid; sizes may still not fit each other."""
    return GOOD[op](draw, draw(st.sampled_from(DTYPES)))


# -------------------------------------------------------------------------------------- spoiled arguments


def other_shape(draw: Draw, shape: tuple[int, ...]) -> tuple[int, ...]:
    kind = draw(st.sampled_from(["drop", "add", "larger", "empty", "scalar"]))
    if kind == "scalar" or not shape:
        return ()
    place = draw(integers(0, len(shape) - 1))
    before, after = shape[:place], shape[place + 1 :]
    if kind == "drop":
        return (*before, *after)
    if kind == "add":
        return (*before, draw(integers(1, 2)), shape[place], *after)
    return (*before, 0 if kind == "empty" else shape[place] + draw(integers(1, 3)), *after)


def spoil_tensor(draw: Draw, spec: TensorSpec) -> Any:
    kind = draw(st.sampled_from(["shape", "dtype", "strange", "nothing", "not a tensor"]))
    if kind == "shape":
        return replace(spec, shape=other_shape(draw, spec.shape), view="contiguous")
    if kind == "dtype":
        others = (*OTHER_DTYPES, *DTYPES)
        return replace(spec, dtype=draw(st.sampled_from(others)), view="contiguous", grad=False)
    if kind == "strange":
        return replace(spec, view=draw(st.sampled_from(STRANGE)), grad=False)
    return None if kind == "nothing" else draw(st.sampled_from([3, 1.5, "x", [[1.0]]]))


BAD_NUMBERS = (
    0,
    -1,
    -3,
    True,
    1.5,
    "x",
    "full",
    (),
    (1, 2, 3),
    (0, 1),
    (1, -1),
    (1.5, 1),
    (None, 1),
    [[1, 1]],
    {},
)


def spoil(draw: Draw, value: Any) -> Any:
    if isinstance(value, TensorSpec):
        return spoil_tensor(draw, value)
    if isinstance(value, tuple) and value and isinstance(value[0], TensorSpec):  # a pair of states
        place = draw(integers(0, len(value)))
        if place == len(value):
            return draw(st.sampled_from([(), value[:1], value * 2, None, value[0]]))
        return (*value[:place], spoil_tensor(draw, value[place]), *value[place + 1 :])
    return draw(st.sampled_from(BAD_NUMBERS))


@st.composite
def spoiled(draw: Draw, op: str) -> Arguments:
    """A good call with one or two arguments replaced."""
    arguments = dict(draw(good(op)))
    for name in draw(st.lists(st.sampled_from(sorted(arguments)), min_size=1, max_size=2, unique=True)):
        arguments[name] = spoil(draw, arguments[name])
    return arguments


def absurd_number(draw: Draw, base: int) -> int:
    """Near ``base``: so that a kernel fits its padding, a stride its image, and both are huge."""
    near = (base, base - 1, base + 1, 2 * base, 2 * base + 1, base // 2, -base, 1, 2, 3)
    return draw(st.sampled_from(near))  # type: ignore[no-any-return]


def absurd_value(draw: Draw, value: Any, base: int) -> Any:
    """Integers for integers, as many of them."""
    if isinstance(value, (tuple, list)):
        return type(value)(absurd_number(draw, base) for _ in value)
    return absurd_number(draw, base)


def has_numbers(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(has_numbers(one) for one in value)
    return value is None or (isinstance(value, int) and not isinstance(value, bool))


@st.composite
def absurd(draw: Draw, op: str) -> Arguments:
    """A good call with integers that overflow 32 or 64 bits, alone or in sums and products."""
    arguments = dict(draw(good(op)))
    names = sorted(name for name, value in arguments.items() if name != "bias" and has_numbers(value))
    base = draw(st.sampled_from(HUGE))
    for name in draw(st.lists(st.sampled_from(names), min_size=1, unique=True)):
        arguments[name] = absurd_value(draw, arguments[name], base)
    return arguments


@st.composite
def operator(draw: Draw, op: str) -> Arguments:
    """A sample of some ``torch.ops.cisdl.*``, backward ones included, with up to three arguments replaced.

    The operator's name is the argument ``operator``; ``op`` is ``"*"``.
    """
    sample = draw(st.sampled_from(samples()))
    arguments = {
        name: TensorSpec(tuple(value.shape), value.dtype) if isinstance(value, Tensor) else value
        for name, value in sample.arguments.items()
    }
    base = draw(st.sampled_from(HUGE))
    for name in draw(st.lists(st.sampled_from(sorted(arguments)), max_size=3, unique=True)):
        value = arguments[name]
        if has_numbers(value) and draw(st.booleans()):
            arguments[name] = absurd_value(draw, value, base)
        else:
            arguments[name] = spoil(draw, value)
    return {"operator": sample.op, **arguments}


# The ops with integers among their arguments.
WITH_NUMBERS = tuple(op for op in GOOD if op.endswith("2d"))
