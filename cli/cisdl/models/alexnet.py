"""AlexNet, for images of 63 x 63 pixels and more; 224 x 224 is the original.

    features                                                     224 x 224      64 x 64
        conv1  11 x 11, stride 4, padding 2, relu      64 x       55 x 55       15 x 15
        pool1   3 x 3,  stride 2                                  27 x 27        7 x 7
        conv2   5 x 5,  padding 2, relu               192 x       27 x 27        7 x 7
        pool2   3 x 3,  stride 2                                  13 x 13        3 x 3
        conv3   3 x 3,  padding 1, relu               384 x       13 x 13        3 x 3
        conv4   3 x 3,  padding 1, relu               256 x       13 x 13        3 x 3
        conv5   3 x 3,  padding 1, relu               256 x       13 x 13        3 x 3
        pool5   3 x 3,  stride 2                                   6 x 6         1 x 1
    average     adaptive pooling to 6 x 6 where there is more, so that larger images fit the classifier
    classifier
        dropout, fc6, relu     4096
        dropout, fc7, relu     4096
        output                 classes

Trained: every weight and bias. Loss: softmax cross-entropy, averaged over the mini-batch. While training,
dropout leaves out each number with probability --dropout (Srivastava et al., JMLR 15, 2014).

Source: Krizhevsky, Sutskever, Hinton, "ImageNet classification with deep convolutional neural networks", NIPS
2012, in the widths of the one-tower version (Krizhevsky, arXiv 1404.5997, 2014). Those are torchvision's
`alexnet` too, whose weights load into this model. Local response normalisation is left out, as there.
"""

from __future__ import annotations

from torch import Tensor, nn

from cisdl.backend import Backend
from cisdl.errors import UsageError

LEAST_SIZE = 63
"""Below that, nothing is left for the last pooling."""
POOLED = 6


class AlexNet(nn.Module):
    """Images (batch, channels, height, width) to scores (batch, classes)."""

    def __init__(self, ops: Backend, shape: tuple[int, int, int], classes: int, dropout: float) -> None:
        super().__init__()
        channels, height, width = shape
        self.features = ops.Sequential(
            ops.Conv2d(channels, 64, kernel_size=11, stride=4, padding=2),
            nn.ReLU(inplace=True),
            ops.MaxPool2d(kernel_size=3, stride=2),
            ops.Conv2d(64, 192, kernel_size=5, padding=2),
            nn.ReLU(inplace=True),
            ops.MaxPool2d(kernel_size=3, stride=2),
            ops.Conv2d(192, 384, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            ops.Conv2d(384, 256, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            ops.Conv2d(256, 256, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            ops.MaxPool2d(kernel_size=3, stride=2),
        )
        pooled = (min(POOLED, features_size(height)), min(POOLED, features_size(width)))
        self.avgpool = ops.AdaptiveAvgPool2d(pooled)
        self.classifier = ops.Sequential(
            nn.Dropout(dropout),
            ops.Linear(256 * pooled[0] * pooled[1], 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            ops.Linear(4096, 4096),
            nn.ReLU(inplace=True),
            ops.Linear(4096, classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        x = self.avgpool(self.features(images))  # (batch, 256, <= 6, <= 6)
        scores: Tensor = self.classifier(x.flatten(1))  # (batch, classes)
        return scores


def features_size(size: int) -> int:
    """Rows (or columns) that pool5 makes of an image's."""
    size = (size + 2 * 2 - 11) // 4 + 1  # conv1
    for _ in range(3):
        size = (size - 3) // 2 + 1  # the poolings; the other convolutions keep it
    return size


def build(ops: Backend, shape: tuple[int, int, int], classes: int, dropout: float) -> AlexNet:
    if min(shape[1:]) < LEAST_SIZE:
        raise UsageError(
            f"alexnet: expected images of {LEAST_SIZE} x {LEAST_SIZE} pixels or more, "
            f"got {shape[1]} x {shape[2]}; try --image-size 64"
        )
    return AlexNet(ops, shape, classes, dropout)
