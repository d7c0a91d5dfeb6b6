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
AUGMENTATIONS = ("none", "shift", "flip", "both")
ARCHITECTURES = ("mlp", "dcgan")
RULES = ("hebb", "projection")
UPDATES = ("asynchronous", "synchronous")
CELLS = ("lstm", "gru", "elman")
SUMMARIES = ("last", "mean", "max")

COUNT = click.IntRange(min=1)
STEPS = click.IntRange(min=0)
PROBABILITY = click.FloatRange(0, 1, max_open=True)
SHARE = click.FloatRange(0, 1, min_open=True)


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
    "augment": Option("Training images moved by a few pixels, mirrored", click.Choice(AUGMENTATIONS)),
    # sequences
    "length": Option("Steps of generated sequences; of copy: blanks", COUNT, "N"),
    "lag": Option("Steps that echo looks back", COUNT, "N"),
    "truncate": Option("Steps that a gradient goes back at most; 0: all", STEPS, "N"),
    "memory": Option("Steps that gates are set to remember at first; 0: torch's weights", STEPS, "N"),
    # autoencoders
    "code": Option("Numbers of the code", COUNT, "N"),
    "noise": Option("Its deviation, for pixels in [0, 1]", click.FloatRange(min=0, min_open=True), "S"),
    # generative models
    "architecture": Option("Fully connected layers, or convolutions", click.Choice(ARCHITECTURES)),
    "latent": Option("Random numbers that an image is made from", COUNT, "N"),
    # associative memory
    "rule": Option("How patterns are learnt", click.Choice(RULES)),
    "stored": Option("Patterns to remember", COUNT, "N"),
    "flips": Option("Share of a pattern's numbers that are spoilt", click.FloatRange(0, 0.5), "P"),
    "update": Option("Neurons one by one, or all at once", click.Choice(UPDATES)),
    "sweeps": Option("Times that each neuron is asked, at most", COUNT, "N"),
    # texts and sequences
    "embedding": Option("Numbers that stand for a word", COUNT, "N"),
    "layers": Option("Recurrent layers, one on the other", COUNT, "N"),
    "columns": Option("Read what the file gives of a word, too", click.BOOL),
    "spelling": Option("States of a word's letters, in each direction", COUNT, "N"),
    "bidirectional": Option("Read in both directions", click.BOOL),
    "summary": Option("Which states are classified", click.Choice(SUMMARIES)),
    "cell": Option("The recurrent layers", click.Choice(CELLS)),
    "attention": Option("Look at all of the input at each step", click.BOOL),
    "word_dropout": Option("Probability of a word counting as unknown in training", PROBABILITY, "P"),
    "min_count": Option("Rarer words count as unknown, or are left out", COUNT, "N"),
    "max_words": Option("Only the most frequent words are known", COUNT, "N"),
    "max_length": Option("Of a longer text only the last N words count", COUNT, "N"),
    # word vectors
    "algorithm": Option("Predict by each neighbour, or by their mean", click.Choice(("skip-gram", "cbow"))),
    "dim": Option("Numbers of a word vector", COUNT, "N"),
    "window": Option("The largest distance of a neighbour", click.IntRange(1, 255), "N"),
    "negative": Option("Words drawn to be told from the right one", click.IntRange(1, 1024), "N"),
    "shared_negatives": Option("Drawn once for all pairs of a centre", click.BOOL),
    "sample": Option("Share of a text from which on a word is often left out", SHARE, "S"),
    "x_max": Option(
        "Count from which on a pair has full weight", click.FloatRange(min=0, min_open=True), "X"
    ),
    "word_eval": Option("Folder of pairs and analogies to judge vectors with", click.STRING, "PATH"),
}
