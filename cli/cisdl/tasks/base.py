"""A task: the part of a run that knows what the data are and what is asked of the model.

The training loop, the run folder and the commands know tasks, and nothing of images, noise or words. To add
one: a file here with a subclass of `Task` and a function `new(entry, config)`, its kind of data in `TASKS`,
and its name in the registry entries of the models that do it. What a finished run can do besides being
judged is said by the classes at the end, from which a task may derive as well.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from cisdl.backend import Backend
from cisdl.models.registry import ModelEntry
from cisdl.training import processes
from cisdl.training.config import TrainConfig
from cisdl.training.trainer import GradientTrainer, Trainer


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
    values: Mapping[str, float] = field(default_factory=dict)
    """Further figures, averaged over the examples; metrics.csv has their means as `train_<name>`."""


class Data(Protocol):
    """What is said of any data in config.json and on the screen."""

    @property
    def name(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def split(self) -> str: ...
    @property
    def counts(self) -> dict[str, int]:
        """Examples of each part that has any: train, validation and, if there is one, test."""
        ...


class Pictures(NamedTuple):
    """What the pictures of a finished run are drawn from: its folder for them, and words to put in them."""

    folder: Path
    title: str
    """The model and the data."""
    judged_on: str
    """The part that the kept epoch was judged on."""
    metrics: Sequence[Mapping[str, Any]] = ()
    """The rows of metrics.csv."""


class Curve(NamedTuple):
    """A column of metrics.csv to be drawn: its name without the part, the axis' label, a factor."""

    key: str
    label: str
    factor: float = 1.0


class Task(ABC):
    """One model, its data and its loss.

    Training: `read`, `build`, then `batches`, `trainer`'s steps and `evaluate`. A finished run: `restore`
    with the checkpoint's facts, `build`, and, to judge it on other data, `open` and `evaluate`.
    """

    metric: ClassVar[str]
    """What an `Evaluation` in words is of: "accuracy"."""
    loss_name: ClassVar[str]
    score: ClassVar[Curve]
    """What is drawn beside the loss."""
    of_images: ClassVar[bool] = False
    """Whether --scale and --image-size mean anything."""

    def __init__(self, entry: ModelEntry, config: TrainConfig) -> None:
        self.entry = entry
        self.config = config

    @property
    def option(self) -> Mapping[str, Any]:
        """The model's options, by name."""
        return self.config.options

    # the data

    @abstractmethod
    def read(self) -> None:
        """Read and prepare the data to train on, as the configuration says."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What the task learned of its data and the model needs again: shape, scaling, classes, vocabulary.

        They are saved in config.json and beside the weights, so plain types only.
        """

    @abstractmethod
    def restore(self, facts: Mapping[str, Any]) -> None:
        """Take the facts of a finished run, instead of `read`."""

    @abstractmethod
    def open(self, data: str, data_dir: str | None) -> None:
        """After `restore`: read `data`, prepared as the training data were, as one part called "test"."""

    @property
    @abstractmethod
    def data(self) -> Data: ...

    @property
    def parts(self) -> list[str]:
        """Names of the parts of the data: train, validation and, if there is one, test."""
        return list(self.data.counts)

    @abstractmethod
    def describe(self) -> dict[str, str]:
        """The data in a few words each, for --dry-run and `cisdl show`."""

    @abstractmethod
    def to(self, device: torch.device) -> None:
        """Move the data."""

    # the model

    @abstractmethod
    def build(self, ops: Backend) -> nn.Module:
        """A new model that fits the data; seed torch first."""

    @abstractmethod
    def example(self) -> tuple[Tensor, ...]:
        """What `forward` takes, a batch of 1, to find the model's layers with."""

    # training

    @abstractmethod
    def batches(self, epoch: int) -> Iterator[Any]:
        """The mini-batches of an epoch, in an order that only (seed, epoch) decides."""

    @abstractmethod
    def batch_count(self) -> int:
        """Mini-batches an epoch."""

    def trainer(self, model: nn.Module) -> Trainer:
        """What takes the steps: by default an optimiser on the gradient of `step`'s loss."""
        return GradientTrainer(self.config, model, self.step, self.share)

    def share(self, batch: Any) -> tuple[Any, bool]:
        """What one of several processes trains on of a mini-batch, and whether it counts: `processes.rows`.

        It is for tensors with a row an example.
        """
        chosen, counted = processes.rows(len(batch[0]))
        return tuple(each[chosen].contiguous() for each in batch), counted

    def step(self, model: nn.Module, batch: Any) -> Step:
        """The loss of one mini-batch, of which `GradientTrainer` takes the gradient."""
        raise NotImplementedError(f"{type(self).__name__} has a trainer of its own")

    @abstractmethod
    def evaluate(self, model: nn.Module, part: str) -> Evaluation:
        """The model in eval mode over the whole part; the model is left as it was."""

    def baselines(self, part: str) -> Mapping[str, Evaluation]:
        """What methods without a neural network make of a part of the data."""
        return {}

    def export(self, model: nn.Module, folder: Path) -> None:
        """Write what the kept model is good for besides best.pt into the run's folder."""
        return

    @abstractmethod
    def draw(self, model: nn.Module, evaluation: Evaluation, pictures: Pictures) -> None:
        """The task's own pictures, of the kept model on the CPU; curves are drawn for all."""


class Prediction(NamedTuple):
    """What a model says of one input, for `cisdl predict`."""

    given: str
    answer: str
    details: dict[str, Any]
    """More of it, for --json and in brackets: a confidence, scores by class."""


class Predicts(ABC):
    """Answers new inputs: texts, or paths of images."""

    @abstractmethod
    def predict(self, model: nn.Module, given: Sequence[str]) -> list[Prediction]:
        """One prediction an input, in order. A `UsageError` or `DataError` names the input at fault."""


@dataclass(frozen=True)
class SampleRequest:
    """What `cisdl sample` was asked for. A task refuses what it has no use for."""

    count: int
    seed: int
    folder: Path
    """Where pictures go: the run's samples/."""
    length: int | None = None
    temperature: float | None = None
    start: str | None = None


class Samples(ABC):
    """Makes new examples like those it was trained on."""

    @abstractmethod
    def sample(self, model: nn.Module, request: SampleRequest) -> list[str]:
        """Texts, or paths of the pictures that were written."""


class Neighbour(NamedTuple):
    word: str
    similarity: float


class Queries(ABC):
    """Knows words by their vectors. A word it does not know is a `UsageError`."""

    @abstractmethod
    def nearest(self, model: nn.Module, word: str, count: int) -> list[Neighbour]:
        """The words of the most similar vectors, the nearest first."""

    @abstractmethod
    def analogy(self, model: nn.Module, words: Sequence[str], count: int) -> list[Neighbour]:
        """For words (a, b, c): a is to b as c is to what? None of the three is an answer."""
