"""`cisdl predict RUN`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from cisdl.commands import candidates
from cisdl.commands.options import as_json, of_a_run
from cisdl.errors import DataError, UsageError


@click.command()
@click.argument("run", metavar="RUN", shell_complete=candidates.runs)
@click.argument("given", nargs=-1, metavar="[TEXT|IMAGE]...", shell_complete=candidates.files)
@click.option(
    "--file",
    metavar="PATH",
    shell_complete=candidates.files,
    help="One input a line; - reads them from standard input.",
)
@of_a_run
@as_json
def predict(run: str, given: tuple[str, ...], file: str | None, as_json: bool, **opening: Any) -> None:
    """What does the run's model say of these inputs? Texts for models of text, paths for models of images.

    Everything it needs is in the run: vocabulary, classes, how inputs are prepared.

    \b
    Examples:
      cisdl predict lstm "Deep Learning is great"
      cisdl predict lenet seven.png
      cisdl predict tagger --file sentences.txt --json
    """
    inputs = [*given, *([] if file is None else lines(file))]
    if not inputs:
        raise UsageError(
            f"expected something to predict, got nothing; for example `cisdl predict {run} INPUT` or "
            "`--file PATH`"
        )

    from cisdl.runs import open_run
    from cisdl.tasks.base import Predicts

    opened = open_run(run, **opening)
    if not isinstance(opened.task, Predicts):
        raise UsageError(f"{opened.task.entry.name} predicts nothing: expected a run of a model that does")
    answers = opened.task.predict(opened.model, inputs)
    if as_json:
        import json

        print(json.dumps([answer._asdict() for answer in answers], indent=2, ensure_ascii=False))
        return
    for answer in answers:
        details = ", ".join(f"{name} {shown(value)}" for name, value in answer.details.items())
        print(f"{answer.answer}{f'  ({details})' if details else ''}  {answer.given}")


def shown(value: Any) -> str:
    """A detail in a few characters."""
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, dict):
        return " ".join(f"{name} {shown(one)}" for name, one in value.items())
    return str(value)


def lines(file: str) -> list[str]:
    """The lines of a file that hold something."""
    try:
        content = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise DataError(f"{file}: expected a file of inputs, one a line, got: {error.strerror}") from error
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{file}: expected UTF-8, got the byte 0x{content[error.start]:02x} at {error.start}"
        ) from error
    return [line for line in text.splitlines() if line.strip()]
