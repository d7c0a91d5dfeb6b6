"""Classifiers that read a sequence with a recurrent layer and answer at its end: many-to-one.

The kind of cell is a parameter, one of `CELLS`: lstm.py and gru.py show what each computes.

Texts, of T words, padded on the right to the longest of the mini-batch:

    x_t = E[word t]                         embedding     (batch, T, embedding)
    h_t = cell(x_t, h_t-1), from h_0 = 0    hidden state  (batch, T, hidden)
    s   = h_T, at each text's own T         summary       (batch, hidden), or twice that in two directions
    scores = V s + d                        (batch, classes)

A backward direction, which starts at the last word, has its end at the first one. Instead of the last state
the summary can be the mean of all, or the largest of each number; padding counts for neither. Dropout, in
training, is on the embedding, between layers and on the summary.

Images, a row a step: x_t is row t, all channels joined, and the cell itself is called row by row.
"""
"""What recurrent models share: a layer that is run over the steps of a sequence, and what is read off it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from cisdl.backend import Backend
from cisdl.errors import UsageError
from cisdl.models.options import CELLS

EMBEDDING_DEVIATION = 0.1
"""Of a word's first numbers: small, so that what a rare word learns outweighs what it was drawn with."""


def pack(sequences: Tensor, lengths: Tensor) -> PackedSequence:
    """(batch, T, features) without its padding: a recurrent layer ends at each sequence's true length."""
    return pack_padded_sequence(sequences, lengths.cpu(), batch_first=True, enforce_sorted=False)


class TextClassifier(nn.Module):
    """Word numbers (batch, T) and lengths (batch,) to scores (batch, classes)."""

    def __init__(
        self,
        ops: Backend,
        cell: str,
        vocabulary: int,
        embedding: int,
        hidden: int,
        classes: int,
        layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        summary: str = "last",
    ) -> None:
        super().__init__()
        assert cell in CELLS
        self.summary = summary
        self.embedding = nn.Embedding(vocabulary, embedding)
        nn.init.normal_(self.embedding.weight, std=EMBEDDING_DEVIATION)
        self.dropout = nn.Dropout(dropout)
        self.recurrent = getattr(ops, cell)(
            embedding,
            hidden,
            num_layers=layers,
            bidirectional=bidirectional,
            batch_first=True,
            dropout=dropout if layers > 1 else 0.0,
        )
        self.output = ops.Linear(hidden * (2 if bidirectional else 1), classes)

    def forward(self, words: Tensor, lengths: Tensor) -> Tensor:
        x = self.dropout(self.embedding(words))  # (batch, T, embedding)
        scores: Tensor = self.output(self.dropout(self.summarise(x, lengths)))  # (batch, classes)
        return scores

    def summarise(self, x: Tensor, lengths: Tensor) -> Tensor:
        """(batch, T, embedding) to (batch, hidden) or (batch, 2 hidden): what is known at the end."""
        outputs, states = self.recurrent(pack(x, lengths))
        if self.summary == "last":
            h = states[0] if isinstance(states, tuple) else states  # (layers * directions, batch, hidden)
            last: Tensor = torch.cat(h[-2:].unbind(0), 1) if self.recurrent.bidirectional else h[-1]
            return last
        h, _ = pad_packed_sequence(outputs, batch_first=True, padding_value=float("-inf"))
        if self.summary == "max":
            largest: Tensor = h.max(1).values
            return largest
        return h.masked_fill(h.isneginf(), 0).sum(1) / lengths.to(h)[:, None]


class RowClassifier(nn.Module):
    """Images (batch, channels, rows, columns) to scores (batch, classes)."""

    def __init__(self, ops: Backend, cell: str, inputs: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.cell = getattr(ops, f"{cell}Cell")(inputs, hidden)
        self.output = ops.Linear(hidden, classes)

    def forward(self, images: Tensor) -> Tensor:
        rows = images.transpose(1, 2).flatten(2)  # (batch, rows, channels * columns)
        h = rows.new_zeros(rows.shape[0], self.cell.hidden_size)
        if isinstance(self.cell, nn.LSTMCell):
            c = h
            for x in rows.unbind(1):  # (batch, channels * columns)
                h, c = self.cell(x, (h, c))
        else:
            for x in rows.unbind(1):
                h = self.cell(x, h)
        scores: Tensor = self.output(h)  # (batch, classes)
        return scores


def build(
    ops: Backend,
    cell: str,
    classes: int,
    hidden: Sequence[int],
    shape: tuple[int, int, int] | None = None,
    vocabulary: int | None = None,
    embedding: int = 100,
    layers: int = 1,
    bidirectional: bool = False,
    dropout: float = 0.0,
    summary: str = "last",
) -> TextClassifier | RowClassifier:
    """For texts of that vocabulary or images of that shape; the options after it are for texts."""
    if len(hidden) != 1:
        raise UsageError(f"{cell.lower()}: --hidden takes one width, got {','.join(map(str, hidden))}")
    if vocabulary is not None:
        return TextClassifier(
            ops, cell, vocabulary, embedding, hidden[0], classes, layers, bidirectional, dropout, summary
        )
    assert shape is not None
    if layers != 1 or bidirectional or summary != "last":
        raise UsageError(f"{cell.lower()}: --layers, --bidirectional and --summary are for texts, got images")
    channels, _, columns = shape
    return RowClassifier(ops, cell, channels * columns, hidden[0], classes)
from typing import TypeAlias

import torch
from torch import Tensor, nn

from cisdl.backend import Backend
from cisdl.errors import UsageError

CELLS = ("elman", "lstm", "gru")

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
