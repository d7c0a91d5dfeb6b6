"""GloVe: word vectors from counts of neighbours, by AdaGrad in one fused op.

    vocabulary = Vocabulary.build(read_lines("text.txt"))
    records = Records.count(vocabulary.encode(read_lines("text.txt")), len(vocabulary), window=10)
    model = GloVe(vocabulary, dim=100)
    model.train(records, epochs=15)
    model.word_vectors().most_similar("king")

Formulas, order and threads: docs/word-vectors.md. The result does not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cisdl_ops._load import _C
from cisdl_ops.word_vectors import Vocabulary, WordVectors, cuts

__all__ = ["GloVe", "Records", "cooccurrence", "train"]

Counts = tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]

# An accumulator so large that a step divided by its root is lost in rounding: what is 1 stays 1.
FROZEN = 1e30
# Blocks go to threads in so many groups, if their number is a multiple of this.
TEAMS = 31
_CACHE = 1 << 20  # bytes of rows that one block may touch: half of a core's cache


def cooccurrence(tokens: Tensor, words: int, window: int = 10) -> tuple[Tensor, Tensor]:
    """How often words are neighbours in ``tokens`` (int32, -1 at the end of a sentence).

    Returns:
        ``keys`` (int64, ascending), i * words + j for i <= j, and ``values`` (float64): the sum of
        1 / distance over all places where i and j are at most ``window`` apart; twice that for i = j, which
        is its own neighbour on both sides.
    """
    return _C.cooccurrence(tokens, words, window)


def train(
    word_rows: Tensor,
    context_rows: Tensor,
    offsets: Tensor,
    pairs: Tensor,
    targets: Tensor,
    blocks: int,
    lr: float = 0.05,
    seed: int = 0,
) -> Tensor:
    """One pass over all records; changes both matrices in place.

    Args:
        word_rows, context_rows: float32 [words, 2, width]: vectors, and AdaGrad's accumulators.
        offsets: int64 [blocks * blocks + 1], where the records of each block begin.
        pairs: int32 [records, 2], word and context; word n is in block n % blocks.
        targets: float32 [records, 2], log x and its weight f(x).
        seed: of the order of the records.

    Returns:
        The loss before each update, summed: a float64 scalar.
    """
    loss: Tensor = torch.ops.cisdl.glove_train(
        word_rows, context_rows, offsets, pairs, targets, blocks, lr, seed
    )
    return loss


def _runs(tokens: Tensor, words: int, window: int, memory: int, folder: Path | None) -> list[Counts]:
    """Sorted counts of stretches of the text that fit in memory, counted by torch's number of threads."""
    threads = torch.get_num_threads()
    stretch = max(1, memory // (32 * window * threads))
    places = list(pairwise(cuts(tokens, stretch)))

    def count(number: int) -> Counts:
        begin, end = places[number]
        keys, values = (t.numpy() for t in cooccurrence(tokens[begin:end], words, window))
        return _kept(folder, f"run-{number}", keys, values)

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(count, range(len(places))))


def _kept(
    folder: Path | None, name: str, keys: npt.NDArray[np.int64], values: npt.NDArray[np.float64]
) -> Counts:
    """The same arrays, in files if there is a folder."""
    if folder is None or len(keys) == 0:
        return keys, values
    keys.tofile(folder / f"{name}.keys")
    values.tofile(folder / f"{name}.values")
    return (
        np.memmap(folder / f"{name}.keys", np.int64, "r"),
        np.memmap(folder / f"{name}.values", np.float64, "r"),
    )


