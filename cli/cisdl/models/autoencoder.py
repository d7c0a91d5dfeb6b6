"""An autoencoder: an image squeezed through a few numbers and made again from them.

    x     (batch, pixels)                    the image, flattened, pixels in [0, 1]
    h     = f(W1 x + b1)                     as many hidden layers as --hidden names
    code  = W2 h + b2    (batch, code)       the bottleneck, linear
    h'    = f(W3 code + b3)                  the hidden layers in reverse
    x'    = sigmoid(W4 h' + b4)              the reconstruction

Trained: every W and b. Loss: the mean over all pixels of (x' - x)^2; the labels are never looked at.

With linear layers only, the best autoencoder is principal component analysis with as many components as the
code has numbers (Baldi, Hornik, 1989): that is the baseline printed beside.

Source: Hinton, Salakhutdinov, "Reducing the dimensionality of data with neural networks", Science 313, 2006
(there pre-trained layer by layer; here from random weights, which ReLU and Adam allow).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from cisdl.backend import Backend
from cisdl.models.activations import ACTIVATIONS, activated, linear


class Autoencoder(nn.Module):
    """Images (batch, channels, height, width) to images of the same shape."""

    def __init__(
        self, ops: Backend, shape: tuple[int, int, int], hidden: Sequence[int], code: int, activation: str
    ) -> None:
        super().__init__()
        self.shape = shape
        channels, height, width = shape
        widths = [channels * height * width, *hidden]
        self.encoder = nn.ModuleList(linear(ops, a, b, activation) for a, b in pairwise(widths))
        self.code = ops.Linear(widths[-1], code)
        widths = [code, *reversed(hidden)]
        self.decoder = nn.ModuleList(linear(ops, a, b, activation) for a, b in pairwise(widths))
        self.output = linear(ops, widths[-1], channels * height * width, "sigmoid")
        self.activation = ACTIVATIONS[activation]

    def encode(self, images: Tensor) -> Tensor:
        """(batch, code)"""
        x = images.flatten(1)  # (batch, pixels)
        for layer in self.encoder:
            x = activated(layer, x, self.activation)
        code: Tensor = self.code(x)
        return code

    def decode(self, code: Tensor) -> Tensor:
        """Images from codes (batch, code)."""
        x = code
        for layer in self.decoder:
            x = activated(layer, x, self.activation)
        pixels = activated(self.output, x, ACTIVATIONS["sigmoid"])  # (batch, pixels)
        return pixels.view(-1, *self.shape)

    def forward(self, images: Tensor) -> Tensor:
        return self.decode(self.encode(images))


def build(
    ops: Backend, shape: tuple[int, int, int], hidden: Sequence[int], code: int, activation: str
) -> Autoencoder:
    return Autoencoder(ops, shape, hidden, code, activation)
