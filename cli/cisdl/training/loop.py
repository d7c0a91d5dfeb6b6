"""The training loop, to be read from top to bottom."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from cisdl.errors import DivergedError, Interrupted
from cisdl.tasks.base import Evaluation, Task
from cisdl.training import checkpoint, processes, progress
from cisdl.training.config import TrainConfig
from cisdl.training.interrupt import InterruptRequest
from cisdl.training.position import Position
from cisdl.training.run_folder import RunFolder

BLOWN_UP = 10.0
"""A mean loss this many times the very first one is divergence, finite or not."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended: the best epoch's model on the part named `judged_on`, "test" where there is one."""

    best_epoch: int
    epochs: int
    """How many were trained."""
    stopped: str | None
    """The option that ended training early, if one did."""
    judged_on: str
    evaluation: Evaluation
    baselines: Mapping[str, Evaluation]
    seconds: float


def train(
    config: TrainConfig,
    model: nn.Module,
    task: Task,
    folder: RunFolder,
    resumed: Mapping[str, Any] | None = None,
) -> Outcome | None:
    """Train `model` in place, keep the epoch that does best on validation, judge that one on test.

    `resumed` is the state that `checkpoint.load` read from a last.pt: training goes on after it, step for
    step as if it had never stopped. Writes metrics, checkpoints and result.json into `folder`; last.pt comes
    last, so that whatever ends the process, a run can go on from it. Raises `DivergedError` if the loss
    leaves the numbers, `Interrupted` after Ctrl-C, when last.pt is the state after the last complete step.

    Several processes take every step together and decide alike; the first evaluates, writes and judges, and
    the others return None.
    """
    trainer = task.trainer(model)
    at = Position()
    if resumed is not None:
        at = checkpoint.restore(resumed, model, trainer)
    at.trained_by(processes.world_size())
    steps_per_epoch = task.batch_count()
    started = time.perf_counter() - at.seconds
    stopped: str | None = None  # why training ended before its last epoch

    def save(name: str) -> None:
        at.seconds = time.perf_counter() - started
        folder.flush()
        state = trainer.state_dict()
        if folder.writes:
            checkpoint.save(folder / name, model, state, config.as_dict(), task.facts(), at)
        processes.wait()

    with InterruptRequest() as interrupt, progress.make(config.epochs, steps_per_epoch) as report:
        if at.batch == steps_per_epoch:
            at.next_epoch()
        while at.epoch <= config.epochs and stopped is None:
            epoch_started = time.perf_counter()
            trainer.set_lr(config.lr_at(at.epoch))
            model.train()
            for batch in remaining(task, config, at, steps_per_epoch):
                processes.seed(config.seed, at.step)
                loss = at.add(trainer.step(batch))
                if config.log_steps:
                    folder.add_step(at.step, at.epoch, loss)
                report.step(at.epoch, at.batch, loss)
                if not math.isfinite(loss):
                    what = f"the loss became {loss} at step {at.step} (epoch {at.epoch})"
                    raise diverged(folder, config, what)
                if at.batch == steps_per_epoch:
                    break  # validation first, whatever else is asked for
                late = config.max_time is not None and time.perf_counter() - started > config.max_time
                ends, late = processes.any_of(interrupt.requested, late)
                if ends:
                    save("last.pt")
                    raise interrupted(folder, at)
                if late:
                    stopped = f"--max-time {config.max_time:g}"
                    break

            seconds = time.perf_counter() - epoch_started
            if at.train_loss > BLOWN_UP * at.first_loss:
                raise diverged(
                    folder,
                    config,
                    f"the mean loss of epoch {at.epoch} (step {at.step}) is {at.train_loss:.3g}, "
                    f"{at.train_loss / at.first_loss:.3g} times that of the first step",
                )
            validation = evaluated(task, model, "validation")
            if not math.isfinite(validation.loss):
                what = f"the validation loss became {validation.loss} at step {at.step}"
                raise diverged(folder, config, what)

            is_best = at.best is None or validation.rank > at.best
            if is_best:
                at.best, at.best_epoch = validation.rank, at.epoch
                save("best.pt")
            row: dict[str, Any] = {
                "epoch": at.epoch,
                "step": at.step,
                **at.figures(),
                **{f"validation_{name}": value for name, value in validation.as_dict().items()},
                "seconds": round(seconds, 4),
                "examples_per_second": round(at.count / seconds),
                "best": is_best,
            }
            folder.add_metrics(row)
            save("last.pt")
            report.epoch(row, f"{task.metric} {validation}")
            (ends,) = processes.any_of(interrupt.requested)
            if ends:
                raise interrupted(folder, at)
            if config.patience is not None and at.epoch - at.best_epoch >= config.patience:
                stopped = f"--patience {config.patience}"
            at.next_epoch()

    if not processes.is_first():
        return None
    model.load_state_dict(checkpoint.load(folder / "best.pt")["model"])
    judged_on = task.parts[-1]
    evaluation = task.evaluate(model, judged_on)
    baselines = task.baselines(judged_on)
    seconds = time.perf_counter() - started
    outcome = Outcome(at.best_epoch, at.epoch - 1, stopped, judged_on, evaluation, baselines, seconds)
    folder.write_json(
        "result.json",
        {
            "status": "finished",
            "best_epoch": at.best_epoch,
            "epochs": outcome.epochs,
            "stopped": stopped,
            "steps": at.step,
            judged_on: evaluation.as_dict() | {"words": f"{task.metric} {evaluation}"},
            "baselines": {name: found.as_dict() for name, found in baselines.items()},
            "seconds": round(outcome.seconds, 3),
        },
    )
    return outcome


