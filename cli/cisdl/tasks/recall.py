"""Remember patterns and find them again from spoilt copies.

Every pattern is given back with a share of its numbers flipped (--flips, other ones for validation and test)
and the network is run until it rests. Judged by the overlap x . s / N of the pattern x and the last state s,
1 where all is right; the loss is the share of wrong numbers, (1 - overlap) / 2.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cisdl.backend import Backend
from cisdl.data import registry
from cisdl.data.patterns import PatternData
from cisdl.errors import DataError, UsageError
from cisdl.models.hopfield import Hopfield
from cisdl.models.options import RULES
from cisdl.models.registry import ModelEntry
from cisdl.tasks.base import Curve, Evaluation, Pictures, Step, Task
from cisdl.training.config import TrainConfig
from cisdl.training.trainer import Trainer


@dataclass(frozen=True)
class Recalled(Evaluation):
    """`states` (total, neurons) are the last ones, on the CPU; `exact` of them are right in every number."""

    overlap: float
    exact: int
    total: int
    stored: int
    neurons: int
    states: Tensor = field(repr=False)

    @property
    def rank(self) -> tuple[float, ...]:
        return (self.overlap,)

    def as_dict(self) -> dict[str, float | int]:
        return {
            "loss": self.loss,
            "overlap": self.overlap,
            "exact": self.exact,
            "total": self.total,
            "stored": self.stored,
            "neurons": self.neurons,
            "load": self.stored / self.neurons,
        }

    def __str__(self) -> str:
        return (
            f"{self.overlap:.3f} ({self.exact}/{self.total} without a mistake; "
            f"{self.stored} patterns in {self.neurons} neurons)"
        )


class HebbTrainer(Trainer):
    """The one step of learning. Its loss is the share of numbers that would not stay, before it."""

    def __init__(self, model: Hopfield, rule: str) -> None:
        self.model = model
        self.rule = rule

    def step(self, batch: Tensor) -> Step:
        unstable = (self.model(batch) * batch <= 0).float().mean()
        self.model.learn(batch, self.rule)
        return Step(unstable, len(batch))

    def set_lr(self, lr: float) -> None:
        """There is no rate."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


