"""The steps of recurrent layers on the emulated GPU, as cells: two products, then the elementwise part.

In 16 bits a cell's forward is one problem for tensor cores, which give no gates in inference.

The gradient of h' arrives in parts, as it does in the middle of a layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .machine import Machine


def given(wanted: bool, like: Tensor) -> Tensor | None:
    return torch.empty_like(like) if wanted else None


def _products(machine: Machine, input: Tensor, hx: Tensor, *weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """x W_ih^T + b_ih and h W_hh^T + b_hh, with which a step begins."""
    w_ih, w_hh, b_ih, b_hh = weights
    parts = []
    for x, weight, bias in ((input, w_ih, b_ih), (hx, w_hh, b_hh)):
        assert weight is not None
        part = x.new_empty(x.shape[0], weight.shape[0])
        machine.run("linear_forward", (x.shape[0], *reversed(weight.shape)), [x, weight, bias], [part])
        parts.append(part)
    return parts[0], parts[1]


def _product_gradients(
    machine: Machine,
    wanted: Sequence[bool],
    tensors: Sequence[Tensor],
    grad_x_part: Tensor,
    grad_h_part: Tensor,
) -> list[Tensor | None]:
    """What follows from the gradients of the two products, for input, hx, w_ih, w_hh, b_ih, b_hh."""
    input, hx, w_ih, w_hh = tensors
    grads: list[Tensor | None] = [None] * 6
    for i, x, weight, grad in ((0, input, w_ih, grad_x_part), (1, hx, w_hh, grad_h_part)):
        sizes = (x.shape[0], *reversed(weight.shape))
        grads[i] = given(wanted[i], x)
        grads[2 + i] = given(wanted[2 + i], weight)
        grads[4 + i] = given(wanted[4 + i], weight.new_empty(weight.shape[0]))
        if wanted[i]:
            machine.run("linear_backward_input", sizes, [grad, weight], [grads[i]])
        if wanted[2 + i] or wanted[4 + i]:
            data = x if wanted[2 + i] else None
            machine.run("linear_backward_weight", sizes, [grad, data], [grads[2 + i], grads[4 + i]])
    return grads


def _cell_sizes(input: Tensor, hx: Tensor) -> tuple[int, int, int]:
    """CellProblem."""
    return (input.shape[0], input.shape[1], hx.shape[1])


class GruCell(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, machine: Machine, *tensors: Tensor | None) -> Tensor:
        input, hx, w_ih, w_hh, b_ih, b_hh = tensors
        assert input is not None
        assert hx is not None
        h, output = torch.empty_like(hx), torch.empty_like(hx)
        training = any(ctx.needs_input_grad)
        h_part_n = given(training, hx)
        gates: Tensor | None
        if hx.element_size() == 2:
            gates = given(training, hx.new_empty(hx.shape[0], 3 * hx.shape[1]))
            machine.run("gru_cell_forward", _cell_sizes(input, hx), tensors, [h, gates, h_part_n])
        else:
            gates, h_part = _products(machine, input, hx, w_ih, w_hh, b_ih, b_hh)
            machine.run("gru_step_forward", hx.shape, [h_part, hx], [h, output, h_part_n], updated=[gates])
            assert torch.equal(h, output)
        ctx.machine = machine
        ctx.save_for_backward(input, hx, w_ih, w_hh, gates, h_part_n)
        return h

    @staticmethod
    def backward(ctx: Any, grad_h: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, gates, h_part_n = ctx.saved_tensors
        hx = inputs[1]
        parts = [0.5 * grad_h, 0.25 * grad_h]
        grad_state = 0.25 * grad_h
        grad_x_part, grad_h_part = torch.empty_like(gates), torch.empty_like(gates)
        ctx.machine.run(
            "gru_step_backward",
            hx.shape,
            [*parts, gates, h_part_n, hx],
            [grad_x_part, grad_h_part],
            updated=[grad_state],
        )
        wanted = ctx.needs_input_grad[1:]
        grads = _product_gradients(ctx.machine, wanted, inputs, grad_x_part, grad_h_part)
        if grads[1] is not None:
            grads[1] = grads[1] + grad_state
        return None, *grads


class RnnCell(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, machine: Machine, nonlinearity: int, *tensors: Tensor | None) -> Tensor:
        input, hx, w_ih, w_hh, b_ih, b_hh = tensors
        assert input is not None
        assert hx is not None
        h, output = torch.empty_like(hx), torch.empty_like(hx)
        ctx.machine, ctx.numbers = machine, (*hx.shape, nonlinearity)
        if hx.element_size() == 2:
            machine.run("rnn_cell_forward", (*_cell_sizes(input, hx), nonlinearity), tensors, [h])
        else:
            parts = _products(machine, input, hx, w_ih, w_hh, b_ih, b_hh)
            machine.run("rnn_step_forward", ctx.numbers, parts, [h, output])
            assert torch.equal(h, output)
        ctx.save_for_backward(input, hx, w_ih, w_hh, h)
        return h

    @staticmethod
    def backward(ctx: Any, grad_h: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, h = ctx.saved_tensors
        grad = torch.empty_like(h)
        parts = [0.75 * grad_h, 0.25 * grad_h]
        ctx.machine.run("rnn_step_backward", ctx.numbers, [*parts, h], [grad])
        return None, None, *_product_gradients(ctx.machine, ctx.needs_input_grad[2:], inputs, grad, grad)


class LstmStep(torch.autograd.Function):
    """The LSTM cell as a step of a layer: the products apart, then the elementwise part."""

    @staticmethod
    def forward(ctx: Any, machine: Machine, *tensors: Tensor | None) -> tuple[Tensor, Tensor]:
        input, hx, cx, w_ih, w_hh, b_ih, b_hh = tensors
        assert input is not None
        assert hx is not None
        assert cx is not None
        gates, h_part = _products(machine, input, hx, w_ih, w_hh, b_ih, b_hh)
        h, output, c = torch.empty_like(hx), torch.empty_like(hx), cx.clone()
        c_before = given(any(ctx.needs_input_grad), cx)
        machine.run("lstm_step_forward", hx.shape, [h_part], [h, output, c_before], updated=[gates, c])
        assert torch.equal(h, output)
        ctx.machine = machine
        ctx.save_for_backward(input, hx, w_ih, w_hh, gates, c_before, h)
        return h, c

    @staticmethod
    def backward(ctx: Any, grad_h: Tensor, grad_c: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, gates, c_before, h = ctx.saved_tensors
        grad_gates, grad_cx, h_again = torch.empty_like(gates), grad_c.clone(), torch.empty_like(h)
        ctx.machine.run(
            "lstm_step_backward",
            h.shape,
            [0.75 * grad_h, 0.25 * grad_h, gates, c_before],
            [grad_gates, h_again],
            updated=[grad_cx],
        )
        torch.testing.assert_close(h_again, h)
        input, hx, _, *weights = ctx.needs_input_grad[1:]
        grads = _product_gradients(ctx.machine, [input, hx, *weights], inputs, grad_gates, grad_gates)
        return None, *grads[:2], grad_cx, *grads[2:]
