"""Training GloVe: our fused op on a portion of the counts, or torch's sparse Adagrad on the same cells."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cisdl.models.glove import GloVe
from cisdl.tasks.base import Step
from cisdl.training.config import TrainConfig
from cisdl.training.trainer import Trainer
from cisdl_ops import glove
from cisdl_ops.word_vectors import Vocabulary

TORCH_BATCH = 64
"""Cells of one step of torch's Adagrad."""


def portions(records: glove.Records, size: int) -> list[glove.Records]:
    """The records dealt out to portions of about `size`, each with its share of every block."""
    count = max(1, round(len(records) / size))
    if count == 1:
        return [records]
    sizes = records.offsets.diff()
    place = torch.arange(len(records)) - records.offsets[:-1].repeat_interleave(sizes)
    dealt = []
    for number in range(count):
        chosen = place % count == number
        ends = ((sizes - number + count - 1) // count).cumsum(0)
        offsets = torch.cat([ends.new_zeros(1), ends])
        pairs, targets = records.pairs[chosen], records.targets[chosen]
        dealt.append(glove.Records(records.words, records.blocks, offsets, pairs, targets))
    return dealt


class FusedTrainer(Trainer):
    """`torch.ops.cisdl.glove_train`: the same bits on any number of threads."""

    def __init__(self, config: TrainConfig, model: GloVe, vocabulary: Vocabulary) -> None:
        self.lr = config.lr
        self.rows = rows = glove.GloVe(vocabulary, config.options["dim"], seed=config.seed)
        # The model's weights become views of the op's rows, which hold vector, bias and AdaGrad's sums.
        for weight, view in (
            (model.word.weight, rows.vectors),
            (model.word_bias.weight, rows.biases.unsqueeze(1)),
            (model.context.weight, rows.context_vectors),
            (model.context_bias.weight, rows.context_biases.unsqueeze(1)),
        ):
            view.copy_(weight.detach())
            weight.data = view

    def step(self, batch: glove.Records) -> Step:
        means: list[float] = []
        self.rows.train(batch, 1, self.lr, progress=lambda _, mean: means.append(mean))
        return Step(torch.tensor(means[0]), len(batch))

    def set_lr(self, lr: float) -> None:
        self.lr = lr

    def state_dict(self) -> dict[str, Any]:
        sums = {"word": self.rows._word[:, 1], "context": self.rows._context[:, 1]}
        return {"steps": self.rows.epochs, "squares": sums}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows.epochs = state["steps"]
        self.rows._word[:, 1] = state["squares"]["word"]
        self.rows._context[:, 1] = state["squares"]["context"]


class TorchTrainer(Trainer):
    """nn.Embedding and sparse Adagrad on mini-batches, in an order drawn for each step."""

    def __init__(self, config: TrainConfig, model: GloVe) -> None:
        self.model, self.seed, self.steps = model, config.seed, 0
        self.optimizer = torch.optim.Adagrad(model.parameters(), lr=config.lr, initial_accumulator_value=1)

    def step(self, batch: glove.Records) -> Step:
        self.steps += 1
        order = np.random.default_rng([self.seed, self.steps]).permutation(len(batch))
        total = 0.0
        for chosen in torch.from_numpy(order).split(TORCH_BATCH):  # type: ignore[no-untyped-call]
            losses = cell_losses(self.model, batch.pairs[chosen], batch.targets[chosen])
            self.optimizer.zero_grad()
            losses.backward()  # type: ignore[no-untyped-call]
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Sparse invariant checks")  # of torch's own gradients
                self.optimizer.step()
            total += losses.item()
        return Step(torch.tensor(total / max(1, len(batch))), len(batch))

    def set_lr(self, lr: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = lr

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]
        self.optimizer.load_state_dict(state["optimizer"])


def cell_losses(model: GloVe, pairs: Tensor, targets: Tensor) -> Tensor:
    """The summed loss of cells: `pairs` (n, 2), `targets` (n, 2) of log x and f(x)."""
    i, j = pairs.long().unbind(1)
    log_x, weight = targets.unbind(1)
    summed: Tensor = 0.5 * (weight * (model(i, j) - log_x).square()).sum()
    return summed
