"""Running the command inside the test's process, in an empty current directory."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    def sentence(self) -> str:
        """What was said on stderr, which has to be one line, and no traceback."""
        lines = self.err.strip().splitlines()
        assert len(lines) == 1, self.err
        assert "Traceback" not in lines[0]
        assert lines[0].startswith("cisdl: ")
        return lines[0]


Command = Callable[..., Result]


@pytest.fixture
def cisdl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """cisdl("train", "mlp") runs that command; the current directory is the empty `tmp_path`."""
    from cisdl.__main__ import cli

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CISDL_DATA", raising=False)
    monkeypatch.delenv("CISDL_TRACEBACK", raising=False)

    def run(*arguments: str) -> Result:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            cli.main(list(arguments), prog_name="cisdl")
        printed = capsys.readouterr()
        assert isinstance(stopped.value.code, int)
        return Result(stopped.value.code, printed.out, printed.err)

    return run


def environment() -> dict[str, str]:
    """The environment of a real process that runs this checkout's command."""
    return {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'cli'}"}


def process(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """`python -m cisdl` as users run it."""
    command = [sys.executable, "-m", "cisdl", *arguments]
    return subprocess.run(
        command, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=120, check=False
    )
