"""What tasks on images share: reading, limiting, resizing and scaling them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from cisdl.data import registry
from cisdl.data.batches import batch_count
from cisdl.data.images import ImageData
from cisdl.errors import DataError
from cisdl.tasks.base import Task


class ImageTask(Task):
    """Images as the model wants them, in parts."""

    of_images: ClassVar[bool] = True

    images: ImageData
    """After `read` or `open`."""
    shape: tuple[int, int, int]
    """(channels, height, width) of the images that the model takes."""
    class_names: tuple[str, ...]
    scaling: Mapping[str, float | str]
    """How pixels became the model's numbers: (pixel - shift) / scale."""
    peak: float
    """The brightest pixel of the training images' source."""

    def read(self) -> None:
        config = self.config
        data: ImageData = registry.load(
            config.data, config.data_dir, config.seed, "images", size=config.image_size
        )
        assert config.scale is not None
        self.check(data)
        self.images = data.limited(config.limit).resized(config.image_size).scaled(config.scale)
        self.shape, self.class_names = self.images.shape, self.images.class_names
        self.scaling = self.images.scaling
        self.peak = data.peak

    def check(self, data: ImageData) -> None:
        """Refuse images that there is nothing to learn from."""
        if data.shape[1] * data.shape[2] < 2:
            raise DataError(f"{data.source}: expected images of 2 pixels or more, got 1 x 1")

    def facts(self) -> dict[str, Any]:
        return {
            "shape": list(self.shape),
            "classes": list(self.class_names),
            "scaling": dict(self.scaling),
            "peak": self.peak,
        }

    def restore(self, facts: Mapping[str, Any]) -> None:
        channels, height, width = facts["shape"]
        self.shape, self.class_names = (channels, height, width), tuple(facts["classes"])
        self.scaling = facts["scaling"]
        self.peak = facts["peak"]

    def open(self, data: str, data_dir: str | None) -> None:
        loaded: ImageData = registry.load(
            data, data_dir, self.config.seed, "images", whole=True,
            size=self.config.image_size, channels=self.shape[0],
        )  # fmt: skip
        loaded = loaded.resized(self.config.image_size)
        if loaded.shape != self.shape:
            expected, got = (" x ".join(map(str, shape)) for shape in (self.shape, loaded.shape))
            raise DataError(f"{data}: expected images of {expected} as in training, got {got}")
        loaded = self.relabelled(loaded, data)
        loaded = loaded.to_peak(self.peak) if loaded.of_pictures else loaded
        self.images = loaded.rescaled(self.scaling)

    def relabelled(self, loaded: ImageData, data: str) -> ImageData:
        """Classes by their names, as in training, where names are more than numbers; others are refused."""
        names, known, test = loaded.class_names, self.class_names, loaded.parts()["test"]
        if names != known and not all(name.isdigit() for name in names):
            unknown = [name for name in names if name not in known]
            if unknown:
                listed = ", ".join(known)
                raise DataError(
                    f"{data}: expected classes of the training images ({listed}), got '{unknown[0]}'"
                )
            places = torch.tensor([known.index(name) for name in names])
            test = replace(test, labels=places[test.labels])
        if int(test.labels.max()) >= len(known):
            raise DataError(
                f"{data}: expected labels up to {len(known) - 1} as in training, got {int(test.labels.max())}"
            )
        return replace(loaded, test=test, class_names=known)

    def picture(self, path: str, size: tuple[int, int] | None) -> Tensor:
        """The image in a file, (1, channels, height, width), prepared as the training images were."""
        from cisdl.data.image_folder import opened, pixels

        array = torch.from_numpy(pixels(opened(Path(path)), self.shape[0], size).copy()).float()
        shift, scale = float(self.scaling["shift"]), float(self.scaling["scale"])
        return (array.mul_(self.peak / 255).sub_(shift).div_(scale))[None]

    @property
    def data(self) -> ImageData:
        return self.images

    def describe(self) -> dict[str, str]:
        return {"shape": f"{' x '.join(map(str, self.shape))}, {len(self.class_names)} classes"}

    def example(self) -> tuple[Tensor, ...]:
        return (torch.zeros(1, *self.shape),)

    def to(self, device: torch.device) -> None:
        self.images = self.images.to(device)

    def batch_count(self) -> int:
        return batch_count(self.images.train, self.config.batch_size)
