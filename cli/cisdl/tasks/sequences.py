"""How far back does it remember? Generated sequences (`data/sequences.py`), an answer at every step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cisdl import backend
from cisdl.backend import Backend
from cisdl.data import registry
from cisdl.data import sequences as generated
from cisdl.errors import DataError
from cisdl.models.elman import elman
from cisdl.models.registry import ModelEntry
from cisdl.models.steps import State, Steps, detached, set_memory
from cisdl.tasks.base import Curve, Evaluation, Pictures, Step, Task
from cisdl.training.config import TrainConfig

EVALUATION_BATCH = 500
SHOWN_STEPS = 120


@dataclass(frozen=True)
class Remembered(Evaluation):
    """The loss is the mean over all sequences; `total` counts the answers that were asked for."""

    correct: int
    total: int
    sequences: int

    @property
    def accuracy(self) -> float:
        return self.correct / self.total

    @property
    def rank(self) -> tuple[float, ...]:
        return (-self.loss,)

    def as_dict(self) -> dict[str, float | int]:
        return {
            "loss": self.loss,
            "accuracy": self.accuracy,
            "correct": self.correct,
            "total": self.total,
            "sequences": self.sequences,
        }

    def __str__(self) -> str:
        return f"{100 * self.accuracy:.2f} % ({self.correct}/{self.total}), loss {self.loss:.5f}"


class Sequences(Task):
    """Trained on (inputs, targets) of a mini-batch of sequences, each from its start to its end."""

    metric = "accuracy"
    loss_name = "squared error or cross-entropy"
    score = Curve("accuracy", "accuracy, %", 100.0)

    sequences: generated.SequenceData

    def __init__(self, entry: ModelEntry, config: TrainConfig) -> None:
        super().__init__(entry, config)
        self.device = torch.device("cpu")

    def make(self, name: str, whole: bool = False) -> None:
        length, lag = self.option["length"], self.option["lag"]
        self.sequences = generated.make(name, length, lag, self.config.limit, whole)

    def read(self) -> None:
        self.make(self.config.data)

    def facts(self) -> dict[str, Any]:
        return {"problem": self.sequences.name}

    def restore(self, facts: Mapping[str, Any]) -> None:
        self.make(facts["problem"], whole=True)

    def open(self, data: str, data_dir: str | None) -> None:
        registry.find(data, data_dir, ["sequences"])
        if data != self.sequences.name:
            raise DataError(f"--data {data}: expected {self.sequences.name} as in training")
        self.make(data, whole=True)

    @property
    def data(self) -> generated.SequenceData:
        return self.sequences

    @property
    def problem(self) -> generated.Problem:
        return self.sequences.problem

    def describe(self) -> dict[str, str]:
        return {"sequences": f"{self.problem.steps} steps of {self.problem.inputs} numbers"}

    def to(self, device: torch.device) -> None:
        self.device = device

    def build(self, ops: Backend) -> nn.Module:
        inputs, outputs = self.problem.inputs, self.problem.outputs
        return self.entry.build(ops, inputs=inputs, outputs=outputs, **self.option)

    def example(self) -> tuple[Tensor, ...]:
        return (torch.zeros(1, self.problem.steps, self.problem.inputs),)

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        inputs, targets = self.sequences.train(self.config.seed, epoch)
        size = self.config.batch_size
        for x, y in zip(inputs.split(size), targets.split(size), strict=True):  # type: ignore[no-untyped-call]
            yield x.to(self.device), y.to(self.device)

    def batch_count(self) -> int:
        return -(-self.sequences.counts["train"] // self.config.batch_size)

    def step(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Step:
        inputs, targets = batch
        outputs = unrolled(model, inputs, self.option["truncate"])
        right = self.problem.right(outputs, targets)
        share = float(right.float().mean())
        return Step(self.problem.loss(outputs, targets), len(inputs), values={"accuracy": share})

    @torch.no_grad()
    def evaluate(self, model: nn.Module, part: str) -> Remembered:
        inputs, targets = self.sequences.held_out(part)
        training = model.training
        model.eval()
        outputs = torch.cat([model(x.to(self.device))[0].cpu() for x in inputs.split(EVALUATION_BATCH)])  # type: ignore[no-untyped-call]
        model.train(training)
        right = self.problem.right(outputs, targets)
        loss = float(self.problem.loss(outputs, targets))
        return Remembered(loss, int(right.sum()), right.numel(), len(inputs))

    def baselines(self, part: str) -> dict[str, Evaluation]:
        inputs, targets = self.sequences.held_out(part)
        found = self.problem.guess(targets)
        total = self.problem.asked(targets).numel() if targets.shape[1] > 1 else targets.numel()
        return {self.problem.guess_name: Remembered(found.loss, found.correct, total, len(inputs))}

    def draw(self, model: nn.Module, evaluation: Evaluation, pictures: Pictures) -> None:
        """How the gradient fades with the lag, beside other networks' before training, and states by step."""
        from cisdl.report import memory

        problem = generated.problem(self.data.name, max(self.option["length"], 100), self.option["lag"])
        inputs, targets = problem.draw(np.random.default_rng(0), 64)
        norms = {self.entry.name: memory.gradient_norms(model, inputs, targets[:, -1])}
        for name, untrained in self.untrained(problem.steps).items():
            norms[f"untrained {name}"] = memory.gradient_norms(untrained, inputs, targets[:, -1])
        title = f"{pictures.title}: how far back the gradient reaches"
        memory.draw_gradients(pictures.folder / "gradient_lag.png", title, norms)

        inputs = self.sequences.held_out(pictures.judged_on)[0][:1, :SHOWN_STEPS]
        with torch.no_grad():
            outputs = model(inputs)[0][0].T
        rows = {"input": inputs[0].T}
        if isinstance(model, Steps):
            rows["hidden units"] = memory.hidden_states(model.layer, inputs)
        what = "scores" if self.problem.outputs > 1 else "answer"
        rows[f"{what} (scaled)"] = outputs / outputs.abs().max()
        title = f"{pictures.title}: one sequence, step by step"
        memory.draw_states(pictures.folder / "states.png", title, rows)

    def untrained(self, steps: int) -> dict[str, nn.Module]:
        """Networks of as many units, with the weights that they start from."""
        ops = backend.get(self.config.backend)
        sizes = (self.problem.inputs, self.option["hidden"][0], self.problem.outputs)
        with torch.random.fork_rng([]):
            torch.manual_seed(self.config.seed)
            return {
                "elman": elman(ops, *sizes),
                "lstm": Steps(ops, "lstm", *sizes),
                f"lstm, --memory {steps}": set_memory(Steps(ops, "lstm", *sizes), steps),
            }


def unrolled(model: nn.Module, inputs: Tensor, truncate: int) -> Tensor:
    """Outputs at all steps, through which the gradient flows back `truncate` steps at most; 0: to the start.

    The state goes on from stretch to stretch, but as numbers, without the history that made them.
    """
    state: State = None
    pieces = []
    for stretch in inputs.split(truncate or inputs.shape[1], dim=1):  # type: ignore[no-untyped-call]
        outputs, state = model(stretch, detached(state))
        pieces.append(outputs)
    return torch.cat(pieces, dim=1)


def new(entry: ModelEntry, config: TrainConfig) -> Sequences:
    return Sequences(entry, config)
