"""GloVe on the counts of a text's neighbours.

Held out: the counts of another text. It has another length, which changes every log X by about the same; so
the error is taken from what is left after the best such shift. It is shown and chooses nothing, for most of
it is chance: the counts of a short text are small numbers. On the bundled text it is least after the first
epoch, of vectors that know nearly nothing yet. As in the paper, the number of epochs is fixed beforehand and
the last one is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from cisdl.data.batches import permutation
from cisdl.models.glove import GloVe
from cisdl.models.registry import ModelEntry
from cisdl.tasks.word_vectors import Scored, WordVectorTask
from cisdl.training.config import TrainConfig
from cisdl.training.glove import FusedTrainer, TorchTrainer, portions
from cisdl.training.trainer import Trainer
from cisdl_ops.glove import Records, cooccurrence

ALPHA = 0.75
BATCH = 1 << 16
JUDGED = 300_000
"""Tokens of a held-out text that are counted: its first."""


class GloVeTask(WordVectorTask):
    loss_name = "weighted squared error of log counts"

    portions: list[Records]
    epoch = 0
    """The one that is trained, or was."""

    def read(self) -> None:
        super().read()
        records = Records.count(
            self.tokens["train"],
            len(self.vocabulary),
            self.option["window"],
            x_max=self.option["x_max"],
            alpha=ALPHA,
            dim=self.option["dim"],
        )
        self.portions = portions(records, self.config.batch_size)

    def describe(self) -> dict[str, str]:
        cells = sum(map(len, self.portions))
        return super().describe() | {"cells": f"{cells:,} of the matrix of counts"}

    def batch_count(self) -> int:
        return len(self.portions)

    def batches(self, epoch: int) -> Iterator[Records]:
        self.epoch = epoch
        for number in permutation(len(self.portions), self.config.seed, epoch).tolist():
            yield self.portions[number]

    def trainer(self, model: nn.Module) -> Trainer:
        assert isinstance(model, GloVe)
        if self.config.backend == "cisdl":
            return FusedTrainer(self.config, model, self.vocabulary)
        return TorchTrainer(self.config, model)

    def evaluate(self, model: nn.Module, part: str) -> Scored:
        return replace(super().evaluate(model, part), epoch=self.epoch)

    def held_out(self, model: nn.Module, tokens: Tensor) -> tuple[float, int]:
        words = len(self.vocabulary)
        keys, x = cooccurrence(tokens[:JUDGED], words, self.option["window"])
        i, j = keys // words, keys % words
        weight = (x / self.option["x_max"]).pow(ALPHA).clamp(max=1)
        pieces = zip(i.split(BATCH), j.split(BATCH), strict=True)  # type: ignore[no-untyped-call]
        # A pair is found once, as (i, j) with i <= j: both ways are as good.
        estimate = torch.cat([(model(a, b) + model(b, a)).double() / 2 for a, b in pieces])
        error = estimate - x.log()
        error -= (weight * error).sum() / weight.sum()
        return float((weight * error.square()).mean() / 2), len(keys)

    def example(self) -> tuple[Tensor, ...]:
        zero = torch.zeros(1, dtype=torch.int64)
        return zero, zero


def new(entry: ModelEntry, config: TrainConfig) -> GloVeTask:
    return GloVeTask(entry, config)
