"""A GRU that reads a text word by word and says what kind it is at the end: many-to-one.

    x_t  (batch, embedding)                     E[word t], t = 1 .. T
    r = sigmoid(W x_t + U h + b)                reset gate
    z = sigmoid(W x_t + U h + b)                update gate; each gate has its own W, U, b
    n = tanh(W x_t + b + r * (U h + b'))        candidate
    h = (1 - z) * n + z * h                     hidden state  (batch, hidden), starts at zero
    scores = V h_T + d   (batch, classes)       h_T: after the text's own last word, never after padding

Trained: E, W, U, b of the cell, V, d. Loss: softmax cross-entropy, averaged over the mini-batch; its gradient
flows back through all words. An LSTM with two gates and one state less: three quarters of its weights. On
images x_t is row t, from top to bottom. Layers, directions, other summaries: recurrent.py.

Source: Cho et al., "Learning phrase representations using RNN encoder-decoder for statistical machine
translation", EMNLP 2014.
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
        ops, "GRU", hidden, **data, memory=memory,
        embedding=embedding, layers=layers, bidirectional=bidirectional, dropout=dropout, summary=summary,
    )  # fmt: skip
