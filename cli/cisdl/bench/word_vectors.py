"""Word vectors against the same training in torch's terms, on a made-up text whose words follow Zipf's law.

A row is one pass over the text. torch's side is given what it needs drawn beforehand (pairs, windows, a table
of negatives) and makes as many updates as ours, in batches of the size at which it is fastest, through sparse
gradients: SGD for word2vec, Adagrad for GloVe. Ours does everything in the pass. gensim, and a real text, are
in benchmarks/word_vectors.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cisdl.bench.ops import Settings
from cisdl.bench.results import Row
from cisdl.bench.timing import Timing, interleave
from cisdl.errors import KernelDisagreesError
from cisdl_ops import glove_reference, word2vec, word2vec_reference
from cisdl_ops.cases import Case
from cisdl_ops.glove import GloVe, Records
from cisdl_ops.word2vec import Word2Vec
from cisdl_ops.word_vectors import Vocabulary

WINDOW, NEGATIVE, LR, GLOVE_WINDOW = 5, 5, 0.025, 10
SENTENCE = 20
BATCHES = (1024, 8192, 65536)
VERIFIED_WORDS, VERIFIED_TOKENS = 50, 200
MODES: dict[str, dict[str, Any]] = {
    "pairs": {},
    "shared": {"shared_negatives": True},
    "cbow": {"cbow": True},
}

Step = Callable[[], int]  # does a batch and returns how many updates that was


@cache
def vocabulary(words: int) -> Vocabulary:
    """The count of word n is proportional to 1 / n."""
    counts = (100 * words / torch.arange(1, words + 1)).long().tolist()
    return Vocabulary([str(i) for i in range(words)], counts)


@cache
def text(words: int, tokens: int) -> Tensor:
    """Sentences of SENTENCE words."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.multinomial(
        vocabulary(words).counts.double(), tokens, replacement=True, generator=generator
    )
    lines = drawn.int().view(-1, SENTENCE)
    return torch.cat([lines, torch.full((len(lines), 1), -1, dtype=torch.int32)], 1).flatten()


# ------------------------------------------------------------------------------------------ torch's side


