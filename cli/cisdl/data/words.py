"""A text as words: how it is split, and the sentences that windows and co-occurrences stay inside."""

from __future__ import annotations

import re
from collections.abc import Iterator

from torch import Tensor

from cisdl.data.text import TextData
from cisdl.errors import DataError
from cisdl_ops.word_vectors import Vocabulary

WORD = re.compile(r"\w+")
PARAGRAPH_END = re.compile(r"\n[ \t]*\n")
LONGEST = 1000
"""Words after which a paragraph is cut, as in word2vec.c."""


def paragraphs(text: str) -> Iterator[list[str]]:
    """The words of each paragraph, lower-cased: letters, digits and `_`, all else parts them.

    A paragraph goes to an empty line, not to the line's end, where a text may only be wrapped.
    """
    for paragraph in PARAGRAPH_END.split(text):
        words = WORD.findall(paragraph.lower())
        for begin in range(0, len(words), LONGEST):
            yield words[begin : begin + LONGEST]


def vocabulary(data: TextData, min_count: int) -> Vocabulary:
    """The words that occur `min_count` times or more in the training part, the most frequent first."""
    try:
        found = Vocabulary.build(paragraphs(data.train), min_count)
        count = len(found)
    except ValueError:  # not a single one
        count = 0
    if count < 2:
        raise DataError(
            f"{data.source}: expected at least 2 words that occur {min_count} times or more in the training "
            f"part, got {count}{'; try --min-count 1' if min_count > 1 else ''}"
        )
    return found


def encode(text: str, known: Vocabulary) -> Tensor:
    """Word numbers (int32), those that are not known left out, -1 after each paragraph."""
    return known.encode(paragraphs(text))
