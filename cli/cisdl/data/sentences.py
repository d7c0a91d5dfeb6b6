"""Labelled texts, and a reader for files of them: one `text<TAB>label` a line, UTF-8, plain or .gz or .xz.

A line is split at its last tab. A label is what is written there, "spam" or "1"; the numbers of sets known by
name have names. Parts of a folder: `examples.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from cisdl.data import examples
from cisdl.data.examples import Examples, read_lines
from cisdl.errors import DataError

ENDINGS = (".tsv",)
SENTIMENT = {"0": "negative", "1": "positive"}
LABEL_NAMES = {"sst2": SENTIMENT, "imdb": SENTIMENT, "sentence-polarity": SENTIMENT}
"""By the folder's name."""


class Sentence(NamedTuple):
    text: str
    label: str


def read(path: Path) -> list[Sentence]:
    """The sentences of one file."""
    names = LABEL_NAMES.get(path.resolve().parent.name, {})
    found = []
    for number, line in enumerate(read_lines(path), start=1):
        text, tab, label = line.rpartition("\t")
        if not tab or not text.strip() or not label.strip():
            got = "no tab" if not tab else "no text" if not text.strip() else "no label"
            raise DataError(f"{path}: line {number}: expected text<TAB>label, got {got}")
        found.append(Sentence(text, names.get(label.strip(), label.strip())))
    return found


def load(path: Path, seed: int, whole: bool = False) -> Examples[Sentence]:
    """The sentences of a file, or of the files of a folder."""
    return examples.load(path, ENDINGS, read, lambda sentence: sentence.text, seed, whole)
