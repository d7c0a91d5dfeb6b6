"""`cisdl bench history [FILE.json...]`."""

from __future__ import annotations

from pathlib import Path

import click

from cisdl.errors import DataError, UsageError


@click.command(name="history")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path), metavar="[FILE.json|FOLDER]...")
@click.option(
    "--case", "pattern", metavar="GLOB", help="Single cases by op, name or op/name.  [default: means of ops]"
)
@click.option("--json", "as_json", is_flag=True, help="For machines: one JSON list of machines.")
def history(files: tuple[Path, ...], pattern: str | None, as_json: bool) -> None:
    """How the speed-ups in files of `cisdl bench --save` changed: a table a machine, a column a file.

    Files are in the order of their dates. A row is the geometric mean over an op's cases, with their number,
    or with --case each case and pass. The last column holds the newest file against the oldest, over the
    cases that both have. Without FILE all of ./benchmarks are read; what is no such file is passed over.

    \b
    Examples:
      cisdl bench history
      cisdl bench history old.json new.json --case 'conv2d/alexnet*'
    """
    import json

    from cisdl import console
    from cisdl.bench import history as histories
    from cisdl.bench.table import history_table

    contents = histories.read(files or (Path("benchmarks"),))
    if not contents:
        raise DataError(
            f"{', '.join(map(str, files)) or 'benchmarks'}: expected files of `cisdl bench --save`, found "
            "none; `cisdl bench --quick --save` writes one"
        )
    machines = [found for found in histories.machines(contents, pattern) if found.rows]
    if not machines:
        raise UsageError(f"--case: no file has a case that matches '{pattern}'; leave it out to see the ops")
    if as_json:
        click.echo(json.dumps([machine.as_json() for machine in machines], indent=1))
        return
    out = console.stdout()
    for machine in machines:
        out.print(history_table(machine))
        out.print()
