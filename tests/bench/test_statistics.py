"""Medians, intervals and verdicts."""

from __future__ import annotations

import numpy as np
import pytest
from cisdl.bench.statistics import Ratio, geometric_mean, quartiles, speedup


def test_quartiles_of_known_numbers() -> None:
    assert quartiles([5, 1, 3, 2, 4]) == (2, 3, 4)


def test_a_clear_difference_is_a_win_or_a_loss() -> None:
    noise = np.random.default_rng(0).normal(1, 0.05, 30)
    assert speedup(list(2 * noise), list(noise[::-1])).verdict == "win"
    assert speedup(list(noise), list(2 * noise[::-1])).verdict == "loss"


def test_equal_competitors_are_even() -> None:
    """Ten experiments of pure noise; none may be called a win or a loss."""
    generator = np.random.default_rng(1)
    for _ in range(10):
        ours, theirs = generator.lognormal(0, 0.1, (2, 25))
        assert speedup(list(theirs), list(ours)).verdict == "even"


def test_noise_common_to_a_round_cancels() -> None:
    """The machine slows down tenfold half-way; the ratio of a round does not notice."""
    ours = [1.0] * 10 + [10.0] * 10
    ratio = speedup([1.2 * time for time in ours], ours)
    assert (ratio.low, ratio.high) == (pytest.approx(1.2), pytest.approx(1.2))


def test_interval_repeats() -> None:
    times = list(np.random.default_rng(2).uniform(1, 2, 15))
    assert speedup(times, times[::-1]) == speedup(times, times[::-1])


def test_rounds_must_match() -> None:
    with pytest.raises(ValueError, match="got 2 and 1"):
        speedup([1.0, 2.0], [1.0])


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.9, 1.1, "even"), (1.0, 1.2, "even"), (1.01, 1.2, "win"), (0.8, 0.99, "loss")],
)
def test_verdict(low: float, high: float, verdict: str) -> None:
    assert Ratio(1.05, low, high).verdict == verdict


def test_geometric_mean_counts_losses_like_wins() -> None:
    assert geometric_mean([2.0, 0.5]) == pytest.approx(1)
    assert geometric_mean([4.0, 1.0]) == pytest.approx(2)
