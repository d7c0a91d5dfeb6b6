"""Benchmark files beside each other, by machine and date."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cisdl.bench import results
from cisdl.bench.compare import key
from cisdl.bench.statistics import geometric_mean
from cisdl.errors import DataError

Content = dict[str, Any]
Cases = dict[tuple[str, ...], float]
"""Speed-up by what identifies a row in two files."""


@dataclass(frozen=True)
class Column:
    """One file."""

    path: Path
    date: str
    kind: str  # what it holds of all there is: "quick", "each layout", a pattern; "" for everything
    rows: dict[str, Cases]  # by row of the table

    def mean(self, row: str) -> float | None:
        found = self.rows.get(row)
        return geometric_mean(list(found.values())) if found else None


@dataclass(frozen=True)
class Machine:
    """All files of one processor, instruction set, number of threads and precision, the oldest first."""

    name: str
    columns: list[Column]

    @property
    def rows(self) -> list[str]:
        return list(dict.fromkeys(row for column in self.columns for row in column.rows))

    def change(self, row: str) -> float | None:
        """The newest file with this row over the oldest, over the cases of both; None for want of two."""
        having = [column.rows[row] for column in self.columns if row in column.rows]
        if len(having) < 2:
            return None
        first, last = having[0], having[-1]
        shared = [name for name in first if name in last]
        return geometric_mean([last[name] / first[name] for name in shared]) if shared else None

    def as_json(self) -> dict[str, Any]:
        return {
            "machine": self.name,
            "files": [
                {
                    "file": str(column.path),
                    "date": column.date,
                    "kind": column.kind,
                    "speedups": {row: column.mean(row) for row in column.rows},
                    "cases": {row: len(cases) for row, cases in column.rows.items()},
                }
                for column in self.columns
            ],
            "changes": {row: self.change(row) for row in self.rows},
        }


def read(paths: Sequence[Path]) -> list[tuple[Path, Content]]:
    """Files of timings; of a folder those that are, of files that are named each has to be one."""
    found = []
    for path in paths:
        if not path.is_dir():
            found.append((path, results.read_timings(path)))
            continue
        for one in sorted(path.glob("*.json")):
            with suppress(DataError):  # other measurements lie there too
                found.append((one, results.read_timings(one)))
    return found


def machines(contents: Sequence[tuple[Path, Content]], pattern: str | None = None) -> list[Machine]:
    """Columns by machine; rows are ops and passes, or the single cases that the pattern selects."""
    found: dict[str, list[Column]] = {}
    for path, content in sorted(contents, key=lambda one: one[1]["environment"]["date"]):
        rows: dict[str, Cases] = {}
        for row in content["rows"]:
            name = row_name(row, pattern)
            if name is not None:
                rows.setdefault(name, {})[key(row)] = row["speedup"]["value"]
        environment, options = content["environment"], content.get("options", {})
        column = Column(path, environment["date"][:10], kind(options), rows)
        found.setdefault(machine_name(environment, options), []).append(column)
    return [Machine(name, columns) for name, columns in found.items()]


def row_name(row: dict[str, Any], pattern: str | None) -> str | None:
    """The row of the table that a case counts in; None if it is not shown."""
    op, name = row["case"].split("/", 1)
    part = row["part"].replace("_", " ") + (", cold" if row.get("cache") == "cold" else "")
    if pattern is None:
        return f"{op} {part}"
    chosen = any(fnmatch.fnmatchcase(text, pattern) for text in (row["case"], op, name))
    layout = "" if row["layout"] == "best" else f", {row['layout']}"
    return f"{row['case']} {part}{layout}" if chosen else None


def machine_name(environment: Content, options: Content) -> str:
    """What has to be equal for figures to be comparable."""
    threads = environment["threads"]
    on_cpu = f", {environment['isa']}, {threads} thread{'s' if threads != 1 else ''}"
    forced = ", torch kept to it" if "ATEN_CPU_CAPABILITY" in environment.get("variables", {}) else ""
    where = on_cpu + forced if environment["device"] == "cpu" else ""
    dtype = options.get("dtype", "float32")
    return f"{environment['processor']}{where}, {dtype}, torch {environment['torch']}"


def kind(options: Content) -> str:
    words = {
        "quick": options.get("quick"),
        "each layout": options.get("layout") == "each",
        "tuned": options.get("tune"),
        "axis": bool(options.get("axis")),
        options.get("pattern", "*"): options.get("pattern", "*") != "*",
    }
    return ", ".join(word for word, said in words.items() if said)
