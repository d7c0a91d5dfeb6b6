"""What a case is, and every op: how to call ours, torch's and the reference, and what it costs."""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor

from cisdl_ops import reference

Function = Callable[..., Any]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Pass:
    """One part of the backward: the gradients of ``wrt``, at ``work`` times the forward's arithmetic.

    ``with_forward``: that and the forward before it, which records what the backward needs.
    """

    name: str
    wrt: tuple[str, ...]
    work: int = 1
    with_forward: bool = False


@dataclass(frozen=True)
class Op:
    """How an op is called and what it costs."""

    name: str
    tensors: tuple[str, ...]  # names in the order of the signature; a case may leave out the optional ones
    torch: Function
    reference: Function
    passes: tuple[Pass, ...]
    flops: Callable[[Case], int]  # of the forward
    images: bool = False  # takes [N, C, H, W], so there are two memory layouts
    packs_state: bool = False  # hx and cx are passed as one tuple
    module: str = ""  # ours is this class of :mod:`cisdl_ops.nn`, not a function
    bound: Callable[[Function, Case, Mapping[str, Tensor]], Function] | None = (
        None  # instead of Case.bind's way
    )

    @property
    def ours(self) -> Function:
        """The function of :mod:`cisdl_ops`, looked up when asked: the table alone needs no kernels."""
        library = importlib.import_module("cisdl_ops")
        function: Function = getattr(library.nn, self.module) if self.module else getattr(library, self.name)
        return function

    @property
    def differentiable(self) -> tuple[str, ...]:
        return tuple(name for one in self.passes for name in one.wrt)


