"""A task: the part of a run that knows what the data are and what is asked of the model.

The training loop, the run folder and the command know tasks, and nothing of images, noise or words. To add
one: a file here with a subclass of `Task` and a function `load(entry, config)`, and its name in the registry
entries of the models that do it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from cisdl.backend import Backend
from cisdl.models.registry import ModelEntry
from cisdl.training.config import TrainConfig


@dataclass(frozen=True)
class Evaluation(ABC):
    """What a model makes of one part of the data."""

    loss: float
    """The training loss, averaged over the part."""

    @property
    @abstractmethod
    def rank(self) -> tuple[float, ...]:
        """Larger is better: validation keeps the first epoch of the largest."""

    @abstractmethod
    def as_dict(self) -> dict[str, float | int]:
        """For metrics.csv and result.json, with every count that belongs to a figure."""

    @abstractmethod
    def __str__(self) -> str:
        """In words: "97.22 % (350/360)"."""


@dataclass(frozen=True)
class Step:
    """A mini-batch's loss, averaged over `count` examples, and how many of them were answered right."""

    loss: Tensor
    count: int
    correct: int | None = None


class Data(Protocol):
    """What is said of any data in config.json and on the screen."""

    @property
    def name(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def split(self) -> str: ...
    @property
    def counts(self) -> dict[str, int]: ...


class Pictures(NamedTuple):
    """What the pictures of a finished run are drawn from: its folder for them, and words to put in them."""

    folder: Path
    title: str
    """The model and the data."""
    judged_on: str
    """The part that the kept epoch was judged on."""


class Task(ABC):
    """One model, its data and its loss."""

    metric: ClassVar[str]
    """What an `Evaluation` in words is of: "accuracy"."""
    loss_name: ClassVar[str]
    score: ClassVar[Curve]
    """What is drawn beside the loss."""

    def __init__(self, entry: ModelEntry, config: TrainConfig) -> None:
        self.entry = entry
        self.config = config

    @property
    @abstractmethod
    def data(self) -> Data: ...

    @property
    def parts(self) -> list[str]:
        """Names of the parts of the data: train, validation and, if there is one, test."""
        return list(self.data.counts)

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What a checkpoint needs beside the weights to be used again: scaling, classes, vocabulary."""

    @abstractmethod
    def describe(self) -> dict[str, str]:
        """The data in a few words each, for --dry-run."""

    @abstractmethod
    def build(self, ops: Backend) -> nn.Module:
        """A new model that fits the data; seed torch first."""

    @abstractmethod
    def example(self) -> Tensor:
        """An input of batch 1, to find the model's layers with."""

    @abstractmethod
    def to(self, device: torch.device) -> None:
        """Move the data."""

    @abstractmethod
    def batches(self, epoch: int) -> Iterator[Any]:
        """The mini-batches of an epoch, in an order that only (seed, epoch) decides."""

    @abstractmethod
    def batch_count(self) -> int:
        """Mini-batches an epoch."""

    @abstractmethod
    def step(self, model: nn.Module, batch: Any) -> Step:
        """The loss of one mini-batch."""

    @abstractmethod
    def evaluate(self, model: nn.Module, part: str) -> Evaluation:
        """The model in eval mode over the whole part; the model is left as it was."""

    def baselines(self, part: str) -> Mapping[str, Evaluation]:
        """What methods without a neural network make of a part of the data."""
        return {}

    @abstractmethod
    def draw(self, model: nn.Module, evaluation: Evaluation, pictures: Pictures) -> None:
        """The task's own pictures, of the kept model on the CPU; curves are drawn for all."""


class Curve(NamedTuple):
    """A column of metrics.csv to be drawn: its name without the part, the axis' label, a factor."""

    key: str
    label: str
    factor: float = 1.0
