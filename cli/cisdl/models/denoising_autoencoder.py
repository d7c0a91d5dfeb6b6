"""A denoising autoencoder: a noisy image in, the clean one out.

    x                                        clean image, C x H x W, pixels in [0, 1]
    y    = x + s n                           noisy image: Gaussian noise n, new in every epoch; s: --noise
    a    = relu(conv(y))         w x H   x W         3 x 3 convolutions, padding 1; w: --width
    b    = relu(conv(pool(a)))  2w x H/2 x W/2       2 x 2 max pooling
    c    = relu(conv(pool(b)))  4w x H/4 x W/4       the code: what is left of the image without its details
    b'   = relu(conv([b, up(c)]))                    2 x 2 transposed convolution; [,]: channels of both
    a'   = relu(conv([a, up(b')]))
    x'   = sigmoid(conv(a'))     C x H   x W         the restored image

Trained: every weight and bias. Loss: the mean over all pixels of (x' - x)^2: the target is the clean image.
Convolutions ask for no size, so any image can be restored; its sides are padded to multiples of four.

The baseline is the Wiener filter, the best that a linear map can do.

Sources: Vincent, Larochelle, Bengio, Manzagol, "Extracting and composing robust features with denoising
autoencoders", ICML 2008 (the task); Ronneberger, Fischer, Brox, "U-Net", MICCAI 2015 (the shortcuts).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cisdl.backend import Backend

FACTOR = 4
"""Two poolings of 2."""


class DenoisingAutoencoder(nn.Module):
    """Noisy images (batch, channels, height, width) to restored ones of the same shape."""

    def __init__(self, ops: Backend, channels: int, width: int) -> None:
        super().__init__()

        def conv(inputs: int, outputs: int) -> nn.Conv2d:
            return ops.Conv2d(inputs, outputs, kernel_size=3, padding=1)

        def up(inputs: int, outputs: int) -> nn.ConvTranspose2d:
            return ops.ConvTranspose2d(inputs, outputs, kernel_size=2, stride=2)

        w = width
        self.encode_a = conv(channels, w)
        self.pool_a = ops.MaxPool2d(2)
        self.encode_b = conv(w, 2 * w)
        self.pool_b = ops.MaxPool2d(2)
        self.encode_c = conv(2 * w, 4 * w)
        self.up_b = up(4 * w, 2 * w)
        self.decode_b = conv(4 * w, 2 * w)
        self.up_a = up(2 * w, w)
        self.decode_a = conv(2 * w, w)
        self.output = conv(w, channels)

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        images = F.pad(images, (0, -width % FACTOR, 0, -height % FACTOR))
        a = torch.relu(self.encode_a(images))  # (batch, w, H, W)
        b = torch.relu(self.encode_b(self.pool_a(a)))  # (batch, 2w, H/2, W/2)
        c = torch.relu(self.encode_c(self.pool_b(b)))  # (batch, 4w, H/4, W/4)
        b = torch.relu(self.decode_b(torch.cat([b, self.up_b(c)], dim=1)))
        a = torch.relu(self.decode_a(torch.cat([a, self.up_a(b)], dim=1)))
        return torch.sigmoid(self.output(a))[..., :height, :width]


def build(ops: Backend, shape: tuple[int, int, int], width: int) -> DenoisingAutoencoder:
    return DenoisingAutoencoder(ops, shape[0], width)
