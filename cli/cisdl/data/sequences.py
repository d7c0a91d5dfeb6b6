"""Sequences made to ask one thing: how far back can a recurrent network remember?

adding   A number of [0, 1] and a mark a step; two steps are marked, one in each half. After the last step the
         two marked numbers are to be added: mean squared error, right within 0.04. Who always answers 1, the
         mean, has an error of 1/6, the variance of the sum (Hochreiter, Schmidhuber 1997; Le et al. 2015).
copy     10 symbols out of 8, then --length blanks, a start sign and 10 more steps, in which the symbols are
         to be repeated; until then the answer is "blank". Cross-entropy over all steps. Who knows when to
         answer but not what has 10 ln 8 / (length + 20) (Hochreiter, Schmidhuber 1997; Arjovsky et al. 2016).
echo     Random bits; at every step the bit of --lag steps ago is to be repeated. Cross-entropy over the steps
         that have such a bit; who guesses has ln 2.

Nothing is stored: an epoch's sequences are drawn anew from (seed, epoch). Those of validation and test are
the same for all seeds, so figures of different runs speak of the same sequences.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cisdl.errors import UsageError

SYMBOLS, RECALLED = 8, 10
"""Of the copy problem: the symbols are 1 to 8, 0 is blank, 9 the start sign."""
WITHIN = 0.04
"""An answer to the adding problem is right if it is at most so far off (Hochreiter, Schmidhuber 1997)."""


class Guess(NamedTuple):
    """What can be reached without remembering: a loss and right answers."""

    loss: float
    correct: int


class Problem(ABC):
    """Inputs (count, steps, inputs), targets, and how outputs (count, steps, outputs) are judged."""

    inputs: int
    outputs: int
    steps: int
    guess_name: str

    @abstractmethod
    def draw(self, generator: np.random.Generator, count: int) -> tuple[Tensor, Tensor]:
        """`count` sequences and their targets (count, answers)."""

    @abstractmethod
    def asked(self, values: Tensor) -> Tensor:
        """Of values (count, steps, ...) those of the steps whose answers are counted."""

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor: ...

    @abstractmethod
    def right(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Which answers are right: (count, answers)."""

    @abstractmethod
    def guess(self, targets: Tensor) -> Guess: ...


class Adding(Problem):
    inputs, outputs = 2, 1
    guess_name = "always the mean"

    def __init__(self, length: int) -> None:
        if length < 2:
            raise UsageError(f"--length: expected 2 steps or more to add two numbers, got {length}")
        self.steps = length

    def draw(self, generator: np.random.Generator, count: int) -> tuple[Tensor, Tensor]:
        values = generator.random((count, self.steps), dtype=np.float32)
        marks = np.zeros_like(values)
        every, half = np.arange(count), self.steps // 2
        marks[every, generator.integers(0, half, count)] = 1
        marks[every, generator.integers(half, self.steps, count)] = 1
        sums = (values * marks).sum(1, keepdims=True)
        return torch.from_numpy(np.stack([values, marks], axis=2)), torch.from_numpy(sums)

    def asked(self, values: Tensor) -> Tensor:
        return values[:, -1]

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.mse_loss(self.asked(outputs), targets)

    def right(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (self.asked(outputs) - targets).abs() <= WITHIN

    def guess(self, targets: Tensor) -> Guess:
        ones = torch.ones_like(targets)
        return Guess(float(F.mse_loss(ones, targets)), int(((ones - targets).abs() <= WITHIN).sum()))


class Copy(Problem):
    inputs, outputs = SYMBOLS + 2, SYMBOLS + 1
    guess_name = "without memory"

    def __init__(self, length: int) -> None:
        self.steps = length + 2 * RECALLED

    def draw(self, generator: np.random.Generator, count: int) -> tuple[Tensor, Tensor]:
        symbols = torch.from_numpy(generator.integers(1, SYMBOLS + 1, (count, RECALLED)))
        given = torch.zeros(count, self.steps, dtype=torch.int64)
        given[:, :RECALLED] = symbols
        given[:, -RECALLED - 1] = SYMBOLS + 1
        targets = torch.zeros_like(given)
        targets[:, -RECALLED:] = symbols
        return F.one_hot(given, self.inputs).float(), targets

    def asked(self, values: Tensor) -> Tensor:
        return values[:, -RECALLED:]

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs.flatten(0, 1), targets.flatten())

    def right(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.asked(outputs).argmax(2) == self.asked(targets)

    def guess(self, targets: Tensor) -> Guess:
        return Guess(RECALLED * math.log(SYMBOLS) / self.steps, int((self.asked(targets) == 1).sum()))


class Echo(Problem):
    inputs, outputs = 1, 2
    guess_name = "always 1"

    def __init__(self, length: int, lag: int) -> None:
        if lag >= length:
            raise UsageError(f"--lag: expected less than --length {length}, got {lag}")
        self.steps, self.lag = length, lag

    def draw(self, generator: np.random.Generator, count: int) -> tuple[Tensor, Tensor]:
        bits = torch.from_numpy(generator.integers(0, 2, (count, self.steps)))
        targets = torch.zeros_like(bits)
        targets[:, self.lag :] = bits[:, : self.steps - self.lag]
        return 2.0 * bits.unsqueeze(2) - 1, targets  # -1 and 1

    def asked(self, values: Tensor) -> Tensor:
        return values[:, self.lag :]

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(self.asked(outputs).flatten(0, 1), self.asked(targets).flatten())

    def right(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.asked(outputs).argmax(2) == self.asked(targets)

    def guess(self, targets: Tensor) -> Guess:
        return Guess(math.log(2), int(self.asked(targets).sum()))


def problem(name: str, length: int, lag: int) -> Problem:
    if name == "echo":
        return Echo(length, lag)
    return Adding(length) if name == "adding" else Copy(length)


TRAIN, HELD_OUT = 5000, 2000
"""Sequences of an epoch, and of the other two parts."""


@dataclass(frozen=True)
class SequenceData:
    """Sequences of a problem; `train` are those of an epoch."""

    name: str
    problem: Problem
    counts: dict[str, int]
    source: str = "generated"
    split: str = "train: drawn anew in every epoch by (seed, epoch); validation and test: always the same"

    def train(self, seed: int, epoch: int) -> tuple[Tensor, Tensor]:
        return self.problem.draw(np.random.default_rng([seed, epoch, 0]), self.counts["train"])

    def held_out(self, part: str) -> tuple[Tensor, Tensor]:
        """The sequences to validate on, or to be judged on."""
        number = {"validation": 1, "test": 2}[part]
        return self.problem.draw(np.random.default_rng([0, 0, number]), self.counts[part])


def make(name: str, length: int, lag: int, limit: int | None = None, whole: bool = False) -> SequenceData:
    """The problem `name`; `whole`: to be judged only."""
    counts = {"train": TRAIN, "validation": HELD_OUT, "test": HELD_OUT}
    counts = {
        part: min(count, limit or count) for part, count in counts.items() if not whole or part == "test"
    }
    return SequenceData(name, problem(name, length, lag), counts)
