"""A run's configuration: what the command line gave, completed by the model's defaults."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from cisdl.data.registry import DATA, kind_of
from cisdl.errors import UsageError
from cisdl.models.registry import ModelEntry
from cisdl.tasks import TASKS

MOMENTUM = 0.9
OPTIMIZERS = ("sgd", "momentum", "adam", "adagrad")
SCHEDULES = ("constant", "linear", "cosine")


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a run. Two runs of equal configuration on one machine give equal numbers."""

    model: str
    task: str
    """The module of `cisdl.tasks` that trains it on such data."""
    options: dict[str, Any]
    """The model's own options."""
    backend: str
    device: str
    threads: int
    data: str
    data_dir: str | None
    scale: str | None
    """How pixels are scaled; None for data that are not images."""
    image_size: int | None
    """Images are resized to that many rows and columns; None takes them as they come."""
    limit: int | None
    epochs: int
    batch_size: int
    optimizer: str
    lr: float
    schedule: str
    momentum: float
    clip_norm: float | None
    """The gradient's norm is kept at or below this."""
    patience: int | None
    """Training ends after this many epochs without a better validation."""
    max_time: float | None
    """Training ends after the step that passes this many seconds."""
    overfit_one_batch: bool
    """Every step sees the first mini-batch of the first epoch: a model that can learn learns it by heart."""
    init_from: str | None
    """The run whose weights are the initial ones."""
    seed: int
    log_steps: bool
    tensorboard: bool = False

    def lr_after(self, done: float) -> float:
        """The learning rate when that share of the training is done."""
        if self.schedule == "linear":
            return self.lr * (1 - done)
        if self.schedule == "cosine":  # Loshchilov, Hutter, "SGDR", ICLR 2017, without restarts
            return self.lr * (1 + math.cos(math.pi * done)) / 2
        return self.lr

    def lr_at(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 1."""
        return self.lr_after((epoch - 1) / self.epochs)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def configure(entry: ModelEntry, **given: Any) -> TrainConfig:
    """The configuration of a run: what is given, else the model's defaults; None counts as not given."""
    given = {name: value for name, value in given.items() if value is not None}
    data = given.get("data", entry.data)
    optimizer = given.get("optimizer", entry.optimizer)
    of_data = DATA[data].scale if data in DATA else "standard"
    if optimizer not in entry.lr:
        known = " or ".join(entry.lr)
        raise UsageError(f"--optimizer: {entry.name} is trained by {known}, got {optimizer}")
    kinds = {TASKS[task]: task for task in reversed(entry.tasks)}
    kind = kind_of(data, given.get("data_dir"), [TASKS[task] for task in entry.tasks])
    of_images = kind == "images"
    for name in ("scale", "image_size"):
        if name in given and not of_images:
            raise UsageError(f"--{name.replace('_', '-')}: expected with images, got with {data}")
    defaults = {
        "model": entry.name,
        "task": kinds[kind],
        "options": dict(entry.options),
        "backend": "cisdl",
        "device": "cpu",
        "threads": 1,
        "data": data,
        "data_dir": None,
        "scale": (entry.scale or of_data) if of_images else None,
        "image_size": entry.image_size if of_images else None,
        "limit": None,
        "epochs": entry.epochs,
        "batch_size": entry.batch_size,
        "optimizer": optimizer,
        "lr": entry.lr[optimizer],
        "schedule": entry.schedule,
        "clip_norm": entry.clip_norm,
        "momentum": MOMENTUM if optimizer == "momentum" else 0.0,
        "patience": None,
        "max_time": None,
        "overfit_one_batch": False,
        "init_from": None,
        "seed": 0,
        "log_steps": False,
        "tensorboard": False,
    }
    return TrainConfig(**defaults | given)
