"""Short ways to write a case of each op, and the sizes at which vector loops have their edges."""

from __future__ import annotations

from typing import Any

from cisdl_ops.cases.table import Case, Shape

GATES = {"lstm_cell": 4, "gru_cell": 3, "rnn_tanh_cell": 1, "rnn_relu_cell": 1}

# Sizes on both sides of every vector width in use (4, 8, 16 lanes; 32 and 64 are tile widths).
EDGES = (1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 65)


def tagged(tags: str) -> frozenset[str]:
    return frozenset(tags.split())


def linear(tags: str, name: str, x: Shape, out: int, bias: bool = True, **kwargs: Any) -> Case:
    shapes: dict[str, Shape] = {"input": x, "weight": (out, x[-1])}
    return Case("linear", name, shapes | ({"bias": (out,)} if bias else {}), kwargs, tagged(tags))


def conv2d(tags: str, name: str, x: Shape, weight: Shape, bias: bool = True, **kwargs: Any) -> Case:
    shapes: dict[str, Shape] = {"input": x, "weight": weight}
    return Case("conv2d", name, shapes | ({"bias": weight[:1]} if bias else {}), kwargs, tagged(tags))


def conv_transpose2d(tags: str, name: str, x: Shape, weight: Shape, bias: bool = True, **kwargs: Any) -> Case:
    shapes: dict[str, Shape] = {"input": x, "weight": weight}
    channels = weight[1] * kwargs.get("groups", 1)
    shapes |= {"bias": (channels,)} if bias else {}
    return Case("conv_transpose2d", name, shapes, kwargs, tagged(tags))


def pool(op: str, tags: str, name: str, x: Shape, kernel: Any, values: str = "normal", **kwargs: Any) -> Case:
    return Case(op, name, {"input": x}, {"kernel_size": kernel, **kwargs}, tagged(tags), values)


def adaptive_pool(
    op: str, tags: str, name: str, x: Shape, size: Any, values: str = "normal", **kwargs: Any
) -> Case:
    return Case(op, name, {"input": x}, {"output_size": size, **kwargs}, tagged(tags), values)


def cell(op: str, tags: str, name: str, batch: int, inputs: int, hidden: int, bias: bool = True) -> Case:
    state, rows = (batch, hidden), GATES[op] * hidden
    shapes: dict[str, Shape] = {"input": (batch, inputs), "hx": state}
    shapes |= {"cx": state} if op == "lstm_cell" else {}
    shapes |= {"w_ih": (rows, inputs), "w_hh": (rows, hidden)}
    shapes |= {"b_ih": (rows,), "b_hh": (rows,)} if bias else {}
    return Case(op, name, shapes, {}, tagged(tags))
