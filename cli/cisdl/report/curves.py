"""curves.png: the loss and the task's score over the epochs, with the epoch that was kept."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from cisdl.report import style
from cisdl.tasks.base import Curve

WIDE_RANGE = 20.0
"""A loss that falls by more than this factor is drawn on a logarithmic axis."""
LINE = 150
"""Characters of the footer that fit under the panels."""


def draw(
    path: Path,
    title: str,
    metrics: Sequence[Mapping[str, Any]],
    best_epoch: int,
    footer: str,
    loss_name: str,
    score: Curve,
) -> None:
    """`metrics` are the rows of metrics.csv."""
    epochs = [row["epoch"] for row in metrics]
    with style.figure(path, 10, 4.1, title) as fig:
        left, right = fig.subplots(1, 2)
        panel(left, epochs, best_epoch, metrics, Curve("loss", f"loss ({loss_name})"))
        losses = [row[f"{part}_loss"] for row in metrics for part in ("train", "validation")]
        if min(losses) > 0 and max(losses) / min(losses) > WIDE_RANGE:
            logarithmic(left)
        else:
            left.set_ylim(bottom=0)
        panel(right, epochs, best_epoch, metrics, score)
        scores = [row[f"validation_{score.key}"] for row in metrics]
        falls = scores[-1] < scores[0]
        if min(scores) > 0 and scores[0] > WIDE_RANGE * scores[-1]:
            logarithmic(right)
        # One legend speaks for both panels; that corner of a score that grows, or falls, is always free.
        corner = "upper right" if falls else "lower right"
        right.legend(*left.get_legend_handles_labels(), frameon=False, loc=corner)
        fig.supxlabel(textwrap.fill(footer, LINE), x=0.012, ha="left", fontsize=9, color=style.FAINT)


def logarithmic(axes: Axes) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def panel(
    axes: Axes,
    epochs: Sequence[int],
    best_epoch: int,
    metrics: Sequence[Mapping[str, Any]],
    curve: Curve,
) -> None:
    """A column of each part; a score may be known of validation only."""
    key, title, factor = curve
    axes.set_title(title)
    axes.set_xlabel("epoch")
    axes.grid(axis="y", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    for part, color in (("train", style.BLUE), ("validation", style.ORANGE)):
        if f"{part}_{key}" not in metrics[0]:
            continue
        values = [factor * row[f"{part}_{key}"] for row in metrics]
        marker = "o" if len(epochs) < 25 else ""
        axes.plot(epochs, values, color=color, marker=marker, markersize=3.5, label=part)
    kept = factor * metrics[epochs.index(best_epoch)][f"validation_{key}"]
    axes.plot(
        [best_epoch], [kept], "o", markersize=10, markerfacecolor="none", markeredgecolor=style.ORANGE,
        markeredgewidth=1.6, label=f"kept: epoch {best_epoch}", linestyle="none",
    )  # fmt: skip
