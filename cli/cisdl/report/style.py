"""The look shared by every picture. matplotlib's objects on Agg: no display, no pyplot state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cisdl.files import write_atomically

INK = "#22272e"
FAINT = "#8b949e"
GRID = "#e6e8eb"
BLUE = "#2563b0"
ORANGE = "#d9731a"
RED = "#c0362c"
GREEN = "#2f7d4f"

SETTINGS: dict[Any, Any] = {
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "grid.color": GRID,
    "xtick.color": INK,
    "ytick.color": INK,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "figure.dpi": 144,
    "image.interpolation": "nearest",
}


@contextmanager
def figure(path: Path, width: float, height: float, title: str) -> Iterator[Figure]:
    """A figure of that many inches with a title, written to `path` as PNG when the block ends."""
    with matplotlib.rc_context(SETTINGS):
        fig = Figure(figsize=(width, height), layout="constrained", facecolor="white")
        FigureCanvasAgg(fig)
        fig.get_layout_engine().set(h_pad=0.08, rect=(0.01, 0, 0.98, 1))  # type: ignore[union-attr, call-arg]
        fig.suptitle(title, x=0.012, ha="left", fontsize=12.5, fontweight="bold")
        yield fig
        write_atomically(path, lambda temporary: fig.savefig(temporary, format="png"))


def bare(axes: Axes) -> None:
    """No ticks and no frame, for images."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
