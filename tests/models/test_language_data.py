"""Vocabularies, words, batches of sequences, and the readers of sentences, tags and pairs."""

from __future__ import annotations

import gzip
import lzma
from pathlib import Path

import pytest
from cisdl.data import opinions, registry, sentences
from cisdl.data.padding import bucketed, padded, sorted_batches
from cisdl.data.tokens import words
from cisdl.data.vocabulary import PAD, PADDING, SPECIAL, UNKNOWN, Vocabulary
from cisdl.errors import DataError


def test_a_vocabulary_numbers_words_by_how_often_they_occur() -> None:
    known = Vocabulary.of([["b", "a", "c"], ["b", "a", "b"]])
    assert known.words == (PADDING, UNKNOWN, "b", "a", "c")
    assert known.encode(["c", "new", "b"]) == [4, 1, 2]
    assert known.decode([4, 2]) == ["c", "b"]
    assert known.words[PAD] == PADDING
    assert Vocabulary(known.words) == known


def test_a_vocabulary_can_be_cut() -> None:
    texts = [["a"] * 3 + ["b"] * 2 + ["c"] * 2 + ["d"]]
    assert Vocabulary.of(texts, min_count=2).words == (*SPECIAL, "a", "b", "c")
    assert Vocabulary.of(texts, max_size=2).words == (*SPECIAL, "a", "b")


def test_special_words_in_a_text() -> None:
    """Some corpora have unknown words marked; padding is never part of a text."""
    known = Vocabulary.of([[PADDING, "a", UNKNOWN, "b"]])
    assert known.words == (*SPECIAL, "a", "b")
    assert known.encode([UNKNOWN, PADDING, "a"]) == [1, 1, 2]


def test_without_unknown_a_new_word_is_refused() -> None:
    known = Vocabulary.of(["ab"], special=())
    assert known.words == ("a", "b")
    with pytest.raises(DataError, match="expected what the training data have, got 'x'"):
        known.encode("ax")


@pytest.mark.parametrize(
    ("texts", "settings", "message"),
    [
        ([], {}, "expected at least two different words, got none"),
        ([["a", "a"]], {}, "expected at least two different words, got only 'a'"),
        (
            ["ab"],
            {"min_count": 2},
            "expected at least two different words that occur 2 times or more, got none",
        ),
        (["aa"], {"what": "characters"}, "expected at least two different characters, got only 'a'"),
    ],
)
def test_too_small_a_vocabulary_is_refused(
    texts: list[str], settings: dict[str, object], message: str
) -> None:
    with pytest.raises(DataError) as refused:
        Vocabulary.of(texts, **settings)
    assert str(refused.value) == message


def test_raw_and_tokenised_text_have_the_same_words() -> None:
    assert words("I don't think it's GREAT,<br /><br />it won’t do.") == words(
        "i do n't think it 's great , it wo n't do ."
    )
    assert words("Deep  Learning\tis great") == ["deep", "learning", "is", "great"]
    assert words(" <br/> ") == []


def test_batches_have_every_sequence_once_and_about_equal_lengths() -> None:
    lengths = [(7 * i) % 100 + 1 for i in range(1003)]
    batches = bucketed(lengths, 10, seed=1, epoch=2)
    assert len(batches) == 101
    assert sorted(i for batch in batches for i in batch) == list(range(1003))
    full = [[lengths[i] for i in batch] for batch in batches if len(batch) == 10]
    assert max(max(found) - min(found) for found in full) < 10
    assert batches == bucketed(lengths, 10, seed=1, epoch=2)
    assert batches != bucketed(lengths, 10, seed=1, epoch=3)
    assert batches != bucketed(lengths, 10, seed=2, epoch=2)
    firsts = [lengths[batch[0]] for batch in batches[:50]]
    assert firsts != sorted(firsts), "the batches come in order of length"


def test_batches_to_be_judged() -> None:
    assert sorted_batches([3, 1, 2], 2) == [[1, 2], [0]]


def test_padding_is_to_the_right() -> None:
    rows, lengths = padded([[5, 6, 7], [8]])
    assert rows.tolist() == [[5, 6, 7], [8, PAD, PAD]]
    assert lengths.tolist() == [3, 1]


def tsv(path: Path, count: int, start: int = 0) -> Path:
    lines = [f"sentence number {i}\t{'good' if i % 2 else 'bad'}\n" for i in range(start, start + count)]
    path.write_bytes("".join(lines).encode())
    return path


