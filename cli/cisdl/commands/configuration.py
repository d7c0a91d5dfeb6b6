"""A training's settings: those on the command line, then -o KEY=VALUE, then --config FILE, then defaults."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from cisdl.errors import DataError, UsageError, did_you_mean
from cisdl.training.config import TrainConfig

NOT_SETTINGS = frozenset(
    {
        "model",
        "config",
        "pairs",
        "print_config",
        "resume",
        "goals",
        "dry_run",
        "out",
        "seeds",
        "nproc",
        "help",
    }
)
"""Parameters of the command that say what to do, not what the run is."""
FACTS = frozenset({"model", "task", "run", "processes", "parameters", "layers", "data_facts"})
"""What a run's own config.json has besides settings."""


def gather(
    ctx: click.Context, file: str | None, pairs: Iterable[str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Every setting that was given, by name, and where: by option, by -o, or in a file."""
    parameters = {
        p.name: p for p in ctx.command.params if isinstance(p, click.Option) and p.name not in NOT_SETTINGS
    }
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}

    def take(source: str, given: Mapping[str, Any]) -> None:
        for key, value in given.items():
            name = key.replace("-", "_")
            if name not in parameters:
                known = did_you_mean(name, [str(one) for one in parameters])
                raise UsageError(f"{source}: unknown setting '{key}'; {known}")
            if value is None:
                continue
            if isinstance(value, list | tuple):
                value = ",".join(map(str, value))
            try:
                values[name] = parameters[name].process_value(ctx, value)
            except click.BadParameter as error:
                raise UsageError(f"{source}: {key}: {error.message.rstrip('.')}") from error
            sources[name] = source

    if file is not None:
        take(file, read(Path(file)))
    take("-o", dict(pair(text) for text in pairs))
    for name in parameters:
        if name is not None and ctx.get_parameter_source(name) == ParameterSource.COMMANDLINE:
            values[name], sources[name] = ctx.params[name], "command line"
    return values, sources


def pair(text: str) -> tuple[str, str]:
    """KEY=VALUE in two."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UsageError(f"-o: expected KEY=VALUE like lr=0.01, got '{text}'")
    return key.strip(), value.strip()


def read(path: Path) -> dict[str, Any]:
    """The settings in a TOML or JSON file; also a run's config.json, without its facts."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"--config {path}: expected a TOML or JSON file, got no such text") from error
    try:
        content: Any = json.loads(text) if path.suffix == ".json" else parse_toml(text)
    except ValueError as error:
        kind = "JSON" if path.suffix == ".json" else "TOML"
        raise DataError(f"--config {path}: expected {kind}, got a mistake: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"--config {path}: expected settings by name, got {type(content).__name__}")
    options: dict[str, Any] = content.pop("options", {})
    return {key: value for key, value in content.items() if key not in FACTS} | options


def parse_toml(text: str) -> dict[str, Any]:
    # tomli is the same parser, for Python 3.10.
    parser: Any = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    parsed: dict[str, Any] = parser.loads(text)
    return parsed


def print_sources(config: TrainConfig, sources: Mapping[str, str]) -> None:
    """Every setting, its value, and where that comes from."""
    from rich.table import Table

    from cisdl import console
    from cisdl.commands.ls import plain

    settings = {
        key: value for key, value in config.as_dict().items() if key not in ("model", "task", "options")
    }
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("setting", "value", "from"):
        table.add_column(column)
    for name, value in (settings | config.options).items():
        shown = f"{value:g}" if isinstance(value, float) else plain(value)
        table.add_row(name, shown, sources.get(name, f"default of {config.model}"))
    console.stdout().print(table)
