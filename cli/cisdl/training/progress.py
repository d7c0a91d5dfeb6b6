"""What a run says while it trains, on stderr: a bar on a terminal, one plain line an epoch in a log."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any, Protocol

from cisdl.training import processes


def epoch_line(row: dict[str, Any], judged: str, epochs: int) -> str:
    """One epoch in words: its row of metrics.csv, and what validation came to ("accuracy 97 % (350/360)")."""
    width = len(str(epochs))
    best = "  best" if row["best"] else ""
    return (
        f"epoch {row['epoch']:>{width}}/{epochs}  train loss {row['train_loss']:.4f}  "
        f"validation loss {row['validation_loss']:.4f}  "
        f"{judged}  {row['seconds']:.1f} s{best}"
    )


class Progress(Protocol):
    """Told of every step and every epoch."""

    def __enter__(self) -> Progress: ...

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def step(self, epoch: int, batch: int, loss: float) -> None: ...

    def epoch(self, row: dict[str, Any], judged: str) -> None: ...


class Lines:
    """For logs and pipes."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def __enter__(self) -> Lines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def step(self, epoch: int, batch: int, loss: float) -> None:
        pass

    def epoch(self, row: dict[str, Any], judged: str) -> None:
        print(epoch_line(row, judged, self.epochs), file=sys.stderr, flush=True)


class Silence(Lines):
    """For all processes but the first."""

    def epoch(self, row: dict[str, Any], judged: str) -> None:
        pass


class Bar:
    """For terminals: finished epochs scroll by above one bar for the whole run."""

    def __init__(self, epochs: int, steps_per_epoch: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self.epochs = epochs
        self.steps_per_epoch = steps_per_epoch
        self.console = Console(stderr=True, highlight=False)
        self.progress = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("loss {task.fields[loss]:.4f}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
        )
        self.task = self.progress.add_task(
            "train", total=epochs * steps_per_epoch, epoch=f"1/{epochs}", loss=float("nan")
        )

    def __enter__(self) -> Bar:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def step(self, epoch: int, batch: int, loss: float) -> None:
        done = (epoch - 1) * self.steps_per_epoch + batch
        self.progress.update(self.task, completed=done, epoch=f"{epoch}/{self.epochs}", loss=loss)

    def epoch(self, row: dict[str, Any], judged: str) -> None:
        self.console.print(epoch_line(row, judged, self.epochs), markup=False, soft_wrap=True)


def make(epochs: int, steps_per_epoch: int) -> Progress:
    """A bar if stderr is a terminal, lines if it is not."""
    if not processes.is_first():
        return Silence(epochs)
    return Bar(epochs, steps_per_epoch) if sys.stderr.isatty() else Lines(epochs)
