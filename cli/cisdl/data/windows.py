"""Centres and the words around them, all at once: what the torch backend trains on and both are judged on."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Integers = npt.NDArray[np.int64]


def subsampled(tokens: Integers, keep: npt.NDArray[np.float32], random: np.random.Generator) -> Integers:
    """The tokens that stay: word w with probability keep[w]; ends of sentences (-1) always do."""
    stays = (tokens < 0) | (random.random(len(tokens)) < keep[np.maximum(tokens, 0)])
    return tokens[stays]


def windows(tokens: Integers, window: int, random: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Every word that has a neighbour, as centre, and its neighbours.

    Each centre draws its reach from 1 to `window`; a window ends where the sentence does.

    Returns:
        centres (n,), and contexts (n, 2 * window), -1 where there is none.
    """
    places = np.flatnonzero(tokens >= 0)
    sentence = np.cumsum(tokens < 0)
    reach = random.integers(1, window + 1, len(places))
    contexts = np.full((len(places), 2 * window), -1, np.int64)
    for column, offset in enumerate([*range(-window, 0), *range(1, window + 1)]):
        there = places + offset
        inside = (there >= 0) & (there < len(tokens)) & (np.abs(offset) <= reach)
        there = np.where(inside, there, places)
        inside &= (tokens[there] >= 0) & (sentence[there] == sentence[places])
        contexts[inside, column] = tokens[there[inside]]
    some = (contexts >= 0).any(1)
    return torch.from_numpy(tokens[places[some]]), torch.from_numpy(contexts[some])


def pairs(centres: Tensor, contexts: Tensor) -> tuple[Tensor, Tensor]:
    """Centre and context of each pair: (m,) and (m, 1)."""
    row, column = (contexts >= 0).nonzero(as_tuple=True)
    return centres[row], contexts[row, column].unsqueeze(1)
