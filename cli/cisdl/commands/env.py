"""`cisdl env`."""

from __future__ import annotations

import json
from typing import Any

import click


@click.command()
@click.option("--json", "as_json", is_flag=True, help="For machines: facts and problems as one JSON object.")
def env(as_json: bool) -> None:
    """Describe this machine and how the kernels were built on it; for each problem, print what mends it.

    It looks at the compiler, Python's headers, the packages, torch, the kernels, the GPU, CUDA, the
    instruction set in use and the threads. A mend is a command to paste.

    \b
    Examples:
      cisdl env
      cisdl env --json > environment.json
    """
    from cisdl import console, diagnosis, environment

    facts = environment.gather()
    found = diagnosis.problems(facts)
    if as_json:
        listed = [{"problem": what, "mend": command} for what, command in found]
        print(json.dumps(facts | {"problems": listed}, indent=2))
        return

    from rich.table import Table

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in rows(facts):
        table.add_row(name, value)
    out = console.stdout()
    out.print(table)
    out.print()
    if not found:
        out.print("no problems found")
    for what, command in found:
        out.print(f"problem: {what}", style="yellow", markup=False, soft_wrap=True)
        out.print(f"   mend: {command}", markup=False, soft_wrap=True)


def rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Facts as (name, text)."""
    cpu, torch, kernels = facts["cpu"], facts["torch"], facts["kernels"]
    cuda = f"CUDA {torch['cuda']}" if torch["cuda"] else "built without CUDA"
    uses = f"{torch['version']}, {cuda}, {torch['threads']} threads, uses {torch['cpu_capability']}"
    built = kernels["build"] or {}
    build = ", ".join(f"{name} {text(value)}" for name, value in built.items()) or "do not load"
    packages = ", ".join(f"{name} {version or 'missing'}" for name, version in facts["packages"].items())
    return [
        ("cisdl", facts["cisdl"] + (f" (commit {facts['commit']})" if facts["commit"] else "")),
        ("system", facts["os"]),
        ("python", facts["python"]),
        ("CPU", ", ".join([cpu["name"], f"{cpu['cores']} cores", *cpu["instructions"]])),
        ("GPU", "; ".join(facts["gpus"]) or "none visible to torch"),
        ("torch", torch["error"] or uses),
        ("processes", f"several by {', '.join(torch['processes'])}" if torch["processes"] else "one only"),
        ("compiler", facts["compiler"] or "none found"),
        ("nvcc", facts["nvcc"] or "none found"),
        ("kernels", build),
        ("packages", packages),
        ("variables", ", ".join(f"{k}={v}" for k, v in facts["variables"].items()) or "none set"),
    ]


def text(value: Any) -> str:
    """A fact of the build in words."""
    if isinstance(value, (list, tuple)):
        return "+".join(map(str, value)) or "none"
    return "none" if value in (None, "", False) else str(value)
