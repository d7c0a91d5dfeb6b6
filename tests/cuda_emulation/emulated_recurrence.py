"""All steps of a recurrent layer on the emulated GPU, and the same by formula.

Both begin with what the product with W_ih gives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from .emulated_steps import given
from .machine import Machine

# RecurrentCell of recurrences.h, its gates, and whether backward is told what it kept.
CELLS = {"lstm": 0, "gru": 1, "rnn_tanh": 2, "rnn_relu": 2}
GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


@dataclass(frozen=True)
class Layer:
    """A layer in one direction: the kind of cell, and its sequences, the longest first."""

    cell: str
    hidden: int
    lengths: tuple[int, ...]
    reverse: bool = False
    bias: bool = True

    @property
    def id(self) -> str:
        direction = "_reverse" if self.reverse else ""
        return f"{self.cell}_h{self.hidden}_b{len(self.lengths)}_t{self.lengths[0]}{direction}"

    @property
    def packed(self) -> bool:
        return self.lengths[-1] != self.lengths[0]

    @property
    def rows(self) -> int:
        return sum(self.lengths)

    @property
    def order(self) -> list[tuple[int, int]]:
        """Of each step, as forward takes them: its first row, and how many."""
        order, begin = [], 0
        for time in range(self.lengths[0]):
            count = sum(length > time for length in self.lengths)
            order.append((begin, count))
            begin += count
        return order[::-1] if self.reverse else order

    @property
    def numbers(self) -> tuple[int, ...]:
        """As entry_points.cpp reads them."""
        sizes = (len(self.lengths), self.hidden, self.lengths[0], self.rows, self.reverse, self.packed)
        lengths = self.lengths if self.packed else ()
        return (CELLS[self.cell], self.cell == "rnn_relu", *sizes, *lengths)

    def inputs(self, dtype: torch.dtype, seed: int = 0) -> dict[str, Tensor]:
        """Leaves: x_part, hx, cx of an LSTM, w_hh and b_hh."""
        generator = torch.Generator().manual_seed(seed)
        units, batch = GATES[self.cell] * self.hidden, len(self.lengths)

        def random(*shape: int, scale: float = 1.0) -> Tensor:
            return (scale * torch.randn(shape, generator=generator)).to(dtype).requires_grad_()

        tensors = {"x_part": random(self.rows, units), "hx": random(batch, self.hidden)}
        if self.cell == "lstm":
            tensors["cx"] = random(batch, self.hidden)
        tensors["w_hh"] = random(units, self.hidden, scale=self.hidden**-0.5)
        if self.bias:
            tensors["b_hh"] = random(units)
        return tensors


def by_formula(layer: Layer, tensors: dict[str, Tensor]) -> tuple[Tensor, ...]:
    """output, h_n and, of an LSTM, c_n."""
    h, c = tensors["hx"], tensors.get("cx")
    outputs = {}
    for begin, count in layer.order:
        x = tensors["x_part"][begin : begin + count].chunk(GATES[layer.cell], -1)
        part = linear(h[:count], tensors["w_hh"], tensors.get("b_hh")).chunk(GATES[layer.cell], -1)
        if layer.cell == "lstm":
            assert c is not None
            i, f, g, o = (one + other for one, other in zip(x, part, strict=True))
            cell = f.sigmoid() * c[:count] + i.sigmoid() * g.tanh()
            c = torch.cat([cell, c[count:]])
            new = o.sigmoid() * cell.tanh()
        elif layer.cell == "gru":
            r, z = (x[0] + part[0]).sigmoid(), (x[1] + part[1]).sigmoid()
            new = (1 - z) * (x[2] + r * part[2]).tanh() + z * h[:count]
        else:
            new = getattr(torch, layer.cell.removeprefix("rnn_"))(x[0] + part[0])
        h = torch.cat([new, h[count:]])
        outputs[begin] = new
    output = torch.cat([outputs[begin] for begin in sorted(outputs)])
    return (output, h) if c is None else (output, h, c)


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        machine: Machine,
        layer: Layer,
        tf32: bool,
        x_part: Tensor,
        hx: Tensor,
        cx: Tensor | None,
        w_hh: Tensor,
        b_hh: Tensor | None,
    ) -> tuple[Tensor | None, ...]:
        # What was in memory before must not matter: not NaN, as in fresh memory.
        output = x_part.new_zeros(layer.rows, layer.hidden)
        h_n, c_n = torch.empty_like(hx), None if cx is None else torch.empty_like(cx)
        keeps = any(ctx.needs_input_grad) and GATES[layer.cell] > 1
        gates, kept = given(keeps, x_part), given(keeps, output)
        machine.run(
            "recurrence_forward",
            layer.numbers,
            [x_part, hx, cx, w_hh, b_hh],
            [h_n, c_n, gates, kept],
            updated=[output],
            tf32=tf32,
        )
        ctx.machine, ctx.layer, ctx.tf32, ctx.biased = machine, layer, tf32, b_hh is not None
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(hx, w_hh, output, gates, kept)
        return output, h_n, c_n

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        hx, w_hh, output, gates, kept = ctx.saved_tensors
        layer, wanted = ctx.layer, ctx.needs_input_grad[3:]
        grad_h_part = output.new_zeros(layer.rows, w_hh.shape[0])
        grad_x_part = given(layer.cell == "gru", grad_h_part)
        h_before = given(wanted[3], output)
        grad_hx, grad_cx = given(wanted[1], hx), given(wanted[2], hx)
        ctx.machine.run(
            "recurrence_backward",
            layer.numbers,
            [*grads, w_hh, hx, output, gates, kept],
            [grad_x_part, h_before, grad_hx, grad_cx],
            updated=[grad_h_part],
            tf32=ctx.tf32,
        )
        grad_w_hh = None if h_before is None else (grad_h_part.float().T @ h_before.float()).to(w_hh.dtype)
        grad_b_hh = grad_h_part.float().sum(0).to(w_hh.dtype) if ctx.biased else None
        grad_x = grad_h_part if grad_x_part is None else grad_x_part
        return None, None, None, grad_x, grad_hx, grad_cx, grad_w_hh, grad_b_hh


def emulated(
    machine: Machine, layer: Layer, tensors: dict[str, Tensor], tf32: bool = False
) -> tuple[Tensor, ...]:
    names = ("x_part", "hx", "cx", "w_hh", "b_hh")
    results = _Recurrence.apply(machine, layer, tf32, *(tensors.get(name) for name in names))  # type: ignore[no-untyped-call]
    return tuple(result for result in results if result is not None)
