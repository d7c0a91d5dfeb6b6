"""A generative adversarial network: one network makes images, the other tells them from real ones.

    z      (batch, latent)               normal random numbers
    G(z)   (batch, C, H, W)              the generator's image, pixels in [0, 1]
    D(x)   = sigmoid(score of x)         the discriminator: the probability that x is real

`--architecture mlp`, widths h1, h2, ... from --hidden

    G   z -> linear h1 -> norm -> relu -> linear h2 -> norm -> relu -> ... -> linear C H W -> sigmoid
    D   x -> linear ... -> linear h2 -> leaky relu -> linear h1 -> leaky relu -> linear 1
        norm: batch normalisation; leaky relu: slope 0.2, then dropout 0.3

`--architecture dcgan`, w from --width

    G   z -> linear -> 2w x H/4 x W/4 -> up -> w x H/2 x W/2 -> up -> C x H x W -> sigmoid
        up: norm, relu, 4 x 4 transposed convolution, stride 2, padding 1
    D   x -> down -> w x H/2 x W/2 -> down -> 2w x H/4 x W/4 -> linear 1
        down: 4 x 4 convolution, stride 2, padding 1, leaky relu

Trained: both, in turns, each on its own loss with its own optimiser (Adam, beta1 0.5)

    L_D = -mean log D(x) - mean log(1 - D(G(z)))           G held fixed
    L_G = -mean log D(G(z))                                D held fixed; "non-saturating": while D wins, this
                                                           has a gradient and mean log(1 - D(G(z))) has none

Batch normalisation is left out of D, where the averages it keeps for later would mix real and made images.

Sources: Goodfellow et al., "Generative adversarial nets", NIPS 2014; Radford, Metz, Chintala, "Unsupervised
representation learning with deep convolutional generative adversarial networks", ICLR 2016.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from cisdl.backend import Backend
from cisdl.errors import UsageError

SLOPE = 0.2
DROPOUT = 0.3
FACTOR = 4
"""A DCGAN's two steps of 2."""
LEAST_SIZE = 8

Shape = tuple[int, int, int]


class MLPGenerator(nn.Module):
    """z (batch, latent) to images (batch, C, H, W)."""

    def __init__(self, ops: Backend, shape: Shape, hidden: Sequence[int], latent: int) -> None:
        super().__init__()
        self.shape = shape
        self.hidden = nn.ModuleList(ops.Linear(a, b, bias=False) for a, b in pairwise([latent, *hidden]))
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for width in hidden)
        self.output = ops.Linear(hidden[-1], shape[0] * shape[1] * shape[2])

    def forward(self, z: Tensor) -> Tensor:
        for layer, norm in zip(self.hidden, self.norms, strict=True):
            z = torch.relu(norm(layer(z)))
        return torch.sigmoid(self.output(z)).view(-1, *self.shape)


class MLPDiscriminator(nn.Module):
    """Images (batch, C, H, W) to scores (batch,): log D / (1 - D)."""

    def __init__(self, ops: Backend, shape: Shape, hidden: Sequence[int]) -> None:
        super().__init__()
        widths = [shape[0] * shape[1] * shape[2], *reversed(hidden)]
        self.hidden = nn.ModuleList(ops.Linear(a, b) for a, b in pairwise(widths))
        self.dropout = nn.Dropout(DROPOUT)
        self.output = ops.Linear(widths[-1], 1)

    def forward(self, images: Tensor) -> Tensor:
        x = images.flatten(1)
        for layer in self.hidden:
            x = self.dropout(nn.functional.leaky_relu(layer(x), SLOPE))
        score: Tensor = self.output(x).squeeze(1)
        return score


class DCGenerator(nn.Module):
    """z (batch, latent) to images (batch, C, H, W)."""

    def __init__(self, ops: Backend, shape: Shape, width: int, latent: int) -> None:
        super().__init__()
        channels, height, width_ = shape
        self.first = (2 * width, height // FACTOR, width_ // FACTOR)
        self.project = ops.Linear(latent, self.first[0] * self.first[1] * self.first[2], bias=False)
        self.norm1 = nn.BatchNorm2d(2 * width)
        self.up1 = ops.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.up2 = ops.ConvTranspose2d(width, channels, 4, stride=2, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = torch.relu(self.norm1(self.project(z).view(-1, *self.first)))  # (batch, 2w, H/4, W/4)
        x = torch.relu(self.norm2(self.up1(x)))  # (batch, w, H/2, W/2)
        return torch.sigmoid(self.up2(x))


class DCDiscriminator(nn.Module):
    """Images (batch, C, H, W) to scores (batch,): log D / (1 - D)."""

    def __init__(self, ops: Backend, shape: Shape, width: int) -> None:
        super().__init__()
        channels, height, width_ = shape
        self.down1 = ops.Conv2d(channels, width, 4, stride=2, padding=1)
        self.down2 = ops.Conv2d(width, 2 * width, 4, stride=2, padding=1)
        self.output = ops.Linear(2 * width * (height // FACTOR) * (width_ // FACTOR), 1)

    def forward(self, images: Tensor) -> Tensor:
        x = nn.functional.leaky_relu(self.down1(images), SLOPE)  # (batch, w, H/2, W/2)
        x = nn.functional.leaky_relu(self.down2(x), SLOPE)  # (batch, 2w, H/4, W/4)
        score: Tensor = self.output(x.flatten(1)).squeeze(1)
        return score


class GAN(nn.Module):
    """The two networks. Called with z (batch, latent) it gives the scores of G(z), (batch,)."""

    def __init__(self, latent: int, generator: nn.Module, discriminator: nn.Module) -> None:
        super().__init__()
        self.latent = latent
        self.generator = generator
        self.discriminator = discriminator

    def forward(self, z: Tensor) -> Tensor:
        score: Tensor = self.discriminator(self.generator(z))
        return score


def build(
    ops: Backend, shape: Shape, architecture: str, hidden: Sequence[int], width: int, latent: int
) -> GAN:
    if architecture == "mlp":
        return GAN(latent, MLPGenerator(ops, shape, hidden, latent), MLPDiscriminator(ops, shape, hidden))
    if min(shape[1:]) < LEAST_SIZE or shape[1] % FACTOR or shape[2] % FACTOR:
        raise UsageError(
            f"gan: --architecture dcgan expects images of {LEAST_SIZE} x {LEAST_SIZE} pixels or more, sides "
            f"multiples of {FACTOR}, got {shape[1]} x {shape[2]}; try --image-size 32 or --architecture mlp"
        )
    return GAN(latent, DCGenerator(ops, shape, width, latent), DCDiscriminator(ops, shape, width))
