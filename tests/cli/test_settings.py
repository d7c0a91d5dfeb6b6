"""Where settings come from, and what a result has to be: --config, -o, --print-config, --assert."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cisdl import errors

from tests.cli.conftest import Command


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cisdl.report.plots.draw", lambda *_: None)


def printed(text: str) -> dict[str, tuple[str, str]]:
    """setting -> (value, where it comes from)"""
    found = {}
    for line in text.splitlines()[1:]:
        name, value, source = line.split(maxsplit=2)
        found[name] = (value, source.strip())
    return found


def test_print_config_says_where_each_value_comes_from(cisdl: Command, tmp_path: Path) -> None:
    """An option goes before -o, -o before the file, the file before the default."""
    (tmp_path / "mine.toml").write_text("lr = 0.5\nepochs = 7\nbatch-size = 9\nhidden = [5, 4]\nseed = 3\n")
    result = cisdl(
        "train", "mlp", "--config", "mine.toml", "-o", "epochs=8", "-o", "batch_size=10", "--epochs", "9",
        "--print-config",
    )  # fmt: skip
    assert result.code == errors.OK, result.err
    found = printed(result.out)
    assert found["epochs"] == ("9", "command line")
    assert found["batch_size"] == ("10", "-o")
    assert found["lr"] == ("0.5", "mine.toml")
    assert found["hidden"] == ("5,4", "mine.toml")
    assert found["seed"] == ("3", "mine.toml")
    assert found["optimizer"] == ("adam", "default of mlp")
    assert found["activation"] == ("relu", "default of mlp")
    assert not (tmp_path / "runs").exists()


def test_a_runs_own_config_repeats_it(cisdl: Command, tmp_path: Path) -> None:
    given = ["--hidden", "6", "--lr", "0.02", "--limit", "50", "--epochs", "2", "--seed", "4"]
    assert cisdl("train", "mlp", "--threads", "1", *given, "--out", "first").code == errors.OK
    config = str(tmp_path / "runs" / "first" / "config.json")
    assert cisdl("train", "mlp", "--config", config, "--out", "again").code == errors.OK
    first, again = (tmp_path / "runs" / name / "result.json" for name in ("first", "again"))
    assert json.loads(first.read_text())["test"] == json.loads(again.read_text())["test"]


@pytest.mark.parametrize(
    ("content", "code", "said"),
    [
        ("learning_rate = 1", errors.USAGE, "mine.toml: unknown setting 'learning_rate'"),
        ("epoch = 1", errors.USAGE, "unknown setting 'epoch'; did you mean 'epochs'?"),
        ("epochs = 0", errors.USAGE, "mine.toml: epochs: 0 is not in the range x>=1"),
        ('optimizer = "lbfgs"', errors.USAGE, "mine.toml: optimizer: 'lbfgs' is not one of"),
        ("lr = -1", errors.USAGE, "--lr: expected a finite number above 0, got -1.0"),
        ("lr = ", errors.DATA, "--config mine.toml: expected TOML, got a mistake: "),
        ("resume = 'x'", errors.USAGE, "unknown setting 'resume'"),
    ],
)
def test_mistakes_in_a_file(content: str, code: int, said: str, cisdl: Command, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(content)
    result = cisdl("train", "mlp", "--config", "mine.toml")
    assert result.code == code
    assert said in result.sentence()


def test_mistakes_in_pairs_and_files(cisdl: Command, tmp_path: Path) -> None:
    assert "-o: expected KEY=VALUE like lr=0.01, got 'lr'" in cisdl("train", "mlp", "-o", "lr").sentence()
    assert "-o: unknown setting 'rl'" in cisdl("train", "mlp", "-o", "rl=1").sentence()
    assert cisdl("train", "mlp", "--config", "nowhere.toml").code == errors.DATA
    (tmp_path / "list.json").write_text("[1]")
    assert "expected settings by name, got list" in cisdl("train", "mlp", "--config", "list.json").sentence()


def test_assert_exits_with_4(cisdl: Command) -> None:
    arguments = ["train", "mlp", "--limit", "100", "--epochs", "2", "--threads", "1"]
    assert (
        cisdl(*arguments, "--assert", "test_accuracy>=0.1", "--assert", "test_total <= 100").code == errors.OK
    )
    missed = cisdl(*arguments, "--assert", "test_accuracy>=0.1", "--assert", "test_loss<1e-9")
    assert missed.code == errors.GOAL_MISSED
    sentence = missed.err.strip().splitlines()[-1]
    assert sentence.startswith("cisdl: goal missed: expected test_loss < 1e-09, got ")
    assert "test_accuracy" not in sentence
    unknown = cisdl(*arguments, "--assert", "test_acc>0")
    assert unknown.code == errors.USAGE
    assert "the result has no test_acc; did you mean 'test_accuracy'?" in unknown.err
    result = cisdl("train", "mlp", "--assert", "accuracy=1")
    assert result.code == errors.USAGE
    assert "--assert: expected a figure and a bound like 'test_accuracy>=0.95'" in result.sentence()
