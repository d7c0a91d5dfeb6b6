"""mistakes.png: the most confident wrong answers; the least certain right ones if none is wrong."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from cisdl.report import style
from cisdl.report.restoration import shown, stretched

COLUMNS, ROWS = 8, 4


def choose(scores: Tensor, labels: Tensor, count: int) -> tuple[Tensor, bool]:
    """Indices of at most `count` images to show, worst first, and whether they are mistakes.

    `scores` (images, classes), `labels` (images,).
    """
    probabilities = scores.softmax(1)
    confidence, predicted = probabilities.max(1)
    wrong = (predicted != labels).nonzero().flatten()
    if len(wrong):
        return wrong[confidence[wrong].argsort(descending=True, stable=True)][:count], True
    return confidence.argsort(stable=True)[:count], False


def draw(
    path: Path, title: str, images: Tensor, scores: Tensor, labels: Tensor, names: tuple[str, ...]
) -> None:
    """`images` (count, C, H, W); labelled with the class, the answer given and its probability."""
    pictures = stretched(images)
    chosen, are_mistakes = choose(scores, labels, COLUMNS * ROWS)
    confidence, predicted = scores.softmax(1).max(1)
    columns = min(COLUMNS, len(chosen))
    rows = -(-len(chosen) // columns)
    kind = "most confident mistakes" if are_mistakes else "no mistakes; least certain right answers"
    long_names = max(len(name) for name in names) > 2
    with style.figure(path, max(1.35 * columns + 0.3, 7), 1.9 * rows + 0.6, f"{title}: {kind}") as fig:
        fig.supxlabel(
            "true class → answer given; p: the probability given to the answer",
            fontsize=8.5,
            color=style.FAINT,
        )
        grid = fig.subplots(rows, columns, squeeze=False)
        for axes in grid.flat:
            style.bare(axes)
        for axes, index in zip(grid.flat, chosen.tolist(), strict=False):
            axes.imshow(shown(pictures[index]), cmap="gray")
            true, answer = names[int(labels[index])], names[int(predicted[index])]
            text = f"{true}\n→ {answer}" if long_names else f"{true} → {answer}"
            axes.set_title(
                text,
                fontsize=8.5 if long_names else 11,
                color=style.RED if are_mistakes else style.GREEN,
                loc="center",
            )
            axes.set_xlabel(f"p = {float(torch.floor(confidence[index] * 1000) / 1000):.3f}", fontsize=8.5)
