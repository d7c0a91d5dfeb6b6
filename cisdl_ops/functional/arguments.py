"""What several functions ask of their arguments, and say when they do not get it."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

IntOrPair = int | Sequence[int]
OutputSize = int | Sequence[int | None]
ACTIVATIONS = ("relu", "leaky_relu", "sigmoid", "tanh")  # that a layer may apply to its output
LARGEST_SIZE = 2**31 - 1  # of one dimension, so that products of a few stay within int64


def integer(op: str, name: str, value: Any) -> int:
    """``value`` as an ``int``: torch takes whatever can index a list, but no bool.

    Raises:
        TypeError: anything else.
    """
    if type(value) is int:
        return value
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{op}: {name}: expected an integer, got {value!r}")
    return value if isinstance(value, int) else operator.index(value)


def pair(op: str, name: str, value: IntOrPair) -> list[int]:
    """``value`` as two integers, height first.

    Raises:
        TypeError: something else than integers.
        ValueError: a sequence of neither one nor two.
    """
    if type(value) is int:
        return [value, value]
    if not isinstance(value, (list, tuple)):
        return [integer(op, name, value)] * 2
    if len(value) not in (1, 2):
        raise ValueError(f"{op}: {name}: expected an integer or two, got {value!r}")
    return [integer(op, name, value[0]), integer(op, name, value[-1])]


def flag(op: str, name: str, value: bool) -> bool:
    """``value``, which must be a bool: a number is most likely another argument in the wrong place.

    Raises:
        TypeError: anything else.
    """
    if not isinstance(value, bool):
        raise TypeError(f"{op}: {name}: expected True or False, got {value!r}")
    return value


def check_activation(op: str, activation: Any) -> None:
    """Refuses what is not the name of an activation.

    Raises:
        ValueError: it is none of :data:`ACTIVATIONS`.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(
            f"{op}: activation: expected None or one of {', '.join(ACTIVATIONS)}, got {activation!r}"
        )
