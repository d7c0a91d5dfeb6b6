"""The ops on the emulated GPU with torch's signatures and gradients, as the case table calls them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from cisdl_ops.cases import Function
from cisdl_ops.reference import Pair, activated, adaptive_output_size, conv2d_padding, pool_output_size

from .emulated_steps import GruCell, LstmStep, RnnCell, given
from .machine import Machine, NotForTensorCores, bits

Numbers = tuple[int, ...]  # a problem's sizes and options

# Activation of elementwise.h
ACTIVATIONS = ("relu", "leaky_relu", "sigmoid", "tanh")
# PoolIndex of problems.h
NONE, WINDOW, FLAT = 0, 1, 2


def run_product(
    machine: Machine,
    problem: str,
    numbers: Numbers,
    inputs: Sequence[Tensor | None],
    outputs: Sequence[Tensor | None],
    nhwc: bool = False,
    tf32: bool = False,
    hopper: bool = False,
) -> None:
    """On tensor cores; what they cannot, as csrc/ops does it: in float32, shorter types by way of copies."""
    reduced = next(tensor for tensor in inputs if tensor is not None).element_size() == 2
    if reduced and hopper:
        try:
            return machine.run(problem, numbers, inputs, outputs, nhwc, hopper=True)
        except NotForTensorCores:
            pass
    if reduced or tf32:
        try:
            return machine.run(problem, numbers, inputs, outputs, nhwc, tf32=tf32)
        except NotForTensorCores:
            pass
    if not reduced:
        return machine.run(problem, numbers, inputs, outputs, nhwc)
    results = [None if tensor is None else tensor.float() for tensor in outputs]
    machine.run(
        problem, numbers, [None if tensor is None else tensor.float() for tensor in inputs], results, nhwc
    )
    for result, output in zip(results, outputs, strict=True):
        if output is not None and result is not None:
            output.copy_(result)


def as_pair(value: Pair) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, run: Callable[..., None], input: Tensor, weight: Tensor, bias: Tensor | None
    ) -> Tensor:
        ctx.run = run
        ctx.save_for_backward(input, weight)
        batch = input.shape[:-1].numel()
        ctx.sizes = (batch, weight.shape[1], weight.shape[0])
        output = input.new_empty(*input.shape[:-1], weight.shape[0])
        run("linear_forward", ctx.sizes, [input, weight, bias], [output])
        return output

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        input, weight = ctx.saved_tensors
        _, for_input, for_weight, for_bias, *_ = ctx.needs_input_grad
        grads = [given(for_input, input), given(for_weight, weight), given(for_bias, weight[:, :1].flatten())]
        if for_bias:
            grads[2] = weight.new_empty(weight.shape[0])
        if for_input:
            ctx.run("linear_backward_input", ctx.sizes, [grad_output, weight], grads[:1])
        if for_weight or for_bias:
            needed = input if for_weight else None
            ctx.run("linear_backward_weight", ctx.sizes, [grad_output, needed], grads[1:])
        return None, *grads


class _LinearActivation(_Linear):
    """The activation in the product's epilogue; in backward, torch's own pass before the products."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        run: Callable[..., None],
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        activation: str,
        slope: float,
    ) -> Tensor:
        ctx.run = run
        ctx.sizes = (input.shape[:-1].numel(), weight.shape[1], weight.shape[0])
        ctx.activation, ctx.slope = activation, slope
        output = input.new_empty(*input.shape[:-1], weight.shape[0])
        numbers = (*ctx.sizes, ACTIVATIONS.index(activation), bits(slope))
        run("linear_activation_forward", numbers, [input, weight, bias], [output])
        ctx.save_for_backward(input, weight)
        ctx.output = output.detach()
        return output

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        aten = torch.ops.aten
        if ctx.activation == "relu":
            through = aten.threshold_backward(grad_output, ctx.output, 0)
        elif ctx.activation == "leaky_relu":
            through = aten.leaky_relu_backward(grad_output, ctx.output, ctx.slope, True)
        elif ctx.activation == "sigmoid":
            through = aten.sigmoid_backward(grad_output, ctx.output)
        else:
            through = aten.tanh_backward(grad_output, ctx.output)
        return *_Linear.backward(ctx, through), None, None


