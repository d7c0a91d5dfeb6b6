"""Sentences with a tag for every word, and readers for CoNLL's columns, UTF-8, plain or .gz or .xz.

    .txt, .conll    columns separated by spaces or tabs, the word first and its tag last; of columns between
                    the last one is kept as what is given of the word (CoNLL-2000: its part of speech)
    .conllu         CoNLL-U: ten columns separated by tabs, the word is column 2 and its tag column 4 (UPOS);
                    comments, joined words (3-4) and left-out ones (5.1) are passed over

An empty line ends a sentence. Parts of a folder: `examples.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from cisdl.data import examples
from cisdl.data.examples import Examples, read_lines
from cisdl.errors import DataError

ENDINGS = (".txt", ".conll", ".conllu")
CONLLU_COLUMNS = 10


class Tagged(NamedTuple):
    words: tuple[str, ...]
    tags: tuple[str, ...]
    given: tuple[str, ...] = ()
    """What else is known of each word, if anything."""


def read(path: Path) -> list[Tagged]:
    """The sentences of one file; its name says which of the two formats it is."""
    conllu = path.name.removesuffix(".xz").removesuffix(".gz").endswith(".conllu")
    found: list[Tagged] = []
    words: list[str] = []
    tags: list[str] = []
    given: list[str] = []
    columns = CONLLU_COLUMNS if conllu else None
    for number, line in enumerate([*read_lines(path), ""], start=1):
        if not line.strip():
            if words:
                found.append(Tagged(tuple(words), tuple(tags), tuple(given)))
                words, tags, given = [], [], []
            continue
        if line.startswith("#" if conllu else "-DOCSTART-"):
            continue
        cells = line.split("\t") if conllu else line.split()
        columns = columns or max(len(cells), 2)
        if len(cells) != columns or not all(cells):
            raise DataError(f"{path}: line {number}: expected {columns} columns, got {len(cells)}")
        if not conllu or cells[0].isdecimal():
            words.append(cells[1] if conllu else cells[0])
            tags.append(cells[3] if conllu else cells[-1])
            if not conllu and columns > 2:
                given.append(cells[-2])
    if not found:
        raise DataError(f"{path}: expected tagged sentences, got none")
    return found


def load(path: Path, seed: int, whole: bool = False) -> Examples[Tagged]:
    """The sentences of a file, or of the files of a folder."""
    return examples.load(path, ENDINGS, read, lambda sentence: sentence.words, seed, whole)
