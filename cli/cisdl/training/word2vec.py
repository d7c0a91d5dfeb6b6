"""Training word2vec: our fused op on a stretch of text, or the same objective in torch's terms.

Both take a stretch of the text a step and let the learning rate go on within it.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cisdl.data.windows import pairs, subsampled, windows
from cisdl.models.word2vec import Word2Vec, loss
from cisdl.tasks.base import Step
from cisdl.training.config import TrainConfig
from cisdl.training.trainer import Trainer
from cisdl_ops import word2vec
from cisdl_ops.word_vectors import Vocabulary, padded

LEAST_RATE = 1e-4
"""Of the first learning rate: it never falls lower, as in word2vec.c."""
TORCH_BATCH = 64
"""Pairs (CBOW: windows) of one step of SGD: enough that torch is not all overhead, and few enough that a
frequent word is not moved many times from one place."""


@dataclass(frozen=True)
class Stretch:
    """A piece of the text, and where in the training it lies, as shares of all of it."""

    tokens: Tensor
    words: int
    begin: float
    end: float


class FusedTrainer(Trainer):
    """`torch.ops.cisdl.word2vec_train`, with as many workers as there are threads."""

    def __init__(self, config: TrainConfig, model: Word2Vec, vocabulary: Vocabulary) -> None:
        self.config = config
        options = config.options
        self.keep = word2vec.keep_probabilities(vocabulary.counts, options["sample"])
        self.threshold, self.alias = word2vec.alias_table(vocabulary.counts)
        self.random_state = word2vec.random_states(config.seed, config.threads)
        self.input, self.output = aligned(model.input), aligned(model.output)

    def step(self, batch: Stretch) -> Step:
        rates = [rate(self.config, done) for done in (batch.begin, batch.end)]
        options = self.config.options
        report = word2vec.train(
            self.input,
            self.output,
            batch.tokens,
            self.keep,
            self.threshold,
            self.alias,
            self.random_state,
            window=options["window"],
            negative=options["negative"],
            lr_begin=rates[0],
            lr_end=rates[1],
            cbow=options["algorithm"] == "cbow",
            shared_negatives=options["shared_negatives"],
        )
        _, _, losses, count = report.tolist()
        return Step(torch.tensor(losses / max(1.0, count)), batch.words)

    def set_lr(self, lr: float) -> None:
        """Nothing: each step has its own."""

    def state_dict(self) -> dict[str, Any]:
        return {"random_state": self.random_state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.random_state.copy_(state["random_state"])


def aligned(table: nn.Embedding) -> Tensor:
    """The table's weight becomes a view of rows of whole cache lines: these."""
    words, dim = table.weight.shape
    rows = padded(words, dim)
    rows[:, :dim] = table.weight.detach()
    table.weight.data = rows[:, :dim]
    return rows


class TorchTrainer(Trainer):
    """nn.Embedding and sparse SGD on mini-batches of pairs. The gradient is summed, so that a pair moves
    vectors as far as it does in word2vec, where pairs come one by one."""

    def __init__(self, config: TrainConfig, model: Word2Vec, vocabulary: Vocabulary) -> None:
        self.config = config
        self.model = model
        self.keep = word2vec.keep_probabilities(vocabulary.counts, config.options["sample"]).numpy()
        self.share = vocabulary.counts.double() ** 0.75
        self.optimizer = torch.optim.SGD(model.parameters(), lr=config.lr)
        self.steps = 0

    def step(self, batch: Stretch) -> Step:
        options = self.config.options
        self.steps += 1
        random = np.random.default_rng([self.config.seed, self.steps])
        text = subsampled(batch.tokens.numpy().astype(np.int64), self.keep, random)
        centres, contexts = windows(text, options["window"], random)
        count = options["negative"]
        drawn = centres
        if options["algorithm"] == "skip-gram":
            centres, contexts = pairs(centres, contexts)
            drawn = centres
        generator = torch.Generator().manual_seed(int(random.integers(2**62)))
        negatives = torch.multinomial(self.share, len(drawn) * count, replacement=True, generator=generator)
        targets = torch.cat([centres.unsqueeze(1), negatives.view(-1, count)], 1)
        total, done = 0.0, 0
        begin, end = (rate(self.config, share) for share in (batch.begin, batch.end))
        for context, target in zip(contexts.split(TORCH_BATCH), targets.split(TORCH_BATCH), strict=True):  # type: ignore[no-untyped-call]
            self.optimizer.param_groups[0]["lr"] = begin + (end - begin) * done / len(targets)
            self.optimizer.zero_grad()
            losses = loss(self.model(context, target), target).sum()
            losses.backward()  # type: ignore[no-untyped-call]
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Sparse invariant checks")  # of torch's own gradients
                self.optimizer.step()
            total += losses.item()
            done += len(target)
        return Step(torch.tensor(total / max(1, done)), batch.words)

    def set_lr(self, lr: float) -> None:
        """Nothing: each step has its own."""

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]


def rate(config: TrainConfig, done: float) -> float:
    return max(config.lr_after(done), LEAST_RATE * config.lr)
