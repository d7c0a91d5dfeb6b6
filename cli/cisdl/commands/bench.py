"""`cisdl bench [GLOB]` and `cisdl bench compare A B`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cisdl.errors import BuildError, DeviceError, GoalMissedError, UsageError, did_you_mean

if TYPE_CHECKING:
    import torch

    from cisdl.bench.ops import Settings
    from cisdl.bench.results import Row
    from cisdl_ops.cases import Case

MODEL_PREFIX = "model/"
LAYOUT_CHOICES = {
    "best": ("contiguous", "channels_last"),
    "each": ("contiguous", "channels_last"),
    "contiguous": ("contiguous",),
    "channels_last": ("channels_last",),
}


class BenchCommand(click.Command):
    """A command whose first argument `compare` or `memory` leads to another."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        others = {"compare": compare, "memory": memory}
        if args and args[0] in others:
            return others[args[0]].make_context(f"{info_name} {args[0]}", args[1:], parent, **extra)
        return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        return super().invoke(ctx) if ctx.command is self else ctx.command.invoke(ctx)


@click.command(cls=BenchCommand)
@click.argument("pattern", default="*", metavar="[GLOB]")
@click.option(
    "--mode",
    type=click.Choice(["fwd", "bwd", "all"]),
    default="all",
    show_default=True,
    help="Forward, gradients, or both.",
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
@click.option(
    "-o",
    "--json",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="PATH",
    help="Write every figure there as JSON.",
)
@click.option("--save", is_flag=True, help="Write it to benchmarks/<processor>-<threads>-<date>.json.")
def bench(
    pattern: str,
    mode: str,
    layout: str,
    device: str,
    dtype: str,
    threads: int | None,
    quick: bool,
    compiled: bool,
    path: Path | None,
    save: bool,
) -> None:
    """Time our kernels and models against torch's.

    GLOB chooses cases by op, name or op/name; models are model/NAME. Each case is verified first and a wrong
    kernel is not timed (exit code 5). Ours and torch's take turns in one process; a difference that the
    measurement cannot tell from noise is called even. `cisdl bench compare A.json B.json` holds two files
    against each other; `cisdl bench memory [GLOB]` measures peak memory instead of time.

    \b
    Examples:
      cisdl bench --quick
      cisdl bench 'conv2d/alexnet*' --mode fwd --threads 1
      cisdl bench 'model/*' --compile
    """
    from cisdl import device as devices

    cases, models = chosen(pattern, quick)
    where = devices.resolve(device)
    count = devices.prepare(where, threads)

    import torch

    from cisdl import console
    from cisdl.bench import ceilings, results, table, timing
    from cisdl.bench.ops import Settings

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
    )
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
    for target in [
        *([path] if path else []),
        *([results.default_path(environment["processor"], count, "quick" if quick else "")] if save else []),
    ]:
        results.write(found.as_json(), target)
        console.say(f"wrote {target}")


def chosen(pattern: str, quick: bool) -> tuple[list[Case], list[str]]:
    """The cases and the models that the pattern selects."""
    import fnmatch

    from cisdl.models.registry import MODELS

    try:
        import cisdl_ops  # noqa: F401  # the kernels have to load before anything is timed
        from cisdl_ops.cases import OPS, select
    except ImportError as error:
        raise BuildError(
            f"the compiled kernels do not load ({error}); build them with `make install`"
        ) from error
    cases = select("quick" if quick else "bench", pattern)
    models = [name for name in MODELS if fnmatch.fnmatchcase(MODEL_PREFIX + name, pattern)]
    if not cases and not models:
        known = [*OPS, *(MODEL_PREFIX + name for name in MODELS)]
        raise UsageError(f"no case matches '{pattern}'; {did_you_mean(pattern, known)}")
    return cases, models


def groups(cases: list[Case], models: list[str], settings: Settings) -> Any:
    """(title, rows) for each op and for the models, as they are finished."""
    from cisdl import console
    from cisdl.bench.models import BATCH, bench_model
    from cisdl.bench.ops import bench_case

    total, done = len(cases) + len(models), 0
    for op in dict.fromkeys(case.op for case in cases):
        rows = []
        for case in (case for case in cases if case.op == op):
            done += 1
            console.say(f"[{done}/{total}] {case.id}")
            rows += list(bench_case(case, settings))
        yield op, rows
    rows = []
    for name in models:
        done += 1
        console.say(f"[{done}/{total}] {MODEL_PREFIX}{name}")
        rows += list(bench_model(name, settings))
    if rows:
        yield f"training step, batch {BATCH}", rows


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


