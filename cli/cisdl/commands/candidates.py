"""What the shell is offered for an argument when Tab is pressed; imports nothing heavy itself.

Each function is a `shell_complete` of click: the context, the parameter and what was typed so far, to the
words (or files, which the shell finds itself) that go on from there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from cisdl.files import write_json

Items = list[CompletionItem]
FILES = CompletionItem("", type="file")


def starting(typed: str, names: Iterable[str]) -> Items:
    return [CompletionItem(name) for name in names if name.startswith(typed)]


def files(ctx: click.Context, param: click.Parameter, typed: str) -> Items:
    return [FILES]


def folders(ctx: click.Context, param: click.Parameter, typed: str) -> Items:
    return [CompletionItem("", type="dir")]


def models(ctx: click.Context, param: click.Parameter, typed: str) -> Items:
    """Models, with what they are."""
    from cisdl.models.registry import MODELS

    return [
        CompletionItem(name, help=entry.title) for name, entry in MODELS.items() if name.startswith(typed)
    ]


def runs(ctx: click.Context, param: click.Parameter, typed: str) -> Items:
    """Run folders under ./runs, by name or by path."""
    from cisdl.training.run_folder import existing

    folders = existing()
    return starting(typed, [path.name for path in folders] if "/" not in typed else map(str, folders))


def models_and_runs(ctx: click.Context, param: click.Parameter, typed: str) -> Items:
    return models(ctx, param, typed) + runs(ctx, param, typed)


def data(ctx: click.Context, param: click.Parameter, typed: str) -> Items:
    """Data sets by name, or files and folders."""
    from cisdl.data.registry import DATA

    named = [CompletionItem(name, help=one.title) for name, one in DATA.items() if name.startswith(typed)]
    return [FILES, *named]


def downloads(ctx: click.Context, param: click.Parameter, typed: str) -> Items:
    """Data sets that `cisdl data get` knows an address of."""
    from cisdl.data.downloads import DOWNLOADS

    return starting(typed, DOWNLOADS)


def cases(ctx: click.Context, param: click.Parameter, typed: str) -> Items:
    """Ops, `model/`, and the cases of an op once it is named."""
    ids = bench_names()["cases"]
    found = starting(typed, dict.fromkeys(name.split("/")[0] for name in ids))
    if "/" in typed or len(found) == 1:
        found += starting(typed, ids)
    return found


def ops(ctx: click.Context, param: click.Parameter, typed: str) -> Items:
    """What `cisdl check` checks."""
    return starting(typed, bench_names()["ops"])


def bench_names() -> dict[str, list[str]]:
    """ "cases": the ids of what `cisdl bench` times; "ops": every op.

    The table of cases imports torch, which takes seconds: its names are kept in the user's cache folder, for
    as long as no file of the table changes.
    """
    library = find_spec("cisdl_ops")
    folders = [Path(place) / "cases" for place in (library and library.submodule_search_locations) or ()]
    tables = [path for folder in folders for path in folder.glob("*.py")]
    tables.append(Path(__file__).parents[1] / "bench" / "models.py")
    stamp = {str(path): path.stat().st_mtime_ns for path in tables}
    kept = cache_folder() / "cases.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        content = json.loads(kept.read_text(encoding="utf-8"))
        if content["tables"] == stamp:
            names: dict[str, list[str]] = content["names"]
            return names

    from cisdl.bench.models import BENCH_MODELS
    from cisdl_ops.cases import OPS, select

    models = [f"model/{name}" for name in BENCH_MODELS]
    names = {"cases": [case.id for case in select("bench")] + models, "ops": list(OPS)}
    with suppress(OSError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_json(kept, {"tables": stamp, "names": names})
    return names


def cache_folder() -> Path:
    """Where `cisdl_ops.tune` keeps its choices, too."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cisdl"
    return Path(os.environ.get("CISDL_CACHE") or default)
