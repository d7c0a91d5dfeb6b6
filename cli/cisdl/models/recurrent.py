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

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from cisdl.backend import Backend
from cisdl.errors import UsageError
from cisdl.models.steps import Steps, set_memory

CELLS = ("LSTM", "GRU", "RNN")
"""The names of torch's layers and cells."""
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
    hidden: Sequence[int],
    classes: int = 0,
    shape: tuple[int, int, int] | None = None,
    vocabulary: int | None = None,
    inputs: int | None = None,
    outputs: int = 0,
    embedding: int = 100,
    layers: int = 1,
    bidirectional: bool = False,
    dropout: float = 0.0,
    summary: str = "last",
    memory: int = 0,
) -> TextClassifier | RowClassifier | Steps:
    """For texts of that vocabulary, images of that shape, or sequences of so many inputs and outputs a step.

    `memory` is for sequences, the other options after `hidden` for texts.
    """
    if len(hidden) != 1:
        raise UsageError(f"{cell.lower()}: --hidden takes one width, got {','.join(map(str, hidden))}")
    if vocabulary is not None:
        return TextClassifier(
            ops, cell, vocabulary, embedding, hidden[0], classes, layers, bidirectional, dropout, summary
        )
    if inputs is not None:
        return set_memory(Steps(ops, cell.lower(), inputs, hidden[0], outputs), memory)
    assert shape is not None
    if layers != 1 or bidirectional or summary != "last":
        raise UsageError(
            f"{cell.lower()}: --layers, --bidirectional and --summary are for texts, got images; "
            "leave them out"
        )
    channels, _, columns = shape
    return RowClassifier(ops, cell, channels * columns, hidden[0], classes)
