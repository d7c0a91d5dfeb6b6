"""Pairs of sequences, and readers for them: UTF-8, plain or .gz or .xz.

    .tsv, .txt    one `source<TAB>target` a line, as tatoeba.org's sentences are given out: words to words
    .dict         cmudict: `word phone phone ...`, `word(2)` is the word's second pronunciation, `#` starts a
                  comment: letters to phones. The stress of vowels, a digit, is left out, as is usual.

A source may have several targets: a word's pronunciations, a sentence's translations. All of them are one
example, so they are always in the same part, and an answer is held against the nearest. Parts of a folder:
`examples.py`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from cisdl.data import examples
from cisdl.data.examples import Examples, read_lines
from cisdl.data.tokens import words
from cisdl.errors import DataError

ENDINGS = (".dict", ".tsv", ".txt")
VARIANT = re.compile(r"\(\d+\)$")


class Pair(NamedTuple):
    source: tuple[str, ...]
    targets: tuple[tuple[str, ...], ...]


def grouped(pairs: list[tuple[tuple[str, ...], tuple[str, ...]]]) -> list[Pair]:
    """All different targets of a source together, in the order in which they come."""
    found: dict[tuple[str, ...], dict[tuple[str, ...], None]] = {}
    for source, target in pairs:
        found.setdefault(source, {})[target] = None
    return [Pair(source, tuple(targets)) for source, targets in found.items()]


def is_dictionary(path: Path) -> bool:
    return path.name.removesuffix(".xz").removesuffix(".gz").endswith(".dict")


def read(path: Path) -> list[Pair]:
    """The pairs of one file; its name says which of the two formats it is."""
    found = []
    for number, line in enumerate(read_lines(path), start=1):
        if is_dictionary(path):
            cells = line.split("#")[0].split()
            if not cells:
                continue
            source = tuple(VARIANT.sub("", cells[0]))
            target = tuple(phone.rstrip("012") for phone in cells[1:])
            expected = "a word and its phones"
        else:
            left, tab, right = line.partition("\t")
            source, target = tuple(words(left)), tuple(words(right.split("\t")[0])) if tab else ()
            expected = "source<TAB>target"
        if not source or not target:
            raise DataError(f"{path}: line {number}: expected {expected}, got '{line[:40]}'")
        found.append((source, target))
    if not found:
        raise DataError(f"{path}: expected pairs, got none")
    return grouped(found)


def load(path: Path, seed: int, whole: bool = False) -> Examples[Pair]:
    """The pairs of a file, or of the files of a folder."""
    return examples.load(path, ENDINGS, read, lambda pair: pair.source, seed, whole)
