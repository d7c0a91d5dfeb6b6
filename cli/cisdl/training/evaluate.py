"""Loss and accuracy of a model on a part of the data, without changing either."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cisdl.data.images import Part

BATCH = 1000


@dataclass(frozen=True)
class Evaluation:
    """`scores` is (count, classes) on the CPU; `loss` is the mean over all images."""

    loss: float
    correct: int
    total: int
    scores: Tensor

    @property
    def accuracy(self) -> float:
        return self.correct / self.total

    def __str__(self) -> str:
        return f"{100 * self.accuracy:.2f} % ({self.correct}/{self.total})"

    def as_dict(self) -> dict[str, float | int]:
        return {"loss": self.loss, "accuracy": self.accuracy, "correct": self.correct, "total": self.total}


@torch.no_grad()
def evaluate(model: nn.Module, part: Part) -> Evaluation:
    """Run the model over every image of the part, in eval mode, and put it back as it was."""
    training = model.training
    model.eval()
    pieces = torch.split(part.images, BATCH)
    scores = torch.cat([model(images) for images in pieces])
    model.train(training)
    loss = float(F.cross_entropy(scores, part.labels))
    correct = int((scores.argmax(1) == part.labels).sum())
    return Evaluation(loss, correct, len(part), scores.cpu())
