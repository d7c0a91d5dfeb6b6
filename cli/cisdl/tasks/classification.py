"""Which class is it? Images to scores, softmax cross-entropy, accuracy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cisdl.backend import Backend
from cisdl.data.augment import augmented
from cisdl.data.batches import batches
from cisdl.data.images import ImageData, Part
from cisdl.errors import DataError
from cisdl.models.alexnet import AlexNet
from cisdl.models.lenet import LeNet
from cisdl.models.mlp import MLP
from cisdl.models.registry import ModelEntry
from cisdl.tasks.base import Curve, Evaluation, Pictures, Prediction, Predicts, Step
from cisdl.tasks.images import ImageTask
from cisdl.training.config import TrainConfig

EVALUATION_BATCH = 1000
SHOWN = 3
"""Classes that a prediction names."""


@dataclass(frozen=True)
class Classified(Evaluation):
    """`scores` is (total, classes) on the CPU; the loss is the mean over all images."""

    correct: int
    total: int
    scores: Tensor

    @property
    def accuracy(self) -> float:
        return self.correct / self.total

    @property
    def rank(self) -> tuple[float, ...]:
        return (self.correct, -self.loss)

    def as_dict(self) -> dict[str, float | int]:
        return {"loss": self.loss, "accuracy": self.accuracy, "correct": self.correct, "total": self.total}

    def __str__(self) -> str:
        return f"{100 * self.accuracy:.2f} % ({self.correct}/{self.total})"


@torch.no_grad()
def classify(model: nn.Module, part: Part) -> Classified:
    """Run the model over every image of the part, in eval mode, and put it back as it was."""
    training = model.training
    model.eval()
    scores = torch.cat([model(images) for images in torch.split(part.images, EVALUATION_BATCH)])
    model.train(training)
    loss = float(F.cross_entropy(scores, part.labels))
    correct = int((scores.argmax(1) == part.labels).sum())
    return Classified(loss, correct, len(part), scores.cpu())


class Classification(ImageTask, Predicts):
    """Trained on (images, labels)."""

    metric = "accuracy"
    loss_name = "cross-entropy"
    score = Curve("accuracy", "accuracy, %", 100.0)

    def __init__(self, entry: ModelEntry, config: TrainConfig) -> None:
        super().__init__(entry, config)
        self.loss: nn.CrossEntropyLoss = nn.CrossEntropyLoss()
        """To train with; the backend's, once the model is built on it."""

    def check(self, data: ImageData) -> None:
        super().check(data)
        found = data.train.labels.unique()  # type: ignore[no-untyped-call]
        if len(found) < 2:
            raise DataError(
                f"{data.source}: expected training images of 2 classes or more, got "
                f"{len(data.train)} of the class '{data.class_names[int(found[0])]}'"
            )

    def build(self, ops: Backend) -> nn.Module:
        self.loss = ops.CrossEntropyLoss()
        return self.entry.build(ops, shape=self.shape, classes=len(self.class_names), **self.option)

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        generator = np.random.default_rng([self.config.seed, epoch, 1])
        how = self.option.get("augment", "none")
        for images, labels in batches(self.images.train, self.config.batch_size, self.config.seed, epoch):
            yield augmented(images, how, generator), labels

    def step(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Step:
        images, labels = batch
        scores = model(images)  # (batch, classes)
        correct = int((scores.argmax(1) == labels).sum())
        return Step(self.loss(scores, labels), len(labels), correct)

    def evaluate(self, model: nn.Module, part: str) -> Classified:
        return classify(model, self.images.parts()[part])

    def draw_optimizers(self, folder: Path) -> None:
        """How the course's optimisers differ, on a surface that can be drawn."""
        from cisdl.report import optimizer_paths

        optim: Any = torch.optim
        if self.config.backend == "cisdl":
            from cisdl_ops import optim
        optimizer_paths.draw(folder / "optimizer_paths.png", optim)

    def draw(self, model: nn.Module, evaluation: Evaluation, pictures: Pictures) -> None:
        """Which classes are taken for which, the worst mistakes, and what convolutions learned."""
        from cisdl.report import confusion, convolutions, mistakes

        assert isinstance(evaluation, Classified)
        folder, title, judged_on = pictures.folder, pictures.title, pictures.judged_on
        part, scores, names = self.images.parts()[judged_on], evaluation.scores, self.class_names
        predicted = scores.argmax(1)
        counts = confusion.matrix(part.labels.numpy(), predicted.numpy(), len(names))
        heading = f"{title}: {evaluation.correct:,} of {evaluation.total:,} {judged_on} images right"
        confusion.draw(folder / "confusion.png", heading, counts, names)
        mistakes.draw(folder / "mistakes.png", title, part.images, scores, part.labels, names)
        if isinstance(model, MLP):
            self.draw_optimizers(folder)
        filters = f"{title}: the filters it learned"
        if isinstance(model, AlexNet):
            weight = model.state_dict()["features.0.weight"]
            convolutions.draw_first_filters(folder / "filters.png", filters, weight)
        if isinstance(model, LeNet):
            convolutions.draw_filters(folder / "filters.png", filters, model)
            right = (part.labels == predicted).nonzero().flatten()
            shown = int(right[0]) if len(right) else 0
            name = names[int(part.labels[shown])]
            heading = f"{title}: a {judged_on} image of “{name}” on its way through the network"
            path = folder / "feature_maps.png"
            convolutions.draw_feature_maps(path, heading, model, part.images[shown], names)

    @torch.no_grad()
    def predict(self, model: nn.Module, given: Sequence[str]) -> list[Prediction]:
        """The class of the image in each file, with the model's confidence and what else it thought of."""
        device = next(model.parameters()).device
        images = [self.picture(path, self.shape[1:]) for path in given]
        answers = []
        for path, image in zip(given, images, strict=True):
            shares = model.eval()(image.to(device)).softmax(1)[0].cpu()
            first, *others = shares.argsort(descending=True)[:SHOWN].tolist()
            details = {
                "confidence": float(shares[first]),
                "then": {self.class_names[other]: float(shares[other]) for other in others},
            }
            answers.append(Prediction(path, self.class_names[first], details))
        return answers


def new(entry: ModelEntry, config: TrainConfig) -> Classification:
    return Classification(entry, config)
