"""The folder a run leaves behind: `runs/<name>[-N]` under the current directory.

config.json     the complete configuration, model and data facts
env.json        machine, versions, how the kernels were built
metrics.csv     one row an epoch; the same as metrics.jsonl
steps.csv       one row a step, with --log-steps
best.pt         the epoch that did best on validation; last.pt is the newest state
result.json     how the run ended, and its test result
tensorboard/    the figures of every epoch, with --tensorboard
plots/          pictures
"""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any, TextIO

from cisdl.errors import CisdlError, DataError
from cisdl.files import write_json, write_text
from cisdl.training.scalars import Scalars

ROOT = "runs"


class RunFolder:
    """Names and writes the files of one run; with `writes=False`, in all processes but one, only names."""

    def __init__(self, path: Path, writes: bool = True) -> None:
        self.path = path
        self.writes = writes
        self.metrics: list[dict[str, Any]] = []
        self.scalars: Scalars | None = None
        """Is given every epoch's row, too."""
        self._steps: TextIO | None = None

    @classmethod
    def create(cls, name: str) -> RunFolder:
        """A new folder `runs/<name>`, or `runs/<name>-2`, `-3` and so on where that exists already."""
        root = Path(ROOT)
        number = 1
        while True:
            path = root / (name if number == 1 else f"{name}-{number}")
            try:
                path.mkdir(parents=True)
            except FileExistsError as error:
                if root.exists() and not root.is_dir():
                    raise CisdlError(f"{root.absolute()}: expected a folder for runs, got a file") from error
                number += 1
            except OSError as error:
                raise CisdlError(
                    f"{path.absolute()}: cannot be created ({error.strerror}); run it in a folder of yours"
                ) from error
            else:
                return cls(path)

    @classmethod
    def reopen(cls, path: Path, epochs: int, step: int) -> RunFolder:
        """The folder of a run that goes on: figures of later epochs and steps than these are dropped."""
        folder = cls(path)
        (path / "result.json").unlink(missing_ok=True)
        metrics = path / "metrics.jsonl"
        if metrics.is_file():
            rows = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
            folder.metrics = [row for row in rows if row["epoch"] <= epochs]
        steps = path / "steps.csv"
        if steps.is_file():
            head, *rows_ = steps.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [row for row in rows_ if row.endswith("\n") and int(row.split(",")[0]) <= step]
            write_text(steps, "".join([head, *kept]))
        return folder

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def write_json(self, name: str, value: Any) -> None:
        if self.writes:
            write_json(self / name, value)

    def add_metrics(self, row: dict[str, Any]) -> None:
        """Append one epoch's row to metrics.csv and metrics.jsonl."""
        if not self.writes:
            return
        self.metrics.append(row)
        table = io.StringIO()
        writer = csv.DictWriter(table, fieldnames=list(self.metrics[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.metrics)
        write_text(self / "metrics.csv", table.getvalue())
        write_text(self / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in self.metrics))
        if self.scalars is not None:
            self.scalars.add(row)

    def add_step(self, step: int, epoch: int, loss: float) -> None:
        """Append one step's loss, in full precision, to steps.csv."""
        if not self.writes:
            return
        if self._steps is None:
            new = not (self / "steps.csv").is_file()
            self._steps = (self / "steps.csv").open("a", encoding="utf-8")
            if new:
                self._steps.write("step,epoch,loss\n")
        self._steps.write(f"{step},{epoch},{loss!r}\n")

    def flush(self) -> None:
        """Let what was written reach the files."""
        if self._steps is not None:
            self._steps.flush()

    def close(self) -> None:
        if self.scalars is not None:
            self.scalars.close()
        if self._steps is not None:
            self._steps.close()
            self._steps = None


def existing(root: Path | None = None) -> list[Path]:
    """The run folders under `root` (default: ./runs), the oldest first."""
    root = root or Path(ROOT)
    if not root.is_dir():
        return []
    found = [path.parent for path in root.glob("*/config.json")]
    return sorted(found, key=lambda path: (path / "config.json").stat().st_mtime)


def find(name: str) -> Path | None:
    """The run folder at the path `name`, or called so under ./runs; None if there is no such run."""
    candidates = [Path(name), Path(ROOT) / name]
    return next((path for path in candidates if (path / "config.json").is_file()), None)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a run's JSON file; empty where the run never got so far as to write it."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: expected JSON written by cisdl train, got an unreadable file") from error
    if not isinstance(value, dict):
        raise DataError(f"{path}: expected a JSON object, got {type(value).__name__}")
    return value
