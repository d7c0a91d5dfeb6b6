"""What a benchmark found, and its JSON form."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from cisdl.bench.ceilings import Ceilings
from cisdl.bench.statistics import Ratio, geometric_mean, quartiles, speedup
from cisdl.bench.timing import Timing
from cisdl.errors import DataError
from cisdl_ops.cases import NETWORKS, network_of
from cisdl_ops.cases.axes import axes_of

SCHEMA = 1
IN_A_GRAPH = " in a graph"  # appended to a provider's name


@dataclass(frozen=True)
class Row:
    """One case and pass: every timing, and ours held against torch's.

    ``flops`` and ``bytes`` are 0 for a model, which has no single formula.
    """

    case: str
    part: str  # "forward", "grad_input", "grad_weight", "backward", "training", "step" or "pass"
    dtype: str
    timings: list[Timing]
    implementation: str
    layout: str = "best"  # or "each": this row is of one layout only, the same on both sides
    flops: int = 0
    bytes: int = 0
    cache: str = "hot"  # "cold": nothing of the case is in the caches before a call; a GPU's: "overwritten"

    @property
    def part_in_words(self) -> str:
        return f"{self.part}, cold" if self.cache == "cold" else self.part

    def best(self, provider: str) -> Timing:
        """The fastest layout of a provider."""
        return min((one for one in self.timings if one.provider == provider), key=lambda one: one.median)

    def has(self, provider: str) -> bool:
        return any(one.provider == provider for one in self.timings)

    @property
    def ratio(self) -> Ratio:
        """torch's time in its best layout over ours in our best."""
        return speedup(self.best("torch").seconds, self.best("ours").seconds)

    @property
    def ratio_to_compiled(self) -> Ratio | None:
        return (
            speedup(self.best("compiled").seconds, self.best("ours").seconds)
            if self.has("compiled")
            else None
        )

    @property
    def ratio_in_graphs(self) -> Ratio | None:
        """As ``ratio``, both sides replayed as CUDA graphs."""
        if not self.has("ours" + IN_A_GRAPH):
            return None
        return speedup(self.best("torch" + IN_A_GRAPH).seconds, self.best("ours" + IN_A_GRAPH).seconds)

    def fraction_of_ceiling(self, ceilings: Ceilings) -> float | None:
        """Of the best that arithmetic and memory allow; above 1 if less is computed or moved than counted."""
        if not self.bytes:
            return None
        return ceilings.least_seconds(self.flops, self.bytes) / self.best("ours").median

    def as_json(self, ceilings: Ceilings) -> dict[str, Any]:
        ours = self.best("ours").median
        compiled, graphs = self.ratio_to_compiled, self.ratio_in_graphs
        return {
            "case": self.case,
            "part": self.part,
            "axis": axes_of(self.case),
            "cache": self.cache,
            "dtype": self.dtype,
            "implementation": self.implementation,
            "layout": self.timings[0].layout if self.layout == "each" else "best",
            "ours_layout": self.best("ours").layout,
            "torch_layout": self.best("torch").layout,
            "ours_seconds": ours,
            "torch_seconds": self.best("torch").median,
            "speedup": asdict(self.ratio),
            "verdict": self.ratio.verdict,
            "speedup_over_compiled": asdict(compiled) if compiled else None,
            **({"speedup_in_graphs": asdict(graphs)} if graphs else {}),
            "gflops": self.flops / ours / 1e9 if self.flops else None,
            "gbytes": self.bytes / ours / 1e9 if self.bytes else None,
            "fraction_of_ceiling": self.fraction_of_ceiling(ceilings),
            "bound": ceilings.bound(self.flops, self.bytes) if self.bytes else None,
            "timings": [timing_as_json(one) for one in self.timings],
        }


def timing_as_json(timing: Timing) -> dict[str, Any]:
    low, median, high = quartiles(timing.seconds)
    return {
        "provider": timing.provider,
        "layout": timing.layout,
        "median_seconds": median,
        "quartile_seconds": [low, high],
        "round_seconds": timing.seconds,
    }


@dataclass(frozen=True)
class Layer:
    """All timed passes of a case together: what the layer costs in training."""

    case: str
    ours_seconds: float
    torch_seconds: float

    @property
    def speedup(self) -> float:
        return self.torch_seconds / self.ours_seconds

    @property
    def network(self) -> str | None:
        """None for a layer of other sizes than the network's."""
        return None if axes_of(self.case) else network_of(self.case.split("/", 1)[1])


