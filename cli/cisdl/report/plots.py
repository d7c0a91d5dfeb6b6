"""The pictures of a finished run, into its folder's plots/."""

from __future__ import annotations

from torch import nn

from cisdl.data.images import ImageData
from cisdl.models.lenet import LeNet
from cisdl.report import confusion, convolutions, curves, mistakes
from cisdl.training.config import TrainConfig
from cisdl.training.loop import Outcome
from cisdl.training.run_folder import RunFolder


def draw(config: TrainConfig, model: nn.Module, data: ImageData, folder: RunFolder, outcome: Outcome) -> None:
    """`model` is the kept one, on the CPU like `data`; `outcome.evaluation` is of `data`'s part it names."""
    plots = folder / "plots"
    plots.mkdir(exist_ok=True)
    title = f"{config.model} on {data.name}"
    footer = (
        f"{config.optimizer}, lr {config.lr:g}, batch {config.batch_size}, seed {config.seed}, backend "
        f"{config.backend}; {outcome.judged_on} accuracy of the kept epoch {outcome.evaluation}"
    )
    curves.draw(plots / "curves.png", title, folder.metrics, outcome.best_epoch, footer)
    if not isinstance(model, LeNet):
        return

    part, evaluation = data.parts()[outcome.judged_on], outcome.evaluation
    labels, predicted = part.labels.numpy(), evaluation.scores.argmax(1).numpy()
    counts = confusion.matrix(labels, predicted, len(data.class_names))
    heading = f"{title}: {evaluation.correct:,} of {evaluation.total:,} {outcome.judged_on} images right"
    confusion.draw(plots / "confusion.png", heading, counts, data.class_names)
    convolutions.draw_filters(plots / "filters.png", f"{title}: the filters it learned", model)
    mistakes.draw(
        plots / "mistakes.png", title, part.images, evaluation.scores, part.labels, data.class_names
    )

    right = (part.labels == evaluation.scores.argmax(1)).nonzero().flatten()
    shown = int(right[0]) if len(right) else 0
    name = data.class_names[int(part.labels[shown])]
    heading = f"{title}: a {outcome.judged_on} image of “{name}” on its way through the network"
    convolutions.draw_feature_maps(
        plots / "feature_maps.png", heading, model, part.images[shown], data.class_names
    )
