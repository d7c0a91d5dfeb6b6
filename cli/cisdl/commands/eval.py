"""`cisdl eval RUN`."""

from __future__ import annotations

from typing import Any

import click

from cisdl.commands import candidates
from cisdl.commands.options import as_json, of_a_run, with_data_dir


@click.command("eval")
@click.argument("run", metavar="RUN", shell_complete=candidates.runs)
@click.option(
    "--data",
    metavar="NAME|PATH",
    shell_complete=candidates.data,
    help="Other data than the run's own: a set, a file or a folder.",
)
@with_data_dir
@click.option("--baselines", is_flag=True, help="Beside it what methods without a neural network reach.")
@of_a_run
@as_json
def evaluate(
    run: str, data: str | None, data_dir: str | None, baselines: bool, as_json: bool, **opening: Any
) -> None:
    """Judge a run's kept model: on the test part of its own data, or on all of other data.

    Other data have to be of the run's format: its test part where it has one, else all of it is judged. The
    data are prepared as in training, with the run's own scaling and vocabulary.

    \b
    Examples:
      cisdl eval lenet
      cisdl eval runs/lenet --data my-digits/
      cisdl eval lstm --data reviews.tsv --json
    """
    from cisdl.runs import open_run

    opened = open_run(run, **opening)
    task = opened.task
    if data is None:
        task.read()
    else:
        task.open(data, data_dir)
    task.to(opened.device)
    part = task.parts[-1]
    found = {f"{task.entry.name}": task.evaluate(opened.model, part)}
    if baselines:
        found |= task.baselines(part)
    if as_json:
        import json

        facts = {"run": str(opened.folder), "data": task.data.name, "source": task.data.source, "part": part}
        results = {name: one.as_dict() | {"words": str(one)} for name, one in found.items()}
        print(json.dumps(facts | {"results": results}, indent=2))
        return
    for name, one in found.items():
        print(f"{name}: {task.data.name} {part} {task.metric} {one}, loss {one.loss:.4f}")
