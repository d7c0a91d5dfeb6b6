"""One run from configuration to pictures: what `cisdl train` does once its options are understood."""

from __future__ import annotations

import sys
from dataclasses import asdict

import torch

from cisdl import backend, console, environment
from cisdl.data import registry as data_registry
from cisdl.data.images import ImageData
from cisdl.models import registry as model_registry
from cisdl.report.layers import Layer, layer_table, layers
from cisdl.training.config import TrainConfig
from cisdl.training.run_folder import RunFolder


def run(config: TrainConfig, name: str, dry_run: bool) -> None:
    """Load the data, build the model, train it, draw it; for `dry_run` stop after saying what it would do."""
    entry = model_registry.get(config.model)
    ops = backend.get(config.backend)
    data = data_registry.load(config.data, config.data_dir, config.seed)
    data = data.limited(config.limit).resized(entry.image_size).scaled(config.scale)

    torch.manual_seed(config.seed)  # weights are drawn on the CPU: equal on every device
    model = entry.build(ops, data.shape, len(data.class_names), **config.options)
    described = layers(model, data.shape)
    if dry_run:
        print_dry_run(config, data, described)
        return

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
            "data_facts": data_facts(data),
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
        outcome = train(config, model, data.to(device), folder)
    finally:
        folder.close()

    from cisdl.report import plots

    plots.draw(config, model.cpu(), data, folder, outcome)
    note = (
        "" if outcome.judged_on == "test" else f"; {data.name} has no test images, these chose the epoch too"
    )
    print(
        f"{outcome.judged_on} accuracy {outcome.evaluation}, "
        f"best epoch {outcome.best_epoch} of {config.epochs} by validation, {outcome.seconds:.1f} s{note}"
    )
    print(folder.path)


def summary(data: ImageData) -> str:
    return "(" + ", ".join(f"{count} {part}" for part, count in data.counts.items()) + ")"


def data_facts(data: ImageData) -> dict[str, object]:
    return {
        "name": data.name,
        "source": data.source,
        "split": data.split,
        "counts": data.counts,
        "shape": list(data.shape),
        "classes": list(data.class_names),
        "scaling": data.scaling,
    }


def print_dry_run(config: TrainConfig, data: ImageData, described: list[Layer]) -> None:
    """The resolved configuration, the data and the layers, on stdout."""
    from rich.table import Table

    out = console.stdout()
    table = Table(title="configuration", title_justify="left", show_header=False, box=None)
    for key, value in config.as_dict().items():
        if key == "options":
            for option, chosen in value.items():
                shown = ",".join(map(str, chosen)) if isinstance(chosen, tuple) else str(chosen)
                table.add_row(f"  {option}", shown)
        elif value is not None and (key != "momentum" or config.optimizer == "momentum"):
            table.add_row(f"  {key}", f"{value:g}" if isinstance(value, float) else str(value))
    out.print(table)
    channels, height, width = data.shape
    facts = Table(title="\ndata", title_justify="left", show_header=False, box=None)
    facts.add_row("  images", summary(data)[1:-1])
    facts.add_row("  shape", f"{channels} x {height} x {width}, {len(data.class_names)} classes")
    facts.add_row("  split", data.split)
    facts.add_row("  source", data.source)
    out.print(facts)
    out.print()
    out.print(layer_table(described))
    sys.stdout.flush()
    console.say("dry run: nothing was trained or written")