@dataclass(frozen=True)
class Results:
    """A whole run of ``cisdl bench``."""

    environment: dict[str, Any]
    options: dict[str, Any]
    ceilings: Ceilings
    rows: list[Row]

    def layers(self) -> list[Layer]:
        """A layer a case (and layout, where each has a row of its own): medians summed over its passes.

        Each side may take another layout in each pass, so neither pays for a change of layout in between.
        Rows with cold caches are left out: a layer in training finds there what the one before it left.
        """
        found: dict[tuple[str, str], list[Row]] = {}
        for row in self.rows:
            if not row.case.startswith("model/") and row.cache != "cold":
                layout = row.timings[0].layout if row.layout == "each" else row.layout
                found.setdefault((row.case, layout), []).append(row)
        return [
            Layer(
                case,
                sum(row.best("ours").median for row in rows),
                sum(row.best("torch").median for row in rows),
            )
            for (case, _), rows in found.items()
        ]

    def networks(self) -> dict[str, list[Layer]]:
        """The layers of each network that was benched, in the order of the table."""
        layers = self.layers()
        lists = {name: [layer for layer in layers if layer.network == name] for name in NETWORKS}
        return {name: found for name, found in lists.items() if found}

    def means(self) -> dict[str, float]:
        """The geometric mean of the speed-ups by op and pass, losses counted like wins."""
        groups: dict[str, list[float]] = {}
        for row in self.rows:
            groups.setdefault(f"{row.case.split('/')[0]}:{row.part_in_words}", []).append(row.ratio.value)
        return {name: geometric_mean(values) for name, values in groups.items()}

    def losses(self) -> list[Row]:
        """Rows where torch is faster beyond doubt, the worst first."""
        slower = [row for row in self.rows if row.ratio.verdict == "loss"]
        return sorted(slower, key=lambda row: row.ratio.value)

    def as_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "environment": self.environment,
            "options": self.options,
            "ceilings": self.ceilings.as_json(),
            "geometric_means": self.means(),
            "networks": {
                name: {
                    "geometric_mean": geometric_mean([layer.speedup for layer in layers]),
                    "layers": {layer.case: layer.speedup for layer in layers},
                }
                for name, layers in self.networks().items()
            },
            "rows": [row.as_json(self.ceilings) for row in self.rows],
        }


def default_path(environment: dict[str, Any], kind: str = "") -> Path:
    """benchmarks/<processor>-<isa>-<threads>-<kind>-<date>.json, below the current directory.

    On a GPU, whose name is the processor, neither instruction set nor threads matter.
    """
    threads = environment["threads"]
    on_cpu = f"{environment['isa']} {threads} thread{'s' if threads > 1 else ''}"
    words = [environment["processor"], on_cpu if environment["device"] == "cpu" else "", kind]
    name = re.sub(r"[^a-z0-9]+", "-", " ".join(words).lower()).strip("-")
    return Path("benchmarks") / f"{name}-{datetime.now(timezone.utc):%Y-%m-%d}.json"


def write(content: dict[str, Any], path: Path) -> None:
    """As JSON; the numbers of a timing's rounds in one line, six digits each, or they would hide the rest."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(rounded(content), indent=1)
    path.write_text(re.sub(r"\[\s+([-+.\de,\s]+?)\s+\]", one_line, text) + "\n")


def rounded(value: Any) -> Any:
    """The same with six significant digits in every float: no clock has more."""
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    if isinstance(value, list):
        return [rounded(one) for one in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def one_line(numbers: re.Match[str]) -> str:
    return f"[{' '.join(numbers[1].split())}]"


def read(path: Path) -> dict[str, Any]:
    """A file that `write` wrote.

    Raises:
        DataError: it is missing, is not JSON, or is not of this schema.
    """
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise DataError(
            f"{path}: expected a file that `cisdl bench --json` wrote, got {error.strerror}"
        ) from error
    except ValueError as error:
        raise DataError(f"{path}: expected JSON that `cisdl bench --json` wrote, got {error}") from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        found = content.get("schema") if isinstance(content, dict) else type(content).__name__
        raise DataError(f"{path}: expected a benchmark of schema {SCHEMA}, got {found}")
    return content


def read_timings(path: Path) -> dict[str, Any]:
    """The same, of a file that holds speed-ups and not, say, peak memory.

    Raises:
        DataError: as `read`, or its rows are of another kind.
    """
    content = read(path)
    rows = content.get("rows")
    if not rows or not all("speedup" in row for row in rows):
        raise DataError(f"{path}: expected speed-ups as `cisdl bench --json` writes them, got other rows")
    return content
