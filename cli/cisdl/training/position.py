"""Where a run is. With the weights, the trainer's state and torch's generators it decides the next step."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cisdl.tasks.base import Step


@dataclass
class Position:
    """After `batch` mini-batches of `epoch`; plain numbers, saved in every checkpoint."""

    epoch: int = 1
    batch: int = 0
    step: int = 0
    """Mini-batches since the start."""
    # of this epoch's batches so far
    loss_sum: float = 0.0
    count: int = 0
    correct: int | None = None
    sums: dict[str, float] = field(default_factory=dict)
    # of the whole run so far
    first_loss: float = math.nan
    best: tuple[float, ...] | None = None
    """The rank of the best validation."""
    best_epoch: int = 0
    seconds: float = 0.0
    """Spent before the run was last resumed."""
    processes: list[list[int]] = field(default_factory=list)
    """How many trained it: each stretch's [steps before it, processes]."""

    def add(self, taken: Step) -> float:
        """One more step; returns its loss."""
        loss = float(taken.loss)
        self.batch += 1
        self.step += 1
        if self.step == 1:
            self.first_loss = loss
        self.loss_sum += loss * taken.count
        self.count += taken.count
        if taken.correct is not None:
            self.correct = (self.correct or 0) + taken.correct
        for name, value in taken.values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value * taken.count
        return loss

    def trained_by(self, count: int) -> None:
        """So many processes go on from here."""
        if self.processes and self.processes[-1][0] == self.step:
            self.processes.pop()
        if not self.processes or self.processes[-1][1] != count:
            self.processes.append([self.step, count])

    def next_epoch(self) -> None:
        self.epoch += 1
        self.batch = 0
        self.loss_sum, self.count, self.correct, self.sums = 0.0, 0, None, {}

    @property
    def train_loss(self) -> float:
        """The mean over the epoch's examples so far."""
        return self.loss_sum / self.count

    def figures(self) -> dict[str, float]:
        """The epoch's means, for metrics.csv."""
        found = {"train_loss": self.train_loss}
        if self.correct is not None:
            found["train_accuracy"] = self.correct / self.count
        return found | {f"train_{name}": total / self.count for name, total in self.sums.items()}

    def words(self) -> dict[str, int]:
        """For result.json and messages."""
        return {"epoch": self.epoch, "batch": self.batch, "step": self.step}

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, saved: dict[str, Any]) -> Position:
        best = saved["best"]
        stretches = [list(stretch) for stretch in saved.get("processes", [[0, 1]])]
        own = {"best": None if best is None else tuple(best), "sums": dict(saved["sums"])}
        return cls(**saved | own | {"processes": stretches})
