"""`cisdl train --tensorboard`: the rows of metrics.csv, read back by TensorBoard itself."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from cisdl import errors

from tests.cli.conftest import Command

there = pytest.mark.skipif(find_spec("tensorboard") is None, reason="needs the package tensorboard")
SHORT = ["train", "mlp", "--limit", "60", "--threads", "1", "--tensorboard"]


def scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of each tag."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(run / "tensorboard"))
    found.Reload()
    return {
        tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]
    }


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@there
@pytest.mark.filterwarnings("ignore")
def test_every_epoch_is_there(cisdl: Command, tmp_path: Path) -> None:
    assert cisdl(*SHORT, "--epochs", "3").code == errors.OK
    run = tmp_path / "runs" / "mlp"
    found = scalars(run)
    assert {"loss/train", "loss/validation", "accuracy/train", "accuracy/validation", "run/seconds"} <= set(
        found
    )
    for tag, column in (("loss/train", "train_loss"), ("accuracy/validation", "validation_accuracy")):
        assert [step for step, _ in found[tag]] == [row["step"] for row in rows(run)]
        assert [value for _, value in found[tag]] == pytest.approx([row[column] for row in rows(run)])


@there
@pytest.mark.filterwarnings("ignore")
def test_a_resumed_run_goes_on_there(cisdl: Command, tmp_path: Path) -> None:
    assert cisdl(*SHORT, "--epochs", "2").code == errors.OK
    assert cisdl("train", "--resume", "mlp", "--epochs", "4").code == errors.OK
    run = tmp_path / "runs" / "mlp"
    steps = [step for step, _ in scalars(run)["loss/train"]]
    assert steps == [row["step"] for row in rows(run)]
    assert len(steps) == 4


def test_without_the_package_it_is_refused_before_training(
    cisdl: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cisdl.training.scalars.find_spec", lambda name: None)
    refused = cisdl(*SHORT)
    assert refused.code == errors.USAGE
    assert refused.sentence().endswith(f"{sys.executable} -m pip install tensorboard")
    assert not (tmp_path / "runs").exists()


def test_without_the_option_nothing_is_written(cisdl: Command, tmp_path: Path) -> None:
    assert cisdl(*SHORT[:-1], "--epochs", "1").code == errors.OK
    assert not (tmp_path / "runs" / "mlp" / "tensorboard").exists()
