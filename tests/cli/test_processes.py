"""`cisdl train` in several processes: it equals one, ends as one does, and says what is wrong once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
import torch.distributed as dist
from cisdl import errors
from cisdl.models.registry import MODELS
from cisdl.training import launch, processes
from cisdl.training.position import Position

from tests.cli import processes_worker
from tests.cli.conftest import Command, environment
from tests.models.idx_files import write_folder

pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="torch was built without gloo")

HEAVY = ("alexnet",)
TRAINED = [name for name, entry in MODELS.items() if not entry.one_process and name not in HEAVY]
REFUSED = [name for name, entry in MODELS.items() if entry.one_process]
SMALL = {"dropout": "0", "hidden": "8", "width": "4"}
"""For models that have the option. Dropout is drawn by each process for itself, and cannot equal one's."""
OWN = {
    "alexnet": ["--limit", "8", "--epochs", "1"],
    "char-lm": ["--limit", "4000", "--layers", "2"],
    "gan": ["--architecture", "dcgan"],  # the other has dropout
    "jordan": ["--truncate", "10"],
    "lenet": ["--augment", "both"],
    "lstm": ["--layers", "2"],
    "tagger": ["--data", "tags.conll"],  # smaller than what it reads else
}
BATCHES = ["--limit", "50", "--batch-size", "7", "--epochs", "2"]
"""Of 7, which are not to be halved, and one of 1, of which one process gets nothing."""
RESUMED = ("mlp", "char-lm", "gan")
WITH_DROPOUT = ["char-lm", "--limit", "4000", "--layers", "2", "--hidden", "8", "--dropout", "0.3"]


def training(model: str, out: str) -> list[str]:
    small = [
        word
        for name, value in SMALL.items()
        if name in MODELS[model].options
        for word in (f"--{name}", value)
    ]
    # Adam divides by the gradient: where that is nearly nothing, a rounding becomes a step.
    momentum = ["--optimizer", "momentum"] if "momentum" in MODELS[model].lr else []
    shared = ["--threads", "1", "--log-steps", "--out", out]
    return ["train", model, *BATCHES, *small, *OWN.get(model, []), *momentum, *shared]


def run_here(folder: Path, commands: list[dict[str, Any]]) -> None:
    """The commands in this process, in `folder`; each has to end with its "code", 0 if it has none."""
    threads, random = torch.get_num_threads(), torch.get_rng_state()
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        codes = processes_worker.run(commands)
    torch.set_num_threads(threads)
    torch.set_rng_state(random)
    assert codes == [command.get("code", 0) for command in commands]


def run_in_two(folder: Path, commands: list[dict[str, Any]]) -> str:
    """The same in two processes of torchrun's; returns what they print."""
    file = folder / "two.json"
    file.write_text(json.dumps(commands))
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [sys.executable, *torchrun, processes_worker.__file__, str(file)],
        cwd=folder,
        env=environment() | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for rank in range(2):
        codes = json.loads((folder / f"two-{rank}.codes").read_text())
        assert codes == [command.get("code", 0) for command in commands], done.stderr
    assert "Warning" not in done.stderr
    return done.stdout


