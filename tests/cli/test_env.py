"""`cisdl env`: what it looks at, and that each mend is a command for this interpreter and this tree."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cisdl import diagnosis, environment, errors

from tests.cli.conftest import ROOT, Command
from tests.cli.conftest import environment as variables

PIP = f"{sys.executable} -m pip install"
BUILD = f"{PIP} --no-build-isolation --no-deps -e {ROOT}"
BUILT = {"cuda": None, "isa": "avx512", "isas_supported": ["avx2", "avx512"]}
WELL: dict[str, Any] = {
    "cpu": {"usable": 4},
    "torch": {"version": "2.13.0+cpu", "error": None, "threads": 4, "cuda": None},
    "gpus": [],
    "driver": False,
    "compiler": "g++ 12",
    "cxx20": True,
    "headers": True,
    "nvcc": None,
    "packages": {"ninja": "1", "pybind11": "3", "rich": "15"},
    "variables": {},
    "kernels": {"error": None, "build": BUILT},
}
ON_GPU = {"gpus": ["H200"], "driver": True, "torch": {**WELL["torch"], "cuda": "13.0"}}


def test_env(cisdl: Command) -> None:
    import torch

    facts = json.loads(cisdl("env", "--json").out)
    assert facts["torch"]["version"] == str(torch.__version__)
    assert facts["kernels"]["error"] is None
    assert facts["kernels"]["build"]["isa"]
    assert (facts["headers"], facts["cxx20"]) == (True, True)
    shown = cisdl("env")
    assert shown.code == errors.OK
    assert str(torch.__version__) in shown.out


def test_nothing_is_wrong() -> None:
    assert diagnosis.problems(WELL) == []


@pytest.mark.parametrize(
    ("wrong", "what", "mend"),
    [
        ({"torch": {"version": None, "error": "No module named torch", "threads": None, "cuda": None}},
         "torch is missing", f"{PIP} torch==2.13.0"),
        ({"torch": {"version": "2.13.0", "error": "libc10.so", "threads": None, "cuda": None}},
         "torch does not load (libc10.so)", f"{PIP} --force-reinstall torch==2.13.0"),
        ({"torch": {**WELL["torch"], "version": "2.9.1"}}, "torch 2.9.1 is older than 2.11",
         f"{PIP} torch==2.13.0 && {BUILD}"),
        ({"packages": {"ninja": None}}, "ninja is missing: the kernels cannot be built", f"{PIP} ninja"),
        ({"packages": {"rich": None}}, "rich is missing: parts of the command", f"{PIP} rich"),
        ({"cxx20": False}, "the C++ compiler (g++ 12) does not take -std=c++20", None),
        ({"headers": False}, "Python's headers are missing", None),
        ({"kernels": {"error": "cisdl_ops is not built: found none; run this", "build": None}},
         "the kernels do not load: cisdl_ops is not built: found none", BUILD),
        ({"kernels": {"error": "CISDL_ISA: expected one of avx2, got x", "build": None},
          "variables": {"CISDL_ISA": "x"}}, "the kernels do not load: CISDL_ISA", "unset CISDL_ISA"),
        ({"kernels": {"error": "implementation of conv2d: expected one of a, got x", "build": None},
          "variables": {"CISDL_IMPL": "conv2d:x"}}, "do not load: implementation", "unset CISDL_IMPL"),
        ({"kernels": {"error": None, "build": {**BUILT, "isa": "avx2"}},
          "variables": {"CISDL_ISA": "avx2"}}, "CISDL_ISA keeps the kernels to avx2, this CPU has avx512",
         "unset CISDL_ISA"),
        ({"driver": True}, "a GPU is there, but this torch has no CUDA",
         f"{PIP} --force-reinstall torch==2.13.0 && {BUILD}"),
        ({**ON_GPU, "gpus": [], "variables": {"CUDA_VISIBLE_DEVICES": ""}},
         "CUDA_VISIBLE_DEVICES hides it", "unset CUDA_VISIBLE_DEVICES"),
        ({**ON_GPU, "nvcc": "release 13.0"}, "built without CUDA", f"CISDL_CUDA=1 {BUILD}"),
        ({"nvcc": "release 11.8"}, "nvcc (release 11.8) does not take -std=c++20", f"CISDL_CUDA=0 {BUILD}"),
        ({"torch": {**WELL["torch"], "threads": 8}}, "torch uses 8 threads on 4 cores",
         "export OMP_NUM_THREADS=4"),
    ],
)  # fmt: skip
def test_a_problem_comes_with_the_command_that_mends_it(
    wrong: dict[str, Any], what: str, mend: str | None
) -> None:
    ((found, command),) = diagnosis.problems({**WELL, **wrong})
    assert what in found
    assert command == mend or (mend is None and "install" in command)


def test_nvcc_comes_from_where_it_is_to_be_had() -> None:
    ((_, command),) = diagnosis.problems({**WELL, **ON_GPU})
    assert f"{PIP} 'nvidia-cuda-nvcc==13.0.*' 'nvidia-cuda-runtime==13.0.*'" in command
    assert "/nvidia/cu13 CISDL_CUDA=1 " in command
    assert command.endswith(BUILD)
    assert "nvidia-cuda-toolkit" in diagnosis.install_nvcc("12.8")


def test_the_most_serious_comes_first() -> None:
    broken = {**WELL, "compiler": None, "cxx20": False, "packages": {"ninja": None}, "headers": False}
    broken["kernels"] = {"error": "cisdl_ops is not built", "build": None}
    assert [what.split(":")[0] for what, _ in diagnosis.problems(broken)] == [
        "ninja is missing",
        "no C++ compiler",
        "Python's headers are missing",
        "the kernels do not load",
    ]


def problems_of(tmp_path: Path, prelude: str = "", **changed: str) -> dict[str, str]:
    """What a process says that sees nothing but `tmp_path` on its PATH."""
    script = f"{prelude}\nfrom cisdl.__main__ import cli\ncli.main(['env', '--json'], prog_name='cisdl')"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True,
        env=variables() | {"PATH": str(tmp_path)} | changed,
    )  # fmt: skip
    return {one["problem"].split(":")[0]: one["mend"] for one in json.loads(done.stdout)["problems"]}


def test_without_a_compiler(tmp_path: Path) -> None:
    (tmp_path / "apt-get").touch(0o755)
    assert problems_of(tmp_path)["no C++ compiler"].endswith("apt-get install -y g++")


def test_with_a_compiler_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "g++").touch(0o755)
    assert problems_of(tmp_path, CXX="clang++-99")["no C++ compiler"] == "unset CXX"


def test_with_a_compiler_too_old(tmp_path: Path) -> None:
    compiler = tmp_path / "g++"
    compiler.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "g++ 4.8" || exit 1\n')
    compiler.chmod(0o755)
    assert "the C++ compiler (g++ 4.8) does not take -std=c++20" in problems_of(tmp_path)


def test_without_torch(tmp_path: Path) -> None:
    """It says so, instead of failing by it."""
    found = problems_of(tmp_path, "import sys\nsys.modules['torch'] = None", PATH=os.environ["PATH"])
    (mend,) = (mend for what, mend in found.items() if what.startswith("torch "))
    assert mend.endswith("torch==2.13.0")


def test_more_threads_than_a_container_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = tmp_path / "cpu.max"
    monkeypatch.setattr(environment, "CPU_QUOTA", limit)
    assert environment.quota() is None
    limit.write_text("max 100000\n")
    assert environment.quota() is None
    limit.write_text("150000 100000\n")
    assert environment.quota() == 2
    limit.write_text("50000 100000\n")
    assert environment.cpu()["usable"] == 1


def test_the_release_is_the_one_of_the_requirements() -> None:
    assert diagnosis.TORCH in (ROOT / "requirements.txt").read_text().split()
    oldest = ".".join(map(str, diagnosis.OLDEST_TORCH))
    assert f'"torch>={oldest}"' in (ROOT / "pyproject.toml").read_text()


@pytest.mark.skipif(not shutil.which("apt-get"), reason="needs apt-get")
@pytest.mark.parametrize("command", [diagnosis.install_compiler, diagnosis.install_headers])
def test_apt_knows_the_packages(command: Any) -> None:
    """A dry run of the command that is printed, where apt has lists of packages at all."""
    words = command().split("&& ")[-1].removeprefix("sudo ").split()
    known = subprocess.run(["apt-cache", "show", "make"], capture_output=True, check=False).returncode == 0
    if not known:
        pytest.skip("apt has no lists of packages here")
    done = subprocess.run([words[0], "--simulate", *words[1:]], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
