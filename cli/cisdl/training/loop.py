"""The training loop, to be read from top to bottom."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from cisdl.data.batches import batch_count, batches
from cisdl.data.images import ImageData
from cisdl.errors import DivergedError, Interrupted
from cisdl.training import checkpoint, progress
from cisdl.training.config import TrainConfig
from cisdl.training.evaluate import Evaluation, evaluate
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
    seconds: float


def make_optimizer(config: TrainConfig, model: nn.Module) -> torch.optim.Optimizer:
    """Ours or torch's, as the layers: equal in what they compute and what they save."""
    optim: Any = torch.optim
    if config.backend == "cisdl":
        from cisdl_ops import optim
    optimizer: torch.optim.Optimizer
    if config.optimizer == "adam":
        optimizer = optim.Adam(model.parameters(), lr=config.lr)
    else:
        optimizer = optim.SGD(model.parameters(), lr=config.lr, momentum=config.momentum)
    return optimizer


def train(config: TrainConfig, model: nn.Module, data: ImageData, folder: RunFolder) -> Outcome:
    """Train `model` in place, keep the epoch that does best on validation, judge that one on test.

    Writes metrics, checkpoints and result.json into `folder`. Raises `DivergedError` if the loss leaves the
    numbers and `Interrupted` after Ctrl-C, when last.pt holds the state after the last complete step.
    """
    optimizer = make_optimizer(config, model)
    steps_per_epoch = batch_count(data.train, config.batch_size)
    facts = config.as_dict() | {"scaling": data.scaling, "classes": list(data.class_names)}
    best: tuple[int, float] | None = None  # correct on validation, minus the loss there
    best_epoch = step = 0
    first_loss = math.nan
    started = time.perf_counter()

    with InterruptRequest() as interrupt, progress.make(config.epochs, steps_per_epoch) as report:
        for epoch in range(1, config.epochs + 1):
            epoch_started = time.perf_counter()
            loss_sum, correct = 0.0, 0
            model.train()
            for batch, (images, labels) in enumerate(
                batches(data.train, config.batch_size, config.seed, epoch), start=1
            ):
                optimizer.zero_grad(set_to_none=True)
                scores = model(images)  # (batch, classes)
                loss = F.cross_entropy(scores, labels)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()

                step += 1
                value = loss.item()
                first_loss = value if step == 1 else first_loss
                loss_sum += value * len(labels)
                correct += int((scores.argmax(1) == labels).sum())
                if config.log_steps:
                    folder.add_step(step, epoch, value)
                report.step(epoch, batch, value)
                if not math.isfinite(value):
                    raise diverged(folder, config, f"the loss became {value} at step {step} (epoch {epoch})")
                if interrupt.requested:
                    position = {"epoch": epoch, "batch": batch, "step": step}
                    checkpoint.save(folder / "last.pt", model, optimizer, facts, position)
                    raise interrupted(folder, position)

            seconds = time.perf_counter() - epoch_started
            train_loss = loss_sum / len(data.train)
            if train_loss > BLOWN_UP * first_loss:
                raise diverged(
                    folder,
                    config,
                    f"the mean loss of epoch {epoch} (step {step}) is {train_loss:.3g}, "
                    f"{train_loss / first_loss:.3g} times that of the first step",
                )
            validation = evaluate(model, data.validation)
            if not math.isfinite(validation.loss):
                raise diverged(folder, config, f"the validation loss became {validation.loss} at step {step}")

            judged = (validation.correct, -validation.loss)
            is_best = best is None or judged > best
            position = {"epoch": epoch, "batch": steps_per_epoch, "step": step}
            checkpoint.save(folder / "last.pt", model, optimizer, facts, position)
            if is_best:
                best, best_epoch = judged, epoch
                checkpoint.save(folder / "best.pt", model, optimizer, facts, position)
            row: dict[str, Any] = {
                "epoch": epoch,
                "step": step,
                "train_loss": train_loss,
                "train_accuracy": correct / len(data.train),
                "validation_loss": validation.loss,
                "validation_accuracy": validation.accuracy,
                "validation_correct": validation.correct,
                "validation_total": validation.total,
                "seconds": round(seconds, 4),
                "images_per_second": round(len(data.train) / seconds),
                "best": is_best,
            }
            folder.add_metrics(row)
            report.epoch(row)
            if interrupt.requested:  # during validation; last.pt is written already
                raise interrupted(folder, position)

    model.load_state_dict(checkpoint.load(folder / "best.pt")["model"])
    judged_on = "validation" if data.test is None else "test"
    evaluation = evaluate(model, data.parts()[judged_on])
    outcome = Outcome(best_epoch, judged_on, evaluation, time.perf_counter() - started)
    folder.write_json(
        "result.json",
        {
            "status": "finished",
            "best_epoch": best_epoch,
            "epochs": config.epochs,
            "steps": step,
            judged_on: evaluation.as_dict(),
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
