"""`cisdl bench history`: files beside each other, by machine and date."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cisdl import errors
from cisdl.bench import history

from tests.cli.conftest import ROOT, Command


def write(folder: Path, name: str, day: int, speedups: dict[str, float], **changes: Any) -> Path:
    """A benchmark file with a row for each speed-up, `op/case:part`."""
    environment = {"processor": "A CPU", "isa": "avx2", "threads": 1, "device": "cpu", "torch": "2.13.0"}
    rows = [
        {
            "case": name.split(":")[0],
            "part": name.split(":")[1],
            "dtype": "float32",
            "layout": "best",
            "speedup": {"value": value},
        }
        for name, value in speedups.items()
    ]
    content = {
        "schema": 1,
        "environment": environment | {"date": f"2026-01-{day:02}T00:00:00Z"} | changes.pop("environment", {}),
        "options": {"pattern": "*", "dtype": "float32"} | changes,
        "rows": rows,
    }
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(content))
    return path


def found(folder: Path, pattern: str | None = None) -> list[dict[str, Any]]:
    return [one.as_json() for one in history.machines(history.read([folder]), pattern)]


def test_columns_are_in_the_order_of_dates_and_machines_apart(tmp_path: Path) -> None:
    write(tmp_path, "b", 2, {"linear/x:forward": 4.0, "linear/y:forward": 9.0, "linear/z:forward": 100.0})
    write(tmp_path, "a", 3, {"linear/x:forward": 2.0, "linear/y:forward": 18.0, "conv2d/x:forward": 1.0})
    write(tmp_path, "c", 1, {"linear/x:forward": 1.0}, environment={"threads": 2}, quick=True)
    write(
        tmp_path,
        "d",
        4,
        {"linear/x:forward": 1.0},
        environment={"variables": {"ATEN_CPU_CAPABILITY": "avx2"}},
    )
    (tmp_path / "memory.json").write_text(json.dumps({"schema": 1, "rows": [{"case": "x"}]}))
    (tmp_path / "other.json").write_text("{}")
    (tmp_path / "broken.json").write_text("{")
    two, one, forced = found(tmp_path)
    assert two["machine"] == "A CPU, avx2, 2 threads, float32, torch 2.13.0"
    assert one["machine"] == "A CPU, avx2, 1 thread, float32, torch 2.13.0"
    assert "kept to it" in forced["machine"]
    assert [(one["date"], one["kind"]) for one in two["files"]] == [("2026-01-01", "quick")]
    assert [Path(one["file"]).name for one in one["files"]] == ["b.json", "a.json"]
    assert one["files"][0]["cases"] == {"linear forward": 3}
    assert one["files"][1]["speedups"]["linear forward"] == pytest.approx(6.0)
    # Over the cases of both: (2 / 4 * 18 / 9) ** 0.5; what one file alone has is no change.
    assert one["changes"] == {"linear forward": pytest.approx(1.0), "conv2d forward": None}


def test_single_cases(tmp_path: Path) -> None:
    write(tmp_path, "a", 1, {"linear/x:forward": 4.0, "linear/x:grad_input": 2.0, "linear/y:forward": 9.0})
    write(tmp_path, "b", 2, {"linear/x:forward": 5.0})
    (machine,) = found(tmp_path, "linear/x")
    assert machine["changes"] == {"linear/x forward": 1.25, "linear/x grad input": None}
    assert found(tmp_path, "conv*")[0]["changes"] == {}


def test_the_table(cisdl: Command, tmp_path: Path) -> None:
    write(tmp_path / "benchmarks", "a", 1, {"linear/x:forward": 4.0, "linear/y:forward": 4.0})
    write(tmp_path / "benchmarks", "b", 2, {"linear/x:forward": 5.0})
    printed = cisdl("bench", "history").out
    assert [line.split() for line in printed.splitlines() if line.startswith("linear")] == [
        ["linear", "forward", "4.00x", "(2)", "5.00x", "+25%"]
    ]
    assert "2026-01-01" in printed
    assert json.loads(cisdl("bench", "history", "--json").out)[0]["changes"] == {"linear forward": 1.25}


def test_what_it_refuses(cisdl: Command, tmp_path: Path) -> None:
    nothing = cisdl("bench", "history")
    assert nothing.code == errors.DATA
    assert "benchmarks: expected a file" in nothing.sentence()
    (tmp_path / "benchmarks").mkdir()
    assert "`cisdl bench --quick --save` writes one" in cisdl("bench", "history").sentence()
    good = write(tmp_path, "a", 1, {"linear/x:forward": 4.0})
    (tmp_path / "memory.json").write_text(json.dumps({"schema": 1, "rows": [{"case": "x"}]}))
    refused = cisdl("bench", "history", str(good), "memory.json")
    assert refused.code == errors.DATA
    assert "memory.json: expected speed-ups" in refused.sentence()
    unknown = cisdl("bench", "history", str(good), "--case", "pool*")
    assert unknown.code == errors.USAGE
    assert "no file has a case that matches 'pool*'" in unknown.sentence()


def test_the_committed_files_can_be_read(cisdl: Command) -> None:
    printed = cisdl("bench", "history", str(ROOT / "benchmarks"))
    assert printed.code == errors.OK
    assert "conv2d forward" in printed.out
