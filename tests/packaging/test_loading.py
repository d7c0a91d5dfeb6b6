"""A build that cannot be used says so in one sentence, with the command that mends it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import cisdl_ops
from cisdl_ops import _load

ROOT = Path(__file__).parents[2]


def import_with(**environment: str) -> subprocess.CompletedProcess[str]:
    """Imports cisdl_ops in a new process and prints the instruction set."""
    return subprocess.run(
        [sys.executable, "-c", "import cisdl_ops; print(cisdl_ops.build_info()['isa'])"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
    )


def test_another_torch_is_refused() -> None:
    with pytest.raises(
        ImportError, match=r"built for torch 1\.0 but torch 2\.0 is installed; rebuild .*pip install"
    ):
        _load.check_torch("1.0", "2.0")


def test_same_torch_is_accepted() -> None:
    _load.check_torch(torch.__version__, torch.__version__)


def test_a_folder_without_a_build_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImportError, match=r"not built: .*pip install --no-build-isolation"):
        _load.read_build_facts(tmp_path)


def test_the_module_says_which_torch_it_was_built_for() -> None:
    assert cisdl_ops.build_info()["torch"] == torch.__version__


@pytest.mark.parametrize("isa", cisdl_ops.build_info()["isas_supported"])
def test_an_instruction_set_can_be_forced(isa: str) -> None:
    result = import_with(CISDL_ISA=isa)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == isa


def test_an_unknown_instruction_set_is_refused() -> None:
    result = import_with(CISDL_ISA="sse9")
    assert result.returncode != 0
    assert "CISDL_ISA: expected one of" in result.stderr
    assert "got sse9" in result.stderr


def test_an_unknown_implementation_is_refused() -> None:
    result = import_with(CISDL_IMPL="conv2d:magic")
    assert result.returncode != 0
    assert "implementation of conv2d: expected one of" in result.stderr


def test_the_command_leaves_no_top_level_package_called_cli() -> None:
    found = subprocess.run(
        [sys.executable, "-c", "import importlib.util as u; print(u.find_spec('cli'))"],
        capture_output=True,
        text=True,
        cwd="/",
        check=True,
    )
    assert found.stdout.strip() == "None"
