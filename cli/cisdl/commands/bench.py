"""`cisdl bench [GLOB]`; `cisdl bench chart`, `compare` and `memory` lie in files of their own."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from cisdl.commands import candidates
from cisdl.errors import BuildError, UsageError, did_you_mean

if TYPE_CHECKING:
    import torch

    from cisdl.bench.models import Model
    from cisdl.bench.ops import Settings
    from cisdl.bench.results import Row
    from cisdl_ops.cases import Case

MODEL_PREFIX = "model/"
OTHERS = ("chart", "compare", "history", "memory")
LAYOUT_CHOICES = {
    "best": ("contiguous", "channels_last"),
    "each": ("contiguous", "channels_last"),
    "contiguous": ("contiguous",),
    "channels_last": ("channels_last",),
}


def patterns(ctx: click.Context, param: click.Parameter, typed: str) -> list[CompletionItem]:
    return candidates.starting(typed, OTHERS) + candidates.cases(ctx, param, typed)


class BenchCommand(click.Command):
    """A command whose first argument may be the name of another: `bench compare` and its like."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        if args and args[0] in OTHERS:
            other: click.Command = getattr(
                importlib.import_module(f"cisdl.commands.bench_{args[0]}"), args[0]
            )
            return other.make_context(f"{info_name} {args[0]}", args[1:], parent, **extra)
        return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        return super().invoke(ctx) if ctx.command is self else ctx.command.invoke(ctx)


