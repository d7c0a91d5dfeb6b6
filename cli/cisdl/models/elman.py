"""Elman's network: the hidden layer sees the input and what it was itself a step ago.

    x_t  (batch, inputs)                            step t of a sequence, t = 1 .. steps
    h_t = tanh(W x_t + U h_{t-1} + b)  (batch, hidden),   h_0 = 0
    y_t = V h_t + d                    (batch, outputs)

Trained: W, U, b, V, d by backpropagation through time: the steps are unrolled into a deep network with the
same weights in every layer. With --truncate N the gradient goes back to the start of a stretch of N steps and
no further; the state does go on.

Loss: that of the data (`data/sequences.py`): squared error or softmax cross-entropy. An image is read row by
row and classified by y after the last row.

The gradient of a late loss for an early input is a product of one Jacobian, diag(1 - h^2) U, a step: it
vanishes or grows exponentially with the lag, which gradient_lag.png shows beside LSTM's. U is drawn
orthogonal, so that at the start only the tanh makes it vanish.

Source: Elman, "Finding structure in time", Cognitive Science 14(2), 1990; Bengio, Simard, Frasconi, "Learning
long-term dependencies with gradient descent is difficult", IEEE Trans. Neural Networks 5(2), 1994.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from cisdl.backend import Backend
from cisdl.models.steps import Rows, Steps, one_width


def elman(ops: Backend, inputs: int, hidden: int, outputs: int) -> Steps:
    model = Steps(ops, "elman", inputs, hidden, outputs)
    weights = dict(model.layer.named_parameters())
    nn.init.orthogonal_(weights["weight_hh_l0"])
    return model


def build(
    ops: Backend,
    hidden: Sequence[int],
    inputs: int = 0,
    outputs: int = 0,
    shape: tuple[int, int, int] | None = None,
    classes: int = 0,
) -> nn.Module:
    """For sequences of `inputs` numbers a step, or for images of that `shape`."""
    width = one_width("elman", hidden)
    if shape is None:
        return elman(ops, inputs, width, outputs)
    channels, _, columns = shape
    return Rows(elman(ops, channels * columns, width, classes))
