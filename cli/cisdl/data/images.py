"""Labelled images in memory, and the three parts every run works with: train, validation, test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cisdl.errors import DataError

SHARE = 0.1
"""Of the images, to validate on, and to be judged on where that is drawn too."""

Arrays = tuple[np.ndarray, np.ndarray]
"""Images (count, channels, height, width) and labels (count,), bytes."""


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
    of_pictures: bool = False
    """Whether pixels are light, from 0 to `peak`; those of other files are numbers that stay as they are."""

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

    def to_peak(self, peak: float) -> ImageData:
        """Pixels whose brightest is `peak`, to be looked at by a model that was trained on such."""
        if peak == self.peak:
            return self
        factor = peak / self.peak

        def brightened(part: Part) -> Part:
            return Part(part.images.float() * factor, part.labels)

        return replace(
            self,
            peak=peak,
            train=brightened(self.train),
            validation=brightened(self.validation),
            test=None if self.test is None else brightened(self.test),
        )

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


def part_of(arrays: Arrays, chosen: np.ndarray | None = None) -> Part:
    """The chosen images, as bytes."""
    images, labels = arrays if chosen is None else (arrays[0][chosen], arrays[1][chosen])
    return Part(torch.from_numpy(images.copy()), torch.from_numpy(labels.astype(np.int64)))


def assembled(
    name: str,
    source: str,
    class_names: Sequence[str],
    seed: int,
    train: Arrays | None,
    test: Arrays | None,
    whole: bool,
    validation: Arrays | None = None,
    draw_test: bool = False,
) -> ImageData:
    """The parts that a source has, and those drawn from its training images by `seed`, a tenth each.

    `whole`: the test images, or all there are where it has none, are the test part, the others are empty. A
    test part is drawn where there is none and `draw_test` says so.
    """
    given = [arrays for arrays in (train, validation, test) if arrays is not None]
    assert given
    names = tuple(class_names)
    if whole:
        judged = given if test is None else [test]
        images, labels = (np.concatenate([arrays[place] for arrays in judged]) for place in (0, 1))
        part = part_of((images, labels))
        none = part.first(0)
        return ImageData(name, source, names, 255.0, none, none, part, "all of it is judged")

    assert train is not None
    count = len(train[1])
    drawn = (["validation"] if validation is None else []) + (["test"] if test is None and draw_test else [])
    if count <= len(drawn):
        raise DataError(
            f"{source}: expected at least {len(drawn) + 1} training images (one each to train on and for "
            f"{' and '.join(drawn)}), got {count}"
        )
    order = np.random.default_rng(seed).permutation(count)
    held_out = max(1, min(round(count * SHARE), count // (len(drawn) + 1)))
    parts = {"validation": validation, "test": test}
    chosen = {which: part_of(arrays) for which, arrays in parts.items() if arrays is not None}
    for which in drawn:
        chosen[which], order = part_of(train, order[:held_out]), order[held_out:]
    split = "; ".join(f"{which}: a tenth of the training images, drawn by seed {seed}" for which in drawn)
    own = " and ".join(which for which in chosen if which not in drawn)
    words = [split] if split else []
    words += [f"{own}: files of its own"] if own else []
    words += [] if "test" in chosen else ["no test files, so no test part"]
    return ImageData(
        name,
        source,
        names,
        255.0,
        part_of(train, order) if drawn else part_of(train),
        chosen["validation"],
        chosen.get("test"),
        "; ".join(words),
    )
