"""What recurrent models share: a layer that is run over the steps of a sequence, and what is read off it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from cisdl.backend import Backend
from cisdl.errors import UsageError

State: TypeAlias = "Tensor | tuple[Tensor, ...] | None"
"""What a network remembers; None at the start of a sequence."""


def detached(state: State) -> State:
    """The same memory, from which no gradient flows further back."""
    if state is None:
        return None
    return state.detach() if isinstance(state, Tensor) else tuple(part.detach() for part in state)


def one_width(model: str, hidden: Sequence[int]) -> int:
    """The only width of --hidden."""
    if len(hidden) != 1:
        raise UsageError(f"{model}: --hidden takes one width, got {','.join(map(str, hidden))}")
    return hidden[0]


class Steps(nn.Module):
    """A recurrent layer with an answer at every step: many-to-many, of equal length.

    Inputs (batch, steps, inputs) and the state before them, to outputs (batch, steps, outputs) and the state
    after the last. `forward(b, forward(a)[1])` continues a sequence, exactly as if it were in one piece.
    """

    def __init__(self, ops: Backend, cell: str, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        layer = {"elman": ops.RNN, "lstm": ops.LSTM, "gru": ops.GRU}[cell]
        self.layer = layer(inputs, hidden, batch_first=True)
        self.output = ops.Linear(hidden, outputs)

    def forward(self, inputs: Tensor, state: State = None) -> tuple[Tensor, State]:
        hidden, state = self.layer(inputs, state)
        return self.output(hidden), state


@torch.no_grad()
def set_memory(model: Steps, steps: int) -> Steps:
    """Biases with which units of an LSTM or GRU remember for 1 to `steps` steps at first; 0 changes nothing.

    A gate that keeps a share sigmoid(b) of the memory at every step keeps it for about 1 + exp(b) steps, so
    b = ln(u) with u uniform in [1, steps - 1]; LSTM's input gate starts with the opposite. Source: Tallec,
    Ollivier, "Can recurrent neural networks warp time?", ICLR 2018 ("chrono initialisation").
    """
    if steps == 0:
        return model
    biases = dict(model.layer.named_parameters())
    given, hidden = biases["bias_ih_l0"], biases["bias_hh_l0"]
    width = model.output.in_features
    keeping = torch.empty(width).uniform_(1, max(steps - 1, 2)).log()
    if len(given) == 4 * width:  # LSTM: input gate, forget gate, candidate, output gate
        given.zero_()
        hidden.zero_()
        given[width : 2 * width] = keeping
        given[:width] = -keeping
    else:  # GRU: reset gate, update gate (the share that is kept), candidate
        hidden[width : 2 * width] = 0
        given[width : 2 * width] = keeping
    return model


class Rows(nn.Module):
    """An image is read from top to bottom, a row a step; the answer after the last is its scores.

    Images (batch, channels, rows, columns) to scores (batch, classes). All images have equally many rows, so
    the last step is every image's.
    """

    def __init__(self, steps: nn.Module) -> None:
        super().__init__()
        self.steps = steps

    def forward(self, images: Tensor) -> Tensor:
        rows = images.transpose(1, 2).flatten(2)  # (batch, rows, channels * columns)
        outputs, _ = self.steps(rows)
        scores: Tensor = outputs[:, -1]
        return scores
