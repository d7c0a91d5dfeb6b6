"""Models that make images: a pair of DCGAN networks and an autoencoder."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

NOISE = 16


def generator() -> nn.Module:
    """Noise to 16x16 images by strided transposed convolutions (Radford et al. 2015)."""
    return nn.Sequential(
        nn.Unflatten(1, (NOISE, 1, 1)),
        nn.ConvTranspose2d(NOISE, 24, 4, bias=False),
        nn.BatchNorm2d(24),
        nn.ReLU(True),
        nn.ConvTranspose2d(24, 12, 4, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(12),
        nn.ReLU(True),
        nn.ConvTranspose2d(12, 1, 4, stride=2, padding=1),
        nn.Tanh(),
    )


def discriminator() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 12, 4, stride=2, padding=1),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(12, 24, 4, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(24),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(24, 1, 4),
        nn.Flatten(0),
    )


class DCGAN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.generator = generator()
        self.discriminator = discriminator()
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.normal_(module.weight, 0.0, 0.1)

    def forward(self, noise: Tensor) -> Tensor:
        return self.discriminator(self.generator(noise))


class Autoencoder(nn.Module):
    """A multilayer perceptron to 8 numbers and back (Hinton & Salakhutdinov 2006)."""

    def __init__(self, sizes: tuple[int, ...] = (144, 48, 8)) -> None:
        super().__init__()
        steps = list(itertools.pairwise(sizes))
        self.encode = nn.ModuleList(nn.Linear(a, b) for a, b in steps)
        self.decode = nn.ModuleList(nn.Linear(b, a) for a, b in reversed(steps))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.encode:
            x = torch.tanh(layer(x))
        for layer in self.decode[:-1]:
            x = torch.tanh(layer(x))
        return self.decode[-1](x)
