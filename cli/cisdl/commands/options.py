"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from cisdl.commands import candidates

Command = Callable[..., Any]


def flag(option: str) -> str:
    """An option's name on the command line."""
    return "--" + option.replace("_", "-")


def of_a_run(command: Command) -> Command:
    """How a finished run is opened: the keyword arguments of `cisdl.runs.open_run`."""
    for option in (
        click.option("--threads", type=click.IntRange(min=1), metavar="N", help="CPU threads."),
        click.option("--device", default="cpu", show_default=True, metavar="cpu|cuda|cuda:N"),
        click.option(
            "--backend",
            type=click.Choice(["cisdl", "torch"]),
            default="cisdl",
            show_default=True,
            help="Whose kernels: ours or torch's.",
        ),
        click.option(
            "--checkpoint",
            "kept",
            type=click.Choice(["best", "last"]),
            default="best",
            show_default=True,
            help="The epoch that did best on validation, or the newest state.",
        ),
    ):
        command = option(command)
    return command


as_json = click.option("--json", "as_json", is_flag=True, help="For machines: JSON on stdout.")
with_data_dir = click.option(
    "--data-dir",
    metavar="PATH",
    shell_complete=candidates.folders,
    help="Where named data lies.  [default: $CISDL_DATA or ./data]",
)
