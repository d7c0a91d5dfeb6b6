"""`cisdl report RUN...`."""

from __future__ import annotations

from pathlib import Path

import click

from cisdl.commands import candidates
from cisdl.errors import UsageError, did_you_mean


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", shell_complete=candidates.runs)
@click.option(
    "--out",
    metavar="FILE",
    shell_complete=candidates.files,
    help="[default: report.html in the run's folder, of several in the current one]",
)
def report(runs: tuple[str, ...], out: str | None) -> None:
    """Write one HTML page of a run, or of several side by side: results, curves, pictures, settings, machine.

    The page is one file that needs no server and no network; a browser opens it.

    \b
    Examples:
      cisdl report lenet
      cisdl report mlp-seed0 mlp-seed1 mlp-seed2 --out seeds.html
    """
    from cisdl.training.run_folder import existing, find

    folders = []
    for name in runs:
        folder = find(name)
        if folder is None:
            known = did_you_mean(name, [path.name for path in existing()])
            raise UsageError(f"'{name}' is not a run, expected a folder of `cisdl train`; {known}")
        folders.append(folder)
    path = Path(out) if out else folders[0] / "report.html" if len(folders) == 1 else Path("report.html")

    from cisdl.report import page

    page.write(folders, path)
    print(path)
