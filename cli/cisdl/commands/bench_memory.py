"""`cisdl bench memory [GLOB]`."""

from __future__ import annotations

import click

from cisdl.commands import candidates
from cisdl.errors import DeviceError, UsageError


@click.command(name="memory")
@click.argument("pattern", default="*", metavar="[GLOB]", shell_complete=candidates.cases)
@click.option("--dtype", type=click.Choice(["float32", "float64"]), default="float32", show_default=True)
@click.option("--threads", type=click.IntRange(min=1), metavar="N", help="CPU threads.  [default: all cores]")
@click.option("--save", is_flag=True, help="Write it to benchmarks/<processor>-...-memory-<date>.json.")
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
    from cisdl.commands.bench import chosen, describe, headline
    from cisdl_ops.cases import WORD_VECTORS

    if not measuring.measurable():
        raise DeviceError("bench memory: expected Linux, whose /proc tells the peak of a process's memory")
    cases = [case for case in chosen(pattern, quick=False)[0] if case.op not in WORD_VECTORS]
    if not cases:
        raise UsageError(
            f"bench memory: no case matches '{pattern}'; models and word vectors are not measured, "
            "expected an op or op/name"
        )

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
        target = results.default_path(environment, "memory")
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
