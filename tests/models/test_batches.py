"""Mini-batches of images: every image once an epoch, in another order each time, with its own label."""

from __future__ import annotations

import torch
from cisdl.data.batches import batches
from cisdl.data.images import Part
from torch import Tensor


def test_mini_batches_are_shuffled_anew_in_every_epoch() -> None:
    """Unshuffled mini-batches would come in the order of the data; classes often lie side by side there."""
    part = Part(torch.arange(100.0).view(100, 1, 1, 1), torch.arange(100))

    def order(epoch: int, seed: int = 0) -> Tensor:
        found = list(batches(part, 8, seed, epoch))
        for images, labels in found:
            assert torch.equal(images.flatten(), labels.float())
        return torch.cat([labels for _, labels in found])

    first = order(1)
    assert sorted(first.tolist()) == list(range(100))
    assert not torch.equal(first, torch.arange(100))
    assert torch.equal(first, order(1))
    assert not torch.equal(first, order(2))
    assert not torch.equal(first, order(1, seed=1))