@click.command(cls=BenchCommand)
@click.argument("pattern", default="*", metavar="[GLOB]", shell_complete=patterns)
@click.option(
    "--mode",
    type=click.Choice(["fwd", "bwd", "fwd_bwd", "all"]),
    default="all",
    show_default=True,
    help="Forward; gradients; both together in one row; or a row for the forward and each gradient.",
)
@click.option(
    "--axis",
    "axes",
    multiple=True,
    metavar="NAME=V1,V2,...",
    help="The chosen cases with other sizes: batch (n), channels, size, hidden, in_features, ...; each "
    "combination if given more than once.",
)
@click.option(
    "--cache",
    type=click.Choice(["hot", "cold", "both"]),
    help="What a call finds in the CPU's caches: what the one before it left, nothing of it, or a row for "
    "each.  [default: hot]",
)
@click.option(
    "--layout",
    type=click.Choice(list(LAYOUT_CHOICES)),
    default="best",
    show_default=True,
    help="Of image tensors; best: each side in the one it is faster in; each: a row for both.",
)
@click.option("--device", default="cpu", show_default=True, metavar="cpu|cuda|cuda:N")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float64", "bfloat16", "float16"]),
    default="float32",
    show_default=True,
)
@click.option(
    "--threads", type=click.IntRange(min=1), metavar="N", help="CPU threads.  [default: torch's choice]"
)
@click.option("--quick", is_flag=True, help="A part of the cases, a quarter of the time each.")
@click.option("--compile", "compiled", is_flag=True, help="Against torch.compile, too.")
@click.option("--graphs", is_flag=True, help="On a GPU: both sides as CUDA graphs, too.")
@click.option(
    "--tune", "tuned", is_flag=True, help="Implementations chosen by cisdl_ops.tune(), not by rule."
)
@click.option(
    "-o",
    "--json",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="PATH",
    help="Write every figure there as JSON.",
)
@click.option("--save", is_flag=True, help="Write it to benchmarks/<processor>-...-<date>.json.")
def bench(
    pattern: str,
    mode: str,
    axes: tuple[str, ...],
    cache: str | None,
    layout: str,
    device: str,
    dtype: str,
    threads: int | None,
    quick: bool,
    compiled: bool,
    graphs: bool,
    tuned: bool,
    path: Path | None,
    save: bool,
) -> None:
    """Time our kernels and models against torch's.

    GLOB chooses cases by op, name or op/name; models are model/NAME. Each case is verified first and a wrong
    kernel is not timed (exit code 5). Ours and torch's take turns in one process; a difference that the
    measurement cannot tell from noise is called even. `cisdl bench compare A.json B.json` holds two files
    against each other (exit code 4 if the second is slower), `cisdl bench history` shows them over time,
    `cisdl bench chart A.json` draws one, and `cisdl bench memory [GLOB]` measures peak memory instead of
    time.

    \b
    Examples:
      cisdl bench --quick
      cisdl bench 'conv2d/alexnet*' --mode fwd --threads 1
      cisdl bench 'model/*' --compile
      cisdl bench 'linear/square_512_b32' --axis batch=1,8,64,512
      cisdl bench 'conv2d/lenet*' --mode fwd_bwd --cache both
    """
    from cisdl import device as devices

    cases, models = chosen(pattern, quick)
    where = devices.resolve(device)
    if where.type == "cuda" and cache is not None:
        raise UsageError(
            f"--cache: expected nothing on a GPU, whose cache is overwritten before every call, got {cache}; "
            "leave it out"
        )
    if graphs and where.type != "cuda":
        raise UsageError(f"--graphs: expected --device cuda, got {device}")
    count = devices.prepare(where, threads)

    import torch

    import cisdl_ops
    from cisdl import console
    from cisdl.bench import ceilings, results, table, timing
    from cisdl.bench.axes import parse
    from cisdl.bench.ops import Settings

    cases, models = with_axes(cases, models, axes)
    if cache == "cold":
        cases, models = those_with_a_cold_row(cases, models, pattern)
    settings = Settings(
        device=where,
        dtype=getattr(torch, dtype),
        layouts=LAYOUT_CHOICES[layout],
        each_layout=layout != "best",
        forward=mode in ("fwd", "all"),
        backward=mode in ("bwd", "all"),
        compiled=compiled,
        effort=timing.QUICK if quick else timing.Effort(),
        clock=timing.clock_for(where),
        together=mode == "fwd_bwd",
        cold=timing.clock_for(where, "cold") if cache in ("cold", "both") else None,
        hot=cache != "cold",
        graphs=graphs,
    )
    torch.backends.cudnn.benchmark = where.type == "cuda"  # torch's best: cuDNN tries its algorithms first
    cisdl_ops.tune(tuned, cache=False)
    environment = describe(where, count)
    limits = ceilings.measure(where, settings.dtype)
    out = console.stdout()
    out.print(headline(environment, dtype), markup=False)
    warn_if_busy(count)

    rows: list[Row] = []
    for title, group in groups(cases, models, settings):
        rows += group
        if where.type == "cpu":  # the clock may have risen, or the machine calmed down
            limits = limits.raised(ceilings.measure_gflops(where, settings.dtype, settings.clock)[0])
        out.print()
        out.print(table.rows_table(group, limits, title))
    options = {
        "pattern": pattern,
        "mode": mode,
        "layout": layout,
        "dtype": dtype,
        "quick": quick,
        "compile": compiled,
        **({"graphs": True} if graphs else {}),
        "tune": tuned,
        "axis": {name: list(sizes) for name, sizes in parse(axes).items()},
        "cache": cache or ("overwritten" if where.type == "cuda" else "hot"),
    }
    found = results.Results(environment, options, limits, rows)
    out.print()
    out.print(table.summary_table(found))
    if found.networks():
        out.print()
        out.print(table.networks_table(found))
        out.print()
    out.print(table.losses_text(found), markup=False)
    out.print(table.notes(found), style="dim", markup=False)
    kinds = {
        "quick": quick,
        "each layout": layout == "each",
        "tuned": tuned,
        "axis": bool(axes),
        "cold cache": cache in ("cold", "both"),
    }
    kind = " ".join(word for word, said in kinds.items() if said)
    for target in [
        *([path] if path else []),
        *([results.default_path(environment, kind)] if save else []),
    ]:
        results.write(found.as_json(), target)
        console.say(f"wrote {target}")


def with_axes(
    cases: list[Case], models: list[Model], texts: tuple[str, ...]
) -> tuple[list[Case], list[Model]]:
    """The cases and models along the axes of the command line, with a word about those that are left out."""
    from cisdl import console
    from cisdl.bench.axes import parse, vary

    if not texts:
        return cases, models
    cases, models, left_out = vary(cases, models, parse(texts))
    for words in left_out:
        console.say(words)
    return cases, models


