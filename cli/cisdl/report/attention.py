"""attention.png: which symbols of the source the decoder looked at for each symbol of its answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from cisdl.report import style


def draw(path: Path, title: str, examples: Sequence[tuple[Sequence[str], Sequence[str], Tensor]]) -> None:
    """For each example the source, the answer and the weights (answer and its end, source)."""
    rows = -(-len(examples) // 2)
    with style.figure(path, 11 if len(examples) > 1 else 6, 4.6 * rows + 0.4, title) as fig:
        panels = fig.subplots(rows, min(2, len(examples)), squeeze=False)
        for axes in panels.flat[len(examples) :]:
            style.bare(axes)
        for axes, (source, answer, weights) in zip(panels.flat, examples, strict=False):
            shown = axes.imshow(weights.numpy(), cmap="Blues", vmin=0, vmax=1, aspect="auto")
            words = max(map(len, source)) > 2
            axes.set_xticks(
                range(len(source)), source, rotation=40 if words else 0, ha="right" if words else "center"
            )
            names = [*answer, "end"][: len(weights)]
            axes.set_yticks(range(len(names)), names)
            axes.tick_params(length=0)
        fig.colorbar(shown, ax=panels, label="weight", shrink=0.5)
