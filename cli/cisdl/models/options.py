"""The models' own options on the command line. An entry of the registry names those that its model has.

To add one: an `Option` here, under the name that `build` or the task uses, and its default in the entries.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import click

from cisdl.errors import UsageError

ACTIVATIONS = ("sigmoid", "tanh", "relu", "leaky_relu")
POOLINGS = ("max", "avg")

COUNT = click.IntRange(min=1)
PROBABILITY = click.FloatRange(0, 1, max_open=True)


class Widths(click.ParamType[tuple[int, ...]]):
    """Comma-separated layer widths: 128,64."""

    name = "N[,N...]"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(int(width) for width in value.split(","))
        except ValueError:
            numbers = (0,)
        if min(numbers) < 1:
            name = param.opts[0] if param else "widths"
            raise UsageError(f"{name}: expected widths above 0 like 128,64, got '{value}'")
        return numbers


@dataclass(frozen=True)
class Option:
    """How a model's option is given."""

    help: str
    type: click.ParamType[Any]
    metavar: str | None = None


OPTIONS: dict[str, Option] = {
    "hidden": Option("Widths of hidden layers", Widths(), "N[,N...]"),
    "activation": Option("After each hidden layer", click.Choice(ACTIVATIONS)),
    "pooling": Option("Largest of a window, or its mean", click.Choice(POOLINGS)),
    "dropout": Option("Probability of leaving a number out", PROBABILITY, "P"),
    "width": Option("Channels of the first layer", COUNT, "N"),
    # autoencoders
    "code": Option("Numbers of the code", COUNT, "N"),
    "noise": Option("Its deviation, for pixels in [0, 1]", click.FloatRange(min=0, min_open=True), "S"),
}
