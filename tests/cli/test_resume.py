"""Interrupted, killed, stopped early and gone on with: a resumed run equals one that never stopped."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from cisdl import errors
from cisdl.training import loop
from cisdl.training.interrupt import InterruptRequest

from tests.cli.conftest import Command, environment

SHORT: dict[str, list[str]] = {
    "alexnet": ["--limit", "40", "--batch-size", "16"],
    "autoencoder": ["--limit", "200"],
    "char-lm": ["--limit", "20000", "--hidden", "8", "--layers", "2"],
    "denoising-autoencoder": ["--limit", "100", "--width", "4"],
    "encoder-decoder": ["--limit", "100", "--hidden", "8", "--batch-size", "16"],
    "elman": ["--limit", "200", "--hidden", "8"],
    "gan": ["--limit", "100", "--hidden", "16"],
    "gru": ["--limit", "100", "--hidden", "8"],
    "jordan": ["--limit", "200", "--hidden", "8", "--truncate", "10"],
    "lenet": ["--limit", "200"],
    "lstm": ["--limit", "100", "--hidden", "8", "--layers", "2"],
    "mlp": ["--limit", "200", "--optimizer", "momentum"],
    "tagger": ["--limit", "100", "--hidden", "8"],
    "word2vec": ["--limit", "20000", "--batch-size", "300", "--dim", "8"],
    "glove": ["--limit", "20000", "--batch-size", "1000", "--dim", "8"],
}
"""A few steps of each kind of model: dropout, noise, momentum, two optimisers, a carried state."""


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cisdl.report.plots.draw", lambda *_: None)
    monkeypatch.setattr("cisdl.tasks.referee.STEPS", 2)


def interrupt_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """As if Ctrl-C came in the midst of that step."""

    class Request(InterruptRequest):
        asked = 0

        @property
        def requested(self) -> bool:
            self.asked += 1
            return self.asked >= steps

        @requested.setter
        def requested(self, value: bool) -> None:
            pass

    monkeypatch.setattr(loop, "InterruptRequest", Request)


def state(run: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(run / name, weights_only=True)
    found["position"].pop("seconds")
    return found


def rows(run: Path) -> list[dict[str, Any]]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    timed = ("seconds", "examples_per_second")
    return [{name: value for name, value in json.loads(line).items() if name not in timed} for line in lines]


def assert_same(one: Any, other: Any) -> None:
    """Bit for bit, however deep."""
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for ours, theirs in zip(one, other, strict=True):
            assert_same(ours, theirs)
    else:
        assert one == other


def assert_same_runs(one: Path, other: Path) -> None:
    assert (one / "steps.csv").read_bytes() == (other / "steps.csv").read_bytes()
    assert rows(one) == rows(other)
    for name in ("best.pt", "last.pt"):
        assert_same(state(one, name), state(other, name))
    results = [json.loads((run / "result.json").read_text()) for run in (one, other)]
    for result in results:
        result.pop("seconds")
    assert results[0] == results[1]


@pytest.mark.parametrize(
    "model", [pytest.param(name, marks=[pytest.mark.models] if name == "alexnet" else []) for name in SHORT]
)
@pytest.mark.parametrize("steps", [2, 7])
def test_interrupted_and_resumed_equals_uninterrupted(
    model: str, steps: int, cisdl: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["train", model, "--epochs", "3", "--threads", "1", "--log-steps", *SHORT[model]]
    assert cisdl(*arguments, "--out", "whole").code == errors.OK
    with monkeypatch.context() as patched:
        interrupt_after(patched, steps)
        stopped = cisdl(*arguments, "--out", "parts")
    assert stopped.code == errors.INTERRUPTED
    assert "`cisdl train --resume runs/parts` goes on" in stopped.err
    torch.manual_seed(12345)  # whatever the process drew in the meantime
    torch.rand(7)
    resumed = cisdl("train", "--resume", "parts")
    assert resumed.code == errors.OK, resumed.err
    assert_same_runs(tmp_path / "runs" / "whole", tmp_path / "runs" / "parts")


def test_a_finished_run_goes_on_for_more_epochs(cisdl: Command, tmp_path: Path) -> None:
    arguments = ["train", "mlp", "--limit", "200", "--threads", "1", "--log-steps"]
    assert cisdl(*arguments, "--epochs", "4", "--out", "whole").code == errors.OK
    assert cisdl(*arguments, "--epochs", "2", "--out", "parts").code == errors.OK
    assert cisdl("train", "--resume", "parts", "--epochs", "4").code == errors.OK
    runs = tmp_path / "runs"
    assert rows(runs / "whole") == rows(runs / "parts")
    assert (runs / "whole" / "steps.csv").read_bytes() == (runs / "parts" / "steps.csv").read_bytes()
    assert json.loads((runs / "parts" / "config.json").read_text())["epochs"] == 4


def test_kill_9_leaves_a_run_that_goes_on(tmp_path: Path) -> None:
    """Killed at random moments again and again, it ends as if nothing had happened."""
    arguments = ["mlp", "--limit", "200", "--threads", "1", "--epochs", "12", "--log-steps"]
    command = [sys.executable, "-m", "cisdl", "train"]

    def start(*more: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*command, *more], cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    last = tmp_path / "runs" / "killed" / "last.pt"
    moments = random.Random(0)
    running = start(*arguments, "--out", "killed")
    for _ in range(KILLS):
        while not last.is_file() and running.poll() is None:
            time.sleep(0.001)
        began = last.stat().st_mtime_ns
        while last.stat().st_mtime_ns == began and running.poll() is None:
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.05))
        running.send_signal(signal.SIGKILL)
        running.communicate()
        torch.load(last, weights_only=True)
        running = start("--resume", "killed")
    _, err = running.communicate(timeout=120)
    assert running.returncode == errors.OK, err
    whole = start(*arguments, "--out", "whole")
    whole.communicate(timeout=120)
    assert_same_runs(tmp_path / "runs" / "whole", tmp_path / "runs" / "killed")


KILLS = int(os.environ.get("CISDL_TEST_KILLS", "1"))
"""CISDL_TEST_KILLS=50 is worth a minute or two after a change of what a run writes, and in which order."""


def test_resume_refuses_what_would_be_another_run(cisdl: Command, tmp_path: Path) -> None:
    assert cisdl("train", "mlp", "--limit", "50", "--epochs", "1", "--out", "short").code == errors.OK
    result = cisdl("train", "--resume", "short", "--lr", "0.1", "--hidden", "8")
    assert result.code == errors.USAGE
    assert "--resume: expected nothing but --epochs, --patience," in result.sentence()
    assert result.sentence().endswith("got --lr, --hidden")
    assert "got MODEL" in cisdl("train", "mlp", "--resume", "short").sentence()
    result = cisdl("train", "--resume", "shrot")
    assert result.code == errors.USAGE
    assert "did you mean 'short'?" in result.sentence()
    run = tmp_path / "runs" / "short"
    saved = torch.load(run / "last.pt", weights_only=True)
    saved["facts"]["classes"] = list("abcdefghij")
    torch.save(saved, run / "last.pt")
    result = cisdl("train", "--resume", "short")
    assert result.code == errors.DATA
    assert "expected the data that the run began with, got others, of another classes" in result.sentence()


def test_patience_ends_training(cisdl: Command, tmp_path: Path) -> None:
    arguments = ["--limit", "60", "--epochs", "200", "--patience", "2", "--threads", "1"]
    result = cisdl("train", "mlp", *arguments)
    assert result.code == errors.OK
    assert "stopped by --patience 2" in result.out
    ended = json.loads((tmp_path / "runs" / "mlp" / "result.json").read_text())
    assert ended["epochs"] == ended["best_epoch"] + 2 < 200
    assert len(rows(tmp_path / "runs" / "mlp")) == ended["epochs"]


def test_max_time_ends_training_within_an_epoch(cisdl: Command, tmp_path: Path) -> None:
    result = cisdl("train", "lenet", "--epochs", "1000", "--max-time", "0.001", "--threads", "1")
    assert result.code == errors.OK, result.err
    assert "stopped by --max-time 0.001" in result.out
    ended = json.loads((tmp_path / "runs" / "lenet" / "result.json").read_text())
    assert (ended["status"], ended["epochs"], ended["steps"]) == ("finished", 1, 1)


def test_overfitting_one_batch_learns_it_by_heart(cisdl: Command, tmp_path: Path) -> None:
    arguments = ["--overfit-one-batch", "--epochs", "4", "--threads", "1"]
    assert cisdl("train", "mlp", *arguments).code == errors.OK
    found = rows(tmp_path / "runs" / "mlp")
    assert found[-1]["train_accuracy"] == 1
    assert found[-1]["train_loss"] < 0.05
    assert found[-1]["validation_loss"] > 0.5


def test_init_from_begins_with_the_kept_weights(cisdl: Command, tmp_path: Path) -> None:
    assert cisdl("train", "mlp", "--epochs", "4", "--threads", "1", "--out", "first").code == errors.OK
    more = ["--init-from", "first", "--epochs", "1", "--threads", "1", "--lr", "1e-9", "--out", "second"]
    assert cisdl("train", "mlp", *more).code == errors.OK
    kept = [state(tmp_path / "runs" / name, "best.pt")["model"] for name in ("first", "second")]
    for name, value in kept[0].items():
        torch.testing.assert_close(value, kept[1][name], rtol=0, atol=1e-5)
    result = cisdl("train", "mlp", "--init-from", "first", "--hidden", "7")
    assert result.code == errors.USAGE
    assert "--init-from: expected a run of the same model and sizes" in result.sentence()
    assert "'nobody' is not a run" in cisdl("train", "mlp", "--init-from", "nobody").sentence()
