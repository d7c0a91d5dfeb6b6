"""An LSTM that reads an image from top to bottom, one row a step, and classifies it at the end: many-to-one.

    x_t  (batch, columns)                       row t of the image, t = 0 .. rows - 1
    i, f, o = sigmoid(W x_t + U h + b)          input, forget and output gate
    g       = tanh(W x_t + U h + b)             candidate; each gate has its own W, U, b
    c = f * c + i * g                           cell state    (batch, hidden)
    h = o * tanh(c)                             hidden state  (batch, hidden), both start at zero
    scores = V h_last + d   (batch, classes)

Trained: W, U, b of the cell, V, d. Loss: softmax cross-entropy, averaged over the mini-batch; its gradient
flows back through all rows. All images have equally many rows, so the last hidden state is the last row's.

Source: Hochreiter, Schmidhuber, "Long short-term memory", Neural Computation 9(8), 1997, with the forget gate
of Gers, Schmidhuber, Cummins, 2000. Images as sequences: Le, Jaitly, Hinton, arXiv 1504.00941.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from cisdl.backend import Backend
from cisdl.errors import UsageError
from cisdl.models.steps import Steps, set_memory


class RowLSTM(nn.Module):
    """Images (batch, channels, rows, columns) to scores (batch, classes)."""

    def __init__(self, ops: Backend, inputs: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.cell = ops.LSTMCell(inputs, hidden)
        self.output = ops.Linear(hidden, classes)

    def forward(self, images: Tensor) -> Tensor:
        rows = images.transpose(1, 2).flatten(2)  # (batch, rows, channels * columns)
        h = c = rows.new_zeros(rows.shape[0], self.cell.hidden_size)
        for x in rows.unbind(1):  # (batch, channels * columns)
            h, c = self.cell(x, (h, c))
        scores: Tensor = self.output(h)  # (batch, classes)
        return scores


def build(
    ops: Backend,
    hidden: Sequence[int],
    shape: tuple[int, int, int] | None = None,
    classes: int = 0,
    inputs: int = 0,
    outputs: int = 0,
    memory: int = 0,
) -> nn.Module:
    if shape is None:
        return set_memory(Steps(ops, "lstm", inputs, hidden[0], outputs), memory)
    channels, _, columns = shape
    if len(hidden) != 1:
        raise UsageError(f"lstm: --hidden takes one width, got {','.join(map(str, hidden))}")
    return RowLSTM(ops, channels * columns, hidden[0], classes)
