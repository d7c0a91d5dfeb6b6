"""Tables for people: wins and losses alike, and no win that the measurement does not carry."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from cisdl.bench.ceilings import Ceilings
from cisdl.bench.history import Machine
from cisdl.bench.memory import Peak
from cisdl.bench.results import Results, Row
from cisdl.bench.statistics import Ratio, geometric_mean, quartiles
from cisdl.bench.timing import Timing
from cisdl_ops.cases import NETWORKS, network_of

STYLES = {"win": "green", "loss": "red", "even": "dim"}
SHORT_LAYOUT = {"contiguous": "", "channels_last": " cl"}


def duration(seconds: float) -> str:
    """Three significant digits in the unit that fits.

    >>> duration(0.00123)
    '1.23 ms'
    """
    for unit, factor in (("us", 1e6), ("ms", 1e3)):
        if seconds * factor < 999.5:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds:.3g} s"


def timing_cell(timing: Timing) -> str:
    """Median, half the distance of the quartiles in per cent, and the layout if it is not the usual one."""
    low, median, high = quartiles(timing.seconds)
    return f"{duration(median)} ±{50 * (high - low) / median:.0f}%{SHORT_LAYOUT[timing.layout]}"


def ratio_cell(ratio: Ratio) -> str:
    """ "even" if the interval holds 1; otherwise the speed-up with its interval."""
    interval = f"[dim][{ratio.low:.2f}, {ratio.high:.2f}][/dim]".replace("[dim][", "[dim]\\[")
    style = STYLES[ratio.verdict]
    text = "even" if ratio.verdict == "even" else f"{ratio.value:.2f}x"
    return f"[{style}]{text}[/{style}] {interval}"


def rate_cell(row: Row, ceilings: Ceilings) -> tuple[str, str]:
    """GFLOP/s where arithmetic is the ceiling and GB/s where memory is; per cent of it, flagged above 100."""
    fraction = row.fraction_of_ceiling(ceilings)
    if fraction is None:
        return "", ""
    seconds = row.best("ours").median
    if ceilings.bound(row.flops, row.bytes) == "compute":
        rate = f"{row.flops / seconds / 1e9:.3g} GF/s"
    else:
        rate = f"{row.bytes / seconds / 1e9:.3g} GB/s"
    return rate, f"{100 * fraction:.0f}%" + (" !" if fraction > 1 else "")


def rows_table(rows: Sequence[Row], ceilings: Ceilings, title: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    compiled = any(row.has("compiled") for row in rows)
    graphs = any(row.ratio_in_graphs for row in rows)
    for name in ("case", "pass"):
        table.add_column(name, no_wrap=True)
    for name in (
        "ours",
        "torch",
        "speed-up",
        *(("over compiled",) if compiled else ()),
        *(("in graphs",) if graphs else ()),
        "rate",
        "of ceiling",
    ):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("implementation", no_wrap=True)
    for row in rows:
        over, in_graphs = row.ratio_to_compiled, row.ratio_in_graphs
        table.add_row(
            row.case.split("/", 1)[1],
            row.part_in_words,
            timing_cell(row.best("ours")),
            timing_cell(row.best("torch")),
            ratio_cell(row.ratio),
            *((ratio_cell(over) if over else "",) if compiled else ()),
            *((ratio_cell(in_graphs) if in_graphs else "",) if graphs else ()),
            *rate_cell(row, ceilings),
            row.implementation,
        )
    return table


def summary_table(results: Results) -> Table:
    table = Table(title="geometric means", title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("op and pass", no_wrap=True)
    for name in ("speed-up", "wins", "even", "losses"):
        table.add_column(name, justify="right")
    for name, mean in results.means().items():
        op, part = name.split(":")
        verdicts = [
            row.ratio.verdict
            for row in results.rows
            if row.part_in_words == part and row.case.split("/")[0] == op
        ]
        counts = (str(verdicts.count(verdict)) for verdict in ("win", "even", "loss"))
        table.add_row(f"{op} {part}", f"{mean:.2f}x", *counts)
    return table


def networks_table(results: Results) -> Table:
    """One line a network: the mean over its layers, all passes of a layer summed, and its slowest layer."""
    table = Table(
        title="networks, all passes of a layer summed",
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
    )
    table.add_column("network", no_wrap=True)
    for name in ("layers", "geometric mean", "worst layer"):
        table.add_column(name, justify="right")
    table.add_column("", no_wrap=True)
    networks = results.networks()
    everything = [layer for layers in networks.values() for layer in layers]
    for network, layers in [*networks.items(), ("all", everything)]:
        worst = min(layers, key=lambda layer: layer.speedup)
        mean = geometric_mean([layer.speedup for layer in layers])
        table.add_row(network, str(len(layers)), f"{mean:.2f}x", f"{worst.speedup:.2f}x", worst.case)
    return table


def history_table(machine: Machine) -> Table:
    """A row an op and pass, or a case; a column a file, oldest first; the newest against the oldest."""
    table = Table(title=machine.name, title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("", no_wrap=True)
    for column in machine.columns:
        table.add_column(f"{column.date}\n{column.kind}".strip(), justify="right")
    table.add_column("newest / oldest", justify="right")
    for row in machine.rows:
        cells = []
        for column in machine.columns:
            mean = column.mean(row)
            count = len(column.rows.get(row, ()))
            cells.append("-" if mean is None else f"{mean:.2f}x" + (f" ({count})" if count > 1 else ""))
        change = machine.change(row)
        table.add_row(row, *cells, "-" if change is None else f"{change - 1:+.0%}")
    return table


def memory_table(peaks: Sequence[Peak]) -> Table:
    """Peak memory of forward and backward of each case, beside torch's."""
    table = Table(
        title="peak memory of forward and backward",
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
    )
    table.add_column("case", no_wrap=True)
    for name in ("layout", "tensors", "ours", "torch", "ours / torch"):
        table.add_column(name, justify="right", no_wrap=True)
    for peak in peaks:
        table.add_row(
            peak.case,
            peak.layout,
            mebibytes(peak.tensors),
            mebibytes(peak.ours),
            mebibytes(peak.torch),
            f"{peak.ratio:.2f}",
        )
    return table


