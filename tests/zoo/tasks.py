"""The zoo: a model, data to learn and a loss for each, and how it is trained.

``TASKS`` is what the tests read: those of this folder train every task on torch's modules and on ours, those
of ``tests/ecosystem`` compile, export and distribute them.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.zoo import generative, text, vision

Batch = tuple[Tensor, ...]
# A part of the model with its loss; what follows it is computed after the part has made its step.
Losses = Iterator[tuple[nn.Module, Tensor]]


@dataclass(frozen=True)
class Task:
    name: str
    build: Callable[[], nn.Module]
    data: Callable[[int], Batch]
    losses: Callable[[Any, Batch], Losses]
    lr: float

    def model(self) -> Any:
        """The same weights every time."""
        torch.manual_seed(zlib.crc32(self.name.encode()))
        return self.build()

    def batch(self, size: int = 8) -> Batch:
        torch.manual_seed(zlib.crc32(self.name.encode()) + 1)
        return self.data(size)

    def train(self, model: nn.Module, steps: int, size: int = 8) -> list[float]:
        """Steps of SGD with momentum over alternating halves of the data; every loss on the way."""
        batch = self.batch(2 * size)
        torch.manual_seed(2)  # for dropout
        optimizers: dict[nn.Module, torch.optim.Optimizer] = {}
        history = []
        for step in range(steps):
            half = tuple(tensor.chunk(2, self.batch_dim(tensor))[step % 2] for tensor in batch)
            for part, loss in self.losses(model, half):
                if part not in optimizers:
                    optimizers[part] = torch.optim.SGD(part.parameters(), self.lr, momentum=0.9)
                optimizers[part].zero_grad()
                loss.backward()
                optimizers[part].step()
                history.append(loss.item())
        return history

    def batch_dim(self, tensor: Tensor) -> int:
        return 1 if self.name in ("translator", "clock") and tensor.dim() > 1 else 0


def pictures(*shape: int, classes: int = 10) -> Callable[[int], Batch]:
    """Images of ``classes`` kinds, each kind a pattern of its own under noise; and which kind it is."""

    def make(size: int) -> Batch:
        kinds = torch.arange(size) % classes
        return torch.randn(classes, *shape)[kinds] + 0.3 * torch.randn(size, *shape), kinds

    return make


def blobs(size: int) -> Batch:
    """Noisy 32x32 images of a rectangle, and the rectangle."""
    corners = torch.randint(2, 14, (size, 2)).tolist()
    masks = torch.zeros(size, 1, 32, 32)
    for mask, (top, left) in zip(masks, corners, strict=True):
        mask[0, top : top + 14, left : left + 10] = 1.0
    return masks + 0.5 * torch.randn_like(masks), masks


def waves(size: int) -> Batch:
    """12x12 images of a plane wave."""
    line = torch.linspace(0, 6, 12)
    phase = 6 * torch.rand(size, 1, 1)
    return (torch.sin(line.view(-1, 1) + 0.5 * line + phase).unsqueeze(1),)


def sentences(size: int) -> Batch:
    """Words (0 is padding), how many a sentence has, and a tag for each word: what follows it, modulo 6."""
    lengths = torch.randint(3, 10, (size,))
    words = torch.randint(1, 40, (size, 9))
    words[torch.arange(9) >= lengths.unsqueeze(1)] = 0
    words[lengths.argmax()] = torch.randint(1, 40, (9,))
    lengths[lengths.argmax()] = 9
    return words, lengths, words.roll(-1, dims=1) % 6


def reversals(size: int) -> Batch:
    """Words, ``[time, batch]``, and the same backwards, after a start word."""
    source = torch.randint(1, 20, (6, size))
    backwards = source.flip(0)
    return source, torch.cat([torch.zeros_like(backwards[:1]), backwards])


def signals(size: int) -> Batch:
    """Sines, ``[time, batch, 1]``, and what follows."""
    time = torch.arange(16.0).view(-1, 1, 1)
    wave = torch.sin(0.5 * time + 6 * torch.rand(1, size, 1))
    return wave[:10], wave[10:]


def classify(model: Any, batch: Batch) -> Losses:
    yield model, F.cross_entropy(model(batch[0]), batch[1])


def segment(model: Any, batch: Batch) -> Losses:
    yield model, F.binary_cross_entropy_with_logits(model(batch[0]), batch[1])


def reconstruct(model: Any, batch: Batch) -> Losses:
    flat = batch[0].flatten(1)
    yield model, F.mse_loss(model(flat), flat)


def tag(model: Any, batch: Batch) -> Losses:
    words, lengths, tags = batch
    scores = model(words, lengths)
    longest = scores.shape[1]
    wanted = tags.masked_fill(words == 0, -100)[:, :longest]
    yield model, F.cross_entropy(scores.flatten(0, 1), wanted.flatten())


def translate(model: Any, batch: Batch) -> Losses:
    source, target = batch
    yield model, F.cross_entropy(model(source, target[:-1]).flatten(0, 1), target[1:].flatten())


def continue_signal(model: Any, batch: Batch) -> Losses:
    yield model, F.mse_loss(model(batch[0]), batch[1])


def adversarial(model: Any, batch: Batch) -> Losses:
    """The discriminator's step, then the generator's against the discriminator that came out of it."""
    real = F.pad(batch[0], (2, 2, 2, 2))
    ones, zeros = torch.ones(len(real)), torch.zeros(len(real))
    made = model.generator(torch.randn(len(real), generative.NOISE))
    verdicts = torch.cat([model.discriminator(real), model.discriminator(made.detach())])
    yield model.discriminator, F.binary_cross_entropy_with_logits(verdicts, torch.cat([ones, zeros]))
    yield model.generator, F.binary_cross_entropy_with_logits(model.discriminator(made), ones)


TASKS = {
    task.name: task
    for task in (
        Task("lenet", vision.lenet, pictures(1, 28, 28), classify, 0.1),
        Task("alexnet", vision.alexnet, pictures(3, 64, 64), classify, 0.05),
        Task("resnet", vision.ResNet, pictures(3, 32, 32), classify, 0.02),
        Task("unet", vision.UNet, blobs, segment, 0.05),
        Task("dcgan", generative.DCGAN, waves, adversarial, 0.003),
        Task("autoencoder", generative.Autoencoder, waves, reconstruct, 0.2),
        Task("tagger", text.Tagger, sentences, tag, 1.0),
        Task("translator", text.Translator, reversals, translate, 0.5),
        Task("clock", text.Clock, signals, continue_signal, 0.5),
    )
}
