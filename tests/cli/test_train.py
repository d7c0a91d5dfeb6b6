"""`cisdl train` from the outside: run folders, determinism, equal losses on both backends, ways to end."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from cisdl import errors
from cisdl.data.images import Part
from cisdl.training.position import Position

from tests.cli.conftest import ROOT, Command, environment

SHORT = ("--threads", "1", "--epochs", "2")
DATA = ROOT.parent / "shared" / "data"


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of numbers: drawing takes longer than a short run."""
    monkeypatch.setattr("cisdl.report.plots.draw", lambda *_: None)


def losses(folder: Path) -> list[float]:
    with (folder / "steps.csv").open(encoding="utf-8") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


@pytest.mark.parametrize("backend", ["cisdl", "torch"])
@pytest.mark.parametrize("model", ["mlp", "lenet", "lstm"])
def test_a_run_leaves_a_complete_folder(model: str, backend: str, cisdl: Command, tmp_path: Path) -> None:
    result = cisdl("train", model, "--data", "digits", "--backend", backend, "--limit", "360", *SHORT)
    assert result.code == errors.OK, result.err
    run = tmp_path / "runs" / model

    *_, accuracy, folder = result.out.strip().splitlines()
    assert folder == str(Path("runs") / model)
    shown = re.match(r"test accuracy (\d+\.\d\d) % \((\d+)/360\), best epoch [12] of 2", accuracy)
    assert shown is not None, accuracy

    scored = json.loads((run / "result.json").read_text())
    assert scored["status"] == "finished"
    assert scored["test"]["correct"] == int(shown[2])
    assert scored["test"]["total"] == 360
    assert f"{100 * scored['test']['correct'] / 360:.2f}" == shown[1]

    config = json.loads((run / "config.json").read_text())
    assert (config["model"], config["backend"], config["epochs"], config["threads"]) == (model, backend, 2, 1)
    assert config["data_facts"]["counts"] == {"train": 360, "validation": 360, "test": 360}
    facts = json.loads((run / "env.json").read_text())
    assert facts["torch"]["version"] == str(torch.__version__)

    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    with (run / "metrics.csv").open(encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == [1, 2]
    assert [float(row["train_loss"]) for row in table] == [row["train_loss"] for row in rows]
    assert rows[1]["train_loss"] < rows[0]["train_loss"]

    pictures = {"curves.png", "confusion.png", "mistakes.png"}
    if model == "mlp":
        pictures |= {"optimizer_paths.png"}
    if model == "lenet":
        pictures |= {"filters.png", "feature_maps.png"}
    assert {path.name for path in (run / "plots").iterdir()} == pictures
    for path in (run / "plots").iterdir():
        assert path.read_bytes().startswith(b"\x89PNG")
    assert not list(run.glob(".*")), "temporary files are left"
    assert not (run / "steps.csv").exists()

    log = result.err.splitlines()
    assert [line.split()[:2] for line in log[1:]] == [["epoch", "1/2"], ["epoch", "2/2"]]
    assert "\x1b" not in result.err + result.out
    assert "\r" not in result.err + result.out


@pytest.mark.usefixtures("no_pictures")
def test_checkpoints_are_plain_and_complete(cisdl: Command, tmp_path: Path) -> None:
    assert cisdl("train", "mlp", *SHORT).code == errors.OK
    run = tmp_path / "runs" / "mlp"
    last = torch.load(run / "last.pt", weights_only=True)
    best = torch.load(run / "best.pt", weights_only=True)
    assert Position.of(last["position"]).words() == {"epoch": 2, "batch": 34, "step": 68}
    assert set(last) == {"format", "config", "facts", "position", "model", "trainer", "rng"}
    assert last["trainer"]["state"], "Adam's moments are missing"
    assert best["position"]["epoch"] == json.loads((run / "result.json").read_text())["best_epoch"]

    from cisdl import backend
    from cisdl.data import digits
    from cisdl.models import registry
    from cisdl.tasks.classification import classify

    data = digits.load().scaled(last["config"]["scale"])
    model = registry.get("mlp").build(backend.get("torch"), shape=data.shape, classes=10)
    model.load_state_dict(best["model"])  # trained with our layers, read by torch's
    assert data.test is not None
    scored = json.loads((run / "result.json").read_text())["test"]
    assert classify(model, data.test).correct == scored["correct"]


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("model", ["mlp", "lenet", "lstm"])
def test_both_backends_reach_the_same_losses(model: str, cisdl: Command, tmp_path: Path) -> None:
    for backend in ("cisdl", "torch"):
        arguments = (
            "--data",
            "digits",
            "--backend",
            backend,
            "--threads",
            "1",
            "--epochs",
            "1",
            "--limit",
            "640",
            "--log-steps",
            "--out",
            backend,
        )
        assert cisdl("train", model, *arguments).code == errors.OK
    ours, theirs = (losses(tmp_path / "runs" / backend)[:20] for backend in ("cisdl", "torch"))
    assert len(ours) == 20
    assert ours == pytest.approx(theirs, rel=1e-4)


@pytest.mark.usefixtures("no_pictures")
def test_the_default_backend_runs_our_kernels(cisdl: Command) -> None:
    import cisdl_ops

    with cisdl_ops.force_implementation("linear", "plain"):
        assert cisdl("train", "mlp", "--limit", "40", "--epochs", "1", "--threads", "1").code == errors.OK
        assert cisdl_ops.last_implementation("linear") == "plain"


@pytest.mark.usefixtures("no_pictures")
def test_one_seed_one_run_other_seed_other_run(cisdl: Command, tmp_path: Path) -> None:
    for name, seed in (("first", "5"), ("again", "5"), ("other", "6")):
        arguments = (
            "--threads",
            "1",
            "--epochs",
            "2",
            "--limit",
            "80",
            "--log-steps",
            "--seed",
            seed,
            "--out",
            name,
        )
        assert cisdl("train", "lenet", *arguments).code == errors.OK
    first, again, other = (losses(tmp_path / "runs" / name) for name in ("first", "again", "other"))
    assert first == again
    assert first != other
    states = [
        torch.load(tmp_path / "runs" / name / "last.pt", weights_only=True) for name in ("first", "again")
    ]
    for one, two in zip(states[0]["model"].values(), states[1]["model"].values(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.usefixtures("no_pictures")
def test_a_second_run_gets_its_own_folder(cisdl: Command, tmp_path: Path) -> None:
    arguments = ("train", "mlp", "--limit", "20", "--epochs", "1", "--threads", "1")
    assert [cisdl(*arguments).out.splitlines()[-1] for _ in range(3)] == [
        "runs/mlp",
        "runs/mlp-2",
        "runs/mlp-3",
    ]
    assert cisdl(*arguments, "--out", "mine").out.splitlines()[-1] == "runs/mine"
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["mine", "mlp", "mlp-2", "mlp-3"]


@pytest.mark.parametrize("model", ["mlp", "lenet", "lstm"])
def test_dry_run_says_all_and_writes_nothing(model: str, cisdl: Command, tmp_path: Path) -> None:
    result = cisdl("train", model, "--dry-run", "--limit", "100", "--seed", "9")
    assert result.code == errors.OK
    assert "nothing was trained or written" in result.err
    assert "100 train, 100 validation, 100 test" in result.out
    assert re.search(r"seed\s+9", result.out)
    assert "parameters" in result.out
    assert not list(tmp_path.iterdir())


def test_dry_run_refuses_what_the_run_would_refuse(cisdl: Command) -> None:
    assert cisdl("train", "lenet", "--dry-run", "--data", "./nowhere").code == errors.DATA


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--optimizer", "sgd", "--lr", "1e30"], r"the loss became (nan|inf) at step \d+ \(epoch 1\)"),
        (["--optimizer", "adam", "--lr", "100"], r"the mean loss of epoch 1 .* times that of the first step"),
    ],
)
def test_divergence_stops_with_3(arguments: list[str], said: str, cisdl: Command, tmp_path: Path) -> None:
    result = cisdl("train", "mlp", *arguments, *SHORT)
    assert result.code == errors.DIVERGED
    sentence = result.err.strip().splitlines()[-1]
    assert re.search(said, sentence), sentence
    assert f"at lr {float(arguments[-1]):g}; try --lr " in sentence
    assert "accuracy" not in result.out
    assert json.loads((tmp_path / "runs" / "mlp" / "result.json").read_text())["status"] == "diverged"


def test_a_missing_device_exits_6(cisdl: Command, tmp_path: Path) -> None:
    name = f"cuda:{torch.cuda.device_count()}" if torch.cuda.is_available() else "cuda"
    result = cisdl("train", "mlp", "--device", name)
    assert result.code == errors.BUILD_OR_DEVICE
    assert f"--device {name}: " in result.sentence()
    assert not list(tmp_path.iterdir())


def test_missing_kernels_exit_6_and_point_to_torch(
    cisdl: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cisdl_ops.nn", None)  # makes the import fail
    result = cisdl("train", "mlp")
    assert result.code == errors.BUILD_OR_DEVICE
    assert result.sentence().endswith("use torch's own ops: --backend torch")
    assert not list(tmp_path.iterdir())


def test_ctrl_c_saves_a_state_and_exits_130(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cisdl", "train", "mlp", "--epochs", "100000", "--threads", "1"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stderr is not None
        while not running.stderr.readline().startswith("epoch      2/"):
            assert running.poll() is None
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=60)
    assert running.returncode == errors.INTERRUPTED
    assert re.search(
        r"cisdl: interrupted in epoch \d+ after step \d+; the state is saved in runs/mlp/last.pt", err
    )
    assert "Traceback" not in err
    assert "accuracy" not in out

    run = tmp_path / "runs" / "mlp"
    ended = json.loads((run / "result.json").read_text())
    state = torch.load(run / "last.pt", weights_only=True)
    assert ended == {"status": "interrupted", **Position.of(state["position"]).words()}
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) in {state["position"]["epoch"] - 1, state["position"]["epoch"]}


@pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals are POSIX")
def test_a_terminal_gets_a_bar(tmp_path: Path) -> None:
    import pty

    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "cisdl", "train", "mlp", *SHORT]
    settings = {**environment(), "TERM": "xterm-256color", "COLUMNS": "120"}
    with subprocess.Popen(
        command, cwd=tmp_path, env=settings, stdout=subprocess.PIPE, stderr=theirs
    ) as running:
        os.close(theirs)
        screen = b""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                part = os.read(ours, 4096)
            except OSError:  # Linux reports the other end's closing so
                break
            if not part:
                break
            screen += part
    os.close(ours)
    assert running.returncode == errors.OK
    assert "━".encode() in screen
    assert b"epoch 2/2  train loss" in screen


