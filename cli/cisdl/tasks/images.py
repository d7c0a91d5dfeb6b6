"""What tasks on images share: reading, limiting, resizing and scaling them."""

from __future__ import annotations

from collections.abc import Mapping
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

    def read(self) -> None:
        config = self.config
        data: ImageData = registry.load(config.data, config.data_dir, config.seed, "images")
        assert config.scale is not None
        self.images = data.limited(config.limit).resized(config.image_size).scaled(config.scale)
        self.shape, self.class_names = self.images.shape, self.images.class_names
        self.scaling = self.images.scaling

    def facts(self) -> dict[str, Any]:
        return {"shape": list(self.shape), "classes": list(self.class_names), "scaling": dict(self.scaling)}

    def restore(self, facts: Mapping[str, Any]) -> None:
        channels, height, width = facts["shape"]
        self.shape, self.class_names = (channels, height, width), tuple(facts["classes"])
        self.scaling = facts["scaling"]

    def open(self, data: str, data_dir: str | None) -> None:
        loaded: ImageData = registry.load(data, data_dir, self.config.seed, "images", whole=True)
        loaded = loaded.resized(self.config.image_size)
        if loaded.shape != self.shape:
            expected, got = (" x ".join(map(str, shape)) for shape in (self.shape, loaded.shape))
            raise DataError(f"{data}: expected images of {expected} as in training, got {got}")
        part = loaded.parts()["test"]
        classes = len(self.class_names)
        if len(part) and int(part.labels.max()) >= classes:
            raise DataError(
                f"{data}: expected labels up to {classes - 1} as in training, got {int(part.labels.max())}"
            )
        self.images = loaded.rescaled(self.scaling)

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
