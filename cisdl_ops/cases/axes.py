"""Axes: the dimensions of a case by name, and the case with other sizes along them.

Names are torch's own (``in_features``, ``out_channels``, ``kernel_size``, ``hidden_size``) and those of the
case table (``batch``, ``inputs``, ``hidden``, ``steps``). An axis that stands for several dimensions sets all
of them: ``channels`` those in and out, ``size`` height and width.

    >>> case = select("bench", "linear/lenet_fc1_b64")[0]
    >>> varied(case, {"batch": 256}).shapes["input"]
    (256, 400)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from cisdl_ops.cases.build import GATES as CELL_GATES
from cisdl_ops.cases.layers import GATES as LAYER_GATES
from cisdl_ops.cases.table import Case, Shape

MARK = "@"
"""Between a case's name and its axes: lenet_fc1_b64@batch=256."""

Dimensions = dict[str, tuple[str, ...]]

IMAGES = ("batch", "channels", "height", "width")
CONV: Dimensions = {
    "input": ("batch", "in_channels", "height", "width"),
    "weight": ("out_channels", "in_channels/groups", "kernel_height", "kernel_width"),
    "bias": ("out_channels",),
}
CONV_TRANSPOSED: Dimensions = {
    **CONV,
    "weight": ("in_channels", "out_channels/groups", "kernel_height", "kernel_width"),
}


def _recurrent(gates: int, *lead: str) -> Dimensions:
    rows, state = f"{gates}*hidden_size", ("batch", "hidden_size")
    states = (("1", *state) if lead else state,) * 2
    return {
        "input": (*lead, "batch", "input_size"),
        **dict(zip(("hx", "cx"), states, strict=True)),
        "w_ih": (rows, "input_size"),
        "w_hh": (rows, "hidden_size"),
        "b_ih": (rows,),
        "b_hh": (rows,),
    }


DIMENSIONS: dict[str, Dimensions] = {
    # The first dimension is the batch; those between it and the last one stay as they are.
    "linear": {
        "input": ("batch", "...", "in_features"),
        "weight": ("out_features", "in_features"),
        "bias": ("out_features",),
    },
    "conv2d": CONV,
    "conv_transpose2d": CONV_TRANSPOSED,
    **{
        op: {"input": IMAGES}
        for op in ("max_pool2d", "avg_pool2d", "adaptive_max_pool2d", "adaptive_avg_pool2d")
    },
    **{op: _recurrent(gates) for op, gates in CELL_GATES.items()},
    **{op: _recurrent(gates, "steps") for op, gates in LAYER_GATES.items()},
    "word2vec": dict.fromkeys(("input_vectors", "output_vectors"), ("words", "dim")),
    "glove": dict.fromkeys(("word_vectors", "context_vectors"), ("words", "dim")),
}
"""op -> tensor -> the name of each of its dimensions; a product or quotient where it follows from another."""

KEYWORDS: dict[str, tuple[str, ...]] = {
    "conv2d": ("stride", "padding", "dilation", "groups"),
    "conv_transpose2d": ("stride", "padding", "dilation", "groups"),
    "max_pool2d": ("kernel_size", "stride", "padding", "dilation"),
    "avg_pool2d": ("kernel_size", "stride", "padding"),
    "adaptive_max_pool2d": ("output_size",),
    "adaptive_avg_pool2d": ("output_size",),
}
"""Keyword arguments that are a number, and so an axis too."""

MEANS: dict[str, tuple[str, ...]] = {
    "n": ("batch",),
    "inputs": ("input_size", "in_features"),
    "outputs": ("out_features",),
    "hidden": ("hidden_size",),
    "channels": ("channels", "in_channels", "out_channels"),
    "size": ("height", "width"),
    "kernel_size": ("kernel_height", "kernel_width"),
}
"""What other names of an axis stand for, as far as the op has them."""


class NoSuchAxis(ValueError):
    """The case has no dimension of that name, or cannot have that size; the message is a clause."""


def names(op: str) -> list[str]:
    """The axes of an op: of its dimensions, its keyword arguments, and the other names of both.

    >>> names("linear")
    ['batch', 'in_features', 'out_features', 'n', 'inputs', 'outputs']
    """
    known = [name for shape in DIMENSIONS[op].values() for name in shape if name.isidentifier()]
    known += KEYWORDS.get(op, ())
    known += [name for name, meant in MEANS.items() if any(one in known for one in meant)]
    return list(dict.fromkeys(known))


