"""Sequence models: an LSTM tagger over packed sentences, translation by GRUs, continuation of a signal."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


class Tagger(nn.Module):
    """Two bidirectional LSTM layers with dropout between them, over sentences of different length."""

    def __init__(self, words: int = 40, tags: int = 6, size: int = 12, hidden: int = 10) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, size, padding_idx=0)
        self.lstm = nn.LSTM(size, hidden, num_layers=2, bidirectional=True, batch_first=True, dropout=0.2)
        self.head = nn.Linear(2 * hidden, tags)

    def forward(self, sentences: Tensor, lengths: Tensor) -> Tensor:
        """``[batch, time]`` words and their numbers to ``[batch, time, tags]`` scores."""
        packed = pack_padded_sequence(
            self.embedding(sentences), lengths, batch_first=True, enforce_sorted=False
        )
        states, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        return self.head(states)


class Translator(nn.Module):
    """An encoder GRU, and a decoder GRU cell that attends to its states (Luong et al. 2015)."""

    def __init__(self, words: int = 20, size: int = 12, hidden: int = 16) -> None:
        super().__init__()
        self.source = nn.Embedding(words, size)
        self.target = nn.Embedding(words, size)
        self.encoder = nn.GRU(size, hidden, num_layers=2)
        self.decoder = nn.GRUCell(size + hidden, hidden)
        self.score = nn.Linear(hidden, hidden, bias=False)
        self.combine = nn.Linear(2 * hidden, hidden)
        self.head = nn.Linear(hidden, words)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """``[time, batch]`` words, the target's shifted by one, to ``[time, batch, words]`` scores."""
        memory, state = self.encoder(self.source(source))
        h = state[-1]
        attended = torch.zeros_like(h)
        outputs = []
        for word in self.target(target):
            h = self.decoder(torch.cat([word, attended], dim=1), h)
            weight = torch.softmax((memory * self.score(h)).sum(-1), dim=0)
            context = (weight.unsqueeze(-1) * memory).sum(0)
            attended = torch.tanh(self.combine(torch.cat([context, h], dim=1)))
            outputs.append(self.head(attended))
        return torch.stack(outputs)


class Clock(nn.Module):
    """A plain recurrent network reading a signal, then an LSTM cell that continues it from its own output."""

    def __init__(self, hidden: int = 12) -> None:
        super().__init__()
        self.read = nn.RNN(1, hidden, nonlinearity="tanh")
        self.write = nn.LSTMCell(1, hidden)
        self.head = nn.Linear(hidden, 1)

    def forward(self, signal: Tensor, steps: int = 6) -> Tensor:
        """``[time, batch, 1]`` to the ``[steps, batch, 1]`` that follow."""
        h = self.read(signal)[1][0]
        c = torch.zeros_like(h)
        value = signal[-1]
        values = []
        for _ in range(steps):
            h, c = self.write(value, (h, c))
            value = self.head(h)
            values.append(value)
        return torch.stack(values)
