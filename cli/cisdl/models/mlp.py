"""The multi-layer perceptron.

    x  (batch, pixels)                       the image, flattened
    h1 = f(W1 x + b1)                        f: sigmoid, tanh, relu or leaky_relu
    h2 = f(W2 h1 + b2) ...                   as many hidden layers as --hidden names
    scores = W h + b   (batch, classes)

Trained: every W and b. Loss: softmax cross-entropy, averaged over the mini-batch. While training, each number
of a hidden layer is left out with probability --dropout.

Source: Rumelhart, Hinton, Williams, "Learning representations by back-propagating errors", Nature 323, 1986.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from cisdl.backend import Backend
from cisdl.models.activations import ACTIVATIONS, activated, linear


class MLP(nn.Module):
    """Images (batch, channels, height, width) to scores (batch, classes)."""

    def __init__(
        self,
        ops: Backend,
        pixels: int,
        hidden: Sequence[int],
        classes: int,
        activation: str,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        widths = [pixels, *hidden]
        self.hidden = nn.ModuleList(linear(ops, a, b, activation) for a, b in pairwise(widths))
        self.output = ops.Linear(widths[-1], classes)
        self.activation = ACTIVATIONS[activation]
        self.dropout = dropout

    def forward(self, images: Tensor) -> Tensor:
        x = images.flatten(1)  # (batch, pixels)
        for layer in self.hidden:
            x = F.dropout(activated(layer, x, self.activation), self.dropout, self.training)  # (batch, width)
        scores: Tensor = self.output(x)  # (batch, classes)
        return scores


def build(
    ops: Backend,
    shape: tuple[int, int, int],
    classes: int,
    hidden: Sequence[int],
    activation: str,
    dropout: float,
) -> MLP:
    channels, height, width = shape
    return MLP(ops, channels * height * width, hidden, classes, activation, dropout)