def test_one_file_of_sentences(tmp_path: Path) -> None:
    data = sentences.load(tsv(tmp_path / "mine.tsv", 50), seed=0)
    assert data.counts == {"train": 40, "validation": 5, "test": 5}
    texts = [sentence.text for part in data.parts().values() for sentence in part]
    assert len(set(texts)) == 50
    assert data == sentences.load(tmp_path / "mine.tsv", seed=0)
    assert data.test != sentences.load(tmp_path / "mine.tsv", seed=1).test
    assert sentences.load(tmp_path / "mine.tsv", 0, whole=True).counts == {"test": 50}


def test_the_same_sentence_is_never_in_two_parts(tmp_path: Path) -> None:
    tsv(tmp_path / "mine.tsv", 30)
    twice = (tmp_path / "mine.tsv").read_text() * 2
    (tmp_path / "mine.tsv").write_text(twice)
    data = sentences.load(tmp_path / "mine.tsv", seed=0)
    parts = [{sentence.text for sentence in part} for part in data.parts().values()]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 30
    assert sum(data.counts.values()) == 60


def test_a_folder_with_files_of_its_own(tmp_path: Path) -> None:
    """A lone dev file is the test part; with a test file it validates."""
    tsv(tmp_path / "train.tsv", 50)
    content = tsv(tmp_path / "dev.tsv", 7, start=50).read_bytes()
    (tmp_path / "dev.tsv").unlink()
    (tmp_path / "dev.tsv.gz").write_bytes(gzip.compress(content))
    data = sentences.load(tmp_path, seed=0)
    assert data.counts == {"train": 45, "validation": 5, "test": 7}
    assert data.test is not None
    assert data.test[0].text == "sentence number 50"
    assert sentences.load(tmp_path, 0, whole=True).counts == {"test": 7}
    (tmp_path / "test.tsv.xz").write_bytes(lzma.compress(b"a\tgood\n"))
    assert sentences.load(tmp_path, seed=0).counts == {"train": 50, "validation": 7, "test": 1}


def test_labels_are_after_the_last_tab_and_known_sets_have_names(tmp_path: Path) -> None:
    folder = tmp_path / "sst2"
    folder.mkdir()
    (folder / "train.tsv").write_text("a\tb\t1\nc\t0\nd\t1\n")
    every = [s for part in sentences.load(folder, 0).parts().values() for s in part]
    assert sorted(every) == [("a\tb", "positive"), ("c", "negative"), ("d", "positive")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected text, got an empty file"),
        (b"\n\n", "expected text, got white space only"),
        (b"fine\t1\nno label here\n", "line 2: expected text<TAB>label, got no tab"),
        (b"fine\t1\nempty\t\n", "line 2: expected text<TAB>label, got no label"),
        (b"\t1\n", "line 1: expected text<TAB>label, got no text"),
        (b"fine\t1\ncaf\xe9\t0\n", "expected text in UTF-8, got byte 0xe9 in line 2"),
        (b"fine\t1\nfine\t1\n", "expected at least 3 different examples, got 1"),
    ],
)
def test_bad_sentences_are_refused_in_one_sentence(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.tsv"
    path.write_bytes(content)
    with pytest.raises(DataError) as refused:
        registry.load(str(path), None, 0, "sentences")
    assert str(refused.value) == f"{path}: {message}"


@pytest.mark.parametrize(("ending", "pack"), [(".gz", gzip.compress), (".xz", lzma.compress)])
def test_a_truncated_file_is_refused(ending: str, pack: object, tmp_path: Path) -> None:
    path = tmp_path / f"cut.tsv{ending}"
    path.write_bytes(pack(b"some text\t1\n" * 100)[:-10])  # type: ignore[operator]
    with pytest.raises(DataError, match=rf"cut.tsv\{ending}: damaged, expected {ending[1:]} data"):
        sentences.load(path, 0)


def test_opinions_leave_the_question_open() -> None:
    data = opinions.load()
    assert data.counts == {"train": 1800, "validation": 600, "test": 600}
    texts = [sentence.text for part in data.parts().values() for sentence in part]
    assert len(set(texts)) == 3000
    assert opinions.ASKED not in texts
    assert data == opinions.load(seed=3)
    positive = sum(sentence.label == "positive" for sentence in data.train)
    assert 800 < positive < 1000
    known = {s.text: s.label for s in data.train}
    assert all(
        (label == "positive") == (text.split()[-1] in opinions.GOOD)
        for text, label in known.items()
        if "not" not in text.split()
    )
