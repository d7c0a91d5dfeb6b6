"""`cisdl train MODEL`."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from cisdl.commands import candidates, configuration
from cisdl.commands.goals import check_goals, parse_goal
from cisdl.commands.options import flag, with_data_dir
from cisdl.data.registry import DATA, SCALES
from cisdl.errors import UsageError
from cisdl.models.options import OPTIONS
from cisdl.models.registry import MODELS, ModelEntry
from cisdl.models.registry import get as get_model
from cisdl.training.config import MOMENTUM, OPTIMIZERS, SCHEDULES, TrainConfig, configure

if TYPE_CHECKING:
    from cisdl.training.loop import Outcome

MAY_CHANGE = ("epochs", "patience", "max_time", "device", "threads", "log_steps", "tensorboard")
"""Settings of a run that can be given anew when it is resumed."""


def model_entry(ctx: click.Context, param: click.Parameter, value: str | None) -> ModelEntry | None:
    """The model of that name; a mistake is answered with the nearest."""
    return None if value is None else get_model(value)


def having(option: str) -> str:
    """The models that have an option."""
    return ", ".join(entry.name for entry in MODELS.values() if option in entry.options)


def own_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The models' own options, in the order of their table."""
    for name, option in reversed(OPTIONS.items()):
        what = f"{option.help} ({having(name)})."
        if option.type is click.BOOL:
            either = f"{flag(name)}/--no-{flag(name)[2:]}"
            command = click.option(either, name, default=None, help=what)(command)
            continue
        command = click.option(flag(name), name, type=option.type, metavar=option.metavar, help=what)(command)
    return command


