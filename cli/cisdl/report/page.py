"""One or several runs as a single HTML file: no server, no script, nothing loaded from elsewhere.

Everything comes from the run folders, so a run that was interrupted, or of another version, has a page too.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cisdl import __version__
from cisdl.files import write_text
from cisdl.report import style
from cisdl.training.run_folder import read_json

COLORS = (style.BLUE, style.ORANGE, style.GREEN, style.RED, "#7a4fb5", "#8c6d31", "#3d8a99", style.INK)
FACTS = ("model", "data", "parameters", "epochs", "seed", "backend", "device", "threads")
NOT_SETTINGS = frozenset({"options", "layers", "data_facts", "run", "parameters"})
LONGEST = 60
"""Characters of a fact of the data on the page."""


@dataclass(frozen=True)
class Picture:
    name: str
    source: str
    """A data: address, so that the page needs no other file."""


@dataclass(frozen=True)
class RunPage:
    """What the page says of one run."""

    name: str
    status: str
    result: str
    baselines: dict[str, str]
    facts: dict[str, str]
    settings: dict[str, str]
    data: dict[str, str]
    layers: list[dict[str, Any]]
    metrics: list[dict[str, Any]]
    pictures: list[Picture]
    environment: str


def read(folder: Path) -> RunPage:
    config, result = read_json(folder / "config.json"), read_json(folder / "result.json")
    data = config.get("data_facts", {})
    settings = {key: value for key, value in config.items() if key not in NOT_SETTINGS and value is not None}
    judged: dict[str, Any] = next(
        (result[part] | {"part": part} for part in ("test", "validation") if part in result), {}
    )
    lines = folder / "metrics.jsonl"
    metrics = lines.read_text(encoding="utf-8").splitlines() if lines.is_file() else []
    environment = read_json(folder / "env.json")
    facts = {name: config.get(name, "?") for name in FACTS} | {"data": data.get("name", "?")}
    if "seconds" in result:
        facts["seconds"] = f"{result['seconds']:.1f}"
    if "best_epoch" in result:
        facts["best epoch"] = result["best_epoch"]
    return RunPage(
        name=folder.resolve().name,
        status=str(result.get("status", "unfinished")),
        result=f"{judged['part']} {judged.get('words', '')}" if judged else "",
        baselines={name: figures(found) for name, found in result.get("baselines", {}).items()},
        facts={name: shown(value) for name, value in facts.items()},
        settings={key: shown(value) for key, value in (settings | config.get("options", {})).items()},
        data={key: shown(value) for key, value in data.items()},
        layers=config.get("layers", []),
        metrics=[json.loads(line) for line in metrics],
        pictures=[picture(path) for path in pictures_of(folder)],
        environment=json.dumps(environment, indent=1),
    )


MEDIA = {".png": "image/png", ".gif": "image/gif"}


def pictures_of(folder: Path) -> list[Path]:
    """The pictures of a run, its curves first, its samples last."""
    plots = sorted((folder / "plots").glob("*.*"), key=lambda path: (path.stem != "curves", path.name))
    samples = sorted((folder / "samples").glob("*.*"))
    return [path for path in (*plots, *samples) if path.suffix in MEDIA]


def picture(path: Path) -> Picture:
    content = base64.b64encode(path.read_bytes()).decode("ascii")
    return Picture(path.stem.replace("_", " "), f"data:{MEDIA[path.suffix]};base64,{content}")


def figures(found: dict[str, Any]) -> str:
    return str(found["words"]) if "words" in found else ", ".join(f"{k} {shown(v)}" for k, v in found.items())


def shown(value: Any) -> str:
    """A value in a cell of a table."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, int) and value >= 10_000:
        return f"{value:,}"
    if isinstance(value, list | tuple):
        value = ", ".join(map(str, value))
    elif isinstance(value, dict):
        value = ", ".join(f"{key} {shown(one)}" for key, one in value.items())
    text = str(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def columns(metrics: Sequence[dict[str, Any]]) -> list[str]:
    return list(metrics[0]) if metrics else []


def comparison(runs: Sequence[RunPage]) -> Markup:
    """The curves that the runs share, one line a run, as SVG."""
    drawn = [run for run in runs if run.metrics]
    shared = [
        key
        for key in (columns(drawn[0].metrics) if drawn else [])
        if key not in ("epoch", "step", "seconds", "best", "examples_per_second")
        and all(isinstance(run.metrics[0].get(key), float) for run in drawn)  # not counts
        and len({row[key] for run in drawn for row in run.metrics}) > 1
    ]
    keys = [key for key in shared if key.startswith(("train_loss", "validation_"))][:6]
    if not keys:
        return Markup("")
    rows = -(-len(keys) // 3)
    with matplotlib.rc_context(style.SETTINGS | {"svg.fonttype": "none", "svg.hashsalt": "cisdl"}):
        fig = Figure(figsize=(11, 2.9 * rows), layout="constrained")
        panels = fig.subplots(rows, min(len(keys), 3), squeeze=False).flatten()
        for axes, key in zip(panels, keys, strict=False):
            axes.set_title(key.replace("_", " "))
            axes.set_xlabel("epoch")
            axes.grid(axis="y", linewidth=0.8)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            for number, run in enumerate(drawn):
                x, y = [row["epoch"] for row in run.metrics], [row[key] for row in run.metrics]
                marker = "o" if len(x) < 3 else ""
                axes.plot(x, y, color=COLORS[number % len(COLORS)], label=run.name, marker=marker)
        for axes in panels[len(keys) :]:
            axes.set_visible(False)
        if len(drawn) > 1:
            panels[0].legend(frameon=False, fontsize=9)
        written = io.StringIO()
        fig.savefig(written, format="svg", metadata={"Date": None})
    # Made by us of numbers and escaped names, so it may stand in the page as it is.
    return Markup(written.getvalue()[written.getvalue().index("<svg") :])


def differing(runs: Sequence[RunPage]) -> list[str]:
    """The settings in which the runs differ."""
    names = list(dict.fromkeys(name for run in runs for name in run.settings))
    return [name for name in names if len({run.settings.get(name) for run in runs}) > 1]


def write(folders: Sequence[Path], path: Path) -> None:
    runs = [read(folder) for folder in folders]
    environment = Environment(
        loader=PackageLoader("cisdl.report", "."), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["shown"] = shown
    page = environment.get_template("page.html").render(
        runs=runs, curves=comparison(runs), differing=differing(runs), columns=columns, version=__version__
    )
    write_text(path, page)
