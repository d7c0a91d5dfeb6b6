"""Remember images in black and white, and find them again: `recall` on images.

A pixel above half of the brightest is +1, else -1. The first training images of each class in turn are
stored, so that 10 stored images are one of each of 10 classes. A finished run judges other images by whether
they end in the stored image of their class (the nearest one, where there are several).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from cisdl.data import registry
from cisdl.data.images import ImageData, Part
from cisdl.data.patterns import PatternData
from cisdl.errors import DataError, UsageError
from cisdl.models.hopfield import Hopfield
from cisdl.models.registry import ModelEntry
from cisdl.tasks.recall import Recall
from cisdl.training.config import TrainConfig


def black_and_white(images: Tensor, threshold: float) -> Tensor:
    """(count, channels, height, width) to (count, neurons) of +1 and -1."""
    return torch.where(images.flatten(1).float() > threshold, 1.0, -1.0)


def in_turn(labels: Tensor, count: int) -> Tensor:
    """Places of the first of each class, then of the second of each, and so on, `count` of them."""
    places = [(labels == label).nonzero().flatten().tolist() for label in sorted(set(labels.tolist()))]
    longest = max(len(some) for some in places)
    order = [some[turn] for turn in range(longest) for some in places if turn < len(some)]
    return torch.tensor(order[:count])


class ImageRecall(Recall):
    of_images: ClassVar[bool] = True

    opened: Part | None = None
    """Other images, after `open`."""

    def __init__(self, entry: ModelEntry, config: TrainConfig) -> None:
        if config.scale != "raw":
            raise UsageError(f"--scale: {entry.name} sees black and white, expected raw, got {config.scale}")
        super().__init__(entry, config)

    def read(self) -> None:
        config = self.config
        data: ImageData = registry.load(config.data, config.data_dir, config.seed, "images")
        data = data.limited(config.limit).resized(config.image_size)
        if min(data.shape[1:]) < 2:
            raise DataError(
                f"{data.name}: expected images of 2 x 2 pixels or more, got {data.shape[1]} x {data.shape[2]}"
            )
        train = data.train
        if self.count > len(train):
            raise UsageError(
                f"--stored: expected at most the {len(train)} training images of {data.name}, "
                f"got {self.count}"
            )
        chosen = in_turn(train.labels, self.count)
        patterns = PatternData(
            data.name,
            data.source,
            black_and_white(train.images[chosen], data.peak / 2),
            data.shape,
            "validation and test: copies of the stored images with pixels flipped, drawn by the seed",
        )
        self.take(patterns)
        self.facts_ |= {"threshold": data.peak / 2, "labels": train.labels[chosen].tolist()}

    def open(self, data: str, data_dir: str | None) -> None:
        loaded: ImageData = registry.load(data, data_dir, self.config.seed, "images", whole=True)
        loaded = loaded.resized(self.config.image_size)
        expected = tuple(self.facts_["shape"])
        if loaded.shape != expected:
            raise DataError(
                f"{data}: expected images of {' x '.join(map(str, expected))} as in training, "
                f"got {' x '.join(map(str, loaded.shape))}"
            )
        part = loaded.parts()["test"]
        known = set(self.facts_["labels"])
        unknown = sorted(set(part.labels.tolist()) - known)
        if unknown:
            raise DataError(
                f"{data}: expected images of the stored classes {', '.join(map(str, sorted(known)))}, "
                f"got one of class {unknown[0]}"
            )
        self.opened = part
        patterns = black_and_white(part.images, self.facts_["threshold"])
        self.stored = PatternData(loaded.name, loaded.source, patterns, loaded.shape, loaded.split, True)

    def starts(self, part: str) -> Tensor:
        return super().starts(part) if self.opened is None else self.stored.patterns

    def wanted(self, part: str, model: Hopfield) -> Tensor:
        if self.opened is None:
            return super().wanted(part, model)
        stored = model.patterns.cpu()
        same = self.opened.labels[:, None] == torch.tensor(self.facts_["labels"])
        overlaps = self.stored.patterns @ stored.T
        return stored[overlaps.masked_fill(~same, -torch.inf).argmax(1)]


def new(entry: ModelEntry, config: TrainConfig) -> ImageRecall:
    return ImageRecall(entry, config)
