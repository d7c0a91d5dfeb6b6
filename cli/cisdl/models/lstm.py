"""An LSTM that reads a text word by word and says what kind it is at the end: many-to-one.

    x_t  (batch, embedding)                     E[word t], t = 1 .. T
    i, f, o = sigmoid(W x_t + U h + b)          input, forget and output gate
    g       = tanh(W x_t + U h + b)             candidate; each gate has its own W, U, b
    c = f * c + i * g                           cell state    (batch, hidden)
    h = o * tanh(c)                             hidden state  (batch, hidden), both start at zero
    scores = V h_T + d   (batch, classes)       h_T: after the text's own last word, never after padding

Trained: E, W, U, b of the cell, V, d. Loss: softmax cross-entropy, averaged over the mini-batch; its gradient
flows back through all words. On images x_t is row t, from top to bottom. Layers, directions and what else
can be read off the states: recurrent.py.

Source: Hochreiter, Schmidhuber, "Long short-term memory", Neural Computation 9(8), 1997, with the forget gate
of Gers, Schmidhuber, Cummins, 2000. Images as sequences: Le, Jaitly, Hinton, arXiv 1504.00941.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from cisdl.backend import Backend
from cisdl.models import recurrent


def build(
    ops: Backend,
    hidden: Sequence[int],
    embedding: int,
    layers: int,
    bidirectional: bool,
    dropout: float,
    summary: str,
    memory: int,
    **data: Any,
) -> nn.Module:
    return recurrent.build(
        ops, "LSTM", hidden, **data, memory=memory,
        embedding=embedding, layers=layers, bidirectional=bidirectional, dropout=dropout, summary=summary,
    )  # fmt: skip
