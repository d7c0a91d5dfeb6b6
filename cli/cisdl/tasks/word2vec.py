"""Skip-gram or CBOW on a text.

Held out: every pair (CBOW: window) of the text, none left out as too frequent, with reaches and negatives
that are the same in every epoch. So its loss is not that of training, where frequent words are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from cisdl.data.batches import permutation
from cisdl.data.windows import pairs, windows
from cisdl.errors import UsageError
from cisdl.models.registry import ModelEntry
from cisdl.models.word2vec import Word2Vec, loss
from cisdl.tasks.word_vectors import WordVectorTask
from cisdl.training.config import TrainConfig
from cisdl.training.trainer import Trainer
from cisdl.training.word2vec import FusedTrainer, Stretch, TorchTrainer
from cisdl_ops.word_vectors import cuts

JUDGED = 30_000
"""Tokens of a held-out text that are judged: its first."""
BATCH = 4096


class Word2VecTask(WordVectorTask):
    loss_name = "negative sampling"

    def __init__(self, entry: ModelEntry, config: TrainConfig) -> None:
        if config.options["algorithm"] == "cbow" and config.options["shared_negatives"]:
            raise UsageError(
                "--shared-negatives: expected with --algorithm skip-gram, got with cbow, which draws "
                "once for a window anyway"
            )
        super().__init__(entry, config)

    def stretches(self) -> list[tuple[Tensor, int]]:
        """The text in pieces of some --batch-size tokens, and the words of each."""
        tokens = self.tokens["train"]
        pieces = [tokens[a:b] for a, b in pairwise(cuts(tokens, self.config.batch_size))]
        return [(piece, int((piece >= 0).sum())) for piece in pieces]

    def batch_count(self) -> int:
        return len(cuts(self.tokens["train"], self.config.batch_size)) - 1

    def batches(self, epoch: int) -> Iterator[Stretch]:
        """The pieces in an order of the epoch's own: the text within them is read as it is written."""
        pieces = self.stretches()
        total = self.config.epochs * sum(words for _, words in pieces)
        done = (epoch - 1) * sum(words for _, words in pieces)
        for number in permutation(len(pieces), self.config.seed, epoch).tolist():
            piece, words = pieces[number]
            yield Stretch(piece, words, done / total, (done + words) / total)
            done += words

    def trainer(self, model: nn.Module) -> Trainer:
        assert isinstance(model, Word2Vec)
        kind = FusedTrainer if self.config.backend == "cisdl" else TorchTrainer
        return kind(self.config, model, self.vocabulary)

    def held_out(self, model: nn.Module, tokens: Tensor) -> tuple[float, int]:
        random = np.random.default_rng(self.config.seed)
        judged = tokens[:JUDGED].numpy().astype(np.int64)
        centres, contexts = windows(judged, self.option["window"], random)
        if self.option["algorithm"] == "skip-gram":
            centres, contexts = pairs(centres, contexts)
        count = self.option["negative"]
        generator = torch.Generator().manual_seed(self.config.seed)
        negatives = torch.multinomial(
            self.vocabulary.counts.double() ** 0.75,
            len(centres) * count,
            replacement=True,
            generator=generator,
        )
        targets = torch.cat([centres.unsqueeze(1), negatives.view(-1, count)], 1)
        total = 0.0
        for context, target in zip(contexts.split(BATCH), targets.split(BATCH), strict=True):  # type: ignore[no-untyped-call]
            total += float(loss(model(context, target), target).double().sum())
        return total / len(centres), len(centres)

    def example(self) -> tuple[Tensor, ...]:
        """A word of the context, and the centre with its negatives."""
        zeros = torch.zeros(1, 1 + self.option["negative"], dtype=torch.int64)
        return zeros[:, :1], zeros


def new(entry: ModelEntry, config: TrainConfig) -> Word2VecTask:
    return Word2VecTask(entry, config)
