"""`cisdl ls models|data|runs|kernels`."""

from __future__ import annotations

import json
from typing import Any

import click
from click.shell_completion import CompletionItem

from cisdl.commands import candidates
from cisdl.commands.options import with_data_dir
from cisdl.errors import BuildError, UsageError, did_you_mean

Rows = list[dict[str, Any]]

WHAT = ("models", "data", "runs", "kernels")


def known(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """One of `WHAT`; a mistake is answered with the nearest."""
    if value not in WHAT:
        raise UsageError(f"cannot list '{value}'; {did_you_mean(value, WHAT)}")
    return value


def lists(ctx: click.Context, param: click.Parameter, typed: str) -> list[CompletionItem]:
    return candidates.starting(typed, WHAT)


@click.command()
@click.argument("what", callback=known, metavar="models|data|runs|kernels", shell_complete=lists)
@with_data_dir
@click.option("--json", "as_json", is_flag=True, help="For machines: one JSON list.")
def ls(what: str, data_dir: str | None, as_json: bool) -> None:
    """List the models by week of the course, the data sets, the runs under ./runs, or the kernels.

    \b
    Examples:
      cisdl ls models
      cisdl ls data --data-dir ~/data
      cisdl ls runs --json
    """
    rows = data(data_dir) if what == "data" else {"models": models, "runs": runs, "kernels": kernels}[what]()
    if as_json:
        print(json.dumps(rows, indent=2))
    elif rows:
        print_table(rows)
    else:
        print("no runs under ./runs yet; `cisdl train lenet` makes one")


def models() -> Rows:
    from cisdl.models.registry import MODELS

    return [
        {
            "week": entry.week,
            "model": entry.name,
            "what": entry.title,
            "epochs": entry.epochs,
            "batch": entry.batch_size,
            "optimizer": f"{entry.optimizer}, lr {entry.lr[entry.optimizer]:g}",
        }
        for entry in sorted(MODELS.values(), key=lambda entry: entry.week)
    ]


def data(data_dir: str | None) -> Rows:
    from cisdl.data.downloads import DOWNLOADS
    from cisdl.data.idx import find
    from cisdl.data.registry import DATA, data_folder

    rows = []
    for entry in DATA.values():
        folder = data_folder(data_dir) / entry.name
        if entry.bundled:
            where = entry.bundled
        elif not folder.is_dir():
            brings = f"; `cisdl data get {entry.name}` brings it" if entry.name in DOWNLOADS else ""
            where = f"not in {data_folder(data_dir).absolute()}{brings}"
        elif entry.reader == "idx" and find(folder, "train-images-idx3-ubyte") is None:
            where = f"no train-images-idx3-ubyte[.gz] in {folder}"
        else:
            lacks_test = entry.reader == "idx" and find(folder, "t10k-images-idx3-ubyte") is None
            where = f"{folder}{' (no test images)' if lacks_test else ''}"
        rows.append({"data": entry.name, "what": entry.title, "where": where})
    for name, download in DOWNLOADS.items():
        if name not in DATA:
            there = (data_folder(data_dir) / name).is_dir()
            where = str(data_folder(data_dir) / name) if there else f"`cisdl data get {name}` brings it"
            rows.append({"data": name, "what": download.title, "where": where})
    return rows


def runs() -> Rows:
    from cisdl.training.run_folder import existing, read_json

    rows = []
    for path in existing():
        config, result = read_json(path / "config.json"), read_json(path / "result.json")
        judged = [part for part in ("test", "validation") if part in result]
        rows.append(
            {
                "run": path.name,
                "model": config.get("model", "?"),
                "data": config.get("data_facts", {}).get("name", "?"),
                "backend": config.get("backend", "?"),
                "epochs": config.get("epochs", "?"),
                "seed": config.get("seed", "?"),
                "status": result.get("status", "unfinished"),
                "result": f"{judged[0]} {result[judged[0]].get('words', '')}" if judged else "-",
            }
        )
    return rows


def kernels() -> Rows:
    try:
        import cisdl_ops
    except ImportError as error:
        from cisdl.environment import one_line

        raise BuildError(one_line(error)) from error
    isa = str(cisdl_ops.build_info().get("isa", "?"))
    return [
        {"op": op, "implementations (the first that applies runs)": chain(op), "instruction set": isa}
        for op in cisdl_ops.op_names()
    ]


def chain(op: str) -> str:
    """The op's implementations in the order in which they are asked."""
    import cisdl_ops

    return ", ".join(cisdl_ops.implementations(op))


def plain(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def print_table(rows: Rows) -> None:
    """Columns from the rows' keys, in their order."""
    from rich.table import Table
    from rich.text import Text

    from cisdl import console

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in rows[0]:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(value)) for value in row.values()))
    console.stdout().print(table)
