"""Tab in a shell: the script, sourced by the shell it is for, and what it then offers."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cisdl import errors
from cisdl.__main__ import COMMANDS
from cisdl.commands import candidates
from cisdl.data.registry import DATA
from cisdl.models.registry import MODELS

import cisdl_ops
from tests.cli.conftest import Command, environment

ASK = """
source <(cisdl completion bash)
while IFS= read -r line; do
    IFS=' ' read -r -a COMP_WORDS <<< "$line"
    [[ $line == *' ' ]] && COMP_WORDS+=('')
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMPREPLY=()
    _cisdl_completion cisdl
    (IFS=' '; echo "${COMPREPLY[*]}")
done
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A current directory with a run and a file, and `cisdl` on the PATH."""
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "cisdl"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m cisdl "$@"\n')
    command.chmod(0o755)
    (tmp_path / "runs" / "my-run").mkdir(parents=True)
    (tmp_path / "runs" / "my-run" / "config.json").write_text("{}")
    return tmp_path


def in_shell(shell: str, script: str, folder: Path, typed: str = "") -> subprocess.CompletedProcess[str]:
    known = environment()
    known |= {"PATH": f"{folder / 'bin'}:{known['PATH']}", "XDG_CACHE_HOME": str(folder / "cache")}
    known.pop("CISDL_CACHE", None)
    return subprocess.run(
        [shell, "-c", script], cwd=folder, env=known, input=typed, capture_output=True, text=True, check=False
    )


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_bash_completes(folder: Path) -> None:
    asked = {
        "cisdl ": list(COMMANDS),
        "cisdl tr": ["train"],
        "cisdl train le": ["lenet"],
        "cisdl train --batch": ["--batch-size"],
        "cisdl train lenett --pati": ["--patience"],
        "cisdl train --data python": ["python-source"],
        "cisdl train --resume ": ["my-run"],
        "cisdl eval runs/my": ["runs/my-run"],
        "cisdl report m": ["my-run"],
        "cisdl show ": [*MODELS, "my-run"],
        "cisdl ls k": ["kernels"],
        "cisdl data get mni": ["mnist"],
        "cisdl data ": ["get", "verify"],
        "cisdl bench comp": ["compare"],
        "cisdl bench compare --thr": ["--threshold"],
        "cisdl bench conv": ["conv2d", "conv_transpose2d"],
        "cisdl bench conv2d/len": ["conv2d/lenet_conv1_b64", "conv2d/lenet_conv2_b64"],
        "cisdl bench model/mlp_": ["model/mlp_accelerated"],
        "cisdl check rnn": ["rnn_tanh_cell", "rnn_relu_cell"],
        "cisdl bench --mode f": ["fwd", "fwd_bwd"],
        "cisdl completion f": ["fish"],
        "cisdl trian --": [],  # a mistake is not answered while it is typed
        "cisdl nothing here": [],
    }  # fmt: skip
    done = in_shell("bash", ASK, folder, "\n".join(asked) + "\n")
    offered = [line.split() for line in done.stdout.splitlines()]
    assert dict(zip(asked, offered, strict=True)) == asked
    assert "cisdl:" not in done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts_are_of_their_shell(shell: str, cisdl: Command, tmp_path: Path) -> None:
    printed = cisdl("completion", shell)
    assert printed.code == errors.OK
    assert "_CISDL_COMPLETE" in printed.out
    assert f"{shell}_complete" in printed.out
    if not shutil.which(shell):
        pytest.skip(f"the script was printed, but no {shell} is here to read it")
    script = tmp_path / "script"
    script.write_text(printed.out)
    assert subprocess.run([shell, "-n", str(script)], capture_output=True, check=True).stderr == b""


def test_an_unknown_shell_is_refused(cisdl: Command) -> None:
    refused = cisdl("completion", "fsh")
    assert refused.code == errors.USAGE
    assert "did you mean 'fish'?" in refused.sentence()


def test_names_of_cases_are_kept_until_the_table_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Importing torch at every press of Tab would take seconds."""
    monkeypatch.setenv("CISDL_CACHE", str(tmp_path))
    found = candidates.bench_names()
    assert "conv2d/lenet_conv1_b64" in found["cases"]
    kept = tmp_path / "cases.json"
    content = json.loads(kept.read_text())
    assert str(Path(cisdl_ops.__file__).parent / "cases" / "conv2d.py") in content["tables"]
    kept.write_text(json.dumps({**content, "names": {"cases": ["kept/case"], "ops": []}}))
    assert candidates.bench_names()["cases"] == ["kept/case"]
    content["tables"][next(iter(content["tables"]))] += 1
    kept.write_text(json.dumps({**content, "names": {"cases": ["kept/case"], "ops": []}}))
    assert candidates.bench_names() == found
    kept.write_text("no json")
    assert candidates.bench_names() == found


def test_data_are_named_with_what_they_are() -> None:
    files, *named = candidates.data(None, None, "")  # type: ignore[arg-type]
    assert files.type == "file"
    assert {item.value: item.help for item in named} == {name: one.title for name, one in DATA.items()}