def write_tags(path: Path) -> None:
    """Sentences of 1 to 9 words, whose tag is their last letter's kind."""
    random = Random(0)
    words = ["ab", "cde", "fo", "gu", "hi", "jk", "lmn", "opa", "qr", "stu"]
    sentences = [random.choices(words, k=random.randint(1, 9)) for _ in range(200)]
    lines = ["".join(f"{word} {'V' if word[-1] in 'aeiou' else 'C'}\n" for word in s) for s in sentences]
    path.write_text("\n".join(lines))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of one process and of two: whole, interrupted, and gone on with by the other number."""
    folder = tmp_path_factory.mktemp("processes")
    stopped = {"interrupt_after": 4, "code": errors.INTERRUPTED}
    resumed = [{"arguments": ["train", "--resume", f"{model}-1-2"]} for model in RESUMED]
    back = [{"arguments": ["train", "--resume", f"{model}-2-1"]} for model in RESUMED]
    dropout = ["train", *WITH_DROPOUT, *BATCHES[2:], "--threads", "1", "--log-steps", "--out"]
    seeds = ["train", "mlp", *BATCHES, "--seeds", "2", "--threads", "1", "--out", "seeds"]
    write_tags(folder / "tags.conll")
    run_here(
        folder,
        [{"arguments": training(model, f"{model}-1")} for model in TRAINED]
        + [{"arguments": training(model, f"{model}-1-2"), **stopped} for model in RESUMED],
    )
    said = run_in_two(
        folder,
        [{"arguments": training(model, f"{model}-2")} for model in TRAINED]
        + [{"arguments": training(model, f"{model}-2-1"), **stopped} for model in RESUMED]
        + resumed
        + [{"arguments": [*dropout, "dropout"]}, {"arguments": [*dropout, "dropout-parts"], **stopped}]
        + [{"arguments": ["train", "--resume", "dropout-parts"]}, {"arguments": seeds}],
    )
    run_here(folder, back)
    (folder / "two.out").write_text(said)
    return folder / "runs"


def steps(run: Path) -> torch.Tensor:
    """step, epoch and loss of each step."""
    lines = (run / "steps.csv").read_text().splitlines()[1:]
    return torch.tensor([[float(value) for value in line.split(",")] for line in lines], dtype=torch.float64)


def state(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(run / "last.pt", weights_only=True)
    return found


def assert_equal_but_for_rounding(one: Path, other: Path) -> None:
    torch.testing.assert_close(steps(other), steps(one), rtol=1e-5, atol=0)
    ours, theirs = state(other), state(one)
    near = 1e-6 if ours["config"]["optimizer"] == "momentum" else 5e-5
    for part in ("model", "trainer"):
        torch.testing.assert_close(ours[part], theirs[part], rtol=1e-4, atol=near)
    for name in ("count", "correct", "step", "batch", "epoch"):
        assert ours["position"][name] == theirs["position"][name]
    metrics = [
        [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        for run in (one, other)
    ]
    for row, expected in zip(*metrics, strict=True):
        assert list(row) == list(expected)
        assert {name for name in row if isinstance(row[name], int)} == {
            name for name in expected if isinstance(expected[name], int)
        }
        for name in ("train_loss", "validation_loss"):
            assert row[name] == pytest.approx(expected[name], rel=1e-4)


def stretches(run: Path) -> list[tuple[int, int]]:
    config = json.loads((run / "config.json").read_text())
    return [(stretch["after_step"], stretch["count"]) for stretch in config["processes"]]


@pytest.mark.parametrize("model", TRAINED)
def test_two_processes_equal_one(model: str, runs: Path) -> None:
    assert_equal_but_for_rounding(runs / f"{model}-1", runs / f"{model}-2")
    assert stretches(runs / f"{model}-1") == [(0, 1)]
    assert stretches(runs / f"{model}-2") == [(0, 2)]


@pytest.mark.models
@pytest.mark.parametrize("model", HEAVY)
def test_two_processes_equal_one_at_heavy_models(model: str, tmp_path: Path) -> None:
    run_here(tmp_path, [{"arguments": training(model, f"{model}-1")}])
    run_in_two(tmp_path, [{"arguments": training(model, f"{model}-2")}])
    assert_equal_but_for_rounding(*(tmp_path / "runs" / f"{model}-{count}" for count in (1, 2)))


@pytest.mark.parametrize("before", [1, 2])
@pytest.mark.parametrize("model", RESUMED)
def test_another_number_of_processes_goes_on(model: str, before: int, runs: Path) -> None:
    resumed = runs / f"{model}-{before}-{3 - before}"
    assert_equal_but_for_rounding(runs / f"{model}-1", resumed)
    assert stretches(resumed) == [(0, before), (4, 3 - before)]


def test_as_many_processes_go_on_bit_for_bit(runs: Path) -> None:
    """With dropout: what each process draws is decided by the step."""
    assert torch.equal(steps(runs / "dropout"), steps(runs / "dropout-parts"))
    torch.testing.assert_close(
        state(runs / "dropout")["model"], state(runs / "dropout-parts")["model"], rtol=0, atol=0
    )
    assert stretches(runs / "dropout-parts") == [(0, 2)]


def test_several_seeds(runs: Path) -> None:
    assert (runs / "seeds-seed1" / "result.json").is_file()
    said = (runs.parent / "two.out").read_text()
    assert said.count("validation, seeds 0 to 1") + said.count("test, seeds 0 to 1") == 1


def test_every_process_draws_for_itself_at_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    def drawn(rank: int, step: int) -> float:
        monkeypatch.setattr(processes, "rank", lambda: rank)
        torch.manual_seed(0)
        processes.seed(7, step)
        return float(torch.rand(()))

    found = {(rank, step): drawn(rank, step) for rank in range(3) for step in range(4)}
    others = [value for (rank, _), value in found.items() if rank > 0]
    assert len(set(others)) == len(others)
    assert drawn(2, 3) == found[2, 3]  # whatever was drawn before
    assert len({found[0, step] for step in range(4)}) == 1  # the first draws on as a process alone does


@pytest.mark.parametrize(("count", "world"), [(7, 2), (7, 3), (1, 3), (3, 3)])
def test_every_row_counts_in_one_process(count: int, world: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "world_size", lambda: world)
    counted: list[int] = []
    for rank in range(world):
        monkeypatch.setattr(processes, "rank", lambda rank=rank: rank)
        chosen, counts = processes.rows(count)
        rows = list(range(count))[chosen]
        assert rows  # a process never has nothing to do
        counted += rows if counts else []
    assert sorted(counted) == list(range(count))


@pytest.mark.parametrize("model", REFUSED)
def test_refuses_what_one_process_trains(model: str, cisdl: Command) -> None:
    result = cisdl("train", model, "--nproc", "2")
    assert result.code == errors.USAGE
    assert f"{model}: expected one process, got 2: " in result.sentence()


def test_nproc_and_torchrun_are_two_ways_of_one_thing() -> None:
    assert launch.check(2, {})
    assert not launch.check(1, {})
    assert not launch.check(2, {"LOCAL_WORLD_SIZE": "2"})
    with pytest.raises(
        errors.UsageError, match=r"--nproc: expected none under torchrun, which started 3 here"
    ):
        launch.check(2, {"LOCAL_WORLD_SIZE": "3"})


def test_a_batch_has_to_be_enough_for_all(cisdl: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cisdl.training.processes.world_size", lambda: 2)
    result = cisdl("train", "mlp", "--batch-size", "1")
    assert result.code == errors.USAGE
    assert "--batch-size: expected at least the 2 processes, which share it, got 1" in result.sentence()


def start(folder: Path, *arguments: str, first: str = "") -> subprocess.Popen[str]:
    """`cisdl train ARGUMENTS --nproc 2`, without pictures; each process runs the code `first` before all."""
    (folder / "sitecustomize.py").write_text(
        "import os, sys, types\n"
        "sys.modules['cisdl.report.plots'] = types.SimpleNamespace(draw=lambda *_: None)\n" + first
    )
    paths = f"{folder}{os.pathsep}{environment()['PYTHONPATH']}"
    return subprocess.Popen(
        [sys.executable, "-m", "cisdl", "train", *arguments, "--nproc", "2", "--threads", "1"],
        cwd=folder,
        env=environment() | {"PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def in_the_midst(folder: Path) -> subprocess.Popen[str]:
    """Two processes that train until something ends them."""
    running = start(folder, "elman", "--epochs", "10000", "--limit", "200")
    while not (folder / "runs" / "elman" / "last.pt").is_file():
        assert running.poll() is None, running.communicate()
        time.sleep(0.01)
    return running


def test_a_failure_of_one_process_is_said_once_and_ends_all(tmp_path: Path) -> None:
    """Data that only the first process finds."""
    write_folder(tmp_path / "data" / "mnist")
    lost = "if os.environ.get('RANK') == '1':\n    os.environ['CISDL_DATA'] = 'nowhere'\n"
    running = start(tmp_path, "mlp", "--data", "mnist", first=lost)
    _, err = running.communicate(timeout=120)
    assert running.returncode == errors.DATA, err
    (said,) = [line for line in err.splitlines() if not line.startswith("mlp (")]
    assert said.startswith("cisdl: ")
    assert "nowhere" in said


def test_a_goal_missed_is_the_exit_code(tmp_path: Path) -> None:
    goal = ["--assert", "test_accuracy>1"]
    running = start(tmp_path, "elman", "--limit", "40", "--epochs", "1", *goal)
    out, err = running.communicate(timeout=120)
    assert running.returncode == errors.GOAL_MISSED, err
    assert err.splitlines()[-1].startswith("cisdl: goal missed: expected test_accuracy > 1")
    assert err.count("goal missed") == 1
    assert out.splitlines()[-1] == "runs/elman"
    assert out.count("runs/elman") == 1


def test_ctrl_c_saves_once_and_ends_all(tmp_path: Path) -> None:
    running = in_the_midst(tmp_path)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=120)
    assert running.returncode == errors.INTERRUPTED, err
    said = [line for line in err.splitlines() if line.startswith("cisdl: ")]
    assert len(said) == 1
    assert said[0].startswith("cisdl: interrupted in epoch ")
    assert "Traceback" not in err
    run = tmp_path / "runs" / "elman"
    ended = json.loads((run / "result.json").read_text())
    assert ended["status"] == "interrupted"
    assert state(run)["position"]["step"] == ended["step"]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the processes in /proc")
def test_a_killed_process_ends_all(tmp_path: Path) -> None:
    running = in_the_midst(tmp_path)
    children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
    killed = [int(child) for child in children]
    assert len(killed) == 2
    os.kill(killed[1], signal.SIGKILL)
    _, err = running.communicate(timeout=120)
    assert running.returncode == errors.RUNTIME, err
    said = [line for line in err.splitlines() if not line.startswith(("epoch", "elman"))]
    assert said == ["cisdl: process 1 of 2 was ended by SIGKILL, perhaps for want of memory"]


def test_a_run_from_before_there_were_several_processes_goes_on() -> None:
    saved = Position(step=3).as_dict()
    del saved["processes"]
    at = Position.of(saved)
    at.trained_by(2)
    assert at.processes == [[0, 1], [3, 2]]
    at.trained_by(1)  # before a single step
    assert at.processes == [[0, 1]]
