"""The list of models: what `cisdl train` and `cisdl ls models` know, without importing torch.

To add a model: write `models/<module>.py` with a function `build(ops, shape, **options)` that returns an
`nn.Module`, and add an entry that names its task (`tasks/`), which says what goes in and comes out.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any

from cisdl.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from torch import nn

    from cisdl.backend import Backend

ACTIVATIONS = ("sigmoid", "tanh", "relu", "leaky_relu")
POOLINGS = ("max", "avg")


@dataclass(frozen=True)
class ModelEntry:
    """What is known of a model before it is built."""

    name: str
    week: int
    title: str
    task: str
    """The module of `cisdl.tasks` that trains it."""
    epochs: int
    batch_size: int
    optimizer: str
    lr: Mapping[str, float]
    """The default learning rate of each optimizer."""
    schedule: str = "constant"
    """How the learning rate goes on from there: "constant", or "cosine" to zero."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The model's own options and their defaults, by the name they have on the command line."""
    image_size: int | None = None
    """Images are resized to this many rows and columns; None takes them as they come."""
    data: str = "digits"
    """What it is trained on if nothing is said."""
    scale: str | None = None
    """How pixels are scaled by default; None leaves it to the data set."""

    @property
    def module(self) -> ModuleType:
        """The file that holds the model."""
        return importlib.import_module(f"cisdl.models.{self.name.replace('-', '_')}")

    def build(self, ops: Backend, shape: tuple[int, int, int], **options: Any) -> nn.Module:
        """A new model with freshly drawn weights (seed torch first) for images of `shape` = (C, H, W)."""
        model: nn.Module = self.module.build(ops, shape, **{**self.options, **options})
        return model


MODELS: dict[str, ModelEntry] = {
    entry.name: entry
    for entry in (
        ModelEntry(
            "mlp",
            week=1,
            title="multi-layer perceptron: fully connected layers with an activation between them",
            task="classification",
            epochs=20,
            batch_size=32,
            optimizer="adam",
            lr={"sgd": 1e-2, "momentum": 1e-2, "adam": 1e-3},
            options={"hidden": (128, 64), "activation": "relu"},
        ),
        ModelEntry(
            "autoencoder",
            week=2,
            title="autoencoder: an image squeezed through a code of few numbers and made again from it",
            task="reconstruction",
            epochs=200,
            batch_size=32,
            optimizer="adam",
            lr={"sgd": 1.0, "momentum": 1e-1, "adam": 2e-3},
            schedule="cosine",
            options={"hidden": (512,), "code": 16, "activation": "relu"},
            scale="unit",
        ),
        ModelEntry(
            "denoising-autoencoder",
            week=2,
            title="denoising autoencoder: convolutions that restore a noisy image",
            task="reconstruction",
            epochs=60,
            batch_size=32,
            optimizer="adam",
            lr={"sgd": 1.0, "momentum": 1e-1, "adam": 2e-3},
            schedule="cosine",
            options={"width": 16, "noise": 0.3},
            scale="unit",
        ),
        ModelEntry(
            "lenet",
            week=3,
            title="LeNet-5: two convolutions, two poolings, three fully connected layers",
            task="classification",
            epochs=20,
            batch_size=32,
            optimizer="adam",
            lr={"sgd": 1e-2, "momentum": 1e-2, "adam": 1e-3},
            options={"activation": "relu", "pooling": "max"},
            image_size=28,
        ),
        ModelEntry(
            "lstm",
            week=6,
            title="LSTM that reads an image row by row and classifies it from its last hidden state",
            task="classification",
            epochs=20,
            batch_size=32,
            optimizer="adam",
            lr={"sgd": 1e-1, "momentum": 3e-2, "adam": 3e-3},
            options={"hidden": (128,)},
        ),
    )
}


def get(name: str) -> ModelEntry:
    """The entry called `name`; a `UsageError` with a suggestion if there is none."""
    if name not in MODELS:
        raise UsageError(f"unknown model '{name}'; {did_you_mean(name, MODELS)}")
    return MODELS[name]
