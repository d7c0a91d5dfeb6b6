"""word2vec: word vectors from predicting a word by its neighbours.

A one-hot vector of word w has a 1 in place w and 0 elsewhere: it says which word it is and nothing more, for
any two are equally far apart, and all their cosines are 0. Multiplied by a matrix it picks a row; those rows
are the word vectors, and they are learnt such that words of like company come to lie close together.

    U  (words, dim)   input vectors: they are the result
    V  (words, dim)   output vectors, of words as what is predicted; both have to be kept apart

    skip-gram    h = U[c]                for each word c of the centre's window
    CBOW         h = mean of U[c]        over the window
    score        s_t = h . V[t]          of the centre w and of k negatives n, drawn from counts^0.75
    loss         -log sigmoid(s_w) - sum over n of log sigmoid(-s_n)

Trained: U and V, by gradient descent of a pair (skip-gram) or window (CBOW) at a time, the learning rate
falling linearly to zero. The centre draws its reach from 1 to --window, so that near words count more.
A frequent word of share f of the text is left out with probability 1 - sqrt(s/f) - s/f (--sample s), but
never of what is judged. A negative that is the centre itself is left out. --shared-negatives draws once for
a centre and not for each of its pairs: about three times as fast.

`cisdl_ops.word2vec` does all that in one fused op; --backend torch does it with nn.Embedding and sparse SGD.

Source: Mikolov, Chen, Corrado, Dean, "Efficient estimation of word representations in vector space", 2013;
Mikolov, Sutskever, Chen, Corrado, Dean, "Distributed representations of words and phrases and their
compositionality", NIPS 2013.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cisdl.backend import Backend


class Word2Vec(nn.Module):
    """Scores of words as the centre of a window."""

    def __init__(self, words: int, dim: int) -> None:
        super().__init__()
        self.input = nn.Embedding(words, dim, sparse=True)
        self.output = nn.Embedding(words, dim, sparse=True)
        nn.init.uniform_(self.input.weight, -0.5 / dim, 0.5 / dim)
        nn.init.zeros_(self.output.weight)

    def forward(self, context: Tensor, targets: Tensor) -> Tensor:
        """`context` (batch, n), -1 where there is no word; `targets` (batch, k): scores (batch, k)."""
        present = (context >= 0).unsqueeze(2)  # (batch, n, 1)
        rows = self.input(context.clamp(min=0)) * present
        h = rows.sum(1) / present.sum(1)  # (batch, dim): of one word, or the mean of a window
        scores: Tensor = (h.unsqueeze(1) * self.output(targets)).sum(2)
        return scores

    @property
    def vectors(self) -> Tensor:
        """(words, dim): the input vectors."""
        return self.input.weight.detach()


def build(ops: Backend, words: int, dim: int) -> Word2Vec:
    del ops  # the arithmetic is in the trainers
    return Word2Vec(words, dim)


def loss(scores: Tensor, targets: Tensor) -> Tensor:
    """(batch,): `targets` (batch, 1 + k) has the centre first; a negative equal to it does not count."""
    positive = nn.functional.softplus(-scores[:, 0])
    counts = targets[:, 1:] != targets[:, :1]
    return positive + torch.where(counts, nn.functional.softplus(scores[:, 1:]), 0).sum(1)
