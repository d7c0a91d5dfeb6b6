"""The list of models: what `cisdl train` and `cisdl ls models` know, without importing torch.

To add a model: write `models/<module>.py` with a function `build(ops, ...)` that returns an `nn.Module`, and
add an entry that names its tasks (`tasks/`), which say what goes in and comes out. `build` is given what the
task knows of the data (`shape`, `classes`, `vocabulary`) and those of the entry's options that it names.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any

from cisdl.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from torch import nn

    from cisdl.backend import Backend


@dataclass(frozen=True)
class ModelEntry:
    """What is known of a model before it is built."""

    name: str
    week: int
    title: str
    tasks: tuple[str, ...]
    """The modules of `cisdl.tasks` that train it. They differ in the kind of data; the first is the usual."""
    epochs: int
    batch_size: int
    optimizer: str
    lr: Mapping[str, float]
    """The default learning rate of each optimizer that can train it."""
    schedule: str = "constant"
    """How the learning rate goes on from there: "constant", or "linear" or "cosine" to zero."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The model's own options and their defaults, by the name they have in `options.OPTIONS`."""
    image_size: int | None = None
    """Images are resized to this many rows and columns; None takes them as they come."""
    data: str = "digits"
    """What it is trained on if nothing is said."""
    scale: str | None = None
    """How pixels are scaled by default; None leaves it to the data set."""
    clip_norm: float | None = None
    """The gradient's norm is kept at or below this; None leaves it."""
    one_process: str = ""
    """Why several processes cannot train it together, and what to do instead; empty: they can."""

    @property
    def module(self) -> ModuleType:
        """The file that holds the model."""
        return importlib.import_module(f"cisdl.models.{self.name.replace('-', '_')}")

    def check_processes(self, count: int) -> None:
        """A `UsageError` if so many processes cannot train it."""
        if count > 1 and self.one_process:
            raise UsageError(f"{self.name}: expected one process, got {count}: {self.one_process}")

    def build(self, ops: Backend, **given: Any) -> nn.Module:
        """A new model with freshly drawn weights: seed torch first.

        `given` is what the task knows of the data, and options; the others have their defaults. An option
        that `build` does not name is the task's alone.
        """
        build = self.module.build
        named = inspect.signature(build).parameters
        options = {name: value for name, value in self.options.items() if name in named and name not in given}
        given = {name: value for name, value in given.items() if name in named or name not in self.options}
        model: nn.Module = build(ops, **given, **options)
        return model


TEXT_CLASSIFIER: dict[str, Any] = {
    "hidden": (128,),
    "embedding": 100,
    "vectors": None,
    "layers": 1,
    "bidirectional": False,
    "dropout": 0.2,
    "summary": "last",
    "word_dropout": 0.1,
    "min_count": 1,
    "max_words": 20000,
    "max_length": 400,
}

IN_PLACE = "its threads change the vectors in place, in one memory; use --threads instead"