class _Conv2d(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        run: Callable[..., None],
        nhwc: bool,
        numbers: Numbers,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        relu: bool,
    ) -> Tensor:
        ctx.run, ctx.nhwc, ctx.numbers = run, nhwc, (*numbers, nhwc)
        output = input.new_empty(input.shape[0], weight.shape[0], *numbers[7:9])
        run("conv2d_forward", (*ctx.numbers, relu), [input, weight, bias], [output], nhwc)
        ctx.save_for_backward(input, weight, output if relu else None)
        return output

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        input, weight, rectified = ctx.saved_tensors
        if rectified is not None:  # torch's own pass on a GPU, too
            grad_output = torch.ops.aten.threshold_backward(grad_output, rectified, 0)
        _, _, _, for_input, for_weight, for_bias, _ = ctx.needs_input_grad
        grads = [given(for_input, input), given(for_weight, weight), given(for_bias, weight[:, 0, 0, 0])]
        if for_input:
            ctx.run("conv2d_backward_input", ctx.numbers, [grad_output, weight], grads[:1], ctx.nhwc)
        if for_weight or for_bias:
            needed = input if for_weight else None
            ctx.run("conv2d_backward_weight", ctx.numbers, [grad_output, needed], grads[1:], ctx.nhwc)
        return None, None, None, *grads, None


class _ConvTranspose2d(torch.autograd.Function):
    """csrc/ops/conv_transpose2d.cpp in Python: the problems of a conv2d from the output back to the input."""

    @staticmethod
    def forward(
        ctx: Any,
        run: Callable[..., None],
        nhwc: bool,
        numbers: Numbers,
        input: Tensor,
        weight: Tensor,
    ) -> Tensor:
        ctx.run, ctx.nhwc, ctx.numbers = run, nhwc, (*numbers, nhwc)
        ctx.save_for_backward(input, weight)
        output = input.new_empty(*numbers[:4])
        run("conv2d_backward_input", ctx.numbers, [input, weight], [output], nhwc)
        return output

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        input, weight = ctx.saved_tensors
        grads = [given(ctx.needs_input_grad[3], input), given(ctx.needs_input_grad[4], weight)]
        if grads[0] is not None:
            numbers = (*ctx.numbers, False)
            ctx.run("conv2d_forward", numbers, [grad_output, weight, None], grads[:1], ctx.nhwc)
        if grads[1] is not None:
            gradients = [grads[1], None]
            ctx.run("conv2d_backward_weight", ctx.numbers, [input, grad_output], gradients, ctx.nhwc)
        return None, None, None, *grads


