"""The training loop, to be read from top to bottom."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from cisdl.errors import DivergedError, Interrupted
from cisdl.tasks.base import Evaluation, Task
from cisdl.training import checkpoint, progress
from cisdl.training.config import TrainConfig
from cisdl.training.interrupt import InterruptRequest
from cisdl.training.run_folder import RunFolder

BLOWN_UP = 10.0
"""A mean loss this many times the very first one is divergence, finite or not."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended: the best epoch's model on the part named `judged_on`, "test" where there is one."""

    best_epoch: int
    judged_on: str
    evaluation: Evaluation
    baselines: Mapping[str, Evaluation]
    seconds: float


def train(config: TrainConfig, model: nn.Module, task: Task, folder: RunFolder) -> Outcome:
    """Train `model` in place, keep the epoch that does best on validation, judge that one on test.

    Writes metrics, checkpoints and result.json into `folder`. Raises `DivergedError` if the loss leaves the
    numbers and `Interrupted` after Ctrl-C, when last.pt holds the state after the last complete step.
    """
    trainer = task.trainer(model)
    steps_per_epoch = task.batch_count()
    facts = (config.as_dict(), task.facts())
    best: tuple[float, ...] | None = None  # the rank of the best validation so far
    best_epoch = step = 0
    first_loss = math.nan
    started = time.perf_counter()

    with InterruptRequest() as interrupt, progress.make(config.epochs, steps_per_epoch) as report:
        for epoch in range(1, config.epochs + 1):
            epoch_started = time.perf_counter()
            trainer.set_lr(config.lr_at(epoch))
            loss_sum, count, correct = 0.0, 0, 0
            sums: dict[str, float] = {}
            model.train()
            for batch, examples in enumerate(task.batches(epoch), start=1):
                taken = trainer.step(examples)
                step += 1
                value = taken.loss.item()
                first_loss = value if step == 1 else first_loss
                loss_sum += value * taken.count
                count += taken.count
                correct += taken.correct or 0
                for name, figure in taken.values.items():
                    sums[name] = sums.get(name, 0.0) + figure * taken.count
                if config.log_steps:
                    folder.add_step(step, epoch, value)
                report.step(epoch, batch, value)
                if not math.isfinite(value):
                    raise diverged(folder, config, f"the loss became {value} at step {step} (epoch {epoch})")
                if interrupt.requested:
                    position = {"epoch": epoch, "batch": batch, "step": step}
                    checkpoint.save(folder / "last.pt", model, trainer, *facts, position)
                    raise interrupted(folder, position)

            seconds = time.perf_counter() - epoch_started
            train_loss = loss_sum / count
            if train_loss > BLOWN_UP * first_loss:
                raise diverged(
                    folder,
                    config,
                    f"the mean loss of epoch {epoch} (step {step}) is {train_loss:.3g}, "
                    f"{train_loss / first_loss:.3g} times that of the first step",
                )
            validation = task.evaluate(model, "validation")
            if not math.isfinite(validation.loss):
                raise diverged(folder, config, f"the validation loss became {validation.loss} at step {step}")

            is_best = best is None or validation.rank > best
            position = {"epoch": epoch, "batch": steps_per_epoch, "step": step}
            checkpoint.save(folder / "last.pt", model, trainer, *facts, position)
            if is_best:
                best, best_epoch = validation.rank, epoch
                checkpoint.save(folder / "best.pt", model, trainer, *facts, position)
            row: dict[str, Any] = {
                "epoch": epoch,
                "step": step,
                "train_loss": train_loss,
                **({} if taken.correct is None else {"train_accuracy": correct / count}),
                **{f"train_{name}": total / count for name, total in sums.items()},
                **{f"validation_{name}": value for name, value in validation.as_dict().items()},
                "seconds": round(seconds, 4),
                "examples_per_second": round(count / seconds),
                "best": is_best,
            }
            folder.add_metrics(row)
            report.epoch(row, f"{task.metric} {validation}")
            if interrupt.requested:  # during validation; last.pt is written already
                raise interrupted(folder, position)

    model.load_state_dict(checkpoint.load(folder / "best.pt")["model"])
    judged_on = task.parts[-1]
    evaluation = task.evaluate(model, judged_on)
    baselines = task.baselines(judged_on)
    outcome = Outcome(best_epoch, judged_on, evaluation, baselines, time.perf_counter() - started)
    folder.write_json(
        "result.json",
        {
            "status": "finished",
            "best_epoch": best_epoch,
            "epochs": config.epochs,
            "steps": step,
            judged_on: evaluation.as_dict() | {"words": f"{task.metric} {evaluation}"},
            "baselines": {name: found.as_dict() for name, found in baselines.items()},
            "seconds": round(outcome.seconds, 3),
        },
    )
    return outcome


def interrupted(folder: RunFolder, position: dict[str, int]) -> Interrupted:
    """Record where Ctrl-C ended the run, and word it."""
    folder.write_json("result.json", {"status": "interrupted", **position})
    return Interrupted(
        f"interrupted in epoch {position['epoch']} after step {position['step']}; "
        f"the state is saved in {folder / 'last.pt'}"
    )


def diverged(folder: RunFolder, config: TrainConfig, what: str) -> DivergedError:
    """Record the end of a run whose numbers left the finite, and word it."""
    folder.write_json("result.json", {"status": "diverged", "reason": what, "lr": config.lr})
    return DivergedError(f"diverged: {what}, at lr {config.lr:g}; try --lr {suggested_lr(config):g}")


def suggested_lr(config: TrainConfig) -> float:
    """A tenth of the rate that failed, or an ordinary rate of the optimiser if even that is far above it."""
    ordinary = {"adam": 1e-3, "momentum": 1e-2, "sgd": 1e-2}[config.optimizer]
    return min(config.lr / 10, ordinary) if config.lr > ordinary else config.lr / 10
