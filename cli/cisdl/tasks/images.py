"""What tasks on images share: reading, limiting, resizing and scaling them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cisdl.data import registry
from cisdl.data.batches import batch_count
from cisdl.data.images import ImageData
from cisdl.models.registry import ModelEntry
from cisdl.tasks.base import Task
from cisdl.training.config import TrainConfig


class ImageTask(Task):
    """Images as the model wants them, in parts."""

    def __init__(self, entry: ModelEntry, config: TrainConfig) -> None:
        super().__init__(entry, config)
        data = registry.load(config.data, config.data_dir, config.seed)
        self.images = data.limited(config.limit).resized(entry.image_size).scaled(config.scale)

    @property
    def data(self) -> ImageData:
        return self.images

    def facts(self) -> dict[str, Any]:
        return {
            "shape": list(self.images.shape),
            "classes": list(self.images.class_names),
            "scaling": self.images.scaling,
        }

    def describe(self) -> dict[str, str]:
        channels, height, width = self.images.shape
        return {"shape": f"{channels} x {height} x {width}, {len(self.images.class_names)} classes"}

    def example(self) -> Tensor:
        return torch.zeros(1, *self.images.shape)

    def to(self, device: torch.device) -> None:
        self.images = self.images.to(device)

    def batch_count(self) -> int:
        return batch_count(self.images.train, self.config.batch_size)
