"""What models are trained to do. `base.py` says what a task is; there is a file for each."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from cisdl.models.registry import ModelEntry
    from cisdl.tasks.base import Task
    from cisdl.training.config import TrainConfig


def load(entry: ModelEntry, config: TrainConfig) -> Task:
    """The task of a model, with its data read and prepared as `config` says."""
    module = importlib.import_module(f"cisdl.tasks.{entry.task}")
    return cast("Task", module.load(entry, config))
