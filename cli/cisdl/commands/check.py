"""`cisdl check [GLOB]`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cisdl.commands import candidates
from cisdl.errors import BuildError, KernelDisagreesError, UsageError, did_you_mean

if TYPE_CHECKING:
    import torch

    from cisdl_ops.cases import Case


DTYPES = ("float32", "float64", "bfloat16", "float16")


@click.command()
@click.argument("pattern", default="*", metavar="[GLOB]", shell_complete=candidates.ops)
@click.option("--device", default="cpu", show_default=True, metavar="cpu|cuda|cuda:N")
@click.option(
    "--dtype", type=click.Choice([*DTYPES, "both", "all"]), default="both", show_default="float32 and float64"
)
@click.option(
    "--threads", type=click.IntRange(min=1), metavar="N", help="CPU threads.  [default: torch's choice]"
)
@click.option("--large", is_flag=True, help="The layers that `cisdl bench` times, too.")
@click.option("--json", "as_json", is_flag=True, help="Every error as JSON on stdout instead of a table.")
def check(pattern: str, device: str, dtype: str, threads: int | None, large: bool, as_json: bool) -> None:
    """Compare every kernel with torch's and with its plain reference in float64.

    GLOB chooses cases by op, name or op/name. A result agrees if its error against float64 is at most a few
    times torch's own in the same precision. Exits with 5 if one does not.

    \b
    Examples:
      cisdl check
      cisdl check conv2d
      cisdl check 'conv2d/*groups*' --dtype bfloat16
    """
    from cisdl import device as devices

    cases = chosen_cases(pattern, large)
    chosen = devices.resolve(device)
    devices.prepare(chosen, threads)

    import torch

    names = {"both": DTYPES[:2], "all": DTYPES}.get(dtype, (dtype,))
    dtypes = [getattr(torch, name) for name in names]
    rows = [row for case in cases for one in dtypes for row in check_case(case, one, chosen)]
    if as_json:
        import json

        click.echo(json.dumps(rows, indent=1))
    else:
        print_table(rows)
    wrong = [row for row in rows if row["complaint"]]
    if wrong:
        first = f"{wrong[0]['case']} in {wrong[0]['dtype']}, {wrong[0]['layout']}: {wrong[0]['complaint']}"
        raise KernelDisagreesError(
            f"{len({row['case'] for row in wrong})} of {len(cases)} cases disagree; {first}; "
            f"CISDL_IMPL={wrong[0]['op']}:plain tries the plain kernel"
        )


def chosen_cases(pattern: str, large: bool) -> list[Case]:
    """The cases that the pattern selects; large ones too if their tag is asked for."""
    try:
        import cisdl_ops  # noqa: F401  # the kernels have to load before anything is said about them
        from cisdl_ops.cases import OPS, WORD_VECTORS, select
    except ImportError as error:
        from cisdl.environment import one_line

        raise BuildError(
            f"the compiled kernels do not load ({one_line(error)}); `cisdl env` prints what mends it"
        ) from error
    wanted = {"test", "grad", "bench"} if large else {"test", "grad"}
    cases = [case for case in select(glob=pattern) if case.tags & wanted and case.op not in WORD_VECTORS]
    if not cases:
        raise UsageError(f"no case matches '{pattern}'; {did_you_mean(pattern, OPS)}")
    return cases


def check_case(case: Case, dtype: torch.dtype, device: torch.device) -> list[dict[str, Any]]:
    """One row for each layout and tensor: error, torch's error, what is allowed, the complaint or None."""
    from cisdl.bench.ops import LAYOUTS, layouts_of
    from cisdl.bench.verify import compare

    return [
        {
            "case": case.id,
            "op": case.op,
            "dtype": str(dtype).removeprefix("torch."),
            "layout": layout,
            "tensor": one.name,
            "error": one.error,
            "torch_error": one.torch_error,
            "allowed": one.allowed,
            "complaint": one.complaint,
        }
        for layout in layouts_of(case, tuple(LAYOUTS))
        for one in compare(case, dtype, device, LAYOUTS[layout])
    ]


def print_table(rows: list[dict[str, Any]]) -> None:
    """The largest error of each op, dtype and tensor, as a part of what is allowed; then what disagrees."""
    from rich.table import Table

    from cisdl import console

    table = Table(box=None, pad_edge=False)
    for name in ("op", "dtype", "tensor"):
        table.add_column(name)
    for name in ("cases", "largest error", "torch's", "of allowed", "result"):
        table.add_column(name, justify="right")
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["op"], row["dtype"], row["tensor"]), []).append(row)
    for key, members in groups.items():
        exact = members[0]["allowed"] == 0
        worst = max(members, key=lambda row: row["error"] if exact else row["error"] / row["allowed"])
        wrong = len({row["case"] for row in members if row["complaint"]})
        table.add_row(
            *key,
            str(len({row["case"] for row in members})),
            f"{worst['error']:.1e}" if worst["error"] else "0",
            f"{worst['torch_error']:.1e}" if worst["torch_error"] else "0",
            "exact" if exact else f"{100 * worst['error'] / worst['allowed']:.0f}%",
            f"[red]{wrong} wrong[/red]" if wrong else "[green]ok[/green]",
        )
    out = console.stdout()
    out.print(table)
    for row in [row for row in rows if row["complaint"]][:20]:
        out.print(
            f"{row['case']} {row['dtype']} {row['layout']}: {row['complaint']}", style="red", markup=False
        )