@dataclass(frozen=True, eq=False)
class Case:
    """One call of an op: shapes by tensor name (a missing name is a None argument) and keyword arguments."""

    op: str
    name: str
    shapes: Mapping[str, Shape]
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    tags: frozenset[str] = frozenset()
    values: str = "normal"  # "ties": few distinct integers; "special": NaN and infinities among them

    @property
    def id(self) -> str:
        return f"{self.op}/{self.name}"

    def inputs(
        self,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
        memory_format: torch.memory_format = torch.contiguous_format,
        requires_grad: Iterable[str] | bool = False,
        seed: int = 0,
    ) -> dict[str, Tensor]:
        """Tensors by name, the same for the same case, dtype and seed on every machine.

        Activations are standard normal and weights are scaled by 1/sqrt(fan-in), so outputs are of order 1.
        4-D tensors take ``memory_format``; ``requires_grad`` is a flag for all or the names that need one.
        """
        wanted = requires_grad if isinstance(requires_grad, bool) else frozenset(requires_grad)
        tensors = {}
        for name, shape in self.shapes.items():
            generator = torch.Generator().manual_seed(zlib.crc32(f"{self.id}/{name}".encode()) + seed)
            tensor = self._values(name, shape, dtype, generator).to(device)
            if tensor.dim() == 4:
                tensor = tensor.contiguous(memory_format=memory_format)
            tensors[name] = tensor.requires_grad_(wanted if isinstance(wanted, bool) else name in wanted)
        return tensors

    def _values(self, name: str, shape: Shape, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
        if name == "input" and self.values == "ties":
            return torch.randint(-2, 3, shape, generator=generator).to(dtype)
        tensor = torch.randn(shape, dtype=dtype, generator=generator)
        if name == "input" and self.values == "special":
            kind = torch.randint(0, 12, shape, generator=generator)
            tensor[kind == 0] = torch.nan
            tensor[kind == 1] = -torch.inf
            tensor[kind == 2] = torch.inf
        if name.startswith("w"):
            tensor *= max(1, prod(shape[1:])) ** -0.5
        return tensor

    def bind(self, function: Function, tensors: Mapping[str, Tensor]) -> Callable[[], Any]:
        """``function`` with these tensors and this case's keyword arguments, ready to be called."""
        op = op_of(self)
        if op.bound:
            return op.bound(function, self, tensors)
        arguments: list[Any] = [tensors.get(name) for name in op.tensors]
        if op.packs_state:
            arguments[1:3] = [(arguments[1], arguments[2])]
        return partial(function, *arguments, **self.kwargs)

    def call(self, function: Function, tensors: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """The bound function called once; always a tuple of results."""
        result = self.bind(function, tensors)()
        return (result,) if isinstance(result, Tensor) else tuple(result)

    def output_shapes(self) -> tuple[Shape, ...]:
        tensors = {name: torch.empty(shape, device="meta") for name, shape in self.shapes.items()}
        return tuple(tuple(result.shape) for result in self.call(op_of(self).torch, tensors))

    def flops(self, work: int = 1) -> int:
        """Floating-point operations of the forward (times ``work``); a multiply-add counts as two."""
        return work * op_of(self).flops(self)

    def bytes(self, itemsize: int, work: int = 1) -> int:
        """The least a pass must move: every input and every output once.

        It holds for a gradient pass too: a gradient has its tensor's size, and each pass of conv2d, linear
        and pooling reads all but one of the same tensors and writes the last.
        """
        moved = sum(map(prod, self.shapes.values())) + sum(map(prod, self.output_shapes()))
        return work * moved * itemsize


def _activated_by_torch(y: Tensor, activation: str | None, negative_slope: float) -> Tensor:
    if activation == "leaky_relu":
        return torch.nn.functional.leaky_relu(y, negative_slope)
    result: Tensor = y if activation is None else getattr(torch, activation)(y)
    return result


def _linear_by_torch(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    negative_slope: float = 0.01,
) -> Tensor:
    """A linear layer and its activation, two calls in torch."""
    return _activated_by_torch(torch.nn.functional.linear(input, weight, bias), activation, negative_slope)


def _conv2d_by_torch(
    *args: Any, activation: str | None = None, negative_slope: float = 0.01, **kwargs: Any
) -> Tensor:
    """A convolution and its activation, two calls in torch."""
    return _activated_by_torch(torch.nn.functional.conv2d(*args, **kwargs), activation, negative_slope)


def _linear_flops(case: Case) -> int:
    return 2 * prod(case.shapes["input"]) * case.shapes["weight"][0]


def _conv2d_flops(case: Case) -> int:
    return 2 * prod(case.output_shapes()[0]) * prod(case.shapes["weight"][1:])


def _conv_transpose2d_flops(case: Case) -> int:
    return 2 * prod(case.shapes["input"]) * prod(case.shapes["weight"][1:])


def _pool_flops(case: Case) -> int:
    kernel = case.kwargs["kernel_size"]
    return prod(case.output_shapes()[0]) * (kernel * kernel if isinstance(kernel, int) else prod(kernel))


def _adaptive_pool_flops(case: Case) -> int:
    *lead, height, width = case.shapes["input"]
    out_h, out_w = case.output_shapes()[0][-2:]
    rows = sum(end - begin for begin, end in reference.adaptive_windows(height, out_h))
    columns = sum(end - begin for begin, end in reference.adaptive_windows(width, out_w))
    return prod(lead) * rows * columns


def _cell_flops(case: Case) -> int:
    batch = case.shapes["input"][0]
    return 2 * batch * (prod(case.shapes["w_ih"]) + prod(case.shapes["w_hh"]))


_LSTM_TENSORS = ("input", "hx", "cx", "w_ih", "w_hh", "b_ih", "b_hh")
_CELL_TENSORS = ("input", "hx", "w_ih", "w_hh", "b_ih", "b_hh")
_SEPARATE = (Pass("grad_input", ("input",)), Pass("grad_weight", ("weight", "bias")))


def _max_pool2d(input: Tensor, *args: Any, activation: str | None = None, **kwargs: Any) -> Any:
    """Two calls in torch if there is an activation."""
    x = input if activation is None else torch.relu(input)
    return torch.nn.functional.max_pool2d(x, *args, **kwargs)


_WHOLE = (Pass("backward", ("input",)),)

OPS: dict[str, Op] = {
    op.name: op
    for op in (
        Op(
            "linear",
            ("input", "weight", "bias"),
            _linear_by_torch,
            reference.linear,
            _SEPARATE,
            _linear_flops,
        ),
        Op(
            "conv2d",
            ("input", "weight", "bias"),
            _conv2d_by_torch,
            reference.conv2d,
            _SEPARATE,
            _conv2d_flops,
            images=True,
        ),
        Op(
            "conv_transpose2d",
            ("input", "weight", "bias"),
            torch.nn.functional.conv_transpose2d,
            reference.conv_transpose2d,
            _SEPARATE,
            _conv_transpose2d_flops,
            images=True,
        ),
        Op(
            "max_pool2d",
            ("input",),
            _max_pool2d,
            reference.max_pool2d,
            _WHOLE,
            _pool_flops,
            images=True,
        ),
        Op(
            "avg_pool2d",
            ("input",),
            torch.nn.functional.avg_pool2d,
            reference.avg_pool2d,
            _WHOLE,
            _pool_flops,
            images=True,
        ),
        Op(
            "adaptive_max_pool2d",
            ("input",),
            torch.nn.functional.adaptive_max_pool2d,
            reference.adaptive_max_pool2d,
            _WHOLE,
            _adaptive_pool_flops,
            images=True,
        ),
        Op(
            "adaptive_avg_pool2d",
            ("input",),
            torch.nn.functional.adaptive_avg_pool2d,
            reference.adaptive_avg_pool2d,
            _WHOLE,
            _adaptive_pool_flops,
            images=True,
        ),
        Op(
            "lstm_cell",
            _LSTM_TENSORS,
            torch.lstm_cell,
            reference.lstm_cell,
            (Pass("backward", _LSTM_TENSORS, work=2),),
            _cell_flops,
            packs_state=True,
        ),
        *(
            Op(name, _CELL_TENSORS, function, plain, (Pass("backward", _CELL_TENSORS, work=2),), _cell_flops)
            for name, function, plain in (
                ("gru_cell", torch.gru_cell, reference.gru_cell),
                ("rnn_tanh_cell", torch.rnn_tanh_cell, reference.rnn_tanh_cell),
                ("rnn_relu_cell", torch.rnn_relu_cell, reference.rnn_relu_cell),
            )
        ),
    )
}

# Whole layers: benched, but tested by files of their own (``layers.py``).
LAYERS: dict[str, Op] = {}


def op_of(case: Case) -> Op:
    """The entry of a case's op, in whichever of the two tables it lies."""
    return OPS[case.op] if case.op in OPS else LAYERS[case.op]
