"""`cisdl train MODEL`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import click

from cisdl.commands.options import flag
from cisdl.data.registry import DATA, SCALES
from cisdl.errors import UsageError
from cisdl.models.options import OPTIONS
from cisdl.models.registry import MODELS, ModelEntry
from cisdl.models.registry import get as get_model
from cisdl.training.config import MOMENTUM, OPTIMIZERS, SCHEDULES, configure


def model_entry(ctx: click.Context, param: click.Parameter, value: str) -> ModelEntry:
    """The model of that name; a mistake is answered with the nearest."""
    return get_model(value)


def having(option: str) -> str:
    """The models that have an option."""
    return ", ".join(entry.name for entry in MODELS.values() if option in entry.options)


def own_options(command: Callable[..., None]) -> Callable[..., None]:
    """The models' own options, in the order of their table."""
    for name, option in reversed(OPTIONS.items()):
        what = f"{option.help} ({having(name)})."
        command = click.option(flag(name), name, type=option.type, metavar=option.metavar, help=what)(command)
    return command


def positive(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    """A rate or a norm has to be finite and above zero."""
    if value is not None and not (math.isfinite(value) and value > 0):
        raise UsageError(f"{param.opts[-1]}: expected a finite number above 0, got {value}")
    return value


@click.command()
@click.argument("model", callback=model_entry, metavar="MODEL")
@click.option(
    "--data",
    metavar="NAME|PATH",
    help=f"A data set ({', '.join(DATA)}) or files of a format that the model reads.  [default: by model]",
)
@click.option("--data-dir", metavar="PATH", help="Where named data lies.  [default: $CISDL_DATA or ./data]")
@click.option(
    "--scale",
    type=click.Choice(SCALES),
    help="Pixels as they are, in [0, 1], or with mean 0 and deviation 1.  [default: by model and data]",
)
@click.option(
    "--image-size",
    type=click.IntRange(min=1),
    metavar="N",
    help="Resize images to N x N pixels.  [default: by model]",
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Use at most N examples of each part.")
@click.option("--epochs", type=click.IntRange(min=1), metavar="N")
@click.option("--batch-size", type=click.IntRange(min=1), metavar="N")
@click.option("--optimizer", type=click.Choice(OPTIMIZERS))
@click.option("--lr", type=float, callback=positive, metavar="RATE", help="Learning rate.")
@click.option(
    "--schedule",
    type=click.Choice(SCHEDULES),
    help="The rate stays, or falls to zero over the epochs along half a cosine.",
)
@click.option(
    "--momentum",
    type=click.FloatRange(0, 1, max_open=True),
    metavar="M",
    help=f"With --optimizer momentum.  [default: {MOMENTUM}]",
)
@click.option(
    "--clip-norm",
    type=float,
    callback=positive,
    metavar="NORM",
    help="Keep the gradient's norm at or below this.  [default: by model]",
)
@own_options
@click.option(
    "--backend",
    type=click.Choice(["cisdl", "torch"]),
    default="cisdl",
    show_default=True,
    help="Whose kernels: ours or torch's.",
)
@click.option("--device", default="cpu", show_default=True, metavar="cpu|cuda|cuda:N")
@click.option("--threads", type=click.IntRange(min=1), metavar="N", help="CPU threads.  [default: torch's]")
@click.option(
    "--seed",
    type=click.IntRange(min=0, max=2**32 - 1),
    default=0,
    show_default=True,
    metavar="N",
    help="Decides initial weights, the order of examples and which of the training data validate.",
)
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    default=1,
    metavar="N",
    help="Train N times, with --seed and those after it, and end with mean and deviation.",
)
@click.option("--log-steps", is_flag=True, help="Write the loss of every step to steps.csv.")
@click.option("--dry-run", is_flag=True, help="Say what would be done; train nothing, write nothing.")
@click.option(
    "-o",
    "--out",
    metavar="NAME",
    help="The run folder: runs/NAME, or NAME-2, -3 if it exists.  [default: MODEL]",
)
def train(
    model: ModelEntry,
    data: str | None,
    data_dir: str | None,
    scale: str | None,
    image_size: int | None,
    limit: int | None,
    epochs: int | None,
    batch_size: int | None,
    optimizer: str | None,
    lr: float | None,
    schedule: str | None,
    momentum: float | None,
    clip_norm: float | None,
    backend: str,
    device: str,
    threads: int | None,
    seed: int,
    seeds: int,
    log_steps: bool,
    dry_run: bool,
    out: str | None,
    **options_given: Any,
) -> None:
    """Train MODEL and leave its results in a run folder; `cisdl ls models` lists them.

    Options without a default shown have one for each model; --dry-run prints them. The epoch that does
    best on validation is kept and judged once on the test part.

    \b
    Examples:
      cisdl train lenet
      cisdl train mlp --hidden 16 --activation tanh --optimizer sgd --lr 0.01 --batch-size 16 --epochs 10
      cisdl train lenet --data ../data/fashion-mnist --epochs 2 -o fashion
      cisdl train denoising-autoencoder --noise 0.5
      cisdl train mlp --seeds 5
    """
    options = model_options(model, options_given)
    if momentum is not None and (optimizer or model.optimizer) != "momentum":
        raise UsageError(
            f"--momentum: expected with --optimizer momentum, got --optimizer {optimizer or model.optimizer}"
        )
    name = run_name(out, model.name)

    from cisdl import device as devices
    from cisdl.training.run import run, run_seeds

    chosen = devices.resolve(device)
    config = configure(
        model,
        options=options,
        backend=backend,
        device=str(chosen),
        threads=devices.prepare(chosen, threads),
        data=data,
        data_dir=data_dir,
        scale=scale,
        image_size=image_size,
        limit=limit,
        epochs=epochs,
        batch_size=batch_size,
        optimizer=optimizer,
        lr=lr,
        schedule=schedule,
        momentum=momentum,
        clip_norm=clip_norm,
        seed=seed,
        log_steps=log_steps,
    )
    if seeds == 1:
        run(config, name, dry_run)
    else:
        run_seeds(config, seeds, name, dry_run)


def model_options(model: ModelEntry, given: dict[str, Any]) -> dict[str, Any]:
    """The model's own options, as given or by default; one it does not have is refused."""
    for option, value in given.items():
        if value is not None and option not in model.options:
            raise UsageError(
                f"{flag(option)}: expected with {having(option)}, got with {model.name}, "
                "which has no such option"
            )
    return {name: default if given[name] is None else given[name] for name, default in model.options.items()}


def run_name(out: str | None, model: str) -> str:
    """The run folder's name; it names a folder inside ./runs, never a path."""
    if out is None:
        return model
    if not out or out in {".", ".."} or out.startswith(".") or "/" in out or "\\" in out:
        raise UsageError(f"--out: expected a name for a folder inside ./runs, got '{out}'")
    return out
