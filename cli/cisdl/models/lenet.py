"""LeNet-5, for images of 28 x 28 pixels.

    image                                  1 x 28 x 28
    conv1   5 x 5, padding 2, activation   6 x 28 x 28
    pool1   2 x 2                          6 x 14 x 14
    conv2   5 x 5, activation             16 x 10 x 10
    pool2   2 x 2                         16 x  5 x  5
    fc1     activation                   120              (a 5 x 5 convolution over all of pool2: "C5")
    fc2     activation                    84
    output                                classes

Trained: every weight and bias. Loss: softmax cross-entropy, averaged over the mini-batch. --dropout leaves
out each number of fc1 and fc2 with that probability while it trains.

The widths and kernels are the paper's; padding 2 stands for its 32 x 32 input. Four things are today's habits
instead: ReLU for the scaled tanh, max pooling for averages with a trained gain, every conv2 channel connected
to all six of conv1's (the paper's table I leaves some out), and softmax for the radial-basis output.
`--activation tanh --pooling avg` is nearer to the paper.

Source: LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition",
Proc. IEEE 86(11), 1998, section II.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from cisdl.backend import Backend
from cisdl.errors import UsageError
from cisdl.models.activations import ACTIVATIONS, activated, linear, max_pool, pooled


class LeNet(nn.Module):
    """Images (batch, channels, 28, 28) to scores (batch, classes)."""

    def __init__(
        self,
        ops: Backend,
        channels: int,
        classes: int,
        activation: str,
        pooling: str,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.pooling = pooling
        self.conv1 = ops.Conv2d(channels, 6, kernel_size=5, padding=2)
        self.pool1 = max_pool(ops, 2, activation) if pooling == "max" else ops.AvgPool2d(2)
        self.conv2 = ops.Conv2d(6, 16, kernel_size=5)
        self.pool2 = max_pool(ops, 2, activation) if pooling == "max" else ops.AvgPool2d(2)
        self.fc1 = linear(ops, 16 * 5 * 5, 120, activation)
        self.fc2 = linear(ops, 120, 84, activation)
        self.output = ops.Linear(84, classes)
        self.activation = ACTIVATIONS[activation]
        self.dropout = dropout

    def features(self, images: Tensor) -> Tensor:
        """What the scores are read off: (batch, 84)."""
        f = self.activation
        x = pooled(self.pool1, self.conv1(images), f)  # (batch, 6, 14, 14)
        x = pooled(self.pool2, self.conv2(x), f)  # (batch, 16, 5, 5)
        x = x.flatten(1)  # (batch, 400)
        x = F.dropout(activated(self.fc1, x, f), self.dropout, self.training)  # (batch, 120)
        return F.dropout(activated(self.fc2, x, f), self.dropout, self.training)  # (batch, 84)

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.output(self.features(images))  # (batch, classes)
        return scores


def build(
    ops: Backend,
    shape: tuple[int, int, int],
    classes: int,
    activation: str,
    pooling: str,
    dropout: float,
) -> LeNet:
    channels, height, width = shape
    if (height, width) != (28, 28):
        raise UsageError(
            f"lenet: expected images of 28 x 28 pixels, got {height} x {width}; use --image-size 28"
        )
    return LeNet(ops, channels, classes, activation, pooling, dropout)
