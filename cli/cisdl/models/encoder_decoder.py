"""An encoder-decoder: one LSTM reads a sequence, another writes the answer: many-to-many, not aligned.

    encoder, both ways:   s_t = [forward (x_1 .. x_t), backward (x_T .. x_t)]     (batch, T, hidden)
    decoder:              h_u = LSTM(E[y_u-1], h_u-1)                             (batch, U, hidden)
                          h_0 = the encoder's last states, y_0 = <s>
    attention:            a_u = softmax over t of  h_u . A s_t                    (batch, U, T)
                          k_u = sum over t of a_ut s_t
                          h_u becomes tanh(B [h_u, k_u])
    scores_u = V h_u + d                                                          (batch, U, symbols)

Each direction of the encoder has half the states, so that both together are the decoder's first state.
Without attention (--no-attention) the decoder knows of the input only what fits into h_0.

In training y_u-1 is the true previous symbol ("teacher forcing"), so all steps are one pass; in use it is the
one that was answered, the likeliest at each step, until </s>. Dropout, in training, is on embeddings and h.

Trained: embeddings, both LSTMs, A, B, V, d. Loss: softmax cross-entropy of y_1 .. y_U and </s>, averaged over
the symbols of the mini-batch, padding left out.

Source: Sutskever, Vinyals, Le, "Sequence to sequence learning with neural networks", NIPS 2014; attention:
Luong, Pham, Manning, EMNLP 2015 ("general"). With --cell gru nearly Cho et al., EMNLP 2014.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_packed_sequence

from cisdl.backend import Backend
from cisdl.errors import UsageError
from cisdl.models.recurrent import pack

States = Any
"""What the decoder's layer takes and gives: h, or h and c, each (layers, batch, hidden)."""


class EncoderDecoder(nn.Module):
    """Sequences and what was written so far to scores of what comes next (batch, U, symbols)."""

    def __init__(
        self,
        ops: Backend,
        cell: str,
        inputs: int,
        symbols: int,
        embedding: int,
        hidden: int,
        layers: int,
        dropout: float,
        attention: bool,
    ) -> None:
        super().__init__()
        layer = {"lstm": ops.LSTM, "gru": ops.GRU, "elman": ops.RNN}[cell]
        between = dropout if layers > 1 else 0.0
        shared: dict[str, Any] = {"num_layers": layers, "batch_first": True, "dropout": between}
        self.input_embedding = nn.Embedding(inputs, embedding)
        self.output_embedding = nn.Embedding(symbols, embedding)
        self.encoder = layer(embedding, hidden // 2, bidirectional=True, **shared)
        self.decoder = layer(embedding, hidden, **shared)
        self.attend = ops.Linear(hidden, hidden, bias=False) if attention else None
        self.combine = ops.Linear(2 * hidden, hidden) if attention else None
        self.dropout = nn.Dropout(dropout)
        self.output = ops.Linear(hidden, symbols)

    def forward(self, rows: Tensor, lengths: Tensor, before: Tensor) -> Tensor:
        """`before` (batch, U): <s> and then the true symbols, each read before the next is asked for."""
        encoded, states = self.encode(rows, lengths)
        scores, _, _ = self.decode(before, states, encoded, lengths)
        return scores

    def encode(self, rows: Tensor, lengths: Tensor) -> tuple[Tensor, States]:
        """All states (batch, T, hidden), and the last as the decoder's first."""
        packed = pack(self.dropout(self.input_embedding(rows)), lengths)
        outputs, states = self.encoder(packed)
        encoded, _ = pad_packed_sequence(outputs, batch_first=True)

        def joined(state: Tensor) -> Tensor:
            """(layers * 2, batch, hidden / 2) to (layers, batch, hidden)."""
            return torch.cat([state[0::2], state[1::2]], 2)

        return encoded, tuple(map(joined, states)) if isinstance(states, tuple) else joined(states)

    def decode(
        self, before: Tensor, states: States, encoded: Tensor, lengths: Tensor
    ) -> tuple[Tensor, States, Tensor | None]:
        """Scores (batch, U, symbols), the states after, and where it looked (batch, U, T)."""
        h, states = self.decoder(self.dropout(self.output_embedding(before)), states)
        looked = None
        if self.attend is not None and self.combine is not None:
            likeness = h @ self.attend(encoded).transpose(1, 2)  # (batch, U, T)
            padding = torch.arange(encoded.shape[1], device=h.device) >= lengths.to(h.device)[:, None]
            looked = likeness.masked_fill(padding[:, None], float("-inf")).softmax(2)
            h = torch.tanh(self.combine(torch.cat([h, looked @ encoded], 2)))
        scores: Tensor = self.output(self.dropout(h))
        return scores, states, looked

    @torch.no_grad()
    def answer(
        self, rows: Tensor, lengths: Tensor, start: int, end: int, longest: int
    ) -> tuple[Tensor, Tensor | None]:
        """The likeliest symbol at each step (batch, U), <= `longest` of them, and where it looked.

        What follows the first `end` of a row means nothing.
        """
        encoded, states = self.encode(rows, lengths)
        symbol = torch.full((len(rows), 1), start, device=rows.device)
        ended = torch.zeros_like(symbol, dtype=torch.bool)
        symbols, looks = [], []
        for _ in range(longest):
            scores, states, looked = self.decode(symbol, states, encoded, lengths)
            symbol = scores.argmax(2)
            symbols.append(symbol)
            looks.append(looked)
            ended |= symbol == end
            if bool(ended.all()):
                break
        attended = None if looks[0] is None else torch.cat([look for look in looks if look is not None], 1)
        return torch.cat(symbols, 1), attended


def build(
    ops: Backend,
    inputs: int,
    symbols: int,
    cell: str,
    embedding: int,
    hidden: Sequence[int],
    layers: int,
    dropout: float,
    attention: bool,
) -> EncoderDecoder:
    if len(hidden) != 1 or hidden[0] % 2:
        got = ",".join(map(str, hidden))
        raise UsageError(f"encoder-decoder: --hidden takes one even width, got {got}")
    return EncoderDecoder(ops, cell, inputs, symbols, embedding, hidden[0], layers, dropout, attention)
