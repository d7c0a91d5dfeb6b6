"""optimizer_paths.png: how SGD, momentum and Adam walk down the same valley.

Rosenbrock's function with a valley that bends: f(x, y) = (1 - x)^2 + 20 (y - x^2)^2, least at (1, 1). The
steps are those of the optimisers that train the models, on a model of two weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cisdl.report import style

START = (-1.2, 1.6)
STEPS = 200
OPTIMIZERS: dict[str, tuple[str, dict[str, float], str]] = {
    "SGD, lr 0.004": ("SGD", {"lr": 0.004}, style.BLUE),
    "momentum 0.9, lr 0.004": ("SGD", {"lr": 0.004, "momentum": 0.9}, style.GREEN),
    "Adam, lr 0.1": ("Adam", {"lr": 0.1}, style.RED),
}


def height(x: Any, y: Any) -> Any:
    return (1 - x) ** 2 + 20 * (y - x**2) ** 2


def path_of(optim: Any, kind: str, settings: dict[str, float]) -> np.ndarray:
    """(STEPS + 1, 2): the start and where each step leads; `optim` is torch.optim or cisdl_ops.optim."""
    place = torch.tensor(START, requires_grad=True)
    optimizer = getattr(optim, kind)([place], **settings)
    places: list[Tensor] = [place.detach().clone()]
    for _ in range(STEPS):
        optimizer.zero_grad()
        height(place[0], place[1]).backward()
        optimizer.step()
        places.append(place.detach().clone())
    walked: np.ndarray = torch.stack(places).numpy()
    return walked


def draw(path: Path, optim: Any) -> None:
    x, y = np.meshgrid(np.linspace(-1.7, 1.7, 240), np.linspace(-0.6, 2.3, 200))
    title = "Three optimisers in a valley that bends"
    with style.figure(path, 10, 4.4, title) as fig:
        left, right = fig.subplots(1, 2, width_ratios=(1.25, 1))
        levels = np.geomspace(0.05, 100, 14)
        left.contour(x, y, height(x, y), levels=levels, colors=style.FAINT, linewidths=0.6, alpha=0.7)
        for name, (kind, settings, color) in OPTIMIZERS.items():
            walked = path_of(optim, kind, settings)
            left.plot(*walked.T, "-o", color=color, markersize=2, linewidth=1.1, label=name)
            right.plot(np.maximum(height(*walked.T), 1e-6), color=color, label=name)
        left.plot(*START, "o", color=style.INK, markersize=6)
        left.annotate("start", START, xytext=(-6, 6), textcoords="offset points", ha="right")
        left.plot(1, 1, "*", color=style.INK, markersize=11)
        left.annotate("lowest", (1, 1), xytext=(8, -4), textcoords="offset points")
        left.set_xlim(-1.7, 1.7)
        left.set_ylim(-0.6, 2.3)
        left.set_xlabel("weight 1")
        left.set_ylabel("weight 2")
        left.set_title(f"their first {STEPS} steps")
        right.set_yscale("log")
        right.set_title("height by step")
        right.set_xlabel("step")
        right.grid(axis="y", linewidth=0.8)
        right.legend(frameon=False, loc="lower left")