@click.command(name="memory")
@click.argument("pattern", default="*", metavar="[GLOB]")
@click.option("--dtype", type=click.Choice(["float32", "float64"]), default="float32", show_default=True)
@click.option("--threads", type=click.IntRange(min=1), metavar="N", help="CPU threads.  [default: all cores]")
@click.option("--save", is_flag=True, help="Write it to benchmarks/<processor>-<threads>-memory-<date>.json.")
def memory(pattern: str, dtype: str, threads: int | None, save: bool) -> None:
    """Peak memory of forward and backward of each case, ours beside torch's, in both layouts.

    Every measurement is a process of its own that starts empty. Works on Linux, on the CPU.

    \b
    Example:
      cisdl bench memory 'conv2d/vgg16*'
    """
    import os

    from cisdl import console
    from cisdl.bench import memory as measuring
    from cisdl.bench import results, table

    if not measuring.measurable():
        raise DeviceError("bench memory: expected Linux, whose /proc tells the peak of a process's memory")
    cases, _ = chosen(pattern, quick=False)
    if not cases:
        raise UsageError(f"bench memory: no case matches '{pattern}'; models are not measured")

    import torch

    count = threads or os.cpu_count() or 1
    peaks = []
    for done, case in enumerate(cases, 1):
        console.say(f"[{done}/{len(cases)}] {case.id}")
        peaks += list(measuring.measure(case, getattr(torch, dtype), count))
    environment = describe(torch.device("cpu"), count)
    out = console.stdout()
    out.print(headline(environment, dtype), markup=False)
    out.print(table.memory_table(peaks))
    out.print(table.memory_summary(peaks), markup=False)
    if save:
        target = results.default_path(environment["processor"], count, "memory")
        results.write(
            {
                "schema": results.SCHEMA,
                "environment": environment,
                "options": {"pattern": pattern, "dtype": dtype},
                "rows": [peak.as_json() for peak in peaks],
            },
            target,
        )
        console.say(f"wrote {target}")


@click.command(name="compare")
@click.argument("before", type=click.Path(path_type=Path), metavar="A.json")
@click.argument("after", type=click.Path(path_type=Path), metavar="B.json")
@click.option("--threshold", type=click.FloatRange(0, 1, max_open=True), default=0.1, show_default=True,
              help="How much slower, relative to torch beside it, is a regression.")  # fmt: skip
def compare(before: Path, after: Path, threshold: float) -> None:
    """Hold two files of `cisdl bench --json` against each other; exits with 4 if B is slower.

    Speed-ups over torch are compared, not times: torch ran beside ours in both. A row is a regression if it
    lost more than the threshold and the two intervals do not overlap.
    """
    from rich.table import Table

    from cisdl import console
    from cisdl.bench import compare as comparing
    from cisdl.bench import results

    a, b = results.read(before), results.read(after)
    differing = comparing.different_machine(a, b)
    if differing:
        console.say(f"these files are from different machines or settings: {', '.join(differing)}")
    found = comparing.changes(a, b)
    if not found:
        raise UsageError(f"{before} and {after} have no case in common")
    table = Table(box=None, pad_edge=False)
    table.add_column("case and pass", no_wrap=True)
    for name in ("before", "after", "change", ""):
        table.add_column(name, justify="right")
    slower = [change for change in found if change.regressed(threshold)]
    for change in found:
        verdict = "[red]slower[/red]" if change in slower else ("" if change.apart else "[dim]even[/dim]")
        table.add_row(
            change.id, f"{change.before:.2f}x", f"{change.after:.2f}x", f"{change.factor - 1:+.0%}", verdict
        )
    console.stdout().print(table)
    gone = comparing.missing(a, b)
    if gone:
        console.say(f"only in {before}: {', '.join(gone)}")
    if slower:
        worst = min(slower, key=lambda change: change.factor)
        raise GoalMissedError(
            f"{len(slower)} of {len(found)} rows got slower by more than {threshold:.0%}, "
            f"the worst {worst.id} from {worst.before:.2f}x to {worst.after:.2f}x of torch"
        )
