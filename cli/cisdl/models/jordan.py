"""Jordan's network: the hidden layer sees the input and what the network answered a step ago.

    x_t  (batch, inputs)                            step t of a sequence, t = 1 .. steps
    h_t = tanh(W x_t + U y_{t-1} + b)  (batch, hidden),   y_0 = 0
    y_t = V h_t + d                    (batch, outputs)

Trained: W, U, b, V, d by backpropagation through time, as Elman's. Loss: that of the data.

Its memory is as wide as its output: what is to be remembered has to be said aloud. Of several scores only
the differences are judged, so their common height is free to remember with: that is how it echoes a bit of
two steps ago, and why it does not learn to echo one of three.

Source: Jordan, "Serial order: a parallel distributed processing approach", ICS Report 8604, UC San Diego,
1986 (there the context also keeps a decaying trace of older answers; here it is the last answer).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cisdl.backend import Backend
from cisdl.models.steps import Rows, State, one_width


class Jordan(nn.Module):
    """As `steps.Steps`; the state is the last output (batch, outputs)."""

    def __init__(self, ops: Backend, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.input = ops.Linear(inputs, hidden)
        self.feedback = ops.Linear(outputs, hidden, bias=False)
        self.output = ops.Linear(hidden, outputs)

    def forward(self, inputs: Tensor, state: State = None) -> tuple[Tensor, State]:
        assert not isinstance(state, tuple)
        y = inputs.new_zeros(len(inputs), self.output.out_features) if state is None else state
        outputs = []
        for x in self.input(inputs).unbind(1):  # W x_t + b: (batch, hidden)
            y = self.output(torch.tanh(x + self.feedback(y)))
            outputs.append(y)
        return torch.stack(outputs, dim=1), y


def build(
    ops: Backend,
    hidden: Sequence[int],
    inputs: int = 0,
    outputs: int = 0,
    shape: tuple[int, int, int] | None = None,
    classes: int = 0,
) -> nn.Module:
    """For sequences of `inputs` numbers a step, or for images of that `shape`."""
    width = one_width("jordan", hidden)
    if shape is None:
        return Jordan(ops, inputs, width, outputs)
    channels, _, columns = shape
    return Rows(Jordan(ops, channels * columns, width, classes))