def varied(case: Case, axes: Mapping[str, int]) -> Case:
    """The case with these sizes, named after it and them.

    A depthwise convolution stays one. Padding, stride and dilation are kept unless they are among the axes.

    Raises:
        NoSuchAxis: an axis the op does not have, or sizes that do not fit together.
    """
    sizes = _sizes(case)
    kwargs: dict[str, Any] = dict(case.kwargs)
    depthwise = kwargs.get("groups", 1) > 1 and kwargs["groups"] == sizes.get("in_channels")
    for name, value in axes.items():
        if name not in names(case.op):
            raise NoSuchAxis(f"{case.op} has no axis '{name}'")
        meant = [one for one in MEANS.get(name, (name,)) if one in sizes]
        if not meant and name in KEYWORDS.get(case.op, ()):
            kwargs[name] = value
        elif not meant:
            raise NoSuchAxis(f"its tensors have no dimension '{name}'")
        sizes.update(dict.fromkeys(meant, value))
    if depthwise and "groups" not in axes:
        kwargs["groups"] = sizes["in_channels"]
    groups = kwargs.get("groups", 1)
    for name in ("in_channels", "out_channels"):
        if sizes.get(name, 0) % groups:
            raise NoSuchAxis(f"{sizes[name]} {name} are not a multiple of {groups} groups")
    shapes = {
        tensor: tuple(
            _evaluated(dimension, sizes, groups, size)
            for dimension, size in zip(_dimensions(case.op, tensor, shape), shape, strict=True)
        )
        for tensor, shape in case.shapes.items()
    }
    wanted = ",".join(f"{name}={value}" for name, value in axes.items())
    found = replace(case, name=f"{case.name}{MARK}{wanted}", shapes=shapes, kwargs=kwargs)
    if case.op not in ("word2vec", "glove"):
        _require_output(found)
    return found


def axes_of(identifier: str) -> dict[str, int]:
    """The sizes that a varied case was given, read back from its name; empty for a case of the table.

    >>> axes_of("linear/square_512_b1@batch=64")
    {'batch': 64}
    """
    _, _, wanted = identifier.partition(MARK)
    pairs = (one.split("=") for one in wanted.split(",") if one)
    return {name: int(size) for name, size in pairs}


def _dimensions(op: str, tensor: str, shape: Shape) -> Iterable[str]:
    """The name of each dimension of a tensor; "..." stands for none or several, and stays."""
    named = DIMENSIONS[op][tensor]
    if "..." in named:
        cut = named.index("...")
        tail = named[cut + 1 :]
        between = len(shape) - cut - len(tail)
        named = (*named[:cut], *("...",) * between, *tail) if between >= 0 else named[-len(shape) :]
    return named[-len(shape) :]


def _sizes(case: Case) -> dict[str, int]:
    """Every dimension that has a name of its own."""
    return {
        dimension: size
        for tensor, shape in case.shapes.items()
        for dimension, size in zip(_dimensions(case.op, tensor, shape), shape, strict=True)
        if dimension.isidentifier()
    } | (
        # Of the transposed convolution the weight has a group's share, and a bias is not always there.
        {"out_channels": case.shapes["weight"][1] * case.kwargs.get("groups", 1)}
        if case.op == "conv_transpose2d"
        else {}
    )


def _evaluated(dimension: str, sizes: Mapping[str, int], groups: int, before: int) -> int:
    """A dimension's size: by name, a multiple of one ("4*hidden_size"), a group's share; else as before."""
    factor, star, name = dimension.partition("*")
    if star:
        return int(factor) * sizes[name]
    name, slash, _ = dimension.partition("/")
    return sizes[name] // groups if slash else sizes.get(dimension, before)


def _require_output(case: Case) -> None:
    try:
        shapes = case.output_shapes()
    except (RuntimeError, ValueError) as error:
        raise NoSuchAxis(f"torch refuses it: {' '.join(str(error).split())}") from error
    if any(0 in shape for shape in shapes):
        raise NoSuchAxis("nothing would be left of the output")