def those_with_a_cold_row(
    cases: list[Case], models: list[Model], pattern: str
) -> tuple[list[Case], list[Model]]:
    """Without training steps and word vectors: a step finds in the caches what the one before it left."""
    from cisdl import console
    from cisdl_ops.cases import WORD_VECTORS

    kept = [case for case in cases if case.op not in WORD_VECTORS]
    what = "models and word vectors train step after step and have no row with cold caches"
    if not kept:
        raise UsageError(f"--cache cold: {what}, and '{pattern}' chooses nothing else; use --cache hot")
    if models or len(kept) < len(cases):
        console.say(f"{what}: {len(models) + len(cases) - len(kept)} left out")
    return kept, []


def chosen(pattern: str, quick: bool) -> tuple[list[Case], list[Model]]:
    """The cases and the models that the pattern selects."""
    import fnmatch

    try:
        import cisdl_ops  # noqa: F401  # the kernels have to load before anything is timed
        from cisdl_ops.cases import LAYERS, OPS, WORD_VECTORS, select
    except ImportError as error:
        from cisdl.environment import one_line

        raise BuildError(
            f"the compiled kernels do not load ({one_line(error)}); `cisdl env` prints what mends it"
        ) from error
    from cisdl.bench.models import BENCH_MODELS

    cases = select("quick" if quick else "bench", pattern)
    models = [one for name, one in BENCH_MODELS.items() if fnmatch.fnmatchcase(MODEL_PREFIX + name, pattern)]
    if not cases and not models:
        known = [*OPS, *LAYERS, *WORD_VECTORS, *(MODEL_PREFIX + name for name in BENCH_MODELS)]
        raise UsageError(f"no case matches '{pattern}'; {did_you_mean(pattern, known)}")
    return cases, models


def groups(cases: list[Case], models: list[Model], settings: Settings) -> Any:
    """(title, rows) for each op and for the models, as they are finished."""
    from cisdl import console
    from cisdl.bench.models import bench_model
    from cisdl.bench.ops import bench_case
    from cisdl.bench.word_vectors import bench_word_vectors
    from cisdl_ops.cases import WORD_VECTORS

    total, done = len(cases) + len(models), 0
    for op in dict.fromkeys(case.op for case in cases):
        rows = []
        for case in (case for case in cases if case.op == op):
            done += 1
            console.say(f"[{done}/{total}] {case.id}")
            bench_one = bench_word_vectors if op in WORD_VECTORS else bench_case
            rows += list(bench_one(case, settings))
        if rows:
            yield op, rows
    rows = []
    for model in models:
        done += 1
        console.say(f"[{done}/{total}] {MODEL_PREFIX}{model.name}")
        rows += list(bench_model(model, settings))
    if rows:
        yield "training step", rows


def describe(device: torch.device, threads: int) -> dict[str, Any]:
    """The facts that a figure means nothing without."""
    from datetime import datetime, timezone

    import torch

    import cisdl_ops
    from cisdl.environment import gather

    facts = gather()
    processor = torch.cuda.get_device_name(device) if device.type == "cuda" else facts["cpu"]["name"]
    return {
        "processor": processor,
        "device": device.type,
        "isa": cisdl_ops.build_info()["isa"],
        "threads": threads,
        "torch": str(torch.__version__),
        "date": f"{datetime.now(timezone.utc):%Y-%m-%dT%H:%M:%SZ}",
        **{
            name: facts[name]
            for name in ("os", "cpu", "gpus", "compiler", "nvcc", "cisdl", "commit", "variables")
        },
    }


def warn_if_busy(threads: int) -> None:
    """Say so if other processes leave fewer cores than threads: then every figure is noise."""
    import os

    from cisdl import console

    if not hasattr(os, "getloadavg"):
        return
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load + threads > cores + 0.5:
        console.say(
            f"other processes use this machine (load {load:.1f}, {cores} cores): expect wide intervals; "
            "--threads 1 suffers least"
        )


def headline(environment: dict[str, Any], dtype: str) -> str:
    threads = f"{environment['threads']} thread{'s' if environment['threads'] != 1 else ''}"
    return (
        f"{environment['processor']}, {environment['isa']}, {threads}, {dtype}, torch {environment['torch']}"
    )
