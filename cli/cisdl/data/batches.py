"""Mini-batches in an order that only (seed, epoch) decides: equal on every device and backend."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from cisdl.data.images import Part


def permutation(count: int, seed: int, epoch: int) -> Tensor:
    """The order of `count` images in that epoch.

    numpy mixes both numbers well; `torch.Generator` would look at the low 32 bits of one number only.
    """
    return torch.from_numpy(np.random.default_rng([seed, epoch]).permutation(count))


def batches(part: Part, batch_size: int, seed: int, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Shuffled (images, labels) of `batch_size`; the last batch may be smaller, no image is left out."""
    for chosen in permutation(len(part), seed, epoch).to(part.labels.device).split(batch_size):  # type: ignore[no-untyped-call]
        yield part.images[chosen], part.labels[chosen]


def batch_count(part: Part, batch_size: int) -> int:
    return -(-len(part) // batch_size)
