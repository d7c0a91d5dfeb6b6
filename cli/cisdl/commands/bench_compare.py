"""`cisdl bench compare A.json B.json`."""

from __future__ import annotations

from pathlib import Path

import click

from cisdl.errors import GoalMissedError, UsageError


@click.command(name="compare")
@click.argument("before", type=click.Path(path_type=Path), metavar="A.json")
@click.argument("after", type=click.Path(path_type=Path), metavar="B.json")
@click.option("--threshold", type=click.FloatRange(0, 1, max_open=True), default=0.1, show_default=True,
              help="How much slower, relative to torch beside it, is a regression.")  # fmt: skip
def compare(before: Path, after: Path, threshold: float) -> None:
    """Hold two files of `cisdl bench --json` against each other; exits with 4 if B is slower.

    Speed-ups over torch are compared, not times: torch ran beside ours in both. A row is a regression if it
    lost more than the threshold and the two intervals do not overlap.

    \b
    Examples:
      cisdl bench compare before.json after.json
      cisdl bench compare benchmarks/ours.json new.json --threshold 0.2     in CI: exit code 4 says slower
    """
    from rich.table import Table

    from cisdl import console
    from cisdl.bench import compare as comparing
    from cisdl.bench import results

    a, b = results.read_timings(before), results.read_timings(after)
    differing = comparing.different_machine(a, b)
    if differing:
        console.say(f"these files are from different machines or settings: {', '.join(differing)}")
    found = comparing.changes(a, b)
    if not found:
        raise UsageError(f"{before} and {after} have no case in common; expected two files of the same GLOB")
    table = Table(box=None, pad_edge=False)
    table.add_column("case and pass", no_wrap=True)
    for name in ("before", "after", "change", ""):
        table.add_column(name, justify="right")
    slower = [change for change in found if change.regressed(threshold)]
    for change in found:
        verdict = "[red]slower[/red]" if change in slower else ("" if change.apart else "[dim]even[/dim]")
        table.add_row(
            change.id, f"{change.before:.2f}x", f"{change.after:.2f}x", f"{change.factor - 1:+.0%}", verdict
        )
    console.stdout().print(table)
    gone = comparing.missing(a, b)
    if gone:
        console.say(f"only in {before}: {', '.join(gone)}")
    if slower:
        worst = min(slower, key=lambda change: change.factor)
        raise GoalMissedError(
            f"{len(slower)} of {len(found)} rows got slower by more than {threshold:.0%}, "
            f"the worst {worst.id} from {worst.before:.2f}x to {worst.after:.2f}x of torch; "
            "bench those cases again by themselves before you believe it"
        )
