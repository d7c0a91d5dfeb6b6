"""`cisdl bench chart FILE.json`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(name="chart")
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE.json")
@click.option("--out", "folder", type=click.Path(file_okay=False, path_type=Path), default=Path(),
              show_default="this folder", help="Where the pictures go.")  # fmt: skip
def chart(file: Path, folder: Path) -> None:
    """Draw a file of `cisdl bench --json`: speed-ups by network and op, and the roofline.

    \b
    Example:
      cisdl bench chart benchmarks/some-cpu-1-thread-2026-01-01.json --out docs/images
    """
    from cisdl import console
    from cisdl.bench import results
    from cisdl.report import benchmark

    content = results.read_timings(file)
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {"speedup.png": benchmark.speedups, "roofline.png": benchmark.roofline}
    if not any(row.get("gflops") for row in content["rows"]):
        console.say(f"{file}: no row counts operations, so there is no roofline")
        del pictures["roofline.png"]
    for name, draw in pictures.items():
        draw(folder / name, content)
        console.say(f"wrote {folder / name}")
