"""speedup.png and roofline.png: a file of `cisdl bench --json` as pictures.

The roofline is that of Williams, Waterman and Patterson, "Roofline: an insightful visual performance model
for multicore architectures", CACM 52(4), 2009: attainable GFLOP/s over arithmetic intensity. Operations are
those of an op's formula, so an algorithm that needs fewer (Winograd's) can stand above the roof.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter

from cisdl.bench.statistics import geometric_mean
from cisdl.report import style

Content = Mapping[str, Any]


def subtitle(content: Content) -> str:
    environment = content["environment"]
    threads = environment["threads"]
    return (
        f"{environment['processor']} ({environment['isa']}), {threads} thread{'s' if threads > 1 else ''}, "
        f"{content['options']['dtype']}, torch {environment['torch']}, {environment['date'][:10]}"
    )


def speedups(path: Path, content: Content) -> None:
    """Left, the layers of each network, passes summed; right, every row of each op; the bar is the mean."""
    networks = {name: list(one["layers"].values()) for name, one in content.get("networks", {}).items()}
    by_op: dict[str, list[float]] = {}
    for row in content["rows"]:
        by_op.setdefault(row["case"].split("/")[0], []).append(row["speedup"]["value"])
    panels = [
        ("networks: a dot a layer, its passes summed", networks),
        ("ops: a dot a case and pass", by_op),
    ]
    panels = [(title, groups) for title, groups in panels if groups]
    height = 1.5 + 0.36 * max(len(groups) for _, groups in panels)
    title = "Speed-up over torch in its best layout"
    with style.figure(path, 5.2 * len(panels), height, title) as fig:
        everything = fig.subplots(1, len(panels), squeeze=False)[0]
        for axes, (caption, groups) in zip(everything, panels, strict=True):
            dots(axes, caption, groups)
        fig.supxlabel(subtitle(content), x=0.012, ha="left", fontsize=9, color=style.FAINT)


def dots(axes: Axes, title: str, groups: Mapping[str, Sequence[float]]) -> None:
    axes.set_title(title)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(axis="x", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.axvline(1, color=style.INK, linewidth=1.2)
    for place, (_, values) in enumerate(groups.items()):
        won = [value for value in values if value >= 1]
        lost = [value for value in values if value < 1]
        for some, color in ((won, style.BLUE), (lost, style.RED)):
            axes.plot(some, [place] * len(some), "o", markersize=4, alpha=0.45, color=color, linestyle="none")
        mean = geometric_mean(values)
        axes.plot([mean], [place], "|", markersize=15, markeredgewidth=2.4, color=style.ORANGE)
    axes.set_yticks(
        range(len(groups)),
        [f"{name}  {geometric_mean(values):.2f}x" for name, values in groups.items()],
    )
    axes.set_ylim(len(groups) - 0.5, -0.5)


def roofline(path: Path, content: Content) -> None:
    """Ours and torch's achieved GFLOP/s of every row that counts operations, under the measured ceilings."""
    rows = [row for row in content["rows"] if row["gflops"]]
    ceilings = content["ceilings"]
    peak = ceilings["gflops"]
    rates = {int(size): rate for size, rate in ceilings["gbytes"].items()}
    intensities = [row["gflops"] / row["gbytes"] for row in rows]
    low, high = min(intensities) / 1.5, max(intensities) * 1.5
    with style.figure(path, 9, 5.2, "Roofline: what the formula counts, achieved") as fig:
        axes = fig.subplots()
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("operations a byte, every tensor moved once")
        axes.set_ylabel("GFLOP/s")
        axes.grid(linewidth=0.8)
        axes.set_axisbelow(True)
        for rate, name, line in (
            (rates[max(rates)], "memory", "-"),
            (max(rates.values()), "cache", "--"),
        ):
            knee = peak / rate
            axes.plot([low, knee, high], [low * rate, peak, peak], line, color=style.INK, linewidth=1.3,
                      label=f"{name} {rate:.0f} GB/s, peak {peak:.0f} GF/s")  # fmt: skip
        theirs = [row["gflops"] * row["ours_seconds"] / row["torch_seconds"] for row in rows]
        ours = [row["gflops"] for row in rows]
        axes.plot(intensities, theirs, "o", markersize=4, alpha=0.55, color=style.ORANGE, label="torch")
        axes.plot(intensities, ours, "o", markersize=4, alpha=0.55, color=style.BLUE, label="ours")
        axes.set_xlim(low, high)
        axes.legend(frameon=False, loc="lower right", fontsize=9)
        fig.supxlabel(subtitle(content), x=0.012, ha="left", fontsize=9, color=style.FAINT)
