"""codes.png: where images lie in a code of two numbers, or on the two principal axes of a longer one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib import colormaps
from sklearn.decomposition import PCA
from torch import Tensor

from cisdl.report import style


def draw(path: Path, title: str, codes: Tensor, labels: Tensor, names: tuple[str, ...]) -> None:
    """`codes` (count, numbers), `labels` (count,), which only colour the points."""
    points = codes.numpy()
    if points.shape[1] == 1:
        points = np.column_stack([points, labels.numpy()])
    flat = points if points.shape[1] == 2 else PCA(2).fit_transform(points)
    colors = colormaps["tab10" if len(names) <= 10 else "tab20"].colors  # type: ignore[attr-defined]
    with style.figure(path, 7.6, 6.2, title) as fig:
        axes = fig.add_subplot()
        for label, name in enumerate(names):
            chosen = labels.numpy() == label
            x, y = flat[chosen].T
            axes.scatter(x, y, s=14, color=colors[label % len(colors)], label=name, alpha=0.8)
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
        what = "number {} of the code" if codes.shape[1] <= 2 else "principal axis {} of the codes"
        axes.set_xlabel(what.format(1))
        axes.set_ylabel("class" if codes.shape[1] == 1 else what.format(2))
