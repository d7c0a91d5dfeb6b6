"""Readers of plain text: its parts, and what is refused."""

from __future__ import annotations

import gzip
import hashlib
import lzma
from pathlib import Path

import pytest
from cisdl.data import manual, ptb, registry, text
from cisdl.errors import DataError


def test_the_manual_is_cut_in_order_and_repeats_nothing() -> None:
    data = manual.load()
    whole = manual.text()
    assert data.test is not None
    assert data.train + data.validation + data.test == whole
    assert 300_000 < len(whole) < 0.9 * len(manual.whole_text())
    assert data.counts["test"] == data.counts["validation"] == round(len(whole) / 10)
    assert hashlib.sha256(whole.encode()).hexdigest() in data.source
    paragraphs = whole.split("\n\n")
    assert len(set(paragraphs)) == len(paragraphs)
    assert manual.load(whole=True).parts() == {"train": "", "validation": "", "test": data.test}


def test_files_of_a_folder_are_told_apart_by_name(tmp_path: Path) -> None:
    (tmp_path / "train-1.txt.gz").write_bytes(gzip.compress(b"cd" * 10))
    (tmp_path / "train-0.txt.xz").write_bytes(lzma.compress(b"ab" * 10))
    (tmp_path / "valid.txt").write_bytes(b"e\r\nf")
    data = registry.load(str(tmp_path), None, 0, "text")
    assert data.parts() == {"train": "ab" * 10 + "cd" * 8, "validation": "cdcd", "test": "e\nf"}
    (tmp_path / "test.txt").write_text("g")
    data = registry.load(str(tmp_path), None, 0, "text")
    assert data.parts() == {"train": "ab" * 10 + "cd" * 10, "validation": "e\nf", "test": "g"}
    assert text.load(tmp_path, 0, whole=True).parts() == {"train": "", "validation": "", "test": "g"}


def test_one_file_is_cut_into_three(tmp_path: Path) -> None:
    (tmp_path / "some.txt").write_text("0123456789" * 2)
    data = registry.load(str(tmp_path / "some.txt"), None, 0, "text")
    assert data.name == "some"
    assert data.parts() == {"train": "0123456789012345", "validation": "67", "test": "89"}
    data_to_judge = registry.load(str(tmp_path / "some.txt"), None, 0, "text", whole=True)
    assert data_to_judge.parts() == {"train": "", "validation": "", "test": "0123456789" * 2}
    assert data.limited(1).counts == {"train": 1, "validation": 1, "test": 1}


def test_ptb_lines_lose_the_spaces_at_their_ends(tmp_path: Path) -> None:
    (tmp_path / "ptb.train.txt").write_text(" a b \n" * 10)
    (tmp_path / "ptb.valid.txt").write_text(" c \n d \n")
    data = ptb.load(tmp_path, 0)
    assert data.test == "c\nd\n"
    assert set(data.train.split("\n")) == {"a b", ""}


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.txt", b"", "a.txt: expected text, got an empty file"),
        ("a.txt", b" \n", "a.txt: expected text, got white space only"),
        ("a.txt", b"fine\nnot \xff fine\n", "expected text in UTF-8, got byte 0xff in line 2"),
        ("a.txt", b"ab", "expected at least 3 characters, one for each part, got 2"),
        ("a.txt.xz", b"no", "damaged, expected xz data"),
        ("a.txt.xz", lzma.compress(b"text" * 99)[:-20], "damaged, expected xz data"),
        ("a.txt.gz", gzip.compress(b"text" * 99, mtime=0)[:-20], "damaged, expected gz data"),
        ("a.txt.gz", b"no", "damaged, expected gz data"),
    ],
)
def test_what_is_no_text_is_refused(name: str, content: bytes, sentence: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as refused:
        registry.load(str(tmp_path / name), None, 0, "text")
    assert sentence in str(refused.value)
