"""Training a model as the command does, without its pictures."""

from __future__ import annotations

from pathlib import Path

import torch
from cisdl import backend, tasks
from cisdl.models import registry
from cisdl.training.config import configure
from cisdl.training.loop import Outcome, train
from cisdl.training.run_folder import RunFolder


def trained(name: str, folder: Path, **given: object) -> Outcome:
    """A run of `cisdl train NAME`, on one thread."""
    entry = registry.get(name)
    config = configure(entry, **given)
    torch.set_num_threads(1)
    task = tasks.load(entry, config)
    torch.manual_seed(config.seed)
    return train(config, task.build(backend.get(config.backend)), task, RunFolder(folder))
