"""`cisdl query RUN nn|analogy`."""

from __future__ import annotations

from typing import Any

import click

from cisdl.commands import candidates
from cisdl.commands.options import as_json, of_a_run
from cisdl.errors import UsageError

WORDS = {"nn": 1, "analogy": 3}


@click.command()
@click.argument("run", metavar="RUN", shell_complete=candidates.runs)
@click.argument("what", type=click.Choice(list(WORDS)), metavar="nn|analogy")
@click.argument("words", nargs=-1, required=True, metavar="WORD...")
@click.option("-k", "--count", type=click.IntRange(min=1), default=10, show_default=True, metavar="N")
@of_a_run
@as_json
def query(run: str, what: str, words: tuple[str, ...], count: int, as_json: bool, **opening: Any) -> None:
    """Ask word vectors: the nearest neighbours of a word (nn), or "A is to B as C is to ?" (analogy).

    \b
    Examples:
      cisdl query word2vec nn list
      cisdl query word2vec analogy man king woman -k 3
    """
    if len(words) != WORDS[what]:
        raise UsageError(f"{what}: expected {WORDS[what]} word{'s'[: WORDS[what] > 1]}, got {len(words)}")

    from cisdl.runs import open_run
    from cisdl.tasks.base import Queries

    opened = open_run(run, **opening)
    task, model = opened.task, opened.model
    if not isinstance(task, Queries):
        raise UsageError(f"{task.entry.name} has no word vectors: expected a run of a model that has")
    found = task.nearest(model, words[0], count) if what == "nn" else task.analogy(model, words, count)
    if as_json:
        import json

        print(json.dumps([one._asdict() for one in found], indent=2, ensure_ascii=False))
        return
    for one in found:
        print(f"{one.similarity:.4f}  {one.word}")
