"""A run's figures for TensorBoard, in its folder `tensorboard`: the rows of metrics.csv, epoch by epoch.

The package `tensorboard` is optional: `pip install cisdl[tensorboard]`, or by itself.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cisdl.errors import UsageError

FOLDER = "tensorboard"
PARTS = ("train", "validation")


def require() -> None:
    """A `UsageError` where the package is missing: before a training, not after it."""
    if find_spec("tensorboard") is None:
        from cisdl.diagnosis import pip

        raise UsageError(f"--tensorboard: expected the package tensorboard, found none; {pip('tensorboard')}")


class Scalars:
    """Writes each epoch's figures; what an interrupted run wrote after step `resumed_at` is taken back."""

    def __init__(self, run: Path, resumed_at: int | None = None) -> None:
        # Typed as anything: whether it has types depends on whether the package is there.
        module: Any = importlib.import_module("torch.utils.tensorboard")
        purge = None if resumed_at is None else resumed_at + 1
        self.writer = module.SummaryWriter(str(run / FOLDER), purge_step=purge)

    def add(self, row: Mapping[str, Any]) -> None:
        """A row of metrics.csv: loss/train, loss/validation and so on, over steps."""
        for name, value in row.items():
            if name in ("epoch", "step", "best"):
                continue
            part, _, figure = name.partition("_")
            tag = f"{figure}/{part}" if part in PARTS else f"run/{name}"
            self.writer.add_scalar(tag, value, global_step=row["step"])
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()
