"""`cisdl sample RUN`."""

from __future__ import annotations

from typing import Any

import click

from cisdl.commands import candidates
from cisdl.commands.options import as_json, of_a_run
from cisdl.errors import UsageError


@click.command()
@click.argument("run", metavar="RUN", shell_complete=candidates.runs)
@click.option("-n", "--count", type=click.IntRange(min=1), default=1, show_default=True, metavar="N")
@click.option("--length", type=click.IntRange(min=1), metavar="N", help="Characters of a text.")
@click.option(
    "--temperature",
    type=click.FloatRange(min=0),
    metavar="T",
    help="Of a text: 0 takes the likeliest character every time, 1 draws as the model says.",
)
@click.option("--start", metavar="TEXT", help="What a text begins with.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, metavar="N")
@of_a_run
@as_json
def sample(
    run: str,
    count: int,
    length: int | None,
    temperature: float | None,
    start: str | None,
    seed: int,
    as_json: bool,
    **opening: Any,
) -> None:
    """New examples by the run's model: texts on stdout; images in the run's samples/, their paths on stdout.

    \b
    Examples:
      cisdl sample char-lm --length 400 --temperature 0.7 --start "The "
      cisdl sample gan --count 64
    """
    from cisdl.runs import open_run
    from cisdl.tasks.base import SampleRequest, Samples

    opened = open_run(run, **opening)
    if not isinstance(opened.task, Samples):
        raise UsageError(f"{opened.task.entry.name} samples nothing: expected a run of a model that does")
    request = SampleRequest(count, seed, opened.folder / "samples", length, temperature, start)
    made = opened.task.sample(opened.model, request)
    if as_json:
        import json

        print(json.dumps(made, indent=2, ensure_ascii=False))
        return
    for one in made:
        print(one)
