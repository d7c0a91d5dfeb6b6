"""word2vec: skip-gram and CBOW with negative sampling, trained in place by one fused op.

    lines = cisdl_ops.word_vectors.read_lines("text.txt")
    vocabulary = Vocabulary.build(lines, min_count=5)
    model = Word2Vec(vocabulary, dim=100)
    model.train(vocabulary.encode(read_lines("text.txt")), epochs=5)
    model.word_vectors().analogy("man", "king", "woman")

Formulas, and what threads do to them: docs/word-vectors.md. `train` below is the op itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from cisdl_ops._load import _C as _C  # the op is registered when the module is loaded
from cisdl_ops.word_vectors import Vocabulary, WordVectors, cuts, padded

__all__ = ["Progress", "Word2Vec", "alias_table", "keep_probabilities", "random_states", "train"]

_MASK = (1 << 64) - 1


def keep_probabilities(counts: Tensor, sample: float) -> Tensor:
    """With which probability an occurrence of each word stays: sqrt(s / f) + s / f, f its share of the text.

    That is word2vec.c's formula; a value above 1 keeps all.
    """
    if not sample > 0:
        raise ValueError(f"sample: expected a number above 0, got {sample}")
    ratio = sample * counts.sum().double() / counts.double()
    return (ratio.sqrt() + ratio).float()


def alias_table(counts: Tensor, exponent: float = 0.75) -> tuple[Tensor, Tensor]:
    """Draws in constant time from counts ** exponent (Walker's alias method, Vose's construction).

    Returns:
        ``threshold`` (float32) and ``alias`` (int32), one entry a word: a column i, drawn evenly, stands for
        word i with probability ``threshold[i]``, otherwise for ``alias[i]``.
    """
    weights = counts.double().numpy() ** exponent
    share: list[float] = (weights * (len(weights) / weights.sum())).tolist()
    threshold, alias = np.ones(len(share), np.float32), np.arange(len(share), dtype=np.int32)
    small = [i for i, p in enumerate(share) if p < 1]
    large = [i for i, p in enumerate(share) if p >= 1]
    while small and large:
        low, high = small.pop(), large[-1]
        threshold[low], alias[low] = share[low], high
        share[high] -= 1 - share[low]
        if share[high] < 1:
            small.append(large.pop())
    return torch.from_numpy(threshold), torch.from_numpy(alias)


def random_states(seed: int, workers: int) -> Tensor:
    """A state of the generator for each worker, far apart (splitmix64 of seed and number)."""
    states = []
    for i in range(workers):
        z = (seed * 0x9E3779B97F4A7C15 + (i + 1) * 0xD1342543DE82EF95) & _MASK
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
        z ^= z >> 31
        states.append(z - (1 << 64) if z >> 63 else z)
    return torch.tensor(states, dtype=torch.int64)


def train(
    input_vectors: Tensor,
    output_vectors: Tensor,
    tokens: Tensor,
    keep: Tensor | None,
    threshold: Tensor,
    alias: Tensor,
    random_state: Tensor,
    *,
    window: int = 5,
    negative: int = 5,
    lr_begin: float = 0.025,
    lr_end: float = 0.025,
    cbow: bool = False,
    shared_negatives: bool = False,
) -> Tensor:
    """One pass over ``tokens``; changes both matrices and ``random_state`` in place.

    Args:
        input_vectors, output_vectors: float32 [words, dim], dense; the first are the word vectors.
        tokens: int32, word numbers, -1 at the end of a sentence.
        keep: float32 [words], probability to keep an occurrence (`keep_probabilities`); None keeps all.
        threshold, alias: the distribution of the negatives (`alias_table`).
        random_state: int64 [workers]; so many stretches of the tokens are trained at the same time. One is
            deterministic; with more, updates of a row may overwrite one another.
        lr_begin, lr_end: the learning rate goes from the one to the other over the tokens.
        shared_negatives: draw once for a centre and not for each of its pairs.

    Returns:
        float64 [4]: words left by subsampling, updates, a sum of losses, and over how many updates it is.
    """
    report: Tensor = torch.ops.cisdl.word2vec_train(
        input_vectors,
        output_vectors,
        tokens,
        keep,
        threshold,
        alias,
        random_state,
        window,
        negative,
        lr_begin,
        lr_end,
        cbow,
        shared_negatives,
    )
    return report


@dataclass(frozen=True)
class Progress:
    """After a stretch of text: words of the text so far (all epochs), of how many, and what they did."""

    words: int
    total: int
    lr: float
    loss: float  # mean over a sample of the last stretch's updates
    updates: int  # of the last stretch


class Word2Vec:
    """A vocabulary with two vectors a word, and the settings of the training.

    Args:
        vocabulary: words and counts; the counts give the negatives and the subsampling.
        dim: length of a vector.
        window: the largest distance of a context; each centre draws its own from 1 to this.
        negative: negatives for each positive.
        cbow: predict the centre from the mean of its window, instead of each pair on its own.
        shared_negatives: skip-gram only: one draw of negatives for all pairs of a centre; about three times
            faster.
        sample: threshold of the subsampling of frequent words; None keeps every word.
        exponent: negatives are drawn from counts ** exponent.
        seed: of the first vectors and the draws.
        workers: stretches trained at once; by default torch's number of threads, or 1 where
            ``torch.use_deterministic_algorithms(True)`` is set. Only 1 gives the same bits every time.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        dim: int = 100,
        *,
        window: int = 5,
        negative: int = 5,
        cbow: bool = False,
        shared_negatives: bool = False,
        sample: float | None = 1e-3,
        exponent: float = 0.75,
        seed: int = 0,
        workers: int | None = None,
    ) -> None:
        if dim < 1:
            raise ValueError(f"dim: expected at least 1, got {dim}")
        if workers is not None and workers < 1:
            raise ValueError(f"workers: expected at least 1, got {workers}")
        self.vocabulary = vocabulary
        self.dim, self.window, self.negative = dim, window, negative
        self.cbow, self.shared_negatives = cbow, shared_negatives
        self.keep = None if sample is None else keep_probabilities(vocabulary.counts, sample)
        self.threshold, self.alias = alias_table(vocabulary.counts, exponent)
        if workers is None:
            workers = 1 if torch.are_deterministic_algorithms_enabled() else torch.get_num_threads()
        self.random_state = random_states(seed, workers)
        self._input, self._output = padded(len(vocabulary), dim), padded(len(vocabulary), dim)
        generator = torch.Generator().manual_seed(seed)
        self.vectors.copy_((torch.rand(len(vocabulary), dim, generator=generator) - 0.5) / dim)

    @property
    def vectors(self) -> Tensor:
        """The word vectors [words, dim], a view: what is written here is trained on."""
        return self._input[:, : self.dim]

    @property
    def output_vectors(self) -> Tensor:
        """The vectors of words as what is predicted, a view."""
        return self._output[:, : self.dim]

    def word_vectors(self) -> WordVectors:
        return WordVectors(self.vocabulary.words, self.vectors)

    def train(
        self,
        tokens: Tensor,
        epochs: int = 5,
        lr: float = 0.025,
        stretch: int = 1_000_000,
        progress: Callable[[Progress], object] | None = None,
    ) -> None:
        """``epochs`` passes over ``tokens`` (`Vocabulary.encode`); the learning rate falls to lr / 10,000.

        Args:
            stretch: tokens to train between two calls of ``progress``, cut at the end of a sentence.
        """
        if epochs < 0:
            raise ValueError(f"epochs: expected at least 0, got {epochs}")
        numbers = tokens.numpy()
        places = list(pairwise(cuts(tokens, stretch)))
        sizes = [int((numbers[a:b] >= 0).sum()) for a, b in places]
        total, done = epochs * sum(sizes), 0

        def rate() -> float:
            return lr * max(1e-4, 1 - done / (total + 1))

        for _ in range(epochs):
            for (begin, end), size in zip(places, sizes, strict=True):
                lr_begin = rate()
                done += size
                report = train(
                    self._input,
                    self._output,
                    tokens[begin:end],
                    self.keep,
                    self.threshold,
                    self.alias,
                    self.random_state,
                    window=self.window,
                    negative=self.negative,
                    lr_begin=lr_begin,
                    lr_end=rate(),
                    cbow=self.cbow,
                    shared_negatives=self.shared_negatives,
                )
                if progress:
                    _, updates, loss, losses = report.tolist()
                    progress(Progress(done, total, rate(), loss / max(1, losses), int(updates)))
