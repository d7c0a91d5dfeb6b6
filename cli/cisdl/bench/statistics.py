"""Medians, spread, and the one question a benchmark answers: faster, slower, or not told apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
CONFIDENCE = 0.99
"""Not 95 %: a table has a hundred rows, and one in twenty would be called a win or a loss by chance."""


@dataclass(frozen=True)
class Ratio:
    """How many times faster ours is (torch's time over ours), with a bootstrap interval."""

    value: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """ "win" or "loss" only if the whole interval lies on that side of 1."""
        if self.low > 1:
            return "win"
        return "loss" if self.high < 1 else "even"


def quartiles(samples: Sequence[float]) -> tuple[float, float, float]:
    """(first quartile, median, third quartile)."""
    low, middle, high = np.quantile(np.asarray(samples, dtype=float), [0.25, 0.5, 0.75])
    return float(low), float(middle), float(high)


def speedup(torch_seconds: Sequence[float], our_seconds: Sequence[float], seed: int = 0) -> Ratio:
    """The median over rounds of torch's time by ours, with its 99 % percentile-bootstrap interval.

    Sample i of both comes from the same round, so a slow moment of the machine is in both and cancels. Rounds
    are resampled with replacement (Efron 1979); the seed makes the interval repeatable.
    """
    if len(torch_seconds) != len(our_seconds) or not our_seconds:
        raise ValueError(
            f"speedup: expected as many rounds on both sides, got {len(torch_seconds)} and {len(our_seconds)}"
        )
    ratios = np.asarray(torch_seconds, dtype=float) / np.asarray(our_seconds, dtype=float)
    picks = np.random.default_rng(seed).integers(0, len(ratios), (RESAMPLES, len(ratios)))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(np.median(ratios[picks], axis=1), [tail, 1 - tail])
    return Ratio(float(np.median(ratios)), float(low), float(high))


def geometric_mean(values: Sequence[float]) -> float:
    """exp of the mean log: the mean of ratios that does not depend on which side is the denominator."""
    return math.exp(sum(math.log(value) for value in values) / len(values))
