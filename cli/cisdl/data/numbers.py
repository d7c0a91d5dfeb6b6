"""Numbers below a million and how they are said in English: digits to words.

    90210    ninety thousand two hundred ten

5,000 different numbers of 1 to 6 digits, as many of 6 as of 5 or 4; of fewer, nearly all there are. 80/10/10.
"""

from __future__ import annotations

import numpy as np

from cisdl.data.examples import Examples
from cisdl.data.pairs import Pair

COUNT = 5000
SMALL = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")


def said(number: int) -> list[str]:
    """In words.

    >>> said(90210)
    ['ninety', 'thousand', 'two', 'hundred', 'ten']
    """
    if number < 20:
        return [SMALL[number]]
    for unit, name in ((1000, "thousand"), (100, "hundred")):
        if number >= unit:
            rest = said(number % unit) if number % unit else []
            return [*said(number // unit), name, *rest]
    return [TENS[number // 10], *([SMALL[number % 10]] if number % 10 else [])]


def load(seed: int = 0, whole: bool = False) -> Examples[Pair]:
    """Always the same numbers in the same parts: `seed` changes nothing."""
    del seed
    random = np.random.default_rng(0)
    found: dict[int, Pair] = {}
    while len(found) < COUNT:
        digits = int(random.integers(1, 7))
        number = int(random.integers(10 ** (digits - 1) if digits > 1 else 0, 10**digits))
        found[number] = Pair(tuple(str(number)), (tuple(said(number)),))
    every = tuple(found.values())
    order = random.permutation(COUNT).tolist()
    held_out = COUNT // 10
    data = Examples(
        name="numbers",
        source="numbers below a million, in words",
        train=tuple(every[i] for i in order[2 * held_out :]),
        validation=tuple(every[i] for i in order[:held_out]),
        test=tuple(every[i] for i in order[held_out : 2 * held_out]),
        split="80/10/10",
    )
    return data.whole() if whole else data
