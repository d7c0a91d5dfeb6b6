"""Make an image again: from a code of few numbers, or from a noisy copy.

Mean squared error over all pixels, which lie in [0, 1]. It is also quoted as peak signal-to-noise ratio,
-10 log10(error) dB, and by the literature as squared error of an image, the sum over its pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cisdl.backend import Backend
from cisdl.data.batches import batches
from cisdl.data.images import ImageData
from cisdl.errors import UsageError
from cisdl.models.autoencoder import Autoencoder
from cisdl.models.denoising_autoencoder import DenoisingAutoencoder
from cisdl.models.registry import ModelEntry
from cisdl.tasks.base import Curve, Evaluation, Pictures, Prediction, Predicts, Step
from cisdl.tasks.images import ImageTask
from cisdl.training.config import TrainConfig

EVALUATION_BATCH = 1000
LARGEST_COVARIANCE = 4096
"""Pixels of an image up to which the Wiener filter is worked out: it inverts a matrix of that size."""


def psnr(error: float) -> float:
    """Decibels of a mean squared error of pixels in [0, 1]."""
    return -10 * math.log10(error) if error > 0 else math.inf


@dataclass(frozen=True)
class Restored(Evaluation):
    """The loss is the mean squared error of a pixel; `images` are on the CPU."""

    total: int
    images: Tensor

    @property
    def rank(self) -> tuple[float, ...]:
        return (-self.loss,)

    def as_dict(self) -> dict[str, float | int]:
        return {
            "loss": self.loss,
            "psnr": psnr(self.loss),
            "squared_error": self.loss * self.images[0].numel(),
            "total": self.total,
        }

    def __str__(self) -> str:
        return f"{self.loss:.5f} ({psnr(self.loss):.2f} dB, {self.total} images)"


def judge(restored: Tensor, clean: Tensor) -> Restored:
    """How far images are from what they should be, summed in double precision."""
    error = float((restored.double() - clean.double()).square().mean())
    return Restored(error, len(clean), restored.cpu())


class Reconstruction(ImageTask, Predicts):
    """Trained on (input, clean image); the input is the clean image too where there is no --noise."""

    metric = "squared error"
    loss_name = "mean squared error"
    score = Curve("psnr", "peak signal-to-noise ratio, dB")

    def __init__(self, entry: ModelEntry, config: TrainConfig) -> None:
        if config.scale != "unit":
            raise UsageError(
                f"--scale: {entry.name} makes pixels in [0, 1], expected unit, got {config.scale}"
            )
        super().__init__(entry, config)
        self.noise: float = config.options.get("noise", 0.0)

    def build(self, ops: Backend) -> nn.Module:
        return self.entry.build(ops, shape=self.shape, **self.option)

    def relabelled(self, loaded: ImageData, data: str) -> ImageData:
        """Any classes will do."""
        return loaded

    def corrupted(self, images: Tensor, generator: np.random.Generator) -> Tensor:
        """A copy with noise, which may leave [0, 1]. Without noise the images themselves."""
        if self.noise == 0:
            return images
        noise = torch.from_numpy(generator.standard_normal(tuple(images.shape), dtype=np.float32))
        return images + self.noise * noise.to(images.device)

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        generator = np.random.default_rng([self.config.seed, epoch, 1])
        for images, _ in batches(self.images.train, self.config.batch_size, self.config.seed, epoch):
            yield self.corrupted(images, generator), images

    def inputs(self, part: str) -> Tensor:
        """What the model is judged on: the same noise in every epoch."""
        generator = np.random.default_rng([self.config.seed, 0, self.parts.index(part)])
        return self.corrupted(self.images.parts()[part].images, generator)

    def step(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Step:
        seen, clean = batch
        return Step(F.mse_loss(model(seen), clean), len(clean))

    @torch.no_grad()
    def evaluate(self, model: nn.Module, part: str) -> Restored:
        training = model.training
        model.eval()
        pieces = torch.split(self.inputs(part), EVALUATION_BATCH)
        restored = torch.cat([model(images) for images in pieces])
        model.train(training)
        return judge(restored, self.images.parts()[part].images)

    def baselines(self, part: str) -> dict[str, Restored]:
        from cisdl.baselines.images import pca, wiener

        train, clean = self.images.train.images.cpu(), self.images.parts()[part].images.cpu()
        if self.noise == 0:
            code = self.option["code"]
            return {f"PCA, {code} components": judge(pca(train, code)(clean), clean)}
        noisy = self.inputs(part).cpu()
        found = {"the noisy images": judge(noisy, clean)}
        if clean[0].numel() <= LARGEST_COVARIANCE:
            found["Wiener filter"] = judge(wiener(train, self.noise)(noisy), clean)
        return found

    def draw(self, model: nn.Module, evaluation: Evaluation, pictures: Pictures) -> None:
        from cisdl.report import codes, restoration

        assert isinstance(evaluation, Restored)
        part = self.images.parts()[pictures.judged_on]
        rows = {"original" if self.noise == 0 else "clean": part.images}
        rows |= {name: found.images for name, found in self.baselines(pictures.judged_on).items()}
        rows[self.entry.name] = evaluation.images
        restoration.draw(
            pictures.folder / "restored.png", f"{pictures.title}: {self.metric} {evaluation}", rows
        )
        if isinstance(model, Autoencoder):
            with torch.no_grad():
                code = model.eval().encode(part.images)
            codes.draw(
                pictures.folder / "codes.png",
                f"{pictures.title}: codes of the {pictures.judged_on} images",
                code,
                part.labels,
                self.class_names,
            )

    @torch.no_grad()
    def predict(self, model: nn.Module, given: Sequence[str]) -> list[Prediction]:
        """What the model makes of the image in each file, in `<name>-restored.png` in the current directory.

        Convolutions take an image of any size as it is; the autoencoder one of its own size.
        """
        from cisdl.report.samples import write_image

        device = next(model.parameters()).device
        any_size = isinstance(model, DenoisingAutoencoder) and self.config.image_size is None
        size = None if any_size else self.shape[1:]
        images = [self.picture(path, size) for path in given]
        answers = []
        for path, image in zip(given, images, strict=True):
            restored = model.eval()(image.to(device)).cpu()
            change = float((restored - image).square().mean())
            written = Path(f"{Path(path).stem}-restored.png")
            write_image(written, restored[0])
            answers.append(Prediction(path, str(written), {"change, mean squared": change}))
        return answers


def new(entry: ModelEntry, config: TrainConfig) -> Reconstruction:
    return Reconstruction(entry, config)