@pytest.mark.usefixtures("no_pictures")
def test_the_best_epoch_on_validation_is_kept_and_judged(
    cisdl: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Correct answers first, then the smaller loss; ties keep the earlier epoch."""
    from cisdl.tasks import classification
    from cisdl.tasks.classification import Classified, classify

    script = [(5, 1.0), (9, 1.0), (9, 0.5), (9, 0.5), (8, 0.1)]
    seen: list[dict[str, torch.Tensor]] = []

    def scripted(model: torch.nn.Module, part: Part) -> Classified:
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        if len(seen) > len(script):
            return classify(model, part)
        correct, loss = script[len(seen) - 1]
        return Classified(loss, correct, 10, torch.zeros(10, 10))

    monkeypatch.setattr(classification, "classify", scripted)
    assert cisdl("train", "mlp", "--limit", "64", "--epochs", "5", "--threads", "1").code == errors.OK
    run = tmp_path / "runs" / "mlp"
    assert json.loads((run / "result.json").read_text())["best_epoch"] == 3
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["best"] for row in rows] == [True, True, True, False, False]
    kept = torch.load(run / "best.pt", weights_only=True)["model"]
    assert len(seen) == 6, "the test part was looked at more than once"
    for name, value in kept.items():
        assert torch.equal(value, seen[2][name])
        assert torch.equal(value, seen[5][name]), "test was judged with other weights"
    assert any(not torch.equal(value, seen[4][name]) for name, value in kept.items())


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.skipif(not (DATA / "fashion-mnist").is_dir(), reason=f"no Fashion-MNIST in {DATA}")
def test_real_idx_files(cisdl: Command, tmp_path: Path) -> None:
    arguments = ("--data-dir", str(DATA), "--data", "fashion-mnist", "--limit", "1000", "--threads", "1")
    result = cisdl("train", "lenet", *arguments, "--epochs", "3")
    assert result.code == errors.OK, result.err
    scored = json.loads((tmp_path / "runs" / "lenet" / "result.json").read_text())
    assert scored["test"]["total"] == 1000
    assert scored["test"]["accuracy"] > 0.6
    config = json.loads((tmp_path / "runs" / "lenet" / "config.json").read_text())
    assert config["data_facts"]["classes"][9] == "ankle boot"
    assert config["scale"] == "standard"


@pytest.mark.usefixtures("no_pictures")
def test_several_seeds_end_with_mean_and_deviation(cisdl: Command, tmp_path: Path) -> None:
    result = cisdl("train", "mlp", "--seeds", "3", "--seed", "4", *SHORT)
    assert result.code == errors.OK, result.err
    runs = [tmp_path / "runs" / f"mlp-seed{seed}" for seed in (4, 5, 6)]
    reached = [100 * json.loads((run / "result.json").read_text())["test"]["accuracy"] for run in runs]
    assert len(set(reached)) > 1
    said = result.out.splitlines()[-1]
    assert said.startswith("test, seeds 4 to 6: accuracy, % ")
    mean, deviation = re.findall(r"(\d+\.\d+) ± (\d+\.?\d*)", said)[0]
    assert float(mean) == pytest.approx(statistics.mean(reached), rel=1e-3)
    assert float(deviation) == pytest.approx(statistics.stdev(reached), rel=0.1)
