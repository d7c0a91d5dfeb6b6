"""A tagger: a bidirectional LSTM says of every word of a sentence what it is: many-to-many, aligned.

    spelling_t = last states of an LSTM over the letters of word t, forwards and backwards   2 spelling
    x_t  = [E[word t], spelling_t]                                        (batch, T, embedding + 2 spelling)
    h_t  = [forward LSTM (x_1 .. x_t), backward LSTM (x_T .. x_t)]        (batch, T, 2 hidden)
    scores_t = V h_t + d                                                  (batch, T, tags)

With --columns, x_t also has an embedding of what the file gives of the word, like its part of speech.
The letters say what a word's table entry cannot: that an unknown one ends in "-ing" or begins with a capital.
Each different word of a mini-batch is spelled once. Dropout, in training, is on x and h.

Trained: E, the letters' embedding, both LSTMs, V, d. Loss: softmax cross-entropy, averaged over the words of
the mini-batch, padding left out. A word's tag is that of the largest score, whatever its neighbours' are.

Source: Graves, Schmidhuber, "Framewise phoneme classification with bidirectional LSTM", Neural Networks 18,
2005; letters: Ling et al., "Finding function in form", EMNLP 2015; Lample et al., NAACL 2016.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_packed_sequence

from cisdl.backend import Backend
from cisdl.errors import UsageError
from cisdl.models.recurrent import EMBEDDING_DEVIATION, pack

LETTER = 25
"""Numbers that stand for a letter."""
GIVEN = 25
"""Numbers that stand for what is given of a word."""


class Tagger(nn.Module):
    """Sentences to scores (batch, T, tags)."""

    def __init__(
        self,
        ops: Backend,
        vocabulary: int,
        letters: int,
        tags: int,
        embedding: int,
        spelling: int,
        hidden: int,
        layers: int,
        dropout: float,
        given: int = 0,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embedding)
        nn.init.normal_(self.embedding.weight, std=EMBEDDING_DEVIATION)
        self.letters = nn.Embedding(letters, LETTER)
        self.spelling = ops.LSTM(LETTER, spelling, bidirectional=True, batch_first=True)
        self.given = nn.Embedding(given, GIVEN) if given else None
        self.recurrent = ops.LSTM(
            embedding + 2 * spelling + (GIVEN if given else 0),
            hidden,
            num_layers=layers,
            bidirectional=True,
            batch_first=True,
            dropout=dropout if layers > 1 else 0.0,
        )
        self.dropout = nn.Dropout(dropout)
        self.output = ops.Linear(2 * hidden, tags)

    def forward(
        self,
        words: Tensor,
        lengths: Tensor,
        letters: Tensor,
        letter_counts: Tensor,
        spelled: Tensor,
        given: Tensor,
    ) -> Tensor:
        """Scores; those of padding mean nothing.

        Args:
            words: (batch, T), numbers of the vocabulary, with their ``lengths`` (batch,).
            letters: (different words, longest), with their ``letter_counts``.
            spelled: (batch, T), which row of ``letters`` spells the word.
            given: (batch, T), numbers of what is given of the words, if anything is.
        """
        _, (h, _) = self.spelling(pack(self.letters(letters), letter_counts))  # (2, words, spelling)
        spelling = torch.cat([h[0], h[1]], 1)[spelled]  # (batch, T, 2 spelling)
        parts = [self.embedding(words), spelling]
        if self.given is not None:
            parts.append(self.given(given))
        x = self.dropout(torch.cat(parts, 2))
        outputs, _ = self.recurrent(pack(x, lengths))
        h, _ = pad_packed_sequence(outputs, batch_first=True)  # (batch, T, 2 hidden)
        scores: Tensor = self.output(self.dropout(h))
        return scores


def build(
    ops: Backend,
    vocabulary: int,
    letters: int,
    tags: int,
    embedding: int,
    spelling: int,
    hidden: Sequence[int],
    layers: int,
    dropout: float,
    given: int = 0,
) -> Tagger:
    if len(hidden) != 1:
        raise UsageError(f"tagger: --hidden takes one width, got {','.join(map(str, hidden))}")
    return Tagger(ops, vocabulary, letters, tags, embedding, spelling, hidden[0], layers, dropout, given)