class _MaxPool2d(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, machine: Machine, nhwc: bool, numbers: Numbers, kind: int, relu: bool, input: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        output = input.new_empty(*input.shape[:2], *numbers[4:6])
        dtype = torch.uint8 if kind == WINDOW else torch.int64
        indices = None if kind == NONE else torch.empty(output.shape, dtype=dtype)
        ctx.machine, ctx.nhwc, ctx.numbers = machine, nhwc, (*numbers, nhwc, kind)
        ctx.input, ctx.indices = input, indices
        machine.run("max_pool2d_forward", (*ctx.numbers, relu), [input], [output, indices], nhwc)
        if indices is not None:
            ctx.mark_non_differentiable(indices)
        return output, indices

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        grad_input = torch.empty_like(ctx.input)
        inputs = [grad_output, ctx.indices]
        ctx.machine.run("max_pool2d_backward", ctx.numbers, inputs, [grad_input], ctx.nhwc)
        return None, None, None, None, None, grad_input


class _AvgPool2d(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, machine: Machine, nhwc: bool, numbers: Numbers, input: Tensor) -> Tensor:
        ctx.machine, ctx.nhwc, ctx.numbers, ctx.input = machine, nhwc, numbers, input
        output = input.new_empty(*input.shape[:2], *numbers[4:6])
        machine.run("avg_pool2d_forward", numbers, [input], [output], nhwc)
        return output

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        grad_input = torch.empty_like(ctx.input)
        ctx.machine.run("avg_pool2d_backward", ctx.numbers, [grad_output], [grad_input], ctx.nhwc)
        return None, None, None, grad_input


class _AdaptiveMaxPool2d(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, machine: Machine, nhwc: bool, numbers: Numbers, indexed: bool, input: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        output = input.new_empty(*input.shape[:2], *numbers[4:6])
        indices = torch.empty(output.shape, dtype=torch.int64) if indexed else None
        ctx.machine, ctx.nhwc, ctx.numbers = machine, nhwc, (*numbers, nhwc)
        ctx.input, ctx.indices = input, indices
        machine.run("adaptive_max_pool2d_forward", ctx.numbers, [input], [output, indices], nhwc)
        if indices is not None:
            ctx.mark_non_differentiable(indices)
        return output, indices

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        grad_input = torch.empty_like(ctx.input)
        inputs = [grad_output, ctx.indices]
        ctx.machine.run("adaptive_max_pool2d_backward", ctx.numbers, inputs, [grad_input], ctx.nhwc)
        return None, None, None, None, grad_input


class _AdaptiveAvgPool2d(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, machine: Machine, nhwc: bool, numbers: Numbers, input: Tensor) -> Tensor:
        ctx.machine, ctx.nhwc, ctx.numbers, ctx.input = machine, nhwc, (*numbers, nhwc), input
        output = input.new_empty(*input.shape[:2], *numbers[4:6])
        machine.run("adaptive_avg_pool2d_forward", ctx.numbers, [input], [output], nhwc)
        return output

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        grad_input = torch.empty_like(ctx.input)
        ctx.machine.run("adaptive_avg_pool2d_backward", ctx.numbers, [grad_output], [grad_input], ctx.nhwc)
        return None, None, None, grad_input


class _LstmCell(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, machine: Machine, *tensors: Tensor | None) -> tuple[Tensor, Tensor]:
        input, hx, cx, w_ih, w_hh, *_ = tensors
        assert input is not None
        assert hx is not None
        assert cx is not None
        batch, hidden = hx.shape
        ctx.machine, ctx.sizes = machine, (batch, input.shape[1], hidden)
        h, c = torch.empty_like(hx), torch.empty_like(cx)
        gates = given(any(ctx.needs_input_grad), hx.new_empty(batch, 4 * hidden))
        run_product(machine, "lstm_cell_forward", ctx.sizes, tensors, [h, c, gates])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(input, hx, cx, w_ih, w_hh, c, gates)
        return h, c

    @staticmethod
    def backward(ctx: Any, grad_h: Tensor | None, grad_c: Tensor | None) -> tuple[Tensor | None, ...]:
        *inputs, c, gates = ctx.saved_tensors
        wanted = ctx.needs_input_grad[1:]
        grads = [given(one, like) for one, like in zip(wanted, inputs, strict=False)]
        grad_bias = given(any(wanted[5:]), gates.new_empty(gates.shape[1]))
        outputs = [torch.empty_like(gates), *grads, grad_bias]
        tensors = [grad_h, grad_c, *inputs, c, gates]
        run_product(ctx.machine, "lstm_cell_backward", ctx.sizes, tensors, outputs)
        return None, *grads, *(grad_bias if one else None for one in wanted[5:])


def _four_dims(input: Tensor) -> Tensor:
    return input if input.dim() == 4 else input.unsqueeze(0)


class Emulated:
    """The ops of one machine and one image layout; with ``tf32``, float32 products on tensor cores; with
    ``hopper``, those of 16 bits as on compute capability 9.0.
    """

    def __init__(
        self, machine: Machine, channels_last: bool = False, tf32: bool = False, hopper: bool = False
    ) -> None:
        self.machine = machine
        self.nhwc = channels_last
        self.tf32 = tf32
        self.product = partial(run_product, machine, tf32=tf32, hopper=hopper)

    def function(self, op: str) -> Function:
        result: Function = getattr(self, op)
        return result

    def _nhwc_of(self, input: Tensor) -> bool:
        """The layout a convolution runs in: as csrc/ops, channels_last for what tensor cores take."""
        return self.nhwc or self.tf32 or input.element_size() == 2

    def linear(
        self,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        activation: str | None = None,
        negative_slope: float = 0.01,
    ) -> Tensor:
        result: Tensor
        if activation is None:
            result = _Linear.apply(self.product, input, weight, bias)  # type: ignore[no-untyped-call]
        else:
            options = (activation, negative_slope)
            result = _LinearActivation.apply(self.product, input, weight, bias, *options)  # type: ignore[no-untyped-call]
        return result

    def conv2d(
        self,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Pair = 1,
        padding: Pair | str = 0,
        dilation: Pair = 1,
        groups: int = 1,
        activation: str | None = None,
        negative_slope: float = 0.01,
    ) -> Tensor:
        """A ReLU is in the kernel, any other activation torch's own."""
        images, kernel = _four_dims(input), weight.shape[2:]
        strides, dilations = as_pair(stride), as_pair(dilation)
        top, bottom, left, right = conv2d_padding(padding, (kernel[0], kernel[1]), dilations)
        pads = ((top, bottom), (left, right))
        out = [
            (size + sum(pad) - d * (k - 1) - 1) // s + 1
            for size, pad, k, d, s in zip(images.shape[2:], pads, kernel, dilations, strides, strict=True)
        ]
        numbers = (*images.shape, weight.shape[0], *kernel, *out, *strides, top, left, *dilations, groups)
        relu = activation == "relu"
        nhwc = self._nhwc_of(input)
        result: Tensor = _Conv2d.apply(self.product, nhwc, numbers, images, weight, bias, relu)  # type: ignore[no-untyped-call]
        result = activated(result, None if relu else activation, negative_slope)
        return result if input.dim() == 4 else result.squeeze(0)

    def conv_transpose2d(
        self,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Pair = 1,
        padding: Pair = 0,
        output_padding: Pair = 0,
        groups: int = 1,
        dilation: Pair = 1,
    ) -> Tensor:
        images = _four_dims(input)
        batch, channels, *sizes = images.shape
        kernel = weight.shape[2:]
        strides, pads, dilations = as_pair(stride), as_pair(padding), as_pair(dilation)
        out = [
            (size - 1) * s - 2 * pad + d * (k - 1) + extra + 1
            for size, s, pad, d, k, extra in zip(
                sizes, strides, pads, dilations, kernel, as_pair(output_padding), strict=True
            )
        ]
        conv = (batch, weight.shape[1] * groups, *out, channels, *kernel, *sizes)
        numbers = (*conv, *strides, *pads, *dilations, groups)
        result: Tensor = _ConvTranspose2d.apply(self.product, self._nhwc_of(input), numbers, images, weight)  # type: ignore[no-untyped-call]
        if bias is not None:
            result = result + bias[:, None, None]
        return result if input.dim() == 4 else result.squeeze(0)

    @staticmethod
    def _pool_numbers(
        images: Tensor, kernel: Pair, stride: Pair | None, padding: Pair, dilation: Pair, ceil_mode: bool
    ) -> Numbers:
        """Pool2dProblem."""
        options: Sequence[tuple[int, int]] = [
            as_pair(value) for value in (kernel, kernel if stride is None else stride, padding, dilation)
        ]
        sizes = images.shape[2:]
        out = [
            pool_output_size(size, k, s, p, d, ceil_mode)
            for size, k, s, p, d in zip(sizes, *options, strict=True)
        ]
        return (*images.shape, *out, *(number for pair in options for number in pair))

    def max_pool2d(
        self,
        input: Tensor,
        kernel_size: Pair,
        stride: Pair | None = None,
        padding: Pair = 0,
        dilation: Pair = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
        activation: str | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        images = _four_dims(input)
        numbers = self._pool_numbers(images, kernel_size, stride, padding, dilation, ceil_mode)
        rows, columns = as_pair(kernel_size)
        kind = WINDOW if input.requires_grad else NONE
        if return_indices or (kind == WINDOW and rows * columns > 255):
            kind = FLAT
        output, indices = _MaxPool2d.apply(  # type: ignore[no-untyped-call]
            self.machine, self.nhwc, numbers, kind, activation == "relu", images
        )
        if input.dim() == 3:
            output, indices = output.squeeze(0), None if indices is None else indices.squeeze(0)
        return (output, indices) if return_indices else output

    def max_pool2d_gather(self, input: Tensor, indices: Tensor, **window: Any) -> Tensor:
        """``input`` at the places that max_pool2d with the same ``window`` options gave."""
        images, places = _four_dims(input), _four_dims(indices)
        options = {"stride": None, "padding": 0, "dilation": 1, "ceil_mode": False} | window
        numbers = self._pool_numbers(images, options.pop("kernel_size"), *options.values())
        kind = FLAT if indices.dtype == torch.int64 else WINDOW
        output = images.new_empty(places.shape)
        numbers = (*numbers, self.nhwc, kind)
        self.machine.run("max_pool2d_gather", numbers, [images, places], [output], self.nhwc)
        return output if input.dim() == 4 else output.squeeze(0)

    def avg_pool2d(
        self,
        input: Tensor,
        kernel_size: Pair,
        stride: Pair | None = None,
        padding: Pair = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> Tensor:
        images = _four_dims(input)
        numbers = self._pool_numbers(images, kernel_size, stride, padding, 1, ceil_mode)
        numbers = (*numbers, self.nhwc, count_include_pad, divisor_override or 0)
        result: Tensor = _AvgPool2d.apply(self.machine, self.nhwc, numbers, images)  # type: ignore[no-untyped-call]
        return result if input.dim() == 4 else result.squeeze(0)

    def adaptive_max_pool2d(
        self, input: Tensor, output_size: int | Sequence[int | None], return_indices: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        images = _four_dims(input)
        numbers = (*images.shape, *adaptive_output_size(input, output_size))
        indexed = return_indices or input.requires_grad
        output, indices = _AdaptiveMaxPool2d.apply(self.machine, self.nhwc, numbers, indexed, images)  # type: ignore[no-untyped-call]
        if input.dim() == 3:
            output, indices = output.squeeze(0), None if indices is None else indices.squeeze(0)
        return (output, indices) if return_indices else output

    def adaptive_avg_pool2d(self, input: Tensor, output_size: int | Sequence[int | None]) -> Tensor:
        images = _four_dims(input)
        numbers = (*images.shape, *adaptive_output_size(input, output_size))
        result: Tensor = _AdaptiveAvgPool2d.apply(self.machine, self.nhwc, numbers, images)  # type: ignore[no-untyped-call]
        return result if input.dim() == 4 else result.squeeze(0)

    def lstm_cell(
        self,
        input: Tensor,
        hx: tuple[Tensor, Tensor],
        w_ih: Tensor,
        w_hh: Tensor,
        b_ih: Tensor | None = None,
        b_hh: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        result: tuple[Tensor, Tensor] = _LstmCell.apply(self.machine, input, *hx, w_ih, w_hh, b_ih, b_hh)  # type: ignore[no-untyped-call]
        return result

    def lstm_step(
        self,
        input: Tensor,
        hx: tuple[Tensor, Tensor],
        w_ih: Tensor,
        w_hh: Tensor,
        b_ih: Tensor | None = None,
        b_hh: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        result: tuple[Tensor, Tensor] = LstmStep.apply(self.machine, input, *hx, w_ih, w_hh, b_ih, b_hh)  # type: ignore[no-untyped-call]
        return result

    def _cell(
        self, function: Callable[..., Tensor], input: Tensor, hx: Tensor, *weights: Tensor | None
    ) -> Tensor:
        """In 16 bits on tensor cores; sizes that they do not take by way of float32 copies."""
        tensors = (input, hx, *weights)
        if input.element_size() == 2 and (input.shape[1] % 8 or hx.shape[1] % 8):
            return function(*(None if one is None else one.float() for one in tensors)).to(input.dtype)
        return function(*tensors)

    def gru_cell(self, *tensors: Tensor) -> Tensor:
        return self._cell(partial(GruCell.apply, self.machine), *tensors)

    def rnn_tanh_cell(self, *tensors: Tensor) -> Tensor:
        return self._cell(partial(RnnCell.apply, self.machine, 0), *tensors)

    def rnn_relu_cell(self, *tensors: Tensor) -> Tensor:
        return self._cell(partial(RnnCell.apply, self.machine, 1), *tensors)
