"""The word2vec kernel against a plain version of word2vec.c, update by update."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import cisdl_ops
from cisdl_ops import word2vec, word2vec_reference
from cisdl_ops.word2vec import Word2Vec
from cisdl_ops.word_vectors import Vocabulary

WORDS = 23
COUNTS = torch.tensor([400 // (i + 1) for i in range(WORDS)])


def text(length: int = 90, sentences: int = 5) -> Tensor:
    """Sentences of frequent and rare words, one empty, one of a single word, the last without an end."""
    generator = torch.Generator().manual_seed(3)
    words = torch.multinomial(COUNTS.double(), length, replacement=True, generator=generator).int().tolist()
    cut = length // sentences
    lines = [words[i : i + cut] for i in range(0, length, cut)] + [[], [4], [5, 5, 5], [1, 2]]
    return torch.tensor([token for line in lines for token in [*line, -1]][:-1], dtype=torch.int32)


def arguments(dim: int, workers: int = 1, sample: float | None = 0.05) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(dim)
    threshold, alias = word2vec.alias_table(COUNTS)
    return {
        "input_vectors": torch.randn(WORDS, dim, generator=generator) / math.sqrt(dim),
        "output_vectors": torch.randn(WORDS, dim, generator=generator) / math.sqrt(dim),
        "tokens": text(),
        "keep": None if sample is None else word2vec.keep_probabilities(COUNTS, sample),
        "threshold": threshold,
        "alias": alias,
        "random_state": word2vec.random_states(7, workers),
    }


MODES: dict[str, dict[str, Any]] = {
    "pairs": {},
    "shared": {"shared_negatives": True},
    "cbow": {"cbow": True},
}


def by_reference(given: dict[str, Any], **options: Any) -> tuple[Tensor, Tensor, int]:
    matrices = [given[name].double().numpy().copy() for name in ("input_vectors", "output_vectors")]
    state = word2vec_reference.train(
        *matrices,
        given["tokens"].tolist(),
        None if given["keep"] is None else given["keep"].tolist(),
        given["threshold"].tolist(),
        given["alias"].tolist(),
        int(given["random_state"][0]) % 2**64,
        **options,
    )
    return torch.from_numpy(matrices[0]), torch.from_numpy(matrices[1]), state


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("dim", "options"),
    [
        (16, {"window": 5, "negative": 5}),
        (1, {"window": 1, "negative": 1}),
        (50, {"window": 3, "negative": 2}),
        (113, {"window": 2, "negative": 12}),
        (64, {"window": 40, "negative": 4}),
        (33, {"window": 2, "negative": 6}),
    ],
)
def test_is_word2vec(dim: int, options: dict[str, int], mode: str) -> None:
    """Both matrices and the generator, after every kind of sentence, with a learning rate that shows."""
    given = arguments(dim)
    lr = 0.3 if options["window"] < 10 else 0.03
    settings = {**options, **MODES[mode], "lr_begin": lr, "lr_end": lr / 6}
    *expected, state = by_reference(given, **settings)
    before = given["input_vectors"].clone()
    report = word2vec.train(**given, **settings)
    torch.testing.assert_close(given["input_vectors"].double(), expected[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(given["output_vectors"].double(), expected[1], rtol=1e-4, atol=1e-5)
    assert int(given["random_state"][0]) % 2**64 == state
    assert (given["input_vectors"] - before).abs().max() > 0.05
    words, updates, loss, losses = report.tolist()
    assert 0 < words < (given["tokens"] >= 0).sum()
    assert 0 < losses <= updates
    assert 0 < loss / losses < 10


def test_without_subsampling_every_word_is_kept() -> None:
    given = arguments(8, sample=None)
    settings = {"window": 2, "negative": 3, "lr_begin": 0.1, "lr_end": 0.1}
    *expected, _ = by_reference(given, **settings)
    report = word2vec.train(**given, **settings)
    torch.testing.assert_close(given["input_vectors"].double(), expected[0], rtol=1e-4, atol=1e-5)
    assert report[0] == (given["tokens"] >= 0).sum()


def test_long_sentences_are_cut() -> None:
    given = arguments(4, sample=None) | {"tokens": torch.arange(2500, dtype=torch.int32) % WORDS}
    settings = {"window": 1, "negative": 1, "lr_begin": 0.01, "lr_end": 0.01}
    *expected, _ = by_reference(given, **settings)
    report = word2vec.train(**given, **settings)
    torch.testing.assert_close(given["output_vectors"].double(), expected[1], rtol=1e-4, atol=1e-5)
    assert report[1] == 2 * (999 + 999 + 499)


def test_negatives_follow_the_counts_to_the_power_of_three_quarters() -> None:
    """Chi-square of what the table yields; the plain unigram distribution fails it."""
    threshold, alias = word2vec.alias_table(COUNTS)
    random = word2vec_reference.Random(1)
    found, draws = np.zeros(WORDS), 100_000
    for _ in range(draws):
        column, rest = random.below(WORDS)
        found[column if rest < threshold[column] else alias[column]] += 1

    def chi_square(exponent: float) -> float:
        share = COUNTS.double().numpy() ** exponent
        expected = draws * share / share.sum()
        return float(((found - expected) ** 2 / expected).sum())

    assert chi_square(0.75) < 50  # 22 degrees of freedom: 48 in one of a thousand
    assert chi_square(1) > 1000
    assert chi_square(0.7) > 100


def test_keep_probabilities_are_word2vecs() -> None:
    counts = torch.tensor([900_000, 90_000, 10_000])
    f = counts.double() / 1_000_000
    torch.testing.assert_close(
        word2vec.keep_probabilities(counts, 1e-3).double(), (f / 1e-3).sqrt().add(1) * 1e-3 / f
    )


@pytest.mark.parametrize("mode", MODES)
def test_one_worker_gives_the_same_bits_on_any_number_of_threads(mode: str) -> None:
    results = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        given = arguments(20)
        word2vec.train(**given, **MODES[mode])
        results.append(given["input_vectors"])
    assert torch.equal(*results)


@pytest.mark.parametrize("mode", MODES)
def test_workers_share_out_the_text(mode: str) -> None:
    """Each word is trained once: no stretch is left out or read twice."""
    torch.set_num_threads(2)
    given = arguments(20, workers=3, sample=None)
    report = word2vec.train(**given, **MODES[mode], window=2)
    assert report[0] == (given["tokens"] >= 0).sum()
    assert given["random_state"].unique().numel() == 3
    assert given["input_vectors"].isfinite().all()


def corpus() -> tuple[Vocabulary, Tensor]:
    """Two topics that never meet in a sentence, and words that appear in both."""
    generator = torch.Generator().manual_seed(0)
    lines = []
    for i in range(400):
        topic = [f"{'ab'[i % 2]}{j}" for j in range(8)] + ["the", "of"]
        lines.append([topic[j] for j in torch.randint(0, 10, (12,), generator=generator).tolist()])
    vocabulary = Vocabulary.build(lines, min_count=1)
    return vocabulary, vocabulary.encode(lines)


@pytest.mark.parametrize("mode", MODES)
def test_words_of_a_topic_end_up_together(mode: str) -> None:
    vocabulary, tokens = corpus()
    model = Word2Vec(vocabulary, 10, window=4, sample=None, workers=1, **MODES[mode])
    losses: list[float] = []
    model.train(tokens, epochs=20, lr=0.1, stretch=2000, progress=lambda p: losses.append(p.loss))
    assert losses[-1] < losses[0]
    near = [word for word, _ in model.word_vectors().most_similar("a3", count=7)]
    assert sum(word.startswith("a") for word in near) >= 6
    assert not model._input[:, 10:].any()  # the padding stays zero
    again = Word2Vec(vocabulary, 10, window=4, sample=None, workers=1, **MODES[mode])
    again.train(tokens, epochs=20, lr=0.1, stretch=2000)
    assert torch.equal(again.vectors, model.vectors)
    embedding = torch.nn.Embedding.from_pretrained(model.vectors)
    assert torch.equal(embedding(torch.tensor([3]))[0], model.word_vectors()[vocabulary.words[3]])


def test_deterministic_mode_takes_one_worker() -> None:
    vocabulary, _ = corpus()
    torch.set_num_threads(2)
    assert len(Word2Vec(vocabulary, 4).random_state) == 2
    torch.use_deterministic_algorithms(True)
    try:
        assert len(Word2Vec(vocabulary, 4).random_state) == 1
    finally:
        torch.use_deterministic_algorithms(False)


def test_the_learning_rate_falls_over_all_epochs() -> None:
    vocabulary, tokens = corpus()
    seen: list[word2vec.Progress] = []
    Word2Vec(vocabulary, 4, workers=1).train(tokens, epochs=2, lr=0.5, stretch=3000, progress=seen.append)
    words = int((tokens >= 0).sum())
    assert [p.total for p in seen] == [2 * words] * 4
    assert seen[-1].words == 2 * words
    for p in seen:
        assert p.lr == pytest.approx(max(0.5 * (1 - p.words / (2 * words + 1)), 0.5e-4))


BAD: list[tuple[dict[str, Any], str]] = [
    (
        {"tokens": torch.tensor([0, WORDS], dtype=torch.int32)},
        "tokens: expected numbers from -1 to 22, got 23",
    ),
    ({"tokens": torch.tensor([0, -2], dtype=torch.int32)}, "tokens: expected numbers from -1 to 22, got -2"),
    ({"tokens": torch.tensor([0, 1])}, "tokens: expected dtype int32, got int64"),
    ({"tokens": torch.zeros(2, 2, dtype=torch.int32)}, "tokens: expected one dimension, got 2"),
    ({"input_vectors": torch.zeros(WORDS, 8).double()}, "input_vectors: expected dtype float32, got float64"),
    ({"input_vectors": torch.zeros(8, WORDS).t()}, "input_vectors: expected a contiguous tensor"),
    ({"output_vectors": torch.zeros(WORDS, 9)}, r"output_vectors: expected shape \[23, 8\], got \[23, 9\]"),
    ({"keep": torch.ones(3)}, r"keep: expected shape \[23\], got \[3\]"),
    (
        {"alias": torch.full((WORDS,), WORDS, dtype=torch.int32)},
        "alias: expected numbers from 0 to 22, got 23",
    ),
    ({"random_state": torch.empty(0, dtype=torch.int64)}, "random_state: expected a number for each worker"),
    ({"window": 0}, "window: expected an integer from 1 to 1024, got 0"),
    ({"negative": 0}, "negative: expected an integer from 1 to 1024, got 0"),
    ({"lr_begin": -1.0}, "learning rate: expected a finite number that is not negative, got -1"),
    ({"lr_end": math.nan}, "learning rate: expected a finite number"),
    ({"cbow": True, "shared_negatives": True}, "shared_negatives: expected False with cbow"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_bad_arguments_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        word2vec.train(**(arguments(8) | change))


def test_leaves_of_autograd_are_refused() -> None:
    given = arguments(8)
    given["input_vectors"].requires_grad_()
    with pytest.raises(RuntimeError, match="in-place"):
        word2vec.train(**given)
    with torch.no_grad():
        word2vec.train(**given)


def test_a_training_is_noticed_by_autograd() -> None:
    given = arguments(8)
    w = torch.ones(WORDS, 8, requires_grad=True)
    loss = (w * given["input_vectors"]).sum()
    word2vec.train(**given)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("tokens", [[], [-1], [-1, -1, 3]])
def test_little_text(tokens: list[int]) -> None:
    given = arguments(8, workers=4) | {"tokens": torch.tensor(tokens, dtype=torch.int32)}
    before = given["input_vectors"].clone()
    assert word2vec.train(**given)[1] == 0
    assert torch.equal(before, given["input_vectors"])


def test_is_named_where_ops_are() -> None:
    assert cisdl_ops.word2vec is word2vec
