"""Patterns of +1 and -1 for an associative memory, and the random ones: 1000 fair coins each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

NEURONS = 1000
MOST = 250
SIDES = (25, 40)
"""How they are drawn."""


@dataclass(frozen=True)
class PatternData:
    """Patterns (count, neurons) to be remembered, of +1 and -1; every part is made of copies of them."""

    name: str
    source: str
    patterns: Tensor
    shape: tuple[int, int, int]
    """(channels, height, width) of the picture of one."""
    split: str
    judged_only: bool = False

    @property
    def counts(self) -> dict[str, int]:
        parts = ("test",) if self.judged_only else ("train", "validation", "test")
        return dict.fromkeys(parts, len(self.patterns))


def random_patterns(count: int, neurons: int, seed: int) -> Tensor:
    """(count, neurons); fewer of the same seed are the first of more."""
    coins = np.random.default_rng([seed, neurons]).integers(0, 2, (count, neurons), dtype=np.int8)
    return torch.from_numpy(coins.astype(np.float32) * 2 - 1)


def load(seed: int, whole: bool = False) -> PatternData:
    return PatternData(
        "patterns",
        f"drawn by seed {seed}",
        random_patterns(MOST, NEURONS, seed),
        (1, *SIDES),
        "validation and test: copies with numbers flipped, drawn by the seed",
        whole,
    )
