"""What models are trained to do. `base.py` says what a task is; there is a file for each."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, cast

from cisdl.environment import one_line
from cisdl.errors import BuildError

if TYPE_CHECKING:
    from cisdl.models.registry import ModelEntry
    from cisdl.tasks.base import Task
    from cisdl.training.config import TrainConfig

TASKS = {
    "classification": "images",
    "reconstruction": "images",
    "generation": "images",
    "image_recall": "images",
    "recall": "patterns",
    "text_classification": "sentences",
    "tagging": "tags",
    "translation": "pairs",
    "sequences": "sequences",
    "characters": "text",
    # word vectors
    "word2vec": "text",
    "glove": "text",
}
"""The kind of data (`data.registry.KINDS`) that each task trains on."""


def new(entry: ModelEntry, config: TrainConfig) -> Task:
    """The task that `config` names, with nothing read."""
    try:
        module: Any = importlib.import_module(f"cisdl.tasks.{config.task}")
    except ImportError as error:  # of the kernels, which word vectors count and score with on either backend
        raise BuildError(one_line(error)) from error
    return cast("Task", module.new(entry, config))


def load(entry: ModelEntry, config: TrainConfig) -> Task:
    """The task that `config` names, with its data read and prepared."""
    task = new(entry, config)
    task.read()
    return task