def contexts_of(tokens: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
    """Centres [n], and their contexts [n, 2 WINDOW], -1 beyond: subsampled, each window drawn as ours is."""
    random = np.random.default_rng(0)
    centres, windows = [], []
    for line in tokens.view(-1, SENTENCE + 1)[:, :SENTENCE].tolist():
        kept = [word for word in line if keep[word] >= random.random()]
        for i, centre in enumerate(kept):
            reach = int(random.integers(1, WINDOW + 1))
            contexts = kept[max(0, i - reach) : i] + kept[i + 1 : i + reach + 1]
            if contexts:
                centres.append(centre)
                windows.append(contexts + [-1] * (2 * WINDOW - len(contexts)))
    return torch.tensor(centres), torch.tensor(windows)


class SparseWord2Vec:
    """word2vec with torch's sparse embeddings and SGD."""

    def __init__(self, vocabulary: Vocabulary, tokens: Tensor, dim: int, mode: str) -> None:
        words = len(vocabulary)
        self.mode, self.words = mode, words
        self.inputs = nn.Embedding(words, dim, sparse=True)
        self.mean = nn.EmbeddingBag.from_pretrained(
            self.inputs.weight.detach(), freeze=False, mode="mean", sparse=True
        )
        self.outputs = nn.Embedding(words, dim, sparse=True)
        vectors = self.mean if mode == "cbow" else self.inputs
        self.sgd = torch.optim.SGD([*vectors.parameters(), *self.outputs.parameters()], lr=LR)
        share = vocabulary.counts.double() ** 0.75
        self.table = torch.repeat_interleave(torch.arange(words), (1e6 * share / share.sum()).ceil().long())
        self.centres, self.windows = contexts_of(tokens, word2vec.keep_probabilities(vocabulary.counts, 1e-3))
        if mode == "pairs":
            there = self.windows >= 0
            self.centres = self.centres.repeat_interleave(there.sum(1))
            self.windows = self.windows[there].unsqueeze(1)

    def step(self, batch: int) -> Step:
        place = 0

        def run() -> int:
            nonlocal place
            if place + batch > len(self.centres):
                place = 0
            part = slice(place, place + batch)
            place += batch
            return self.train(self.centres[part], self.windows[part])

        return run

    def train(self, centres: Tensor, windows: Tensor) -> int:
        """One step; the window's vectors against the centre and its negatives."""
        negatives = self.table[torch.randint(len(self.table), (len(centres), NEGATIVE))]
        targets = self.outputs(torch.cat([centres.unsqueeze(1), negatives], 1))
        there = windows >= 0
        if self.mode == "cbow":
            ends = there.sum(1).cumsum(0)
            h = self.mean(windows[there], ends - there.sum(1)).unsqueeze(1)
            there = there[:, :1]
        else:
            h = self.inputs(windows.clamp(min=0))
        scores = h @ targets.transpose(1, 2)  # [batch, contexts, 1 + NEGATIVE]
        labels = torch.zeros_like(scores)
        labels[..., 0] = 1
        weight = there.unsqueeze(2).to(scores.dtype)
        loss = nn.functional.binary_cross_entropy_with_logits(scores, labels, weight, reduction="sum")
        self.sgd.zero_grad()
        torch.autograd.backward(loss)
        self.sgd.step()
        return int(there.sum())


def sparse_adagrad(records: Records, dim: int, batch: int) -> Step:
    """GloVe with torch's sparse embeddings and Adagrad."""
    tables = [nn.Embedding(records.words, n, sparse=True) for n in (dim, dim, 1, 1)]
    parameters = [parameter for table in tables for parameter in table.parameters()]
    adagrad = torch.optim.Adagrad(parameters, lr=0.05)
    order = torch.randperm(len(records))
    batch = min(batch, len(records))
    place = 0

    def step() -> int:
        nonlocal place
        if place + batch > len(records):
            place = 0
        chosen = order[place : place + batch]
        place += batch
        i, j = records.pairs[chosen].long().unbind(1)
        log_x, weight = records.targets[chosen].unbind(1)
        w, c, b, d = (table(n) for table, n in zip(tables, (i, j, i, j), strict=True))
        loss = 0.5 * (weight * ((w * c).sum(1) + b[:, 0] + d[:, 0] - log_x) ** 2).sum()
        adagrad.zero_grad()
        torch.autograd.backward(loss)
        adagrad.step()
        return batch

    return step


def fastest(steps: dict[int, Step]) -> tuple[int, Step]:
    """The batch of the highest rate, from one step each after one that does not count."""
    rates = {}
    for batch, step in steps.items():
        step()
        begin = perf_counter()
        rates[batch] = step() / (perf_counter() - begin)
    best = max(rates, key=lambda batch: rates[batch])
    return best, steps[best]


# ---------------------------------------------------------------------------------------------- verified


def close(case: Case, found: Any, expected: Any) -> None:
    error = float(np.abs(np.asarray(found) - np.asarray(expected)).max())
    if not error <= 1e-4:
        raise KernelDisagreesError(
            f"{case.id} is wrong and was not timed: error {error:.3g}, allowed 0.0001; "
            "try `CISDL_ISA=baseline`"
        )


def require_right_word2vec(case: Case) -> None:
    """A short text by the kernel and by the plain version."""
    words, dim, options = VERIFIED_WORDS, case.shapes["input_vectors"][1], MODES[case.kwargs["mode"]]
    model = Word2Vec(vocabulary(words), dim, window=WINDOW, negative=NEGATIVE, workers=1, **options)
    settings = {
        "window": WINDOW,
        "negative": NEGATIVE,
        "lr_begin": 0.3,
        "lr_end": 0.3,
        **options,
    }
    given = (text(words, VERIFIED_TOKENS), model.keep, model.threshold, model.alias)
    ours: list[Any] = [matrix.contiguous() for matrix in (model.vectors, model.output_vectors)]
    plain: list[Any] = [matrix.double().numpy() for matrix in ours]
    plain += [tensor.tolist() for tensor in given if tensor is not None]
    plain_training: Any = word2vec_reference.train
    kernel: Any = word2vec.train
    plain_training(*plain, int(model.random_state[0]) % 2**64, **settings)
    kernel(*ours, *given, model.random_state, **settings)
    close(case, ours[0], plain[0])
    close(case, ours[1], plain[1])


def require_right_glove(case: Case) -> None:
    """One pass over few records by the kernel and by the plain version."""
    dim = case.shapes["word_vectors"][1]
    records = Records.count(text(VERIFIED_WORDS, VERIFIED_TOKENS), VERIFIED_WORDS, GLOVE_WINDOW, dim=dim)
    model = GloVe(vocabulary(VERIFIED_WORDS), dim)
    w, c = (
        torch.cat([vectors, biases.unsqueeze(1)], 1).double().numpy()
        for vectors, biases in (
            (model.vectors, model.biases),
            (model.context_vectors, model.context_biases),
        )
    )
    sums = np.ones_like(w), np.ones_like(c)
    for n in glove_reference.schedule(records.blocks, records.offsets.tolist(), 1):
        i, j = records.pairs[n].tolist()
        log_x, weight = records.targets[n].tolist()
        glove_reference.update(w[i], sums[0][i], c[j], sums[1][j], log_x, weight, 0.05)
    model.train(records, 1, 0.05)
    close(case, model.vectors, w[:, :-1])
    close(case, model.context_vectors, c[:, :-1])


# ------------------------------------------------------------------------------------------------- timed


def word2vec_sides(case: Case) -> tuple[Callable[[], object], int, dict[int, Step]]:
    """Our pass, the updates that it makes, and torch's step for each size of batch."""
    require_right_word2vec(case)
    (words, dim), mode = case.shapes["input_vectors"], case.kwargs["mode"]
    tokens = text(words, case.kwargs["tokens"])
    model = Word2Vec(vocabulary(words), dim, window=WINDOW, negative=NEGATIVE, **MODES[mode])
    updates: list[int] = []
    model.train(tokens, 1, LR, progress=lambda progress: updates.append(progress.updates))
    theirs = SparseWord2Vec(vocabulary(words), tokens, dim, mode)
    sizes = [batch for batch in BATCHES if batch <= len(theirs.centres)]
    return partial(model.train, tokens, 1, LR), sum(updates), {n: theirs.step(n) for n in sizes}


def glove_sides(case: Case) -> tuple[Callable[[], object], int, dict[int, Step]]:
    require_right_glove(case)
    words, dim = case.shapes["word_vectors"]
    records = Records.count(text(words, case.kwargs["tokens"]), words, GLOVE_WINDOW, dim=dim)
    model = GloVe(vocabulary(words), dim)
    steps = {batch: sparse_adagrad(records, dim, batch) for batch in BATCHES}
    return partial(model.train, records, 1), len(records), steps


def bench_word_vectors(case: Case, settings: Settings) -> Iterator[Row]:
    """One row, or none on a GPU, in another precision, without gradients or with cold caches alone.

    There is no such training: a pass finds in the caches what it left there.
    """
    trained = (settings.backward or settings.together) and settings.hot
    if settings.device.type != "cpu" or settings.dtype != torch.float32 or not trained:
        return
    # torch warns unless this is said.
    torch.sparse.check_sparse_tensor_invariants.disable()  # type: ignore[no-untyped-call]
    ours, updates, steps = (word2vec_sides if case.op == "word2vec" else glove_sides)(case)
    batch, step = fastest(steps)

    def theirs() -> None:
        done = 0
        while done < updates:
            done += step()

    samples = interleave([ours, theirs], settings.clock, settings.effort)
    timings = [
        Timing(name, "contiguous", seconds) for name, seconds in zip(("ours", "torch"), samples, strict=True)
    ]
    yield Row(case.id, "pass", "float32", timings, f"{updates} updates, torch's batch {batch}")
