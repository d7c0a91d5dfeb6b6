"""A text in words: one rule for raw text and for text that was tokenised before, so that both agree.

Lower case; a run of letters and digits is a word, any other character but white space is one of its own.
Contractions come apart as in the Penn Treebank: "don't" is "do" and "n't", "it's" is "it" and "'s". What is
left of web pages, "<br />", counts as white space.

>>> words("Don't call it GREAT!<br />It's 1.5")
['do', "n't", 'call', 'it', 'great', '!', 'it', "'s", '1', '.', '5']
"""

from __future__ import annotations

import re

BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)
WORD = re.compile(r"\w+?(?=n't\b)|n't\b|'(?:s|m|d|re|ve|ll)\b|\w+|[^\w\s]")


def words(text: str) -> list[str]:
    """The words of a text, in order."""
    return WORD.findall(BREAK.sub(" ", text).lower().replace("’", "'"))


def pieces(text: str) -> list[tuple[int, str]]:
    """Where each word starts, and the word as it is written: for tags, which a lower-case text would lose."""
    return [(match.start(), match.group()) for match in WORD.finditer(text)]
