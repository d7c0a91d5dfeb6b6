"""Keeps the results of finished runs, and writes the table of docs/models.md from them.

    python benchmarks/models_to_markdown.py add ROW runs/lenet-seed0 runs/lenet-seed1   # keep runs as a row
    python benchmarks/models_to_markdown.py                                             # write the table

The rows are described in benchmarks/models/rows.json: which figure of result.json counts, what is to be
reached, by whom, and, where it is missed, why. `add` puts config.json and result.json of its runs into
benchmarks/models/ROW.json; all figures of the table come from there.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "benchmarks" / "models"
ROWS = KEPT / "rows.json"
PAGE = ROOT / "docs" / "models.md"
SECTION = re.compile(r"<!-- models -->\n.*?<!-- end of models -->", re.DOTALL)
NOT_KEPT = frozenset({"layers"})
"""Of config.json: long, and the same for every run of a model."""
LONGEST_FACT = 40
"""A fact of the data with more entries than this, a vocabulary, is kept as their number."""


def rows() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(ROWS.read_text(encoding="utf-8"))
    return found


def kept(row: str) -> list[dict[str, Any]]:
    """The runs of a row; none if it was never filled."""
    path = KEPT / f"{row}.json"
    if not path.is_file():
        return []
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return found


def add(row: str, folders: list[Path]) -> None:
    names = [known["row"] for known in rows()]
    if row not in names:
        sys.exit(f"{row}: expected a row of {ROWS}, one of {', '.join(names)}")
    runs = []
    for folder in folders:
        config, result = (
            json.loads((folder / name).read_text(encoding="utf-8")) for name in ("config.json", "result.json")
        )
        if result["status"] != "finished":
            sys.exit(f"{folder}: expected a finished run, got {result['status']}")
        config = {name: value for name, value in config.items() if name not in NOT_KEPT}
        facts = config["data_facts"]
        for name, value in facts.items():
            if isinstance(value, list | dict) and len(value) > LONGEST_FACT:
                facts[name] = f"{len(value)} entries"
            elif isinstance(value, str) and len(value.split()) > LONGEST_FACT:
                facts[name] = f"{len(value.split())} entries"
        facts.pop("source", None)
        config.pop("data_dir", None)
        runs.append({"config": config, "result": result})
    (KEPT / f"{row}.json").write_text(json.dumps(runs, indent=1) + "\n", encoding="utf-8")


def judged(result: dict[str, Any]) -> dict[str, Any]:
    part: dict[str, Any] = result.get("test") or result["validation"]
    return part


def reached(values: list[float], row: dict[str, Any]) -> bool:
    mean = statistics.mean(values)
    return mean >= row["goal"] if row["better"] == "higher" else mean <= row["goal"]


def line(row: dict[str, Any]) -> str:
    runs = kept(row["row"])
    first = runs[0]["config"]
    if row["figure"].startswith("1-"):
        values = [row["factor"] * (1 - judged(run["result"])[row["figure"][2:]]) for run in runs]
    else:
        values = [row["factor"] * judged(run["result"])[row["figure"]] for run in runs]
    digits = row["digits"]
    ours = f"{statistics.mean(values):.{digits}f}"
    if len(values) > 1:
        ours += f" ± {statistics.stdev(values):.{digits}f}"
    counted = judged(runs[0]["result"]).get(row.get("count", "total"))
    part = "test" if "test" in runs[0]["result"] else "validation"
    seeds = f"{len(values)} seed{'s' if len(values) > 1 else ''}"
    counts = seeds if counted is None else f"{seeds}, {counted:,} {row.get('counted', 'examples')}, {part}"
    verdict = "-" if row["goal"] is None else "yes" if reached(values, row) else "no"
    if verdict == "no":
        verdict += f": {row['why']}"
    return (
        f"| {row['week']} | `{first['model']}`{row.get('how', '')} | {first['data_facts']['name']} | "
        f"{row['words']} | {ours} ({counts}) | {row['reference']} | {verdict} |"
    )


def section() -> str:
    filled = [row for row in rows() if kept(row["row"])]
    lines = [
        "<!-- models -->",
        "| week | model | data | figure | ours | to reach | reached |",
        "|---|---|---|---|---|---|---|",
        *map(line, filled),
        "<!-- end of models -->",
    ]
    return "\n".join(lines)


def main() -> None:
    if sys.argv[1:2] == ["add"]:
        add(sys.argv[2], [Path(folder) for folder in sys.argv[3:]])
    page = PAGE.read_text(encoding="utf-8")
    match = SECTION.search(page)
    if match is None:
        sys.exit(f"{PAGE}: expected <!-- models --> and <!-- end of models -->, found neither")
    PAGE.write_text(page[: match.start()] + section() + page[match.end() :], encoding="utf-8")


if __name__ == "__main__":
    main()
