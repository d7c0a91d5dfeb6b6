"""`cisdl ls`, `cisdl show`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from cisdl import errors
from cisdl.models.registry import MODELS

from tests.cli.conftest import Command
from tests.models.idx_files import write_folder


def test_ls_models(cisdl: Command) -> None:
    rows = json.loads(cisdl("ls", "models", "--json").out)
    assert [row["model"] for row in rows] == list(MODELS)
    assert rows == sorted(rows, key=lambda row: row["week"])
    table = cisdl("ls", "models").out
    for name, entry in MODELS.items():
        assert name in table
        assert entry.title in table


def test_ls_data_says_what_is_there(cisdl: Command, tmp_path: Path) -> None:
    write_folder(tmp_path / "data" / "mnist", test=0)
    rows = {row["data"]: row["where"] for row in json.loads(cisdl("ls", "data", "--json").out)}
    assert rows["digits"] == "bundled with scikit-learn"
    assert rows["mnist"] == "data/mnist (no test images)"
    brings = "`cisdl data get fashion-mnist` brings it"
    assert rows["fashion-mnist"] == f"not in {tmp_path / 'data'}; {brings}"


def test_ls_runs_and_show_run(cisdl: Command, tmp_path: Path) -> None:
    assert "no runs under ./runs yet" in cisdl("ls", "runs").out
    assert json.loads(cisdl("ls", "runs", "--json").out) == []
    trained = cisdl("train", "mlp", "--limit", "50", "--epochs", "2", "--threads", "1", "--out", "small")
    assert trained.code == errors.OK
    (row,) = json.loads(cisdl("ls", "runs", "--json").out)
    assert (row["run"], row["model"], row["status"]) == ("small", "mlp", "finished")
    scored = json.loads((tmp_path / "runs" / "small" / "result.json").read_text())["test"]
    assert row["result"] == f"test accuracy {100 * scored['accuracy']:.2f} % ({scored['correct']}/50)"
    for name in ("small", "runs/small"):
        shown = cisdl("show", name)
        assert shown.code == errors.OK
        assert f"({scored['correct']}/50)" in shown.out
        assert "best.pt" in shown.out


def test_a_damaged_run_is_named(cisdl: Command, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "broken"
    run.mkdir(parents=True)
    (run / "config.json").write_text("{")
    result = cisdl("ls", "runs")
    assert result.code == errors.DATA
    assert "runs/broken/config.json: expected JSON" in result.sentence()


@pytest.mark.parametrize(
    ("model", "parameters"), [("mlp", "17,226"), ("lenet", "61,706"), ("lstm", "124,318")]
)
def test_show_model(model: str, parameters: str, cisdl: Command) -> None:
    result = cisdl("show", model)
    assert result.code == errors.OK
    assert f"{parameters} parameters" in result.out
    assert "Source" in result.out


def test_ls_kernels(cisdl: Command) -> None:
    rows = json.loads(cisdl("ls", "kernels", "--json").out)
    ops = {row["op"] for row in rows}
    assert {"linear", "conv2d"} <= ops
    for row in rows:
        assert row["implementations (the first that applies runs)"]


def test_ls_kernels_without_kernels(cisdl: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cisdl_ops", None)
    result = cisdl("ls", "kernels")
    assert result.code == errors.BUILD_OR_DEVICE
    assert "cisdl_ops" in result.sentence()
