"""Pictures of an associative memory: recall strips, the energy, the overlap against the load."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from cisdl.backend import Backend
from cisdl.data.patterns import random_patterns
from cisdl.models.hopfield import Hopfield
from cisdl.report import style
from cisdl.report.restoration import shown

ROWS = 6
COLUMNS = 5
"""States between the first and the last."""
STEPS = 64
"""States kept of a sweep, for the energy."""
NEURONS = 500
LOADS = (0.02, 0.04, 0.06, 0.08, 0.1, 0.12, 0.13, 0.14, 0.15, 0.16, 0.18, 0.2, 0.25, 0.3)
CRITICAL = 0.138


def draw_strips(path: Path, title: str, wanted: Tensor, steps: Sequence[Tensor], update: str) -> None:
    """A row for each pattern (count, C, H, W): what is stored, the start, states on the way, the end."""
    last = len(steps) - 1
    moving = max((i for i in range(1, last + 1) if not steps[i].equal(steps[i - 1])), default=0)
    middle = sorted({round(place) for place in np.linspace(0, moving, COLUMNS + 2)} - {0, moving})
    shares = [f"{100 * place / max(moving, 1):.0f} %" for place in middle]
    columns = [("stored", wanted), ("spoilt", steps[0])]
    columns += [(f"{share} of the way", steps[place]) for share, place in zip(shares, middle, strict=True)]
    columns += [("recalled", steps[last])]
    aspect = wanted.shape[2] / wanted.shape[3]
    wide = 1.25
    with style.figure(path, wide * len(columns) + 0.4, wide * aspect * len(wanted) + 1.4, title) as fig:
        grid = fig.subplots(len(wanted), len(columns), squeeze=False)
        for row, line in enumerate(grid):
            for axes, (name, states) in zip(line, columns, strict=True):
                axes.imshow(shown((states[row] + 1) / 2), cmap="gray", vmin=0, vmax=1)
                style.bare(axes)
                if row == 0:
                    axes.set_title(
                        name.replace(" of ", "\nof "), fontsize=9, fontweight="normal", loc="center"
                    )
                if name != "stored":
                    overlap = float((states[row] * wanted[row]).mean())
                    right = overlap == 1
                    axes.set_xlabel(
                        "equal" if right else f"{overlap:.2f}", fontsize=8.5,
                        color=style.GREEN if right and name == "recalled" else style.FAINT,
                    )  # fmt: skip
        fig.supxlabel(
            f"{update} recall; below each: its overlap with the stored pattern",
            x=0.012, ha="left", fontsize=9, color=style.FAINT,
        )  # fmt: skip


def draw_energy(path: Path, title: str, energies: Tensor) -> None:
    """`energies` (steps, patterns), over the way to rest."""
    values = energies.numpy()
    with style.figure(path, 7.2, 4.2, title) as fig:
        axes = fig.add_subplot()
        way = np.linspace(0, 100, len(values))
        for number, line in enumerate(values.T, start=1):
            axes.plot(way, line, label=f"pattern {number}", linewidth=1.5)
        axes.set_xlabel("neurons asked, % of all until it rests")
        axes.set_ylabel("energy")
        axes.grid(axis="y", linewidth=0.8)
        axes.legend(frameon=False, loc="upper right")


def overlap_curve(ops: Backend, rule: str, update: str, sweeps: int, seed: int) -> list[tuple[float, float]]:
    """(load, mean overlap after recall that starts at the pattern itself) of random patterns."""
    every = random_patterns(round(max(LOADS) * NEURONS), NEURONS, seed)
    found = []
    for load in LOADS:
        patterns = every[: round(load * NEURONS)]
        model = Hopfield(ops, NEURONS, len(patterns))
        model.learn(patterns, rule)
        last = model.recall(patterns, update, sweeps, np.random.default_rng(seed))[-1]
        found.append((load, float((last * patterns).mean())))
    return found


def draw_load(
    path: Path, title: str, curve: Sequence[tuple[float, float]], run: tuple[float, float, str]
) -> None:
    """The curve of random patterns, and where the run itself stands."""
    with style.figure(path, 7.2, 4.4, title) as fig:
        axes = fig.add_subplot()
        axes.axvline(CRITICAL, color=style.FAINT, linewidth=1, linestyle=":")
        axes.text(
            CRITICAL + 0.003,
            0.03,
            f"{CRITICAL} (Amit et al. 1985,\nHebb's rule)",
            fontsize=8.5,
            color=style.FAINT,
        )
        loads, overlaps = zip(*curve, strict=True)
        axes.plot(
            loads, overlaps, "o-", color=style.BLUE, markersize=4, label=f"random patterns, {NEURONS} neurons"
        )
        axes.plot(*run[:2], "D", color=style.ORANGE, markersize=7, label=f"this run: {run[2]}")
        axes.set_ylim(0, 1.05)
        axes.set_xlim(left=0)
        axes.set_xlabel("load: patterns stored / neurons")
        axes.set_ylabel("overlap after recall")
        axes.grid(axis="y", linewidth=0.8)
        axes.legend(frameon=False, loc="lower left")
