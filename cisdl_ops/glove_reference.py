"""GloVe in plain numpy and float64: what the tests hold counting and training against.

The update is glove.c's, an element at a time; the order of the records is the kernel's, which
docs/word-vectors.md describes.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import gcd

import numpy as np
import numpy.typing as npt

from cisdl_ops.word2vec_reference import Random

Matrix = npt.NDArray[np.float64]


def cooccurrence(tokens: list[int], words: int, window: int) -> Matrix:
    """The whole matrix: X[i, j] sums 1 / distance over all places where j is at most `window` from i."""
    counts = np.zeros((words, words))
    for i, word in enumerate(tokens):
        for step in (-1, 1):
            for distance in range(1, window + 1):
                j = i + step * distance
                if word < 0 or not 0 <= j < len(tokens) or tokens[j] < 0:
                    break
                counts[word, tokens[j]] += 1 / distance
    return counts


def stride(n: int, random: int) -> int:
    """Near the golden section of n, and without a common divisor: steps of it meet every number once."""
    found = 1 if n < 4 else int(0.618 * n) + random % 64
    while gcd(n, found) != 1:
        found += 1
    return found % n


def order(n: int, random: int) -> Iterator[int]:
    """0 .. n - 1 from some place on, by that stride."""
    at, step = (random >> 16) % n, stride(n, random >> 32)
    for _ in range(n):
        yield at
        at = (at + step) % n


def schedule(blocks: int, offsets: list[int], seed: int) -> Iterator[int]:
    """The numbers of the records in the order of training."""
    random = Random(seed % 2**64)
    random.next()
    random.next()
    teams = 31 if blocks % 31 == 0 else blocks
    for diagonal in list(order(teams, random.state)):
        random.next()
        for team in range(teams):
            own = Random((random.state + team) % 2**64)
            for row in range(team, blocks, teams):
                for column in range((team + diagonal) % teams, blocks, teams):
                    block = row * blocks + column
                    begin, n = offsets[block], offsets[block + 1] - offsets[block]
                    own.next()
                    if n:
                        yield from (begin + i for i in order(n, own.state))


def update(
    w: Matrix, w_sums: Matrix, c: Matrix, c_sums: Matrix, log_x: float, weight: float, lr: float
) -> float:
    """One record: vectors with their bias last, and the sums of their squared steps; returns the loss before.

    d = w c + b + b' - log x; every element moves by lr f d (the other's element) / sqrt(sum).
    """
    d = w[:-1] @ c[:-1] + w[-1] + c[-1] - log_x
    step_w = lr * weight * d * np.append(c[:-1], 1)
    step_c = lr * weight * d * np.append(w[:-1], 1)
    w -= step_w / np.sqrt(w_sums)
    c -= step_c / np.sqrt(c_sums)
    w_sums += step_w**2
    c_sums += step_c**2
    return float(0.5 * weight * d * d)
