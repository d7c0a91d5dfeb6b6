"""One run from configuration to pictures: what `cisdl train` does once its options are understood."""

from __future__ import annotations

import statistics
import sys
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import torch

from cisdl import backend, console, environment, tasks
from cisdl.models import registry as model_registry
from cisdl.report.layers import Layer, layer_table, layers
from cisdl.tasks.base import Data, Task
from cisdl.training.config import TrainConfig
from cisdl.training.run_folder import RunFolder

if TYPE_CHECKING:
    from cisdl.training.loop import Outcome


def run_seeds(config: TrainConfig, count: int, name: str, dry_run: bool) -> None:
    """`count` runs that differ in the seed, `name`-seed0 and so on, and how their results spread."""
    if dry_run:
        run(config, name, dry_run)
        console.say(f"and so on up to seed {config.seed + count - 1}")
        return
    outcomes: list[Outcome] = []
    for seed in range(config.seed, config.seed + count):
        outcome = run(replace(config, seed=seed), f"{name}-seed{seed}", dry_run)
        assert outcome is not None
        outcomes.append(outcome)
    score = tasks.new(model_registry.get(config.model), config).score
    values = [score.factor * float(one.evaluation.as_dict()[score.key]) for one in outcomes]
    print(
        f"{outcomes[0].judged_on}, seeds {config.seed} to {config.seed + count - 1}: {score.label} "
        f"{statistics.mean(values):.4g} \u00b1 {statistics.stdev(values):.2g} "
        f"({', '.join(f'{value:.4g}' for value in values)})"
    )


def run(config: TrainConfig, name: str, dry_run: bool) -> Outcome | None:
    """Load the data, build the model, train it, draw it; for `dry_run` stop after saying what it would do."""
    entry = model_registry.get(config.model)
    ops = backend.get(config.backend)
    task = tasks.load(entry, config)
    data = task.data

    torch.manual_seed(config.seed)  # weights are drawn on the CPU: equal on every device
    model = task.build(ops)
    described = layers(model, task.example(), config.batch_size)
    if dry_run:
        print_dry_run(task, described)
        return None

    device = torch.device(config.device)
    model.to(device)
    folder = RunFolder.create(name)
    parameters = sum(p.numel() for p in model.parameters())
    folder.write_json(
        "config.json",
        config.as_dict()
        | {
            "run": folder.path.name,
            "parameters": parameters,
            "layers": [asdict(layer) for layer in described],
            "data_facts": {name: getattr(data, name) for name in ("name", "source", "split", "counts")}
            | task.facts(),
        },
    )
    folder.write_json("env.json", environment.gather())
    threads = f"{config.threads} thread{'s' if config.threads > 1 else ''}"
    console.say(
        f"{config.model} ({parameters:,} parameters) on {data.name} {summary(data)}, "
        f"backend {config.backend}, {config.device}, {threads}, seed {config.seed}"
    )

    from cisdl.training.loop import train

    try:
        task.to(device)
        outcome = train(config, model, task, folder)
    finally:
        folder.close()

    from cisdl.report import plots

    task.to(torch.device("cpu"))
    plots.draw(task, model.cpu(), folder, outcome)
    note = (
        "" if outcome.judged_on == "test" else f"; {data.name} has no test part, this one chose the epoch too"
    )
    print(
        f"{outcome.judged_on} {task.metric} {outcome.evaluation}, "
        f"best epoch {outcome.best_epoch} of {config.epochs} by validation, {outcome.seconds:.1f} s{note}"
    )
    for name, found in outcome.baselines.items():
        print(f"beside it: {name} {found}")
    print(folder.path)
    return outcome


def summary(data: Data) -> str:
    return "(" + ", ".join(f"{count} {part}" for part, count in data.counts.items()) + ")"


def print_dry_run(task: Task, described: list[Layer]) -> None:
    """The resolved configuration, the data and the layers, on stdout."""
    from rich.table import Table

    config, data, out = task.config, task.data, console.stdout()
    table = Table(title="configuration", title_justify="left", show_header=False, box=None)
    for key, value in config.as_dict().items():
        if key == "options":
            for option, chosen in value.items():
                shown = ",".join(map(str, chosen)) if isinstance(chosen, tuple) else str(chosen)
                table.add_row(f"  {option}", shown)
        elif value is not None and (key != "momentum" or config.optimizer == "momentum"):
            table.add_row(f"  {key}", f"{value:g}" if isinstance(value, float) else str(value))
    out.print(table)
    facts = Table(title="\ndata", title_justify="left", show_header=False, box=None)
    facts.add_row("  parts", summary(data)[1:-1])
    for name, what in task.describe().items():
        facts.add_row(f"  {name}", what)
    facts.add_row("  split", data.split)
    facts.add_row("  source", data.source)
    out.print(facts)
    out.print()
    out.print(layer_table(described))
    sys.stdout.flush()
    console.say("dry run: nothing was trained or written")
