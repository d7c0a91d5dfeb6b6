"""Mini-batches of sequences that are not equally long.

Padding is work for nothing, so sequences of about one length go together: the shuffled order is cut into
pools of `POOL` batches, each pool is sorted by length and cut into batches, and the batches are shuffled. All
of it is decided by (seed, epoch) alone, and every sequence is in one batch of every epoch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from cisdl.data.vocabulary import PAD

POOL = 50


def bucketed(lengths: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Which sequences make each batch of the epoch."""
    random = np.random.default_rng([seed, epoch])
    order = random.permutation(len(lengths)).tolist()
    batches: list[list[int]] = []
    for start in range(0, len(order), POOL * batch_size):
        pool = sorted(order[start : start + POOL * batch_size], key=lambda i: lengths[i])
        batches += [pool[i : i + batch_size] for i in range(0, len(pool), batch_size)]
    return [batches[i] for i in random.permutation(len(batches))]


def sorted_batches(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Batches to be judged: by length, where the order does not matter."""
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


def padded(sequences: Sequence[Sequence[int]], value: int = PAD) -> tuple[Tensor, Tensor]:
    """(batch, longest) with `value` to the right of the shorter ones, and their true lengths (batch,)."""
    lengths = [len(sequence) for sequence in sequences]
    rows = np.full((len(sequences), max(lengths)), value, dtype=np.int64)
    for row, sequence in zip(rows, sequences, strict=True):
        row[: len(sequence)] = sequence
    return torch.from_numpy(rows), torch.tensor(lengths)
