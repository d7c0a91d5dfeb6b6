"""Training images changed a little, in another way each time, which makes them hard to learn by heart."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

SHARE = 14
"""An image is shifted by up to a 14th of its sides: two of 28 pixels."""


def shifted(images: Tensor, generator: np.random.Generator) -> Tensor:
    """Each image moved by a few pixels up or down, left or right; what comes in repeats the edge."""
    count, _, height, width = images.shape
    most = (max(1, height // SHARE), max(1, width // SHARE))
    padded = F.pad(images, (most[1], most[1], most[0], most[0]), mode="replicate")
    rows, columns = (
        torch.from_numpy(generator.integers(0, 2 * m + 1, (count, 1)) + np.arange(size)).to(images.device)
        for m, size in zip(most, (height, width), strict=True)
    )
    which = torch.arange(count, device=images.device)[:, None, None]
    moved = padded.permute(0, 2, 3, 1)[which, rows[:, :, None], columns[:, None, :]]  # (count, H, W, C)
    return moved.permute(0, 3, 1, 2).contiguous()


def flipped(images: Tensor, generator: np.random.Generator) -> Tensor:
    """Every second image, by chance, seen in a mirror."""
    mirrored = torch.from_numpy(generator.random(len(images)) < 0.5).to(images.device)
    return torch.where(mirrored[:, None, None, None], images.flip(3), images)


def augmented(images: Tensor, how: str, generator: np.random.Generator) -> Tensor:
    """`how`: "none", "shift", "flip" or "both"."""
    if how in {"shift", "both"}:
        images = shifted(images, generator)
    return flipped(images, generator) if how in {"flip", "both"} else images