def remaining(task: Task, config: TrainConfig, at: Position, steps_per_epoch: int) -> Iterator[Any]:
    """The mini-batches of the epoch that come after `at`.

    Those before it are drawn and passed over: whatever is random in a batch comes out as it would have.
    """
    if config.overfit_one_batch:
        yield from itertools.repeat(next(task.batches(1)), steps_per_epoch - at.batch)
    else:
        yield from itertools.islice(task.batches(at.epoch), at.batch, None)


@dataclass(frozen=True)
class Told(Evaluation):
    """All that the other processes need to know of an evaluation that the first made."""

    told: tuple[float, ...]

    @property
    def rank(self) -> tuple[float, ...]:
        return self.told

    def as_dict(self) -> dict[str, float | int]:
        return {}

    def __str__(self) -> str:
        return ""


def evaluated(task: Task, model: nn.Module, part: str) -> Evaluation:
    """By the first process, over the whole part: F1 or a Fréchet distance is no sum over shares."""
    if processes.alone():
        return task.evaluate(model, part)
    found = task.evaluate(model, part) if processes.is_first() else None
    loss, rank = processes.told(None if found is None else (found.loss, found.rank))
    return found or Told(loss, rank)


def interrupted(folder: RunFolder, at: Position) -> Interrupted:
    """Record where Ctrl-C ended the run, and word it."""
    folder.write_json("result.json", {"status": "interrupted", **at.words()})
    return Interrupted(
        f"interrupted in epoch {at.epoch} after step {at.step}; the state is saved in {folder / 'last.pt'}, "
        f"`cisdl train --resume {folder.path}` goes on"
    )


def diverged(folder: RunFolder, config: TrainConfig, what: str) -> DivergedError:
    """Record the end of a run whose numbers left the finite, and word it."""
    folder.write_json("result.json", {"status": "diverged", "reason": what, "lr": config.lr})
    return DivergedError(f"diverged: {what}, at lr {config.lr:g}; try --lr {suggested_lr(config):g}")


def suggested_lr(config: TrainConfig) -> float:
    """A tenth of the rate that failed, or an ordinary rate of the optimiser if even that is far above it."""
    ordinary = {"adam": 1e-3, "momentum": 1e-2, "sgd": 1e-2, "adagrad": 5e-2}[config.optimizer]
    return min(config.lr / 10, ordinary) if config.lr > ordinary else config.lr / 10
