"""confusion.png: which class was taken for which."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.colors import LinearSegmentedColormap

from cisdl.report import style

RIGHT = LinearSegmentedColormap.from_list("right", ["#ffffff", style.BLUE])
WRONG = LinearSegmentedColormap.from_list("wrong", ["#fdeceb", style.RED])

LEAST_SCALE = 0.1
"""Red is full at this share of a row at least: one mistake in a small class should not look like a flaw."""


def matrix(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """counts[true, predicted]."""
    counts = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts, (labels, predicted), 1)
    return counts


def draw(path: Path, title: str, counts: np.ndarray, names: Sequence[str]) -> None:
    """Rows are true classes. Right answers are blue, wrong ones red; each shade is a share of its row."""
    classes = len(names)
    totals = counts.sum(axis=1)
    shares = counts / np.maximum(totals, 1)[:, None]
    diagonal = np.eye(classes, dtype=bool)
    worst = max(float(shares[~diagonal].max(initial=0.0)), LEAST_SCALE)
    size = max(6.2, 0.62 * classes + 1.4)
    long_names = max(len(name) for name in names) > 2
    with style.figure(
        path, size + (1.1 if long_names else 0.4), size + (0.6 if long_names else 0.05), title
    ) as fig:
        axes = fig.add_subplot()
        cells = np.ones((classes, classes, 4))
        cells[diagonal] = RIGHT(shares[diagonal])
        wrong = ~diagonal & (counts > 0)
        cells[wrong] = WRONG(shares[wrong] / worst)
        axes.imshow(cells)
        for row, column in zip(*np.nonzero(counts), strict=True):
            deep = shares[row, column] > 0.55 if row == column else shares[row, column] > 0.6 * worst
            axes.text(
                column, row, f"{counts[row, column]:,}", ha="center", va="center",
                fontsize=8.5 if counts.max() > 999 else 10, color="white" if deep else style.INK,
            )  # fmt: skip
        axes.set_xticks(
            range(classes), names, rotation=40 if long_names else 0, ha="right" if long_names else "center"
        )
        axes.set_yticks(range(classes), names)
        axes.set_xticks(np.arange(classes + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(classes + 1) - 0.5, minor=True)
        axes.grid(which="minor", linewidth=1)
        axes.tick_params(which="both", length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")

        recall = axes.secondary_yaxis("right")
        recall.set_yticks(
            range(classes), [f"{100 * shares[i, i]:.1f} %" if totals[i] else "-" for i in range(classes)]
        )
        recall.tick_params(length=0, colors=style.FAINT)
        recall.spines["right"].set_visible(False)
        recall.set_ylabel("of the true class found", color=style.FAINT)
