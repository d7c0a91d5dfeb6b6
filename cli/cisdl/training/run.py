"""One run from configuration to pictures: what `cisdl train` does once its options are understood."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from cisdl import backend, console, environment, tasks
from cisdl.errors import DataError, UsageError, did_you_mean
from cisdl.models import registry as model_registry
from cisdl.report.layers import Layer, layer_table, layers
from cisdl.tasks.base import Data, Task
from cisdl.training import checkpoint, processes, run_folder
from cisdl.training.config import TrainConfig
from cisdl.training.position import Position
from cisdl.training.run_folder import RunFolder
from cisdl.training.scalars import Scalars

if TYPE_CHECKING:
    from cisdl.training.loop import Outcome


def run_seeds(config: TrainConfig, count: int, name: str, dry_run: bool) -> list[Outcome]:
    """`count` runs that differ in the seed, `name`-seed0 and so on, and how their results spread."""
    if dry_run:
        run(config, name, dry_run)
        console.say(f"and so on up to seed {config.seed + count - 1}")
        return []
    outcomes: list[Outcome] = []
    for seed in range(config.seed, config.seed + count):
        outcome = run(replace(config, seed=seed), f"{name}-seed{seed}", dry_run)
        if outcome is not None:
            outcomes.append(outcome)
    if not processes.is_first():
        return []
    score = tasks.new(model_registry.get(config.model), config).score
    values = [score.factor * float(one.evaluation.as_dict()[score.key]) for one in outcomes]
    print(
        f"{outcomes[0].judged_on}, seeds {config.seed} to {config.seed + count - 1}: {score.label} "
        f"{statistics.mean(values):.4g} \u00b1 {statistics.stdev(values):.2g} "
        f"({', '.join(f'{value:.4g}' for value in values)})"
    )
    return outcomes


def run(config: TrainConfig, name: str, dry_run: bool) -> Outcome | None:
    """Load the data, build the model, train it, draw it; for `dry_run` stop after saying what it would do.

    Of several processes the first one has the outcome, the others None.
    """
    check_processes(config)
    task = tasks.load(model_registry.get(config.model), config)
    torch.manual_seed(config.seed)  # weights are drawn on the CPU: equal on every device
    model = task.build(backend.get(config.backend))
    if config.init_from is not None:
        initialise(model, config.init_from)
    described = layers(model, task.example(), config.batch_size)
    if dry_run:
        print_dry_run(task, described)
        return None

    path = processes.done_by_first(lambda: RunFolder.create(name).path)
    folder = RunFolder(path, writes=processes.is_first())
    at = Position()
    write_config(folder, task, described, at)
    if folder.writes:
        folder.write_json("env.json", environment.gather())
    return finish(config, task, model, folder)


def resume(name: str, changes: Mapping[str, Any]) -> Outcome | None:
    """Go on with the run `name` after its last.pt, with some of its configuration changed."""
    folder, state = processes.done_by_first(lambda: saved(name, "--resume", "last.pt"))
    config = replace(TrainConfig(**state["config"]), **changes)
    config = replace(config, device=str(processes.device(torch.device(config.device))))
    check_processes(config)
    task = tasks.load(model_registry.get(config.model), config)
    for fact, value in task.facts().items():
        if state["facts"].get(fact) != value:
            raise DataError(
                f"--resume {folder}: expected the data that the run began with, got others, of another "
                f"{fact.replace('_', ' ')}, from {task.data.source}"
            )
    model = task.build(backend.get(config.backend))
    at = Position.of(state["position"])
    complete = at.epoch if at.batch == task.batch_count() else at.epoch - 1
    if processes.is_first():
        reopened = RunFolder.reopen(folder, complete, at.step)
        console.say(f"{folder} goes on after step {at.step}, {complete} of {config.epochs} epochs are done")
    else:
        reopened = RunFolder(folder, writes=False)
    write_config(reopened, task, layers(model, task.example(), config.batch_size), at)
    return finish(config, task, model, reopened, state)


def saved(name: str, option: str, file: str) -> tuple[Path, dict[str, Any]]:
    """The folder of the run `name`, and what is in its `file`."""
    folder = run_folder.find(name)
    if folder is None:
        known = did_you_mean(name, [path.name for path in run_folder.existing()])
        raise UsageError(f"{option}: '{name}' is not a run, expected a folder of `cisdl train`; {known}")
    return folder, checkpoint.load(folder / file)


def check_processes(config: TrainConfig) -> None:
    """Refuse several processes where the model, or its mini-batches, are for fewer."""
    count = processes.world_size()
    model_registry.get(config.model).check_processes(count)
    if config.batch_size < count:
        raise UsageError(
            f"--batch-size: expected at least the {count} processes, which share it, got {config.batch_size}"
        )


def initialise(model: nn.Module, name: str) -> None:
    """Give a new model the kept weights of the run `name`."""
    folder, state = processes.done_by_first(lambda: saved(name, "--init-from", "best.pt"))
    try:
        model.load_state_dict(state["model"])
    except RuntimeError as error:
        raise UsageError(
            f"--init-from: expected a run of the same model and sizes, got {state['config']['model']} with "
            f"other weights in {folder}"
        ) from error


def write_config(folder: RunFolder, task: Task, described: list[Layer], at: Position) -> None:
    data = task.data
    at.trained_by(processes.world_size())
    folder.write_json(
        "config.json",
        task.config.as_dict()
        | {
            "run": folder.path.name,
            "processes": [{"after_step": step, "count": count} for step, count in at.processes],
            "parameters": sum(layer.parameters for layer in described),
            "layers": [asdict(layer) for layer in described],
            "data_facts": {name: getattr(data, name) for name in ("name", "source", "split", "counts")}
            | task.facts(),
        },
    )


def finish(
    config: TrainConfig,
    task: Task,
    model: nn.Module,
    folder: RunFolder,
    resumed: Mapping[str, Any] | None = None,
) -> Outcome | None:
    """Train, from the start or from a saved state on; judge, draw and say how it went."""
    data, device = task.data, torch.device(config.device)
    parameters = sum(p.numel() for p in model.parameters())
    threads = f"{config.threads} thread{'s' if config.threads > 1 else ''}"
    if not processes.alone():
        threads = f"{processes.world_size()} processes of {threads}"
    if processes.is_first():
        console.say(
            f"{config.model} ({parameters:,} parameters) on {data.name} {summary(data)}, "
            f"backend {config.backend}, {config.device}, {threads}, seed {config.seed}"
        )

    from cisdl.training.loop import train

    if config.tensorboard and folder.writes:
        folder.scalars = Scalars(folder.path, Position.of(resumed["position"]).step if resumed else None)
    try:
        model.to(device)
        task.to(device)
        outcome = train(config, model, task, folder, resumed)
    finally:
        folder.close()
    if outcome is None:
        return None

    from cisdl.report import plots

    task.to(torch.device("cpu"))
    task.export(model.cpu(), folder.path)
    plots.draw(task, model.cpu(), folder, outcome)
    note = f"; stopped by {outcome.stopped}" if outcome.stopped else ""
    if outcome.judged_on != "test":
        note += f"; {data.name} has no test part, this one chose the epoch too"
    print(
        f"{outcome.judged_on} {task.metric} {outcome.evaluation}, "
        f"best epoch {outcome.best_epoch} of {outcome.epochs} by validation, {outcome.seconds:.1f} s{note}"
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