class Recall(Task):
    """On random patterns; `image_recall` is the same on images."""

    metric = "overlap"
    loss_name = "share of wrong numbers"
    score = Curve("overlap", "overlap")

    stored: PatternData
    """What is learnt and asked for."""
    facts_: dict[str, Any]

    def __init__(self, entry: ModelEntry, config: TrainConfig) -> None:
        super().__init__(entry, config)
        self.count: int = config.options["stored"]
        self.flips: float = config.options["flips"]
        self.sweeps: int = config.options["sweeps"]
        self.device = torch.device("cpu")

    def read(self) -> None:
        data: PatternData = registry.load(
            self.config.data, self.config.data_dir, self.config.seed, "patterns"
        )
        self.take(data)

    def take(self, data: PatternData) -> None:
        """The first patterns of the data are stored."""
        if self.count > len(data.patterns):
            raise UsageError(
                f"--stored: expected at most the {len(data.patterns)} patterns of {data.name}, "
                f"got {self.count}"
            )
        self.stored = replace(data, patterns=data.patterns[: self.count])
        self.facts_ = {"shape": list(data.shape), "neurons": data.patterns.shape[1]}

    def facts(self) -> dict[str, Any]:
        return self.facts_

    def restore(self, facts: Mapping[str, Any]) -> None:
        self.facts_ = dict(facts)

    def open(self, data: str, data_dir: str | None) -> None:
        loaded: PatternData = registry.load(data, data_dir, self.config.seed, "patterns", whole=True)
        if loaded.patterns.shape[1] != self.facts_["neurons"]:
            raise DataError(
                f"{data}: expected patterns of {self.facts_['neurons']} numbers as in training, "
                f"got {loaded.patterns.shape[1]}"
            )
        self.take(loaded)

    @property
    def data(self) -> PatternData:
        return self.stored

    def describe(self) -> dict[str, str]:
        neurons = self.facts_["neurons"]
        return {"load": f"{self.count} patterns / {neurons} neurons = {self.count / neurons:.3f}"}

    def to(self, device: torch.device) -> None:
        self.device = device

    def build(self, ops: Backend) -> nn.Module:
        return self.entry.build(ops, neurons=self.facts_["neurons"], **self.option)

    def example(self) -> tuple[Tensor, ...]:
        return (torch.ones(1, self.facts_["neurons"]),)

    def batches(self, epoch: int) -> Iterator[Tensor]:
        yield self.stored.patterns.to(self.device)

    def batch_count(self) -> int:
        return 1

    def trainer(self, model: nn.Module) -> HebbTrainer:
        assert isinstance(model, Hopfield)
        return HebbTrainer(model, self.option["rule"])

    def generator(self, part: str) -> np.random.Generator:
        return np.random.default_rng([self.config.seed, ("train", "validation", "test").index(part)])

    def starts(self, part: str) -> Tensor:
        """Copies of the stored patterns with some numbers flipped, the same ones every time."""
        patterns = self.stored.patterns
        flipped = self.generator(part).random(tuple(patterns.shape)) < self.flips
        return torch.where(torch.from_numpy(flipped), -patterns, patterns)

    def wanted(self, part: str, model: Hopfield) -> Tensor:
        """What each start should become."""
        return self.stored.patterns

    def path(self, model: Hopfield, states: Tensor, part: str, every: int | None = None) -> list[Tensor]:
        path = model.recall(
            states.to(self.device), self.option["update"], self.sweeps, self.generator(part), every
        )
        return [state.cpu() for state in path]

    def judge(self, states: Tensor, wanted: Tensor) -> Recalled:
        overlaps = (states * wanted).double().mean(1)
        overlap = float(overlaps.mean())
        exact = int((states == wanted).all(1).sum())
        neurons = states.shape[1]
        return Recalled((1 - overlap) / 2, overlap, exact, len(states), self.count, neurons, states)

    def evaluate(self, model: nn.Module, part: str) -> Recalled:
        assert isinstance(model, Hopfield)
        self.model = model
        states = self.path(model, self.starts(part), part)[-1]
        return self.judge(states, self.wanted(part, model))

    def baselines(self, part: str) -> dict[str, Recalled]:
        """The spoilt copies as they are; the other rule; the stored pattern nearest to each, hard to beat."""
        starts, wanted, stored = self.starts(part), self.wanted(part, self.model), self.model.patterns
        other = Hopfield(self.model.ops, self.model.neurons, len(stored)).to(self.device)
        rule = next(rule for rule in RULES if rule != self.option["rule"])
        other.learn(stored, rule)
        stored = stored.cpu()
        nearest = stored[(starts @ stored.T).argmax(1)]
        return {
            f"rule {rule}": self.judge(self.path(other, starts, part)[-1], wanted),
            "the spoilt patterns": self.judge(starts, wanted),
            "the nearest stored pattern": self.judge(nearest, wanted),
        }

    def draw(self, model: nn.Module, evaluation: Evaluation, pictures: Pictures) -> None:
        from cisdl.report import recall

        assert isinstance(model, Hopfield)
        plots, title, part = pictures.folder, pictures.title, pictures.judged_on
        shown = slice(0, recall.ROWS)
        starts, wanted = self.starts(part)[shown], self.wanted(part, model)[shown]
        every = max(1, model.neurons // recall.STEPS)
        path = self.path(model, starts, part, every)
        channels, height, width = self.facts_["shape"]
        steps = [state.view(-1, channels, height, width) for state in path]
        rule = self.option["rule"]
        recall.draw_strips(
            plots / "recall.png", f"{title}: recall", wanted.view_as(steps[0]), steps, self.option["update"]
        )
        energies = torch.stack([model.energy(state) for state in path])
        recall.draw_energy(plots / "energy.png", f"{title}: energy while it recalls", energies)
        curve = recall.overlap_curve(model.ops, rule, self.option["update"], self.sweeps, self.config.seed)
        recall.draw_load(
            plots / "load.png",
            f"hopfield: what is left of random patterns, rule {rule}",
            curve,
            (self.count / model.neurons, evaluation.as_dict()["overlap"], pictures.title),
        )


def new(entry: ModelEntry, config: TrainConfig) -> Recall:
    return Recall(entry, config)
