"""An n-gram model of characters, interpolated as by Witten and Bell.

    p_0(c)     = (N(c) + 1) / (N + V)
    p_k(c | h) = (N(h c) + T(h) p_{k-1}(c | h')) / (N(h) + T(h))

h are the k characters before c and h' the last k - 1 of them; N counts in the training text, T(h) is how many
different characters followed h there. A context that was never seen leaves it to the shorter one.

Source: Witten, Bell, "The zero-frequency problem", IEEE Trans. Information Theory 37(4), 1991; Chen, Goodman,
"An empirical study of smoothing techniques for language modeling", 1999, section 2.5.
"""

from __future__ import annotations

import math

import numpy as np


def longest(vocabulary: int) -> int:
    """The order up to which as many characters fit into one 64-bit number."""
    return int(62 / math.log2(max(vocabulary, 2)))


def contexts(text: np.ndarray, length: int, vocabulary: int) -> np.ndarray:
    """For every character from number `length` on, the `length` before it as one number."""
    codes = np.zeros(len(text) - length, np.int64)
    for back in range(length, 0, -1):
        codes = codes * vocabulary + text[length - back : len(text) - back]
    return codes


def counted(sought: np.ndarray, keys: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The count of each sought number, 0 for those that are not among the sorted `keys`."""
    place = np.minimum(np.searchsorted(keys, sought), len(keys) - 1)
    found: np.ndarray = np.where(keys[place] == sought, counts[place], 0)
    return found


def probabilities(train: np.ndarray, text: np.ndarray, vocabulary: int, order: int) -> np.ndarray:
    """Of every character of `text`, given up to `order` - 1 before it; numbers below `vocabulary`."""
    assert order <= longest(vocabulary)
    counts = np.bincount(train, minlength=vocabulary)
    p: np.ndarray = (counts[text] + 1) / (len(train) + vocabulary)
    for length in range(1, min(order, len(text), len(train))):
        seen = contexts(train, length, vocabulary)
        pairs, pair_counts = np.unique(seen * vocabulary + train[length:], return_counts=True)
        heads, head_counts = np.unique(seen, return_counts=True)
        _, kinds = np.unique(pairs // vocabulary, return_counts=True)
        given = contexts(text, length, vocabulary)
        n_pair = counted(given * vocabulary + text[length:], pairs, pair_counts)
        n, t = counted(given, heads, head_counts), counted(given, heads, kinds)
        shorter = p[length:]
        p[length:] = np.where(n > 0, (n_pair + t * shorter) / np.maximum(n + t, 1), shorter)
    return p
