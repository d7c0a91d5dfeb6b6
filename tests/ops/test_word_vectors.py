"""Vocabulary, files, neighbours, analogies and scores of word vectors."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
import torch

from cisdl_ops.word_vectors import Score, Vocabulary, WordVectors, padded, read_lines, spearman

LINES = ["the cat sat on the mat", "the dog", "", "a cat and a dog"]


def test_vocabulary_counts_orders_and_cuts() -> None:
    vocabulary = Vocabulary.build(LINES, min_count=1)
    assert vocabulary.words == ["the", "a", "cat", "dog", "and", "mat", "on", "sat"]
    assert vocabulary.counts.tolist() == [3, 2, 2, 2, 1, 1, 1, 1]
    assert Vocabulary.build(LINES, min_count=2).words == ["the", "a", "cat", "dog"]
    assert Vocabulary.build([line.split() for line in LINES], 1, max_size=2).words == ["the", "a"]
    with pytest.raises(ValueError, match="expected at least one word"):
        Vocabulary.build(LINES, min_count=9)


def test_counting_in_bounded_memory_keeps_the_frequent() -> None:
    rare = [f"r{i}" for i in range(1000)]
    lines = [f"often {word} often" for word in rare]
    assert Vocabulary.build(lines, min_count=5, max_counted=50).words == ["often"]


def test_encoding(tmp_path: Path) -> None:
    vocabulary = Vocabulary.build(LINES, min_count=2)
    expected = [0, 2, 0, -1, 0, 3, -1, -1, 1, 2, 1, 3, -1]
    assert vocabulary.encode(LINES).tolist() == expected
    streamed = vocabulary.encode(LINES, tmp_path / "tokens")
    assert streamed.tolist() == expected
    assert streamed.dtype == torch.int32
    assert vocabulary.encode([]).tolist() == []


def test_lines_of_packed_files_and_of_one_endless_line(tmp_path: Path) -> None:
    words = " ".join(f"w{i}" for i in range(300_000))
    with gzip.open(tmp_path / "one.gz", "wt") as file:
        file.write("a b\nc\n" + words)
    lines = list(read_lines(tmp_path / "one.gz"))
    assert len(lines) > 3
    assert max(map(len, lines)) <= 1 << 20
    assert " ".join(lines).split() == ["a", "b", "c", *words.split()]


def test_padded_rows_lie_on_cache_lines() -> None:
    rows = padded(7, 100)
    assert rows.shape == (7, 112)
    assert rows.data_ptr() % 64 == 0
    assert not rows.any()


VECTORS = WordVectors(
    ["man", "woman", "king", "queen", "apple"],
    torch.tensor([[1.0, 0, 0], [1, 1, 0], [1, 0, 3], [1, 1, 3], [-1, 0, 0.1]]),
)


def test_neighbours_and_analogies() -> None:
    best, cosine = VECTORS.most_similar("king", count=1)[0]
    assert best == "queen"
    assert cosine == pytest.approx(10 / (10 * 11) ** 0.5, rel=1e-5)
    assert VECTORS.analogy("man", "king", "woman")[0][0] == "queen"
    assert len(VECTORS.most_similar("king", count=99)) == 4
    with pytest.raises(KeyError, match="'nobody' is not among the 5 words"):
        VECTORS.most_similar("nobody")


@pytest.mark.parametrize("binary", [False, True])
def test_files_come_back_bit_by_bit(binary: bool, tmp_path: Path) -> None:
    path = tmp_path / "vectors"
    odd = WordVectors(["naïve", "b"], torch.tensor([[0.1, -1e-30, 3e20], [1 / 3, 0, -0.0]]))
    odd.save(path, binary)
    back = WordVectors.load(path, binary)
    assert back.words == odd.words
    assert torch.equal(back.vectors, odd.vectors)
    assert WordVectors.load(path, binary, max_words=1).words == ["naïve"]
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match="expected"):
        WordVectors.load(path, binary)


def test_text_of_other_programs(tmp_path: Path) -> None:
    path = tmp_path / "glove.txt"
    path.write_text("the 1 2 3\nof -1.5 2e-1 .5\n")
    assert WordVectors.load(path).vectors.tolist()[1] == pytest.approx([-1.5, 0.2, 0.5])
    path.write_text("2 3\nthe 1 2 3 \nof 1 x 3\n")
    with pytest.raises(ValueError, match="line 3: expected a word and 3 numbers"):
        WordVectors.load(path)


def test_scores_say_what_they_cover(tmp_path: Path) -> None:
    pairs = tmp_path / "pairs"
    pairs.write_text("# a remark\nKing\tQueen\t9\nking\tapple\t1\nman\twoman\t8\nman\tnobody\t3\n")
    score = VECTORS.similarity_score(pairs)
    assert (score.used, score.total) == (3, 4)
    assert score.value == pytest.approx(1)
    questions = tmp_path / "questions"
    questions.write_text(": royals\nman king woman queen\nman nobody a b\n: wrong\nman king woman apple\n")
    scores = VECTORS.analogy_score(questions)
    assert scores["royals"] == Score("royals", 1.0, 1, 2)
    assert scores["all"] == Score("analogies", 0.5, 2, 3)
    assert str(scores["all"]) == "analogies 0.5000 on 2 of 3 (67%)"


def test_rank_correlation_with_ties() -> None:
    """The value that scipy.stats.spearmanr gives."""
    a, b = torch.tensor([1.0, 2, 2, 4, 5]), torch.tensor([5.0, 6, 7, 8, 7])
    assert spearman(a, b) == pytest.approx(0.763157894)
