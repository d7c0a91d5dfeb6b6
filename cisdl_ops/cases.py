"""The one table of cases: every test, ``cisdl check`` and ``cisdl bench`` read it.

A :class:`Case` is an op, the shapes of its tensors and its keyword arguments; an :class:`Op` says how to
call ours, torch's and the reference, which inputs have gradients, and what a call costs. A new op is a new
entry in ``OPS`` and a block of cases; nothing in the tests or the bench has to change.

Tags: ``test`` small shapes that reach every option and every edge of a vector loop; ``grad`` tiny shapes for
numerical derivatives in float64; ``bench`` layers of real networks; ``quick`` the part of ``bench`` that
``cisdl bench --quick`` runs; ``first`` the first layer of a network, whose input's gradient nobody
needs, so that it is checked but not timed.
"""

from __future__ import annotations

import fnmatch
import importlib
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
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
    """One part of the backward: the gradients of ``wrt``, at ``work`` times the forward's arithmetic."""

    name: str
    wrt: tuple[str, ...]
    work: int = 1


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

    @property
    def ours(self) -> Function:
        """The function of :mod:`cisdl_ops`, looked up when asked: the table alone needs no kernels."""
        function: Function = getattr(importlib.import_module("cisdl_ops"), self.name)
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
        arguments: list[Any] = [tensors.get(name) for name in OPS[self.op].tensors]
        if OPS[self.op].packs_state:
            arguments[1:3] = [(arguments[1], arguments[2])]
        return partial(function, *arguments, **self.kwargs)

    def call(self, function: Function, tensors: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """The bound function called once; always a tuple of results."""
        result = self.bind(function, tensors)()
        return (result,) if isinstance(result, Tensor) else tuple(result)

    def output_shapes(self) -> tuple[Shape, ...]:
        tensors = {name: torch.empty(shape, device="meta") for name, shape in self.shapes.items()}
        return tuple(tuple(result.shape) for result in self.call(OPS[self.op].torch, tensors))

    def flops(self, work: int = 1) -> int:
        """Floating-point operations of the forward (times ``work``); a multiply-add counts as two."""
        return work * OPS[self.op].flops(self)

    def bytes(self, itemsize: int, work: int = 1) -> int:
        """The least a pass must move: every input and every output once.

        It holds for a gradient pass too: a gradient has its tensor's size, and each pass of conv2d, linear
        and pooling reads all but one of the same tensors and writes the last.
        """
        moved = sum(map(prod, self.shapes.values())) + sum(map(prod, self.output_shapes()))
        return work * moved * itemsize


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
_WHOLE = (Pass("backward", ("input",)),)

OPS: dict[str, Op] = {
    op.name: op
    for op in (
        Op(
            "linear",
            ("input", "weight", "bias"),
            torch.nn.functional.linear,
            reference.linear,
            _SEPARATE,
            _linear_flops,
        ),
        Op(
            "conv2d",
            ("input", "weight", "bias"),
            torch.nn.functional.conv2d,
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
            torch.nn.functional.max_pool2d,
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


def _tags(tags: str) -> frozenset[str]:
    return frozenset(tags.split())


def _linear(tags: str, name: str, x: Shape, out: int, bias: bool = True) -> Case:
    shapes: dict[str, Shape] = {"input": x, "weight": (out, x[-1])}
    return Case("linear", name, shapes | ({"bias": (out,)} if bias else {}), {}, _tags(tags))


def _conv(tags: str, name: str, x: Shape, weight: Shape, bias: bool = True, **kwargs: Any) -> Case:
    shapes: dict[str, Shape] = {"input": x, "weight": weight}
    return Case("conv2d", name, shapes | ({"bias": weight[:1]} if bias else {}), kwargs, _tags(tags))


def _conv_transpose(tags: str, name: str, x: Shape, weight: Shape, bias: bool = True, **kwargs: Any) -> Case:
    shapes: dict[str, Shape] = {"input": x, "weight": weight}
    channels = weight[1] * kwargs.get("groups", 1)
    shapes |= {"bias": (channels,)} if bias else {}
    return Case("conv_transpose2d", name, shapes, kwargs, _tags(tags))


def _pool(
    op: str, tags: str, name: str, x: Shape, kernel: Any, values: str = "normal", **kwargs: Any
) -> Case:
    return Case(op, name, {"input": x}, {"kernel_size": kernel, **kwargs}, _tags(tags), values)


def _adaptive(
    op: str, tags: str, name: str, x: Shape, size: Any, values: str = "normal", **kwargs: Any
) -> Case:
    return Case(op, name, {"input": x}, {"output_size": size, **kwargs}, _tags(tags), values)


def _cell(op: str, tags: str, name: str, batch: int, inputs: int, hidden: int, bias: bool = True) -> Case:
    state, rows = (batch, hidden), _GATES[op] * hidden
    shapes: dict[str, Shape] = {"input": (batch, inputs), "hx": state}
    shapes |= {"cx": state} if op == "lstm_cell" else {}
    shapes |= {"w_ih": (rows, inputs), "w_hh": (rows, hidden)}
    shapes |= {"b_ih": (rows,), "b_hh": (rows,)} if bias else {}
    return Case(op, name, shapes, {}, _tags(tags))


_GATES = {"lstm_cell": 4, "gru_cell": 3, "rnn_tanh_cell": 1, "rnn_relu_cell": 1}

# Sizes on both sides of every vector width in use (4, 8, 16 lanes; 32 and 64 are tile widths).
_EDGES = (1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 65)


def _linear_cases() -> Iterator[Case]:
    yield from (_linear("test", f"out_{n}", (5, 19), n) for n in _EDGES)
    yield from (_linear("test", f"in_{n}", (3, n), 21) for n in _EDGES)
    yield from (_linear("test", f"rows_{n}", (n, 24), 18) for n in _EDGES)
    yield _linear("test", "no_bias", (7, 33), 20, bias=False)
    yield _linear("test", "vector", (13,), 6)
    yield _linear("test", "three_dims", (3, 5, 17), 9)
    yield _linear("test", "four_dims", (2, 3, 4, 11), 10)
    yield _linear("test", "batch_0", (0, 12), 7)
    yield _linear("test", "in_0", (4, 0), 7)
    yield _linear("test", "out_0", (4, 6), 0)
    yield _linear("test", "long_sum", (3, 4099), 5)
    yield _linear("test", "odd_blocks", (67, 131), 97)
    yield _linear("grad", "grad", (3, 5), 4)
    yield _linear("grad", "grad_no_bias", (2, 3, 4), 5, bias=False)

    yield _linear("bench quick", "lenet_fc1_b64", (64, 400), 120)
    yield _linear("bench", "lenet_fc2_b64", (64, 120), 84)
    yield _linear("bench", "lenet_fc3_b64", (64, 84), 10)
    yield _linear("bench quick first", "mlp_fc1_b64", (64, 784), 300)
    yield _linear("bench", "mlp_fc2_b64", (64, 300), 100)
    yield _linear("bench", "alexnet_fc6_b16", (16, 9216), 4096)
    yield _linear("bench", "alexnet_fc7_b16", (16, 4096), 4096)
    for size in (512, 1024):
        for batch in (1, 32, 256):
            quick = " quick" if (size, batch) == (1024, 256) else ""
            yield _linear(f"bench{quick}", f"square_{size}_b{batch}", (batch, size), size)
    yield _linear("bench", "classifier_1024_to_10_b256", (256, 1024), 10)
    yield _linear("bench", "skinny_16_to_16_b4096", (4096, 16), 16)
    yield _linear("bench", "tokens_32x35_256_to_1024", (32, 35, 256), 1024)


def _conv2d_cases() -> Iterator[Case]:
    test = "test"
    for n in _EDGES:
        yield _conv(test, f"width_{n}", (2, 3, 5, n), (4, 3, 3, 3), padding=1)
        yield _conv(test, f"out_channels_{n}", (2, 4, 6, 5), (n, 4, 3, 3), padding=1)
        yield _conv(test, f"in_channels_{n}", (2, n, 5, 6), (6, n, 3, 3))
    yield _conv(test, "no_bias", (2, 3, 8, 7), (5, 3, 3, 3), bias=False)
    yield _conv(test, "unbatched", (3, 9, 8), (5, 3, 3, 3), padding=1)
    yield _conv(test, "batch_0", (0, 3, 8, 8), (4, 3, 3, 3))
    yield _conv(test, "batch_17", (17, 2, 5, 5), (3, 2, 3, 3))
    yield _conv(test, "single_pixel", (2, 5, 1, 1), (7, 5, 1, 1))
    yield _conv(test, "single_pixel_padded", (2, 5, 1, 1), (7, 5, 3, 3), padding=1)
    yield _conv(test, "one_output_pixel", (3, 4, 5, 5), (6, 4, 5, 5))
    yield _conv(test, "one_by_one", (2, 19, 7, 9), (17, 19, 1, 1))
    yield _conv(test, "one_by_one_strided", (2, 8, 7, 9), (9, 8, 1, 1), stride=2)
    yield _conv(test, "one_by_one_padded", (2, 8, 5, 4), (9, 8, 1, 1), padding=1)
    yield _conv(test, "row_kernel", (2, 3, 6, 11), (4, 3, 1, 5), padding=(0, 2))
    yield _conv(test, "column_kernel", (2, 3, 11, 6), (4, 3, 5, 1), padding=(2, 0))
    yield _conv(test, "stride_2", (2, 3, 9, 10), (5, 3, 3, 3), stride=2, padding=1)
    yield _conv(test, "stride_pair", (2, 3, 11, 10), (5, 3, 3, 3), stride=(3, 2), padding=(1, 0))
    yield _conv(test, "stride_over_kernel", (2, 3, 14, 13), (4, 3, 2, 2), stride=4)
    yield _conv(test, "stride_leaves_rows_unused", (1, 2, 10, 12), (3, 2, 3, 3), stride=4)
    yield _conv(test, "padding_over_half", (2, 2, 5, 6), (3, 2, 3, 3), padding=2)
    yield _conv(test, "padding_over_kernel", (1, 2, 3, 4), (3, 2, 2, 2), padding=4)
    yield _conv(test, "padding_pair", (2, 2, 6, 5), (3, 2, 3, 5), padding=(1, 2))
    yield _conv(test, "valid", (2, 3, 7, 8), (4, 3, 3, 3), padding="valid")
    yield _conv(test, "same", (2, 3, 7, 8), (4, 3, 3, 5), padding="same")
    yield _conv(test, "same_even_kernel", (2, 3, 7, 8), (4, 3, 2, 4), padding="same")
    yield _conv(test, "same_even_dilated", (2, 2, 9, 8), (3, 2, 4, 2), padding="same", dilation=(1, 3))
    yield _conv(test, "dilation_2", (2, 3, 11, 12), (4, 3, 3, 3), padding=2, dilation=2)
    yield _conv(
        test, "dilation_pair", (1, 2, 12, 11), (3, 2, 3, 2), dilation=(2, 3), stride=(1, 2), padding=(3, 1)
    )
    yield _conv(test, "groups_2", (2, 6, 7, 6), (8, 3, 3, 3), groups=2, padding=1)
    yield _conv(test, "groups_odd", (2, 9, 6, 7), (15, 3, 3, 3), groups=3, stride=2)
    yield _conv(test, "depthwise", (2, 17, 8, 9), (17, 1, 3, 3), groups=17, padding=1)
    yield _conv(test, "depthwise_strided", (2, 8, 9, 9), (8, 1, 3, 3), groups=8, stride=2, padding=1)
    yield _conv(test, "depthwise_multiplier", (1, 4, 7, 7), (12, 1, 3, 3), groups=4, dilation=2, padding=2)
    yield _conv(
        test,
        "everything",
        (2, 4, 13, 11),
        (6, 2, 3, 2),
        stride=(2, 3),
        padding=(3, 1),
        dilation=(2, 1),
        groups=2,
    )
    yield _conv(test, "lenet_like", (3, 1, 28, 28), (6, 1, 5, 5), padding=2)
    yield _conv(test, "alexnet_like", (1, 3, 35, 35), (10, 3, 11, 11), stride=4, padding=2)
    yield _conv(test, "resnet_like", (2, 32, 14, 14), (48, 32, 3, 3), padding=1)

    # Enough channels for Winograd; sizes that are no multiple of its tiles.
    yield _conv(test, "winograd_odd", (2, 33, 9, 13), (35, 33, 3, 3), bias=False)
    yield _conv(test, "winograd_small", (3, 32, 3, 2), (32, 32, 3, 3), padding=1)
    yield _conv(test, "winograd_wide_padding", (1, 40, 5, 6), (33, 40, 3, 3), padding=(3, 2))
    yield _conv(test, "winograd_two_chunks", (1, 70, 6, 5), (67, 70, 3, 3), padding=1)

    yield _conv("grad", "grad", (2, 2, 4, 5), (3, 2, 3, 3), padding=1)
    yield _conv("grad", "grad_strided", (1, 2, 6, 5), (2, 2, 2, 3), stride=2, padding=(1, 0), bias=False)
    yield _conv("grad", "grad_same_even", (1, 1, 4, 4), (2, 1, 2, 2), padding="same")
    yield _conv("grad", "grad_dilated_groups", (1, 4, 6, 5), (4, 2, 2, 2), dilation=2, groups=2)

    yield _conv("bench quick first", "lenet_conv1_b64", (64, 1, 28, 28), (6, 1, 5, 5), padding=2)
    yield _conv("bench quick", "lenet_conv2_b64", (64, 6, 14, 14), (16, 6, 5, 5))
    yield _conv(
        "bench quick first", "alexnet_conv1_b16", (16, 3, 224, 224), (64, 3, 11, 11), stride=4, padding=2
    )
    yield _conv("bench", "alexnet_conv2_b16", (16, 64, 27, 27), (192, 64, 5, 5), padding=2)
    yield _conv("bench", "alexnet_conv3_b16", (16, 192, 13, 13), (384, 192, 3, 3), padding=1)
    yield _conv("bench", "alexnet_conv4_b16", (16, 384, 13, 13), (256, 384, 3, 3), padding=1)
    yield _conv("bench", "alexnet_conv5_b16", (16, 256, 13, 13), (256, 256, 3, 3), padding=1)
    for channels, size in ((64, 56), (128, 28), (256, 14), (512, 7)):
        quick = " quick" if channels == 128 else ""
        shape = (8, channels, size, size)
        yield _conv(
            f"bench{quick}", f"3x3_{channels}_{size}_b8", shape, (channels, channels, 3, 3), padding=1
        )
    yield _conv("bench", "1x1_64_to_256_56_b8", (8, 64, 56, 56), (256, 64, 1, 1))
    yield _conv("bench", "1x1_512_to_128_28_b8", (8, 512, 28, 28), (128, 512, 1, 1))
    yield _conv("bench", "depthwise_3x3_64_56_b8", (8, 64, 56, 56), (64, 1, 3, 3), padding=1, groups=64)
    yield _conv(
        "bench",
        "depthwise_3x3_s2_128_28_b8",
        (8, 128, 28, 28),
        (128, 1, 3, 3),
        stride=2,
        padding=1,
        groups=128,
    )
    yield _conv("bench", "grouped_3x3_128_28_g32_b8", (8, 128, 28, 28), (128, 4, 3, 3), padding=1, groups=32)
    yield _conv("bench", "dilated_3x3_128_28_b8", (8, 128, 28, 28), (128, 128, 3, 3), padding=2, dilation=2)
    yield _conv("bench first", "stem_7x7_s2_224_b4", (4, 3, 224, 224), (64, 3, 7, 7), stride=2, padding=3)


def _conv_transpose2d_cases() -> Iterator[Case]:
    test = "test"
    for n in _EDGES:
        yield _conv_transpose(test, f"width_{n}", (2, 3, 5, n), (3, 4, 3, 3), padding=1)
        yield _conv_transpose(test, f"out_channels_{n}", (2, 4, 4, 5), (4, n, 3, 3), padding=1, stride=2)
        yield _conv_transpose(test, f"in_channels_{n}", (2, n, 4, 4), (n, 6, 2, 3))
    yield _conv_transpose(test, "no_bias", (2, 3, 6, 5), (3, 5, 3, 3), bias=False)
    yield _conv_transpose(test, "unbatched", (3, 5, 6), (3, 5, 3, 3), stride=2, padding=1)
    yield _conv_transpose(test, "batch_0", (0, 3, 5, 5), (3, 4, 3, 3))
    yield _conv_transpose(test, "single_pixel", (2, 5, 1, 1), (5, 7, 4, 4))
    yield _conv_transpose(test, "one_by_one", (2, 19, 7, 9), (19, 17, 1, 1))
    yield _conv_transpose(test, "stride_pair", (2, 3, 5, 6), (3, 5, 3, 3), stride=(3, 2), padding=(1, 0))
    yield _conv_transpose(test, "stride_over_kernel", (2, 3, 4, 3), (3, 4, 2, 2), stride=4)
    yield _conv_transpose(
        test, "output_padding", (2, 3, 5, 4), (3, 4, 3, 3), stride=2, padding=1, output_padding=1
    )
    yield _conv_transpose(
        test, "output_padding_pair", (2, 3, 5, 4), (3, 4, 3, 4), stride=(3, 2), output_padding=(2, 0)
    )
    yield _conv_transpose(
        test, "output_padding_over_stride", (2, 3, 5, 4), (3, 4, 3, 3), dilation=3, output_padding=2
    )
    yield _conv_transpose(test, "padding_cuts_most", (2, 3, 4, 5), (3, 4, 3, 3), padding=2)
    yield _conv_transpose(test, "padding_over_kernel", (2, 3, 9, 9), (3, 4, 2, 3), padding=3)
    yield _conv_transpose(test, "dilation_pair", (1, 2, 6, 5), (2, 3, 3, 2), dilation=(2, 3), stride=(1, 2))
    yield _conv_transpose(test, "groups_2", (2, 6, 5, 6), (6, 4, 3, 3), groups=2, padding=1)
    yield _conv_transpose(test, "depthwise", (2, 17, 6, 5), (17, 1, 4, 4), groups=17, stride=2, padding=1)
    yield _conv_transpose(
        test, "depthwise_multiplier", (1, 4, 5, 5), (4, 3, 3, 3), groups=4, stride=2, output_padding=1
    )
    yield _conv_transpose(test, "depthwise_33", (2, 33, 7, 8), (33, 1, 3, 3), groups=33, padding=1)
    yield _conv_transpose(test, "dcgan_like", (2, 33, 7, 7), (33, 17, 4, 4), stride=2, padding=1)

    yield _conv_transpose(test, "winograd", (2, 33, 7, 6), (33, 35, 3, 3), bias=False, padding=1)

    yield _conv_transpose("grad", "grad", (2, 2, 3, 4), (2, 3, 3, 3), padding=1)
    yield _conv_transpose(
        "grad", "grad_strided", (1, 2, 3, 3), (2, 2, 3, 2), stride=2, output_padding=1, bias=False
    )
    yield _conv_transpose("grad", "grad_dilated_groups", (1, 4, 3, 4), (4, 2, 2, 2), dilation=2, groups=2)

    yield _conv_transpose(
        "bench quick", "dcgan_256_7_b64", (64, 256, 7, 7), (256, 128, 4, 4), stride=2, padding=1
    )
    yield _conv_transpose(
        "bench", "dcgan_128_14_b64", (64, 128, 14, 14), (128, 64, 4, 4), stride=2, padding=1
    )
    yield _conv_transpose("bench", "unet_2x2_128_28_b8", (8, 128, 28, 28), (128, 64, 2, 2), stride=2)


def _shared_pool_cases(op: str) -> Iterator[Case]:
    test = "test"
    for n in _EDGES:
        yield _pool(op, test, f"width_{n}", (2, 3, 5, n), (2, 1), stride=1)
        yield _pool(op, test, f"channels_{n}", (2, n, 6, 7), 2)
        yield _pool(op, test, f"2x2_out_width_{n}", (1, 2, 4, 2 * n + 1), 2)
        yield _pool(op, test, f"3x3_s2_out_width_{n}", (1, 2, 7, 2 * n + 1), 3, stride=2)
    yield _pool(op, test, "unbatched", (3, 8, 9), 2)
    yield _pool(op, test, "batch_0", (0, 3, 8, 8), 2)
    yield _pool(op, test, "single_pixel", (2, 3, 1, 1), 1)
    yield _pool(op, test, "global", (2, 5, 7, 6), (7, 6))
    yield _pool(op, test, "stride_1", (2, 3, 9, 9), 3, stride=1, padding=1)
    yield _pool(op, test, "stride_over_kernel", (2, 3, 13, 11), 2, stride=(4, 3))
    yield _pool(op, test, "pairs", (2, 3, 12, 13), (3, 2), stride=(2, 3), padding=(1, 0))
    yield _pool(op, test, "padding", (2, 3, 7, 8), 4, stride=2, padding=2)
    yield _pool(op, test, "ceil", (2, 3, 8, 10), 3, stride=2, ceil_mode=True)
    yield _pool(op, test, "ceil_padding", (2, 3, 8, 7), 3, stride=2, padding=1, ceil_mode=True)
    yield _pool(
        op, test, "ceil_drops_the_window_in_padding", (1, 2, 5, 5), 2, stride=3, padding=1, ceil_mode=True
    )
    yield _pool(op, test, "large_window", (1, 2, 21, 19), 17, stride=2, padding=8)
    yield _pool(op, test, "special_values", (2, 3, 14, 17), 3, "special", stride=2, padding=1)
    yield _pool(op, "grad", "grad", (2, 2, 4, 5), 2)
    yield _pool(op, "grad", "grad_overlapping", (1, 2, 5, 6), 3, stride=2, padding=1)

    yield _pool(op, "bench quick", "lenet_pool1_b64", (64, 6, 28, 28), 2)
    yield _pool(op, "bench", "lenet_pool2_b64", (64, 16, 10, 10), 2)
    yield _pool(op, "bench quick", "alexnet_pool1_b16", (16, 64, 55, 55), 3, stride=2)
    yield _pool(op, "bench", "alexnet_pool2_b16", (16, 192, 27, 27), 3, stride=2)
    yield _pool(op, "bench", "alexnet_pool5_b16", (16, 256, 13, 13), 3, stride=2)
    yield _pool(op, "bench", "vgg_2x2_64_112_b8", (8, 64, 112, 112), 2)
    yield _pool(op, "bench", "stem_3x3_s2_p1_64_112_b8", (8, 64, 112, 112), 3, stride=2, padding=1)


def _pool_cases() -> Iterator[Case]:
    for op in ("max_pool2d", "avg_pool2d"):
        yield from _shared_pool_cases(op)
    best, mean, test = "max_pool2d", "avg_pool2d", "test"
    yield _pool(best, test, "ties", (2, 3, 11, 19), 2, "ties")
    yield _pool(best, test, "ties_overlapping", (2, 3, 13, 19), 3, "ties", stride=2, padding=1)
    yield _pool(best, test, "indices", (2, 3, 9, 19), 2, "ties", return_indices=True)
    yield _pool(
        best, test, "indices_overlapping", (2, 3, 9, 35), 3, "ties", stride=2, padding=1, return_indices=True
    )
    yield _pool(best, test, "indices_unbatched", (3, 9, 10), 3, stride=2, return_indices=True)
    yield _pool(
        best, test, "indices_special", (2, 3, 9, 19), (2, 3), "special", stride=2, return_indices=True
    )
    yield _pool(
        best, test, "indices_ceil", (2, 3, 8, 10), 3, "ties", stride=2, ceil_mode=True, return_indices=True
    )
    yield _pool(best, test, "dilation", (2, 3, 12, 13), 3, stride=2, dilation=2, return_indices=True)
    yield _pool(best, test, "dilation_padding", (1, 2, 11, 9), (2, 3), stride=1, padding=1, dilation=(1, 2))
    yield _pool(best, test, "dilation_channels", (2, 33, 9, 8), 3, "ties", stride=1, padding=1, dilation=2)
    yield _pool(best, test, "dilation_ceil", (1, 2, 10, 12), 2, stride=3, dilation=(3, 2), ceil_mode=True)
    yield _pool(best, "grad", "grad_dilation", (1, 2, 6, 5), 2, dilation=2, stride=1)

    yield _pool(mean, test, "exclude_pad", (2, 3, 7, 8), 3, stride=2, padding=1, count_include_pad=False)
    yield _pool(
        mean,
        test,
        "exclude_pad_ceil",
        (2, 3, 8, 8),
        3,
        stride=2,
        padding=1,
        count_include_pad=False,
        ceil_mode=True,
    )
    yield _pool(mean, test, "divisor", (2, 3, 7, 8), 2, divisor_override=3)
    yield _pool(mean, test, "divisor_negative", (2, 3, 7, 8), 2, divisor_override=-2)
    yield _pool(
        mean, test, "divisor_ceil", (2, 3, 8, 8), 3, stride=2, ceil_mode=True, padding=1, divisor_override=7
    )
    yield _pool(
        mean, "grad", "grad_exclude_pad", (1, 2, 5, 5), 3, stride=2, padding=1, count_include_pad=False
    )
    yield _pool(mean, "grad", "grad_ceil", (1, 1, 6, 6), 3, stride=2, ceil_mode=True)
    yield _pool(mean, "bench", "global_512_7_b8", (8, 512, 7, 7), 7)


def _adaptive_pool_cases() -> Iterator[Case]:
    best, test = "adaptive_max_pool2d", "test"
    for op in (best, "adaptive_avg_pool2d"):
        for n in _EDGES:
            yield _adaptive(op, test, f"width_{n}", (2, 3, 5, n), (2, 4))
            yield _adaptive(op, test, f"out_width_{n}", (1, 3, 5, 13), (3, n))
            yield _adaptive(op, test, f"channels_{n}", (2, n, 7, 8), (3, 5))
        yield _adaptive(op, test, "unbatched", (3, 7, 8), (3, 5))
        yield _adaptive(op, test, "batch_0", (0, 3, 7, 8), (3, 5))
        yield _adaptive(op, test, "global", (2, 5, 7, 6), 1)
        yield _adaptive(op, test, "equal_windows", (2, 5, 12, 9), (4, 3))
        yield _adaptive(op, test, "equal_rows_only", (2, 5, 12, 9), (4, 4))
        yield _adaptive(op, test, "same_size", (2, 3, 5, 6), (None, None))
        yield _adaptive(op, test, "own_height", (2, 3, 5, 6), (None, 4))
        yield _adaptive(op, test, "larger_than_input", (2, 3, 4, 5), (9, 7))
        yield _adaptive(op, test, "single_pixel", (2, 3, 1, 1), (2, 3))
        yield _adaptive(op, test, "large_plane", (1, 2, 67, 71), (8, 9))
        yield _adaptive(op, test, "special_values", (2, 3, 14, 17), (5, 6), "special")
        yield _adaptive(op, "grad", "grad", (2, 2, 5, 4), (3, 3))
        yield _adaptive(op, "grad", "grad_equal_windows", (1, 2, 4, 6), 2)
        yield _adaptive(op, "grad", "grad_larger_than_input", (1, 2, 2, 3), (3, 5))

        yield _adaptive(op, "bench quick", "global_512_7_b8", (8, 512, 7, 7), 1)
        yield _adaptive(op, "bench", "alexnet_256_13_to_6_b16", (16, 256, 13, 13), 6)
        yield _adaptive(op, "bench", "vgg_512_14_to_7_b8", (8, 512, 14, 14), 7)
    yield _adaptive(best, test, "ties", (2, 3, 11, 19), (4, 7), "ties")
    yield _adaptive(best, test, "indices", (2, 19, 11, 9), (4, 4), "ties", return_indices=True)
    yield _adaptive(best, test, "indices_equal", (2, 3, 10, 18), (5, 6), "ties", return_indices=True)
    yield _adaptive(best, test, "indices_special", (2, 3, 9, 17), (4, 5), "special", return_indices=True)
    yield _adaptive(best, test, "indices_unbatched", (3, 9, 10), (4, None), return_indices=True)
    yield _adaptive(best, test, "indices_large", (1, 2, 67, 71), (8, 9), "ties", return_indices=True)


def _cell_cases(op: str) -> Iterator[Case]:
    yield from (_cell(op, "test", f"hidden_{n}", 3, 6, n) for n in _EDGES)
    yield from (_cell(op, "test", f"batch_{n}", n, 10, 12) for n in (0, *_EDGES))
    yield from (_cell(op, "test", f"inputs_{n}", 2, n, 8) for n in (1, 3, 17, 64))
    yield _cell(op, "test", "no_bias", 5, 7, 9, bias=False)
    yield _cell(op, "test", "no_bias_batch_1", 1, 16, 32, bias=False)
    yield _cell(op, "test", "odd_blocks", 37, 53, 67)
    yield _cell(op, "grad", "grad", 2, 3, 2)
    yield _cell(op, "grad", "grad_no_bias", 1, 2, 3, bias=False)
    for batch in (1, 32, 64, 256):
        for hidden in (128, 256, 512, 1024):
            quick = " quick" if (batch, hidden) in ((1, 256), (64, 128), (64, 512)) else ""
            yield _cell(op, f"bench{quick}", f"h{hidden}_b{batch}", batch, hidden, hidden)


CASES: tuple[Case, ...] = (
    *_linear_cases(),
    *_conv2d_cases(),
    *_conv_transpose2d_cases(),
    *_pool_cases(),
    *_adaptive_pool_cases(),
    *(case for op in _GATES for case in _cell_cases(op)),
)


def select(tag: str | None = None, glob: str = "*") -> list[Case]:
    """Cases with ``tag`` whose op, name or ``op/name`` matches ``glob``."""
    return [
        case
        for case in CASES
        if (tag is None or tag in case.tags)
        and any(fnmatch.fnmatchcase(text, glob) for text in (case.id, case.op, case.name))
    ]
