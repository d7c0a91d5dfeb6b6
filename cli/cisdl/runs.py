"""A finished run, ready to be used: its model with the kept weights, its task without the training data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from cisdl import backend as backends
from cisdl import device as devices
from cisdl import tasks
from cisdl.errors import DataError, UsageError, did_you_mean
from cisdl.models import registry
from cisdl.tasks.base import Task
from cisdl.training import checkpoint
from cisdl.training.config import TrainConfig
from cisdl.training.run_folder import existing, find


@dataclass(frozen=True)
class Run:
    folder: Path
    task: Task
    """Restored, with nothing read: `task.read()` reads the run's own data, `task.open` any other."""
    model: nn.Module
    """In eval mode, on the device."""
    device: torch.device


def open_run(
    name: str, kept: str = "best", backend: str = "cisdl", device: str = "cpu", threads: int | None = None
) -> Run:
    """The run in the folder `name`, or in runs/`name`; `kept` is the checkpoint "best" or "last".

    A checkpoint holds the same weights on either backend, so a run trained on one can be used on the other.
    """
    folder = find(name)
    if folder is None:
        known = did_you_mean(name, [path.name for path in existing()])
        raise UsageError(f"'{name}' is not a run, expected a folder of `cisdl train`; {known}")
    chosen = devices.resolve(device)
    threads = devices.prepare(chosen, threads)
    path = folder / f"{kept}.pt"
    state = checkpoint.load(path)
    config = TrainConfig(**state["config"])
    config = replace(config, backend=backend, device=str(chosen), threads=threads)
    entry = registry.get(config.model)
    task = tasks.new(entry, config)
    task.restore(state["facts"])
    model = task.build(backends.get(backend))
    try:
        model.load_state_dict(state["model"])
    except RuntimeError as error:
        raise DataError(f"{path}: expected the weights of {config.model}, got others") from error
    return Run(folder, task, model.to(chosen).eval(), chosen)
