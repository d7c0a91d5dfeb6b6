"""What models are trained to do. `base.py` says what a task is; there is a file for each."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from cisdl.models.registry import ModelEntry
    from cisdl.tasks.base import Task
    from cisdl.training.config import TrainConfig

TASKS = {
    "classification": "images",
    "reconstruction": "images",
}
"""The kind of data (`data.registry.KINDS`) that each task trains on."""


def new(entry: ModelEntry, config: TrainConfig) -> Task:
    """The task that `config` names, with nothing read."""
    module: Any = importlib.import_module(f"cisdl.tasks.{config.task}")
    return cast("Task", module.new(entry, config))


def load(entry: ModelEntry, config: TrainConfig) -> Task:
    """The task that `config` names, with its data read and prepared."""
    task = new(entry, config)
    task.read()
    return task
