"""Words, characters or tags to numbers and back.

The special words come first; then all others, the most frequent first and equally frequent ones in
alphabetical order, so the same texts give the same numbers. `words` is all there is to save.

A vocabulary of fewer than two words is refused: there would be nothing to tell apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from cisdl.errors import DataError

PADDING, UNKNOWN, START, END = "<pad>", "<unk>", "<s>", "</s>"
SPECIAL = (PADDING, UNKNOWN)
PAD = 0
"""The number of `PADDING` in every vocabulary that has it."""


@dataclass(frozen=True)
class Vocabulary:
    """The words by their numbers."""

    words: tuple[str, ...]

    @classmethod
    def of(
        cls,
        sequences: Iterable[Iterable[str]],
        special: Sequence[str] = SPECIAL,
        min_count: int = 1,
        max_size: int | None = None,
        what: str = "words",
    ) -> Vocabulary:
        """Of what occurs `min_count` times or more, the `max_size` most frequent, and the special ones."""
        counts = Counter(word for sequence in sequences for word in sequence)
        total = len(counts)
        for word in special:
            counts.pop(word, None)
        kept = sorted((word for word in counts if counts[word] >= min_count), key=lambda w: (-counts[w], w))
        kept = kept[:max_size]
        if len(kept) < 2:
            got = f"only '{kept[0]}'" if kept else "none"
            least = f" that occur {min_count} times or more" if min_count > 1 and total > 1 else ""
            raise DataError(f"expected at least two different {what}{least}, got {got}")
        return cls((*special, *kept))

    def __len__(self) -> int:
        return len(self.words)

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Of the special words a text can only have `UNKNOWN`, as some corpora do."""
        reserved = {PADDING, START, END}
        return {word: number for number, word in enumerate(self.words) if word not in reserved}

    @property
    def unknown(self) -> int | None:
        return self.numbers.get(UNKNOWN)

    def number(self, word: str) -> int:
        """A special word's number, whichever it is."""
        return self.words.index(word)

    def encode(self, words: Iterable[str]) -> list[int]:
        """Their numbers. A word that is not here is `UNKNOWN`, or a `DataError` where there is no such."""
        numbers, unknown = self.numbers, self.unknown
        if unknown is not None:
            return [numbers.get(word, unknown) for word in words]
        try:
            return [numbers[word] for word in words]
        except KeyError as error:
            raise DataError(f"expected what the training data have, got {error}") from error

    def decode(self, numbers: Iterable[int]) -> list[str]:
        return [self.words[number] for number in numbers]
