"""The pictures of a benchmark: what is drawn, from files of today and of before networks were summed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cisdl import errors
from cisdl.__main__ import cli
from cisdl.report import benchmark
from matplotlib.axes import Axes
from matplotlib.figure import Figure

PNG = b"\x89PNG\r\n"


def row(case: str, speedup: float, gflops: float | None) -> dict[str, Any]:
    return {
        "case": case,
        "part": "forward",
        "speedup": {"value": speedup},
        "gflops": gflops,
        "gbytes": 2.0,
        "ours_seconds": 1.0,
        "torch_seconds": speedup,
    }


CONTENT: dict[str, Any] = {
    "schema": 1,
    "environment": {
        "processor": "P",
        "isa": "avx2",
        "threads": 2,
        "torch": "2",
        "date": "2026-01-02T03:04:05Z",
    },
    "options": {"dtype": "float32"},
    "ceilings": {"gflops": 100.0, "gbytes": {"1024": 50.0, "4096": 10.0}},
    "networks": {"lenet": {"geometric_mean": 2.0, "layers": {"conv2d/lenet_conv2_b64": 2.0}}},
    "rows": [
        row("conv2d/lenet_conv2_b64", 4.0, 80.0),
        row("linear/x", 0.5, 20.0),
        row("model/mlp", 2.0, None),
    ],
}


def test_dots_and_labels() -> None:
    axes: Axes = Figure().subplots()
    benchmark.dots(axes, "title", {"conv2d": [4.0, 1.0], "linear": [0.5]})
    assert [label.get_text() for label in axes.get_yticklabels()] == ["conv2d  2.00x", "linear  0.50x"]
    drawn = [list(line.get_xdata()) for line in axes.get_lines()]
    assert [4.0, 1.0] in drawn
    assert [0.5] in drawn


def test_the_command_draws_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a.json"
    for content in (CONTENT, {key: value for key, value in CONTENT.items() if key != "networks"}):
        file.write_text(json.dumps(content))
        with pytest.raises(SystemExit) as exited:
            cli.main(["bench", "chart", str(file), "--out", str(tmp_path / "out")], prog_name="cisdl")
        assert exited.value.code == errors.OK
        for name in ("speedup.png", "roofline.png"):
            picture = tmp_path / "out" / name
            assert picture.read_bytes().startswith(PNG)
            picture.unlink()
        assert capsys.readouterr().err.count("wrote") == 2


def test_models_alone_have_no_roofline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a.json"
    file.write_text(json.dumps({**CONTENT, "networks": {}, "rows": CONTENT["rows"][-1:]}))
    with pytest.raises(SystemExit) as exited:
        cli.main(["bench", "chart", str(file), "--out", str(tmp_path)], prog_name="cisdl")
    assert exited.value.code == errors.OK
    assert "no row counts operations, so there is no roofline" in capsys.readouterr().err
    assert (tmp_path / "speedup.png").is_file()
    assert not (tmp_path / "roofline.png").exists()


@pytest.mark.parametrize("command", ["chart", "compare", "history"])
@pytest.mark.parametrize("rows", [[], [{"case": "linear/x", "ours_bytes": 1}]])
def test_other_rows_are_refused(
    command: str, rows: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file of peak memory, or of nothing."""
    file = tmp_path / "memory.json"
    file.write_text(json.dumps({**CONTENT, "rows": rows}))
    with pytest.raises(SystemExit) as exited:
        cli.main(["bench", command, *[str(file)] * (1 + (command == "compare"))], prog_name="cisdl")
    assert exited.value.code == errors.DATA
    assert "memory.json: expected speed-ups" in capsys.readouterr().err
