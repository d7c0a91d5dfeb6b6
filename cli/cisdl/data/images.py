"""Labelled images in memory, and the three parts every run works with: train, validation, test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Part:
    """Images (count, channels, height, width) and their labels (count,), class numbers from 0."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, count: int | None) -> Part:
        """The first `count` images; all of them for None."""
        return self if count is None else Part(self.images[:count], self.labels[:count])

    def to(self, device: torch.device) -> Part:
        return Part(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class ImageData:
    """A data set split for a run. `test` is None where the source has no test images of its own."""

    name: str
    source: str
    """Where it was read, for people."""
    class_names: tuple[str, ...]
    peak: float
    """The brightest pixel the source allows: 16 for digits, 255 for IDX files."""
    train: Part
    validation: Part
    test: Part | None
    split: str
    """How the parts came about, for people."""
    scaling: dict[str, float | str] = field(default_factory=dict)
    """What `scaled` did to the pixels: (pixel - shift) / scale."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one image."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    @property
    def counts(self) -> dict[str, int]:
        return {name: len(part) for name, part in self.parts().items() if len(part)}

    def whole(self) -> ImageData:
        """Only what is to be judged: the test part, or all images where there is none."""
        test = self.test or Part(
            torch.cat([self.train.images, self.validation.images]),
            torch.cat([self.train.labels, self.validation.labels]),
        )
        return replace(
            self, train=test.first(0), validation=test.first(0), test=test, split="all of it is judged"
        )

    def parts(self) -> dict[str, Part]:
        parts = {"train": self.train, "validation": self.validation}
        return parts if self.test is None else {**parts, "test": self.test}

    def limited(self, limit: int | None) -> ImageData:
        """At most `limit` images in each part."""
        test = None if self.test is None else self.test.first(limit)
        return replace(
            self, train=self.train.first(limit), validation=self.validation.first(limit), test=test
        )

    def resized(self, size: int | None) -> ImageData:
        """Every image bilinearly resized to `size` x `size`; unchanged for None."""
        if size is None or self.shape[1:] == (size, size):
            return self

        def resize(part: Part) -> Part:
            # Antialiasing matters where images shrink; it changes nothing where they grow.
            small = part.images.float()
            large = F.interpolate(small, (size, size), mode="bilinear", align_corners=False, antialias=True)
            return Part(large, part.labels)

        test = None if self.test is None else resize(self.test)
        return replace(self, train=resize(self.train), validation=resize(self.validation), test=test)

    def scaled(self, how: str) -> ImageData:
        """Pixels as float32: "raw" as they are, "unit" in [0, 1], "standard" with mean 0 and deviation 1.

        Mean and deviation are two numbers over all pixels of the training part; validation and test use them
        too, so nothing of theirs leaks into training.
        """
        shift, scale = 0.0, 1.0
        if how == "unit":
            scale = self.peak
        elif how == "standard":
            pixels = self.train.images.double()
            # One grey level everywhere has no deviation to divide by.
            shift, scale = float(pixels.mean()), float(pixels.std()) or 1.0

        return self.rescaled({"how": how, "shift": shift, "scale": scale})

    def rescaled(self, scaling: Mapping[str, float | str]) -> ImageData:
        """Pixels as float32, (pixel - shift) / scale."""
        shift, scale = float(scaling["shift"]), float(scaling["scale"])

        def rescale(part: Part) -> Part:
            return Part(part.images.float().sub(shift).div_(scale), part.labels)

        return replace(
            self,
            train=rescale(self.train),
            validation=rescale(self.validation),
            test=None if self.test is None else rescale(self.test),
            scaling=dict(scaling),
        )

    def to(self, device: torch.device) -> ImageData:
        test = None if self.test is None else self.test.to(device)
        return replace(self, train=self.train.to(device), validation=self.validation.to(device), test=test)