def memory_summary(peaks: Sequence[Peak]) -> str:
    """The worst case, and each network's largest layer: what decides whether a model fits."""
    worst = max(peaks, key=lambda peak: peak.ratio)
    lines = [f"most beside torch: {worst.ratio:.2f} times, {worst.case} in {worst.layout}"]
    for network in NETWORKS:
        layers = [peak for peak in peaks if network_of(peak.case.split("/", 1)[1]) == network]
        if layers:
            ours, theirs = max(peak.ours for peak in layers), max(peak.torch for peak in layers)
            lines.append(
                f"  {network}: largest layer {mebibytes(ours)}, torch's {mebibytes(theirs)}, "
                f"{ours / theirs:.2f} times"
            )
    return "\n".join(lines)


def mebibytes(count: int) -> str:
    return f"{count / 2**20:.1f} MiB"


def losses_text(results: Results, most: int = 10) -> str:
    """The worst first, in words; or that there is none."""
    losses = results.losses()
    if not losses:
        return "losses: none"
    lines = [f"losses: {len(losses)} of {len(results.rows)}, the worst first"]
    for row in losses[:most]:
        layout = f" in {row.timings[0].layout}" if row.layout == "each" else ""
        lines.append(f"  {row.ratio.value:.2f}x  {row.case} {row.part_in_words}{layout}")
    return "\n".join(lines)


def notes(results: Results) -> str:
    """What the columns mean, once."""
    ceilings = results.ceilings
    layouts = (
        "each in its best layout" if results.options.get("layout") == "best" else "both in the same layout"
    )
    lines = [
        f"speed-up: torch's time over ours, {layouts} (cl: channels_last), median of rounds "
        "[99 % bootstrap interval]; even: the interval holds 1",
        f"ceiling: {ceilings.gflops:.0f} GF/s ({ceilings.gflops_source}), "
        f"{ceilings.gbytes[max(ceilings.gbytes)]:.0f} GB/s from memory, "
        f"{max(ceilings.gbytes.values()):.0f} GB/s in cache, all measured just now",
    ]
    if any(row.cache == "cold" for row in results.rows):
        lines.append("cold: the caches are swept before every call; of ceiling: the same one as of hot rows")
    if any((row.fraction_of_ceiling(ceilings) or 0) > 1 for row in results.rows):
        lines.append(
            "!: above the ceiling, so less is computed or moved than the formula counts, or the clock rose"
        )
    return "\n".join(lines)
