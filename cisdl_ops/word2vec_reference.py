"""word2vec in plain numpy and float64, one line a formula: what the tests hold the kernel against.

The order of pairs and of random numbers is word2vec.c's, and so is the update, but for its table of
sigmoids: here they are exact. Slow; see `cisdl_ops.word2vec` for the fast one.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]
MAX_SENTENCE = 1000
GROUP = 6


class Random:
    """The generator of word2vec.c; only the high bits are used."""

    def __init__(self, state: int) -> None:
        self.state = state

    def next(self) -> int:
        self.state = (self.state * 25214903917 + 11) % 2**64
        return self.state

    def uniform(self) -> float:
        return (self.next() >> 40) / 2**24

    def below(self, n: int) -> tuple[int, float]:
        """An integer under n, and what is left of the draw as a number in [0, 1)."""
        product = self.next() * n
        return product >> 64, (product % 2**64 >> 40) / 2**24


def sigmoid(x: float | Matrix) -> Matrix:
    return np.asarray(1 / (1 + np.exp(-np.asarray(x))))


def train(
    input_vectors: Matrix,
    output_vectors: Matrix,
    tokens: list[int],
    keep: list[float] | None,
    threshold: list[float],
    alias: list[int],
    state: int,
    *,
    window: int,
    negative: int,
    lr_begin: float,
    lr_end: float,
    cbow: bool = False,
    shared_negatives: bool = False,
) -> int:
    """Changes the matrices in place; returns the generator's last state."""
    random = Random(state)

    def targets(centre: int) -> list[int]:
        """The centre and its negatives; one that is the centre itself is left out."""
        found = [centre]
        for _ in range(negative):
            column, rest = random.below(len(threshold))
            word = column if rest < threshold[column] else alias[column]
            if word != centre:
                found.append(word)
        return found

    def change(h: Matrix, words: list[int], lr: float) -> Matrix:
        """What to add to h; changes the output vectors of `words`, of which the first is the positive."""
        error = np.zeros_like(h)
        for i, word in enumerate(words):
            v = output_vectors[word]
            g = lr * ((1 if i == 0 else 0) - sigmoid(h @ v))
            error += g * v
            output_vectors[word] += g * h
        return error

    def window_at_once(contexts: list[int], words: list[int], lr: float) -> None:
        """All pairs of a centre from the scores before any of them, a group of targets after the other."""
        for first in range(0, len(words), GROUP):
            group = words[first : first + GROUP]
            labels = np.array([first == 0 and i == 0 for i in range(len(group))], float)
            scores = input_vectors[contexts] @ output_vectors[group].T
            g = lr * (labels - sigmoid(scores))
            rows, changes = output_vectors[group], np.zeros((len(group), output_vectors.shape[1]))
            for i, context in enumerate(contexts):
                changes += np.outer(g[i], input_vectors[context])
                input_vectors[context] += g[i] @ rows
            for word, row in zip(group, changes, strict=True):
                output_vectors[word] += row

    at = 0
    while at < len(tokens):
        lr = lr_begin + (lr_end - lr_begin) * at / len(tokens)
        at, sentence = subsample(tokens, at, keep, random.uniform)
        for i, centre in enumerate(sentence):
            reach = window - random.below(window)[0]
            contexts = sentence[max(0, i - reach) : i] + sentence[i + 1 : i + reach + 1]
            if not contexts:
                continue
            if cbow:
                words = targets(centre)
                error = change(input_vectors[contexts].mean(0), words, lr)
                for context in contexts:
                    input_vectors[context] += error
            elif shared_negatives:
                window_at_once(contexts, targets(centre), lr)
            else:
                for context in contexts:
                    input_vectors[context] += change(input_vectors[context], targets(centre), lr)
    return random.state


def subsample(
    tokens: list[int], at: int, keep: list[float] | None, uniform: Callable[[], float]
) -> tuple[int, list[int]]:
    """Where the next sentence begins, and the words kept of the one at `at`: at most MAX_SENTENCE."""
    sentence: list[int] = []
    while at < len(tokens) and len(sentence) < MAX_SENTENCE:
        word = tokens[at]
        at += 1
        if word < 0:
            break
        if keep is None or keep[word] >= uniform():
            sentence.append(word)
    return at, sentence
