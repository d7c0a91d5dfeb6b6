"""`cisdl show MODEL|RUN`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cisdl.commands import candidates
from cisdl.errors import BuildError, UsageError, did_you_mean


@click.command()
@click.argument("what", metavar="MODEL|RUN", shell_complete=candidates.models_and_runs)
def show(what: str) -> None:
    """Show a model's layers, shapes and parameters; or a run: its configuration, epochs, result and files.

    A run is named by its folder's name under ./runs, or by its path. Where a run is called like a model, the
    bare name means the model and runs/NAME the run.

    \b
    Examples:
      cisdl show lenet
      cisdl show runs/lenet-2
    """
    from cisdl.models.registry import MODELS
    from cisdl.training.run_folder import existing, find

    if what in MODELS:
        show_model(what)
        return
    folder = find(what)
    if folder is None:
        known = [*MODELS, *(path.name for path in existing())]
        raise UsageError(f"'{what}' is neither a model nor a run; {did_you_mean(what, known)}")
    show_run(folder)


def show_model(name: str) -> None:
    """Layers for the bundled data, on our modules, or torch's of the same shapes where ours are not built."""
    from cisdl import backend, console, tasks
    from cisdl.commands.ls import plain
    from cisdl.commands.options import flag
    from cisdl.models.registry import get
    from cisdl.report.layers import layer_table, layers
    from cisdl.training.config import configure

    entry = get(name)
    config = configure(entry)
    task = tasks.load(entry, config)
    try:
        model = task.build(backend.get("cisdl"))
    except BuildError:
        model = task.build(backend.get("torch"))
    out = console.stdout()
    out.print((entry.module.__doc__ or "").strip(), markup=False, soft_wrap=True)
    out.print()
    options = ", ".join(f"{flag(name)} {plain(value)}" for name, value in entry.options.items())
    out.print(f"options and their defaults: {options}", markup=False, soft_wrap=True)
    out.print()
    out.print(
        f"for {task.data.name}: {', '.join(task.describe().values())}; batch {config.batch_size}",
        markup=False,
    )
    out.print(layer_table(layers(model, task.example(), config.batch_size)))


def show_run(folder: Path) -> None:
    import json

    from cisdl import console
    from cisdl.commands.ls import plain, print_table
    from cisdl.training.run_folder import read_json

    config, result = read_json(folder / "config.json"), read_json(folder / "result.json")
    out = console.stdout()
    hidden = {"layers", "data_facts", "run", "options"}
    facts = {name: value for name, value in config.items() if name not in hidden and value is not None}
    for name, value in config["options"].items():
        facts[name] = plain(tuple(value) if isinstance(value, list) else value)
    out.print(f"{folder}: {result.get('status', 'unfinished')}", style="bold", markup=False)
    out.print("  ".join(f"{name} {value}" for name, value in facts.items()), markup=False)
    split = config["data_facts"]
    counts = ", ".join(f"{count} {part}" for part, count in split["counts"].items())
    out.print(f"{split['name']}: {counts}; {split['split']}", markup=False)
    metrics = folder / "metrics.jsonl"
    if metrics.is_file():
        rows = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
        out.print()
        print_table([{name: rounded(value) for name, value in row.items()} for row in rows])
    out.print()
    for part in ("test", "validation"):
        if part in result:
            out.print(f"{part} {result[part].get('words', '')}", markup=False)
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    out.print("files: " + ", ".join(files), markup=False)


def rounded(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)