def _merged(runs: list[Counts], memory: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The sums of all runs, sorted, a slice of the keys at a time."""
    total = sum(len(keys) for keys, _ in runs)
    if total == 0:
        return
    slices = max(1, -(-total * 64 // memory))
    sample = np.sort(np.concatenate([keys[:: max(1, total // (100 * slices))] for keys, _ in runs]))
    borders = np.unique(sample[np.arange(1, slices) * len(sample) // slices])
    ends = [np.array([0, *np.searchsorted(keys, borders), len(keys)]) for keys, _ in runs]
    for i in range(len(borders) + 1):
        keys = np.concatenate([keys[e[i] : e[i + 1]] for (keys, _), e in zip(runs, ends, strict=True)])
        values = np.concatenate([values[e[i] : e[i + 1]] for (_, values), e in zip(runs, ends, strict=True)])
        if len(keys) == 0:
            continue
        if len(runs) > 1:
            order = np.argsort(keys, kind="stable")  # of sorted runs: a merge
            keys, values = keys[order], values[order]
            first = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
            keys, values = keys[first], np.add.reduceat(values, first)
        yield torch.from_numpy(keys), torch.from_numpy(values)


@dataclass(frozen=True)
class Records:
    """All entries of the matrix of counts, in the order of training (`train` says what the tensors are)."""

    words: int
    blocks: int
    offsets: Tensor
    pairs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.pairs)

    @classmethod
    def count(
        cls,
        tokens: Tensor,
        words: int,
        window: int = 10,
        *,
        x_max: float = 100.0,
        alpha: float = 0.75,
        dim: int = 100,
        memory: int = 1 << 30,
        folder: str | Path | None = None,
    ) -> Records:
        """Counts neighbours in ``tokens`` (`Vocabulary.encode`), symmetrically, weighted by 1 / distance.

        Args:
            x_max, alpha: of the weight f(x) = min(1, (x / x_max) ** alpha).
            dim: of the vectors that will be trained: the blocks are cut so that their rows fit in cache.
            memory: bytes to count and to merge in; the text is taken in stretches.
            folder: counts and records are kept in files there, and read as they are needed: with ``tokens``
                in a file, too, memory stays bounded whatever the text.
        """
        where = None if folder is None else Path(folder)
        if where is not None:
            where.mkdir(parents=True, exist_ok=True)
        if not x_max > 0:
            raise ValueError(f"x_max: expected a number above 0, got {x_max}")
        runs = _runs(tokens, words, window, memory, where)
        slices = None if where else list(_merged(runs, memory))
        blocks = cls.blocks_for(words, dim)
        sizes = torch.zeros(blocks * blocks, dtype=torch.int64)
        for keys, _ in slices or _merged(runs, memory):
            sizes += _C.glove_blocks(keys, words, blocks)
        offsets = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
        size = int(offsets[-1])
        if where is None or size == 0:
            pairs, targets = torch.empty(size, 2, dtype=torch.int32), torch.empty(size, 2)
        else:
            pairs, targets = (
                torch.from_file(str(where / name), shared=True, size=2 * size, dtype=dtype).view(size, 2)
                for name, dtype in (("pairs", torch.int32), ("targets", torch.float32))
            )
        next_place = offsets[:-1].clone()
        for keys, values in slices or _merged(runs, memory):
            _C.glove_records(keys, values, words, blocks, x_max, alpha, next_place, pairs, targets)
        return cls(words, blocks, offsets, pairs, targets)

    @staticmethod
    def blocks_for(words: int, dim: int) -> int:
        """Blocks a side: the rows of one fit in cache; an odd multiple of TEAMS, for rows that are a power of
        two apart would fall on the same places of the cache."""
        row_bytes = 2 * 4 * _width(dim)
        fitting = -(-2 * words * row_bytes // _CACHE)
        blocks = TEAMS * min((fitting + TEAMS - 1) // TEAMS | 1, 1023)
        return min(blocks, words) if words < TEAMS else blocks


def _width(dim: int) -> int:
    """Two columns more for the biases, up to whole cache lines."""
    return (dim + 2 + 15) // 16 * 16


class GloVe:
    """A vocabulary with two vectors and two biases a word, and AdaGrad's accumulators.

    Args:
        vocabulary: the words; their counts are not used.
        dim: length of a vector.
        seed: of the first vectors and of the order of training.
    """

    def __init__(self, vocabulary: Vocabulary, dim: int = 100, *, seed: int = 0) -> None:
        if dim < 1:
            raise ValueError(f"dim: expected at least 1, got {dim}")
        self.vocabulary, self.dim, self.seed, self.epochs = vocabulary, dim, seed, 0
        generator = torch.Generator().manual_seed(seed)
        words, width = len(vocabulary), _width(dim)
        self._word, self._context = (_C.zero_rows(words, 2 * width).view(words, 2, width) for _ in range(2))
        for rows, bias in ((self._word, dim), (self._context, dim + 1)):
            rows[:, 1] = 1
            rows[:, 0, : dim + 2] = (torch.rand(words, dim + 2, generator=generator) - 0.5) / dim
            one = 2 * dim + 1 - bias
            rows[:, 0, one], rows[:, 1, one] = 1, FROZEN

    @property
    def vectors(self) -> Tensor:
        """The vectors of words [words, dim], a view."""
        return self._word[:, 0, : self.dim]

    @property
    def context_vectors(self) -> Tensor:
        return self._context[:, 0, : self.dim]

    @property
    def biases(self) -> Tensor:
        return self._word[:, 0, self.dim]

    @property
    def context_biases(self) -> Tensor:
        return self._context[:, 0, self.dim + 1]

    def word_vectors(self) -> WordVectors:
        """The sum of a word's two vectors, as the paper evaluates."""
        return WordVectors(self.vocabulary.words, self.vectors + self.context_vectors)

    def train(
        self,
        records: Records,
        epochs: int = 15,
        lr: float = 0.05,
        progress: Callable[[int, float], object] | None = None,
    ) -> None:
        """``epochs`` passes; ``progress(epoch, mean loss)`` is called after each."""
        if epochs < 0:
            raise ValueError(f"epochs: expected at least 0, got {epochs}")
        if records.words != len(self.vocabulary):
            raise ValueError(f"records: expected {len(self.vocabulary)} words, got {records.words}")
        for _ in range(epochs):
            self.epochs += 1
            loss = train(
                self._word,
                self._context,
                records.offsets,
                records.pairs,
                records.targets,
                records.blocks,
                lr,
                1000003 * self.seed + self.epochs,
            )
            if progress:
                progress(self.epochs, loss.item() / max(1, len(records)))
