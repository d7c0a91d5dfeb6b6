"""ONNX's LSTM, GRU and RNN on our sequence layers.

ONNX orders the gates i, o, f, c and z, r, h; torch i, f, c, o and r, z, h. A reverse layer is the second half
of a bidirectional one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import cisdl_ops

Attributes = dict[str, Any]

LSTM_ORDER = (0, 2, 3, 1)
GRU_ORDER = (1, 0, 2)
RNN_ORDER = (0,)


class NotExpressible(Exception):
    """ONNX defines something that torch's signatures, and so ours, cannot say; the words are the reason."""


def lstm(
    attributes: Attributes,
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    sequence_lens: Tensor | None = None,
    initial_h: Tensor | None = None,
    initial_c: Tensor | None = None,
    peepholes: Tensor | None = None,
) -> tuple[Tensor, ...]:
    refuse_variants(attributes, [b"Sigmoid", b"Tanh", b"Tanh"])
    if attributes.get("input_forget", 0):
        raise NotExpressible("torch's LSTM has no coupled input and forget gates (input_forget)")
    if peepholes is not None and bool(peepholes.any()):
        raise NotExpressible("torch's LSTM has no peepholes")
    return layer("LSTM", LSTM_ORDER, attributes, x, w, r, b, sequence_lens, (initial_h, initial_c))


def gru(
    attributes: Attributes,
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    sequence_lens: Tensor | None = None,
    initial_h: Tensor | None = None,
) -> tuple[Tensor, ...]:
    refuse_variants(attributes, [b"Sigmoid", b"Tanh"])
    if not attributes.get("linear_before_reset", 0):
        # The reset gate then multiplies the state before the matrix product, not its result. Both are zero in
        # the first step from a zero state, where only the recurrent bias is left: it moves to the other bias.
        steps = x.shape[1 if attributes.get("layout", 0) else 0]
        if steps > 1 or initial_h is not None:
            raise NotExpressible("torch's GRU resets after the matrix product (linear_before_reset=1)")
        if b is not None:
            b = b.clone().reshape(b.shape[0], 6, -1)
            b[:, 2] += b[:, 5]
            b[:, 5] = 0
            b = b.flatten(1)
    return layer("GRU", GRU_ORDER, attributes, x, w, r, b, sequence_lens, (initial_h,))


def rnn(
    attributes: Attributes,
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    sequence_lens: Tensor | None = None,
    initial_h: Tensor | None = None,
) -> tuple[Tensor, ...]:
    relu = set(attributes.get("activations", ())) == {b"Relu"}
    refuse_variants(attributes, [b"Relu" if relu else b"Tanh"])
    nonlinearity = "relu" if relu else "tanh"
    return layer(
        "RNN", RNN_ORDER, attributes, x, w, r, b, sequence_lens, (initial_h,), nonlinearity=nonlinearity
    )


def refuse_variants(attributes: Attributes, activations: list[bytes]) -> None:
    given = attributes.get("activations")
    if given is not None and list(given) != activations * (len(given) // len(activations)):
        raise NotExpressible("torch's recurrent layers have fixed activations")
    if "clip" in attributes:
        raise NotExpressible("torch's recurrent layers do not clip before the activations")


def layer(
    name: str,
    order: tuple[int, ...],
    attributes: Attributes,
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None,
    sequence_lens: Tensor | None,
    states: tuple[Tensor | None, ...],
    **options: Any,
) -> tuple[Tensor, ...]:
    """(Y, Y_h) or (Y, Y_h, Y_c) of one layer with ONNX's weights."""
    direction = attributes.get("direction", b"forward").decode()
    batch_first, hidden = bool(attributes.get("layout", 0)), r.shape[2]
    batch = x.shape[0 if batch_first else 1]
    module = getattr(cisdl_ops.nn, name)(
        x.shape[2], hidden, batch_first=batch_first, bidirectional=direction != "forward", **options
    ).to(x.dtype)

    def by_gate(rows: Tensor) -> Tensor:
        return torch.cat([rows.chunk(len(order))[gate] for gate in order])

    b = w.new_zeros(w.shape[0], 2 * w.shape[1]) if b is None else b
    zeros = [torch.zeros_like(part[0]) for part in (w, r, b)]
    directions = [(w[d], r[d], b[d]) for d in range(w.shape[0])]
    if direction == "reverse":
        directions = [(zeros[0], zeros[1], zeros[2]), *directions]
    with torch.no_grad():
        for suffix, (w_ih, w_hh, both) in zip(("", "_reverse"), directions, strict=False):
            b_ih, b_hh = both.chunk(2)
            for parameter, rows in (
                ("weight_ih", w_ih),
                ("weight_hh", w_hh),
                ("bias_ih", b_ih),
                ("bias_hh", b_hh),
            ):
                getattr(module, f"{parameter}_l0{suffix}").copy_(by_gate(rows))

    def state(given: Tensor | None) -> Tensor:
        if given is None:
            return x.new_zeros(len(directions), batch, hidden)
        moved = given.transpose(0, 1) if batch_first else given
        return torch.cat([torch.zeros_like(moved), moved]) if direction == "reverse" else moved

    initial = tuple(state(one).contiguous() for one in states)
    start = initial if len(initial) > 1 else initial[0]
    if sequence_lens is None:
        y, final = module(x, start)
    else:
        packed = pack_padded_sequence(x, sequence_lens, batch_first=batch_first, enforce_sorted=False)
        y, final = module(packed, start)
        y, _ = pad_packed_sequence(y, batch_first=batch_first, total_length=x.shape[1 if batch_first else 0])

    y = y.unflatten(2, (len(directions), hidden))
    if not batch_first:
        y = y.transpose(1, 2)  # [seq, directions, batch, hidden]
    finals = final if isinstance(final, tuple) else (final,)
    if direction == "reverse":
        y, finals = y[:, :, 1:] if batch_first else y[:, 1:], tuple(one[1:] for one in finals)
    return (y, *(one.transpose(0, 1) if batch_first else one for one in finals))
