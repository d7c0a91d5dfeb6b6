"""A build that cannot be used says so in one sentence, with the command that mends it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import cisdl_ops
from cisdl_ops import _C, _load

ROOT = Path(__file__).parents[2]


def run_python(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
    )


def import_with(**environment: str) -> subprocess.CompletedProcess[str]:
    """Imports cisdl_ops in a new process and prints the instruction set."""
    return run_python("import cisdl_ops; print(cisdl_ops.build_info()['isa'])", **environment)


def refusal(result: subprocess.CompletedProcess[str]) -> str:
    """The one sentence that an import which fails ends with."""
    assert result.returncode == 1, result.stderr
    *_, sentence = result.stderr.splitlines()
    assert sentence.startswith("ImportError: cisdl_ops")
    assert "During handling" not in result.stderr
    assert "direct cause" not in result.stderr
    return sentence


THIS_TORCH = json.dumps({"torch": torch.__version__})


def write_facts(folder: Path, torch_version: str = torch.__version__) -> None:
    (folder / "_build.json").write_text(json.dumps({"torch": torch_version, "isas": []}))


def compile_module(folder: Path, source: str) -> None:
    """A module that needs no torch, for what may be wrong with one that does."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler is installed")
    command = [compiler, "-shared", "-fPIC", "-x", "c", "-", "-o", str(folder / "_C.so")]
    subprocess.run(command, input=source, text=True, check=True)


# As if compiled against a torch that had a function which this one has not.
NEEDS_ANOTHER_TORCH = "void torch_of_tomorrow(void); void *PyInit__C(void) { torch_of_tomorrow(); return 0; }"


def test_a_build_for_another_torch_is_refused(tmp_path: Path) -> None:
    """Before it is loaded: no word of the symbol that would be missing."""
    write_facts(tmp_path, "1.0")
    compile_module(tmp_path, NEEDS_ANOTHER_TORCH)
    result = import_with(CISDL_BUILD=str(tmp_path))
    assert refusal(result) == (
        f"ImportError: cisdl_ops was built for torch 1.0 but torch {torch.__version__} is installed; "
        "rebuild it in the project's folder: pip install --no-build-isolation --no-deps -e ."
    )
    assert "torch_of_tomorrow" not in result.stderr


def test_same_torch_is_accepted() -> None:
    _load.check_torch(torch.__version__, torch.__version__)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (NEEDS_ANOTHER_TORCH, "undefined symbol: torch_of_tomorrow"),
        ("int nothing;", "does not define module export function"),
    ],
)
def test_a_module_that_does_not_load_is_refused(source: str, words: str, tmp_path: Path) -> None:
    write_facts(tmp_path)
    compile_module(tmp_path, source)
    sentence = refusal(import_with(CISDL_BUILD=str(tmp_path)))
    assert f"{words}" in sentence
    assert sentence.endswith(f"rebuild it in the project's folder: {_load.REBUILD}")


@pytest.mark.parametrize("part", [0.0, 0.001, 0.5])
def test_a_module_that_is_cut_off_is_refused(part: float, tmp_path: Path) -> None:
    """Wherever the copy ended; the dynamic loader would take the process down with a bus error."""
    write_facts(tmp_path)
    content = Path(_C.__file__).read_bytes()
    (tmp_path / "_C.so").write_bytes(content[: int(part * len(content))])
    sentence = refusal(import_with(CISDL_BUILD=str(tmp_path)))
    assert "is cut off" in sentence or "file too short" in sentence
    assert sentence.endswith(_load.REBUILD)


@pytest.mark.parametrize(
    ("facts", "module", "words"),
    [
        (None, None, "is not built: expected compiled kernels in .*, found none"),
        ("[1]", b"", r"_build\.json is damaged"),
        ("{}", b"", "was built for torch of an unknown version"),
        (THIS_TORCH, None, r"expected a compiled module \(.*_C\.so\) in .*, found none"),
        (THIS_TORCH, b"not a library" * 9, "invalid ELF header"),
    ],
)
def test_a_folder_without_a_usable_build_is_refused(
    facts: str | None, module: bytes | None, words: str, tmp_path: Path
) -> None:
    if facts is not None:
        (tmp_path / "_build.json").write_text(facts)
    if module is not None:
        (tmp_path / "_C.so").write_bytes(module)
    sentence = refusal(import_with(CISDL_BUILD=str(tmp_path)))
    assert re.search(words, sentence)
    assert sentence.endswith(_load.REBUILD)


def test_another_folder_is_loaded_from(tmp_path: Path) -> None:
    module = Path(_C.__file__)
    (tmp_path / module.name).symlink_to(module)
    facts = json.loads(module.with_name("_build.json").read_text())
    (tmp_path / "_build.json").write_text(json.dumps(facts | {"compiler": "from another folder"}))
    program = "import cisdl_ops._C as c; print(c.__file__); print(cisdl_ops.build_info()['compiler'])"
    result = run_python("import cisdl_ops; " + program, CISDL_BUILD=str(tmp_path))
    assert result.stdout.splitlines() == [str(tmp_path / module.name), "from another folder"], result.stderr


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
