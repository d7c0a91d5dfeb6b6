"""GloVe: word vectors from how often words are neighbours in all of a text.

    X_ij                       sum of 1 / distance over the places where i and j are at most --window apart
    w, b   (words, dim), (words)     vectors and biases of words
    c, b'  (words, dim), (words)     vectors and biases of words as neighbours; X is symmetric, so both learn
                                     the same from different starts, and w + c is the result
    d      = w_i . c_j + b_i + b'_j - log X_ij
    loss   = f(X_ij) d^2 / 2,        f(x) = min(1, (x / x_max)^0.75), over all cells with X_ij > 0

Trained: w, c, b, b', by AdaGrad a cell at a time. f keeps rare pairs from adding noise and frequent ones from
deciding everything. One pass over the cells is an epoch: the text itself is read once.

`cisdl_ops.glove` counts and trains in one fused op each; --backend torch trains nn.Embedding by Adagrad.

Source: Pennington, Socher, Manning, "GloVe: global vectors for word representation", EMNLP 2014.
"""

from __future__ import annotations

from torch import Tensor, nn

from cisdl.backend import Backend


class GloVe(nn.Module):
    """What log X_ij ought to be."""

    def __init__(self, words: int, dim: int) -> None:
        super().__init__()
        self.word = nn.Embedding(words, dim, sparse=True)
        self.word_bias = nn.Embedding(words, 1, sparse=True)
        self.context = nn.Embedding(words, dim, sparse=True)
        self.context_bias = nn.Embedding(words, 1, sparse=True)
        for table in (self.word, self.word_bias, self.context, self.context_bias):
            nn.init.uniform_(table.weight, -0.5 / dim, 0.5 / dim)

    def forward(self, i: Tensor, j: Tensor) -> Tensor:
        """Words and neighbours (batch,) to (batch,)."""
        product = (self.word(i) * self.context(j)).sum(1)
        estimate: Tensor = product + self.word_bias(i).squeeze(1) + self.context_bias(j).squeeze(1)
        return estimate

    @property
    def vectors(self) -> Tensor:
        """(words, dim): the sum of a word's two vectors."""
        return (self.word.weight + self.context.weight).detach()


def build(ops: Backend, words: int, dim: int) -> GloVe:
    del ops  # the arithmetic is in the trainers
    return GloVe(words, dim)