MODELS: dict[str, ModelEntry] = {
    entry.name: entry
    for entry in (
        ModelEntry(
            "mlp",
            week=1,
            title="multi-layer perceptron: fully connected layers with an activation between them",
            tasks=("classification",),
            epochs=20,
            batch_size=32,
            optimizer="adam",
            lr={"sgd": 1e-2, "momentum": 1e-2, "adam": 1e-3},
            options={"hidden": (128, 64), "activation": "relu", "dropout": 0.0, "augment": "none"},
        ),
        ModelEntry(
            "autoencoder",
            week=2,
            title="autoencoder: an image squeezed through a code of few numbers and made again from it",
            tasks=("reconstruction",),
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
            tasks=("reconstruction",),
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
            tasks=("classification",),
            epochs=20,
            batch_size=32,
            optimizer="adam",
            lr={"sgd": 1e-2, "momentum": 1e-2, "adam": 1e-3},
            options={"activation": "relu", "pooling": "max", "dropout": 0.0, "augment": "none"},
            image_size=28,
        ),
        ModelEntry(
            "alexnet",
            week=3,
            title="AlexNet: five convolutions, three poolings, three fully connected layers, dropout",
            tasks=("classification",),
            epochs=15,
            batch_size=64,
            optimizer="adam",
            lr={"sgd": 1e-2, "momentum": 1e-2, "adam": 3e-4},
            schedule="cosine",
            options={"dropout": 0.5, "augment": "none"},
            image_size=64,
        ),
        # generative models
        ModelEntry(
            "gan",
            week=4,
            title="generative adversarial network: a generator against a discriminator, MLP or DCGAN",
            tasks=("generation",),
            epochs=200,
            batch_size=32,
            optimizer="adam",
            lr={"adam": 5e-4},
            schedule="cosine",
            options={"architecture": "mlp", "hidden": (256, 256), "width": 32, "latent": 32},
            scale="unit",
        ),
        # word vectors
        ModelEntry(
            "word2vec",
            week=5,
            title="word2vec: word vectors from predicting a word by its neighbours (skip-gram, CBOW)",
            tasks=("word2vec",),
            epochs=30,
            batch_size=10_000,
            optimizer="sgd",
            lr={"sgd": 0.025},
            schedule="linear",
            options={
                "algorithm": "skip-gram",
                "dim": 100,
                "window": 5,
                "negative": 5,
                "shared_negatives": False,
                "sample": 1e-3,
                "min_count": 5,
                "word_eval": "word-eval",
            },
            data="manual",
            one_process=IN_PLACE,
        ),
        ModelEntry(
            "glove",
            week=5,
            title="GloVe: word vectors from how often words are neighbours in all of a text",
            tasks=("glove",),
            epochs=30,
            batch_size=10_000_000,
            optimizer="adagrad",
            lr={"adagrad": 0.05},
            options={"dim": 100, "window": 10, "x_max": 10.0, "min_count": 5, "word_eval": "word-eval"},
            data="manual",
            one_process=IN_PLACE,
        ),
        # associative memory
        ModelEntry(
            "hopfield",
            week=6,
            title="Hopfield network: an associative memory that finds a pattern again from a spoilt copy",
            tasks=("image_recall", "recall"),
            epochs=1,
            batch_size=1,
            optimizer="sgd",
            lr={"sgd": 1.0},
            options={
                "rule": "projection",
                "stored": 10,
                "flips": 0.1,
                "update": "asynchronous",
                "sweeps": 15,
            },
            scale="raw",
            one_process="it learns in a single step, without a gradient; leave --nproc or torchrun out",
        ),
        # recurrent classifiers of texts, or of images row by row
        *(
            ModelEntry(
                name,
                week=6,
                title=f"{name.upper()} that reads a text by words, or an image by rows, and classifies it",
                tasks=("text_classification", "classification", "sequences"),
                epochs=20,
                batch_size=32,
                optimizer="adam",
                lr={"sgd": 1e-1, "momentum": 3e-2, "adam": 3e-3},
                options=TEXT_CLASSIFIER | {"length": 30, "lag": 5, "truncate": 0, "memory": 0},
                data="opinions",
                clip_norm=5.0,
            )
            for name in ("lstm", "gru")
        ),
        ModelEntry(
            "char-lm",
            week=6,
            title="character language model: an LSTM that reads a text and foretells every next character",
            tasks=("characters",),
            epochs=12,
            batch_size=32,
            optimizer="adam",
            lr={"sgd": 1.0, "momentum": 1e-1, "adam": 4e-3},
            schedule="cosine",
            options={"cell": "lstm", "hidden": (192,), "layers": 1, "dropout": 0.2, "truncate": 64},
            data="manual",
            clip_norm=1.0,
        ),
        # tags and pairs
        ModelEntry(
            "tagger",
            week=6,
            title="bidirectional LSTM over words and their letters that tags every word",
            tasks=("tagging",),
            epochs=5,
            batch_size=32,
            optimizer="adam",
            lr={"sgd": 1.0, "momentum": 1e-1, "adam": 3e-3},
            options={
                "hidden": (100,),
                "embedding": 100,
                "spelling": 25,
                "columns": False,
                "layers": 1,
                "dropout": 0.3,
                "word_dropout": 0.1,
                "min_count": 2,
                "max_words": 50000,
            },
            data="python-source",
            clip_norm=5.0,
        ),
        ModelEntry(
            "encoder-decoder",
            week=6,
            title="two LSTMs, one that reads a sequence and one that writes another, with attention",
            tasks=("translation",),
            epochs=15,
            batch_size=64,
            optimizer="adam",
            lr={"sgd": 1.0, "momentum": 1e-1, "adam": 3e-3},
            schedule="cosine",
            options={
                "cell": "lstm",
                "hidden": (128,),
                "embedding": 64,
                "layers": 1,
                "dropout": 0.1,
                "attention": True,
                "min_count": 1,
            },
            data="numbers",
            clip_norm=5.0,
        ),
        # recurrent networks on sequences
        ModelEntry(
            "elman",
            week=6,
            title="Elman's network: the hidden layer sees what it was a step ago",
            tasks=("sequences", "classification"),
            epochs=10,
            batch_size=32,
            optimizer="adam",
            lr={"sgd": 1e-1, "momentum": 3e-2, "adam": 3e-3},
            options={"hidden": (64,), "length": 30, "lag": 5, "truncate": 0},
            data="echo",
            clip_norm=1.0,
        ),
        ModelEntry(
            "jordan",
            week=6,
            title="Jordan's network: the hidden layer sees what the network answered a step ago",
            tasks=("sequences", "classification"),
            epochs=10,
            batch_size=32,
            optimizer="adam",
            lr={"sgd": 1e-1, "momentum": 3e-2, "adam": 3e-3},
            options={"hidden": (64,), "length": 30, "lag": 2, "truncate": 0},
            data="echo",
            clip_norm=1.0,
        ),
    )
}


def get(name: str) -> ModelEntry:
    """The entry called `name`; a `UsageError` with a suggestion if there is none."""
    if name not in MODELS:
        raise UsageError(f"unknown model '{name}'; {did_you_mean(name, MODELS)}")
    return MODELS[name]
