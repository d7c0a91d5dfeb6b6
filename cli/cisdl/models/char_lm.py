"""A character language model: it reads a text and says of every character how likely the next one is.

    c_t  (batch)                          character t of a text, a number
    x_t = E[c_t]      (batch, 64)         its vector
    h_t = cell(x_t, h_{t-1})              --cell lstm, gru or elman, --layers of them, (batch, hidden)
    scores_t = V h_t + b  (batch, characters),   p(c_{t+1}) = softmax(scores_t)

Trained: E, the cells' weights, V, b. Loss: the mean of -ln p(c_{t+1}) over all characters, in nats; divided
by ln 2 it is bits per character. The text is cut into as many streams as a mini-batch has rows. They are
read side by side, --truncate characters a step: the state goes on from step to step, the gradient does not.
--dropout leaves out numbers of h between layers and before V.

Asked for a text (one-to-many), a character is drawn from p and read as the next input, over and over.

Source: Mikolov et al., "Recurrent neural network based language model", Interspeech 2010; Graves, "Generating
sequences with recurrent neural networks", arXiv 1308.0850, 2013.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from cisdl.backend import Backend
from cisdl.models.steps import State, one_width

EMBEDDING = 64


class CharLM(nn.Module):
    """Characters (batch, steps) and the state before them, to scores (batch, steps, characters) and state."""

    def __init__(
        self, ops: Backend, vocabulary: int, cell: str, hidden: int, layers: int, dropout: float
    ) -> None:
        super().__init__()
        layer = {"lstm": ops.LSTM, "gru": ops.GRU, "elman": ops.RNN}[cell]
        between = dropout if layers > 1 else 0.0
        self.embedding = nn.Embedding(vocabulary, EMBEDDING)
        self.layer = layer(EMBEDDING, hidden, num_layers=layers, dropout=between, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.output = ops.Linear(hidden, vocabulary)

    def forward(self, characters: Tensor, state: State = None) -> tuple[Tensor, State]:
        hidden, state = self.layer(self.embedding(characters), state)
        return self.output(self.dropout(hidden)), state


def build(
    ops: Backend, vocabulary: int, cell: str, hidden: Sequence[int], layers: int, dropout: float
) -> CharLM:
    return CharLM(ops, vocabulary, cell, one_width("char-lm", hidden), layers, dropout)
