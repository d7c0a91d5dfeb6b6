"""A run's configuration: what the command line gave, completed by the model's defaults."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a run. Two runs of equal configuration on one machine give equal numbers."""

    model: str
    options: dict[str, Any]
    """The model's own options: hidden, activation, pooling."""
    backend: str
    device: str
    threads: int
    data: str
    data_dir: str | None
    scale: str
    limit: int | None
    epochs: int
    batch_size: int
    optimizer: str
    lr: float
    momentum: float
    seed: int
    log_steps: bool

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)
