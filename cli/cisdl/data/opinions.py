"""Opinions of one sentence from a small grammar of our own, to see a text classifier learn in seconds.

    opinion = subject [and subject] verb [degree] word       the word's own sign
            | subject verb "not" [degree] word               turned round
            | opinion "but" opinion                          the second one counts

The last two need the order of words, which a bag of words does not have. 3,000 different sentences, 60/20/20;
none is in two parts, and "Deep Learning is great" is in none: it is left for you to ask.

A toy: how well it is learned says nothing about language.
"""

from __future__ import annotations

import numpy as np

from cisdl.data.examples import Examples
from cisdl.data.sentences import Sentence

COUNT = 3000
ASKED = "deep learning is great"
SUBJECTS = (
    "deep learning", "machine learning", "this course", "the film", "the book", "that song", "the food",
    "our hotel", "his talk", "the weather", "my new phone", "the second part", "her idea", "the museum",
)  # fmt: skip
VERBS = ("is", "was", "seems", "looks", "remains")
DEGREES = ("very", "really", "quite", "rather", "so")
GOOD = (
    "great", "good", "wonderful", "excellent", "fun", "clever", "beautiful", "useful", "charming", "fresh",
    "pleasant", "brilliant",
)  # fmt: skip
BAD = (
    "bad", "boring", "awful", "terrible", "dull", "silly", "ugly", "useless", "poor", "stale", "sad",
    "dreadful",
)  # fmt: skip


def clause(random: np.random.Generator) -> tuple[str, bool]:
    """An opinion without "but", and whether it is a good one."""

    def one_of(words: tuple[str, ...]) -> str:
        return words[random.integers(len(words))]

    subject = one_of(SUBJECTS)
    if random.random() < 0.2:
        subject += " and " + one_of(tuple(other for other in SUBJECTS if other != subject))
    good, turned = random.random() < 0.5, random.random() < 0.3
    words = [subject, one_of(VERBS)]
    if turned:
        words.append("not")
    if random.random() < 0.5:
        words.append(one_of(DEGREES))
    words.append(one_of(GOOD if good else BAD))
    return " ".join(words), good != turned


def opinion(random: np.random.Generator) -> Sentence:
    text, good = clause(random)
    if random.random() < 0.4:
        second, good = clause(random)
        text += " but " + second
    return Sentence(text, "positive" if good else "negative")


def load(seed: int = 0, whole: bool = False) -> Examples[Sentence]:
    """Always the same sentences in the same parts: `seed` changes nothing."""
    del seed
    random = np.random.default_rng(0)
    found: dict[str, Sentence] = {}
    while len(found) < COUNT:
        sentence = opinion(random)
        if sentence.text != ASKED:
            found[sentence.text] = sentence
    every = tuple(found.values())
    held_out = COUNT // 5
    data = Examples(
        name="opinions",
        source="a grammar of our own",
        train=every[: -2 * held_out],
        validation=every[-2 * held_out : -held_out],
        test=every[-held_out:],
        split="60/20/20",
    )
    return data.whole() if whole else data
