"""The command itself: help, laziness, mistakes on the command line."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import click
import pytest
from cisdl import errors
from cisdl.__main__ import COMMANDS, cli
from cisdl.commands.bench import OTHERS

from tests.cli.conftest import ROOT, Command, environment, process

HEAVY = ("torch", "numpy", "matplotlib", "sklearn", "rich", "cisdl_ops")


@pytest.mark.parametrize("arguments", [["--version"], ["trian"], ["train", "lent"], ["completion", "zsh"]])
def test_mistakes_import_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    assert imported(arguments, tmp_path) == "HEAVY []"


def test_no_help_imports_anything_heavy(tmp_path: Path) -> None:
    """Not a time, but what costs it: torch takes seconds, click and our own files a tenth of one."""
    lines = [["--help"], *([*name.split(), "--help"] for name in every_command())]
    assert imported(lines, tmp_path) == "HEAVY []"


def imported(given: list[str] | list[list[str]], folder: Path) -> str:
    """Which of the heavy packages a process has imported after these command lines."""
    lines = [given] if isinstance(given[0], str) else given
    script = (
        "import sys\n"
        "from cisdl.__main__ import cli\n"
        f"for arguments in {lines!r}:\n"
        "    try: cli.main(arguments, prog_name='cisdl')\n"
        "    except SystemExit: pass\n"
        f"print('HEAVY', [name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()[-1]


def every_command() -> list[str]:
    """Each command as it is typed after `cisdl`, and those inside groups and `bench`."""
    found = []
    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        inside = list(command.commands) if isinstance(command, click.Group) else []
        inside += OTHERS if name == "bench" else []
        found += [name, *(f"{name} {one}" for one in inside)]
    return found


@pytest.mark.parametrize("name", every_command())
def test_every_command_has_help_with_an_example(name: str, cisdl: Command) -> None:
    result = cisdl(*name.split(), "--help")
    assert result.code == errors.OK
    assert result.out.startswith(f"Usage: cisdl {name} ")
    assert "Example" in result.out
    assert f"cisdl {name}" in result.out.split("Example", 1)[1]


def test_help_lists_every_command(cisdl: Command) -> None:
    result = cisdl("--help")
    assert result.code == errors.OK
    listed = {line.split()[0] for line in result.out.split("Commands:")[1].splitlines() if line.strip()}
    assert listed == set(COMMANDS)


def test_no_arguments_is_help(cisdl: Command) -> None:
    result = cisdl()
    assert result.code == errors.OK
    assert "Commands:" in result.out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["trian"], "unknown command 'trian'; did you mean 'train'?"),
        (["train", "lenett"], "unknown model 'lenett'; did you mean 'lenet'?"),
        (
            ["train", "transformer"],
            "unknown model 'transformer'; known: mlp, autoencoder,",
        ),
        (["train"], "missing argument 'MODEL'"),
        (["train", "mlp", "--epoch", "3"], "no such option '--epoch'"),
        (["train", "mlp", "--epochs", "0"], "0 is not in the range x>=1"),
        (["train", "mlp", "--epochs", "many"], "'many' is not a valid integer"),
        (["train", "mlp", "--lr", "nan"], "--lr: expected a finite number above 0, got nan"),
        (["train", "mlp", "--lr", "-1"], "--lr: expected a finite number above 0, got -1.0"),
        (["train", "mlp", "--hidden", "128,x"], "--hidden: expected widths above 0 like 128,64, got '128,x'"),
        (["train", "mlp", "--hidden", "0"], "got '0'"),
        (
            ["train", "lstm", "--backend", "torch", "--hidden", "8,8"],
            "lstm: --hidden takes one width, got 8,8",
        ),
        (
            ["train", "lenet", "--hidden", "8"],
            "got with lenet, which has no such option",
        ),
        (
            ["train", "lstm", "--activation", "tanh"],
            "--activation: expected with mlp, autoencoder,",
        ),
        (["train", "mlp", "--pooling", "avg"], "--pooling: expected with lenet, got with mlp"),
        (["train", "mlp", "--momentum", "0.5"], "--momentum: expected with --optimizer momentum, got"),
        (["train", "mlp", "--optimizer", "lbfgs"], "'lbfgs' is not one of"),
        (["train", "mlp", "--backend", "numpy"], "'numpy' is not one of"),
        (["train", "mlp", "--device", "tpu"], "--device: expected cpu, cuda or cuda:N, got 'tpu'"),
        (["train", "mlp", "--out", "a/b"], "--out: expected a name for a folder inside ./runs, got 'a/b'"),
        (["train", "mlp", "--out", ".."], "--out: expected a name"),
        (["ls", "model"], "cannot list 'model'; did you mean 'models'?"),
        (["show", "lenett"], "'lenett' is neither a model nor a run; did you mean 'lenet'?"),
    ],
)
def test_mistakes_get_one_sentence_and_code_2(
    arguments: list[str], expected: str, cisdl: Command, tmp_path: Path
) -> None:
    result = cisdl(*arguments)
    assert result.code == errors.USAGE
    assert expected.lower() in result.sentence().lower()
    assert not result.out
    assert not list(tmp_path.iterdir())


def test_click_mistakes_say_where_help_is(cisdl: Command) -> None:
    assert cisdl("train", "mlp", "--nope").sentence().endswith("(see `cisdl train --help`)")


def test_an_unexpected_error_is_one_sentence_too(cisdl: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ValueError("two\nlines")

    monkeypatch.setattr("cisdl.commands.ls.models", fail)
    result = cisdl("ls", "models")
    assert result.code == errors.RUNTIME
    assert "internal error, ValueError: two lines" in result.sentence()
    monkeypatch.setenv("CISDL_TRACEBACK", "1")
    with pytest.raises(ValueError, match="two"):
        cli.main(["ls", "models"], prog_name="cisdl")


def test_ctrl_c_outside_training_exits_130(cisdl: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cisdl.commands.ls.models", interrupt)
    result = cisdl("ls", "models")
    assert result.code == errors.INTERRUPTED
    assert "interrupted" in result.err


def test_a_reader_that_stops_reading_is_no_error(tmp_path: Path) -> None:
    command = f"{sys.executable} -u -m cisdl ls models | true"
    done = subprocess.run(
        ["sh", "-c", command], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.stderr == ""


def test_python_dash_m_runs_the_command(tmp_path: Path) -> None:
    done = process("train", "alexnot", cwd=tmp_path)
    assert done.returncode == errors.USAGE
    assert "unknown model 'alexnot'" in done.stderr
    assert "Traceback" not in done.stderr


def test_imports_go_one_way() -> None:
    """cisdl imports cisdl_ops, never the other way round."""
    offending = []
    for path in (ROOT / "cisdl_ops").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            offending += [f"{path}: {name}" for name in names if name.split(".")[0] == "cisdl"]
    assert not offending
