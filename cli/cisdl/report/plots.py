"""The pictures of a finished run, into its folder's plots/."""

from __future__ import annotations

from torch import nn

from cisdl.report import curves
from cisdl.tasks.base import Pictures, Task
from cisdl.training.loop import Outcome
from cisdl.training.run_folder import RunFolder


def draw(task: Task, model: nn.Module, folder: RunFolder, outcome: Outcome) -> None:
    """`model` is the kept one, on the CPU like the task's data; `outcome` is of the part that it names."""
    config = task.config
    plots = folder / "plots"
    plots.mkdir(exist_ok=True)
    title = f"{config.model} on {task.data.name}"
    footer = (
        f"{config.optimizer}, lr {config.lr:g}, batch {config.batch_size}, seed {config.seed}, backend "
        f"{config.backend}; {outcome.judged_on} {task.metric} of the kept epoch {outcome.evaluation}"
    )
    curves.draw(
        plots / "curves.png",
        title,
        folder.metrics,
        outcome.best_epoch,
        footer,
        loss_name=task.loss_name,
        score=task.score,
    )
    task.draw(model, outcome.evaluation, Pictures(plots, title, outcome.judged_on, folder.metrics))