def positive(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    """A rate or a norm has to be finite and above zero."""
    if value is not None and not (math.isfinite(value) and value > 0):
        raise UsageError(f"{param.opts[-1]}: expected a finite number above 0, got {value}")
    return value


@click.command()
@click.argument(
    "model", callback=model_entry, required=False, metavar="MODEL", shell_complete=candidates.models
)
@click.option(
    "--data",
    metavar="NAME|PATH",
    shell_complete=candidates.data,
    help=f"A data set ({', '.join(DATA)}) or files of a format that the model reads.  [default: by model]",
)
@with_data_dir
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
    help="The rate stays, or falls to zero over the epochs along a line or half a cosine.",
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
@click.option(
    "--patience",
    type=click.IntRange(min=1),
    metavar="N",
    help="Stop after N epochs without a better validation.",
)
@click.option(
    "--max-time",
    type=float,
    callback=positive,
    metavar="SECONDS",
    help="Stop after the step that passes it; what was best by then is judged.",
)
@click.option(
    "--init-from",
    metavar="RUN",
    shell_complete=candidates.runs,
    help="Begin with the kept weights of a run of the same model.",
)
@click.option(
    "--overfit-one-batch",
    is_flag=True,
    help="Train on the first mini-batch only: a model that can learn learns it by heart.",
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
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    metavar="N",
    help="CPU threads, of each process.  [default: torch's]",
)
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
@click.option(
    "--nproc",
    type=click.IntRange(min=1),
    metavar="N",
    help="Train in N processes of this machine, which share each mini-batch; with --device cuda on N GPUs.",
)
@click.option("--log-steps", is_flag=True, help="Write the loss of every step to steps.csv.")
@click.option("--tensorboard", is_flag=True, help="Write every epoch's figures for TensorBoard, too.")
@click.option(
    "--config",
    metavar="FILE",
    shell_complete=candidates.files,
    help="Settings from a TOML or JSON file, or a run's config.json.",
)
@click.option(
    "-o",
    "pairs",
    multiple=True,
    metavar="KEY=VALUE",
    help="A setting by name, like -o lr=0.01; goes before --config, after an option of its own.",
)
@click.option("--print-config", is_flag=True, help="Say every setting and where it comes from.")
@click.option("--dry-run", is_flag=True, help="Say what would be done; train nothing, write nothing.")
@click.option(
    "--resume",
    metavar="RUN",
    shell_complete=candidates.runs,
    help="Go on with a run exactly where it stopped.",
)
@click.option(
    "--assert",
    "goals",
    multiple=True,
    metavar="'FIGURE>=X'",
    help="Exit with 4 if a figure of the result is not so: 'test_accuracy>=0.95'.",
)
@click.option(
    "--out", metavar="NAME", help="The run folder: runs/NAME, or NAME-2, -3 if it exists.  [default: MODEL]"
)
@click.pass_context
def train(
    ctx: click.Context,
    /,
    model: ModelEntry | None,
    config: str | None,
    pairs: tuple[str, ...],
    print_config: bool,
    dry_run: bool,
    resume: str | None,
    goals: tuple[str, ...],
    out: str | None,
    seeds: int,
    nproc: int | None,
    **_: Any,
) -> int | None:
    """Train MODEL and leave its results in a run folder; `cisdl ls models` lists them.

    Options without a default shown have one for each model; --dry-run prints them. The epoch that does
    best on validation is kept and judged once on the test part.

    \b
    Examples:
      cisdl train lenet
      cisdl train mlp --hidden 16 --activation tanh --optimizer sgd --lr 0.01 --batch-size 16 --epochs 10
      cisdl train lenet --data ../data/fashion-mnist --epochs 2 --out fashion
      cisdl train denoising-autoencoder --noise 0.5
      cisdl train mlp --seeds 5 --assert 'test_accuracy>=0.94'
      cisdl train --resume fashion --epochs 10
      cisdl train alexnet --nproc 4 --device cuda
    """
    settings, sources = configuration.gather(ctx, config, pairs)
    if settings.get("tensorboard"):
        from cisdl.training import scalars

        scalars.require()
    wanted = [parse_goal(text) for text in goals]
    if model is not None and nproc is not None:
        model.check_processes(nproc)
    if resume is not None:
        refuse_with_resume(model, settings, seeds, out)
    if nproc is not None and not (print_config or dry_run):
        from cisdl.training import launch

        if launch.check(nproc, os.environ):
            return launch.launch(nproc, ctx.find_root().obj)
    if "WORLD_SIZE" in os.environ:
        from cisdl.training import processes

        processes.begin()
    if resume is not None:
        resumed = continued(resume, settings)
        if resumed is not None:
            check_goals(wanted, resumed)
        return None
    if model is None:
        raise UsageError("missing argument 'MODEL' (see `cisdl train --help`)")
    name = run_name(out, model.name)

    from cisdl.training.run import run, run_seeds

    chosen = complete(model, settings)
    if print_config:
        configuration.print_sources(chosen, sources)
    elif seeds > 1:
        for outcome in run_seeds(chosen, seeds, name, dry_run):
            check_goals(wanted, outcome)
    else:
        trained = run(chosen, name, dry_run)
        if trained is not None:
            check_goals(wanted, trained)
    return None


def complete(model: ModelEntry, settings: Mapping[str, Any]) -> TrainConfig:
    """The configuration: what was given, the model's defaults, and what this machine has."""
    from cisdl import device as devices
    from cisdl.training import processes

    given = {name: value for name, value in settings.items() if name not in OPTIONS}
    own = {name: value for name, value in settings.items() if name in OPTIONS}
    optimizer = given.get("optimizer", model.optimizer)
    if given.get("momentum") and optimizer != "momentum":
        raise UsageError(f"--momentum: expected with --optimizer momentum, got --optimizer {optimizer}")
    options = model_options(model, own)
    device = processes.device(devices.resolve(given.pop("device", "cpu")))
    threads = devices.prepare(device, given.pop("threads", None))
    return configure(model, options=options, device=str(device), threads=threads, **given)


def refuse_with_resume(
    model: ModelEntry | None, settings: Mapping[str, Any], seeds: int, out: str | None
) -> None:
    """A run goes on as it began: only what does not change its steps may be given anew."""
    extra = ["MODEL"] if model is not None else []
    extra += ["--seeds"] if seeds > 1 else []
    extra += ["--out"] if out is not None else []
    extra += [flag(name) for name in settings if name not in MAY_CHANGE]
    if extra:
        allowed = ", ".join(flag(name) for name in MAY_CHANGE)
        raise UsageError(f"--resume: expected nothing but {allowed} beside it, got {', '.join(extra)}")


def continued(run: str, settings: Mapping[str, Any]) -> Outcome | None:
    from cisdl import device as devices
    from cisdl.training.run import resume

    changes = dict(settings)
    if "device" in changes:
        changes["device"] = str(devices.resolve(changes["device"]))
    return resume(run, changes)


def model_options(model: ModelEntry, given: dict[str, Any]) -> dict[str, Any]:
    """The model's own options, as given or by default; one it does not have is refused."""
    for option in given:
        if option not in model.options:
            raise UsageError(
                f"{flag(option)}: expected with {having(option)}, got with {model.name}, "
                "which has no such option"
            )
    return {name: given.get(name, default) for name, default in model.options.items()}


def run_name(out: str | None, model: str) -> str:
    """The run folder's name; it names a folder inside ./runs, never a path."""
    if out is None:
        return model
    if not out or out in {".", ".."} or out.startswith(".") or "/" in out or "\\" in out:
        raise UsageError(f"--out: expected a name for a folder inside ./runs, got '{out}'")
    return out
