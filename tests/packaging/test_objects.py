"""Objects compiled for one instruction set share nothing: the linker would keep one copy for all CPUs."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

import cisdl_ops

BUILD = Path(__file__).parents[2] / "build" / "cpu"
OBJECTS = sorted(p for isa in cisdl_ops.build_info()["isas"] for p in BUILD.glob(f"*.{isa}.o"))


def symbols(path: Path) -> list[tuple[str, str]]:
    """``(type, name)`` of every symbol that ``path`` defines."""
    listed = subprocess.run(["nm", "--defined-only", str(path)], capture_output=True, text=True, check=True)
    return [(kind, name) for _, kind, name in (line.split(maxsplit=2) for line in listed.stdout.splitlines())]


def problems(found: list[tuple[str, str]]) -> list[str]:
    """What is wrong with an object's symbols: weak or unique ones, or more than its one table."""
    shared = [f"{name} is shared ({kind})" for kind, name in found if kind in "WwVvuDBRGS"]
    exported = [name for kind, name in found if kind == "T"]
    return shared + ([] if len(exported) == 1 else [f"one exported symbol expected, got {exported}"])


@pytest.mark.skipif(shutil.which("nm") is None, reason="nm is not installed")
@pytest.mark.skipif(not OBJECTS, reason="the objects of the build are not kept here (not a source checkout)")
@pytest.mark.parametrize("path", OBJECTS, ids=lambda p: p.name)
def test_exports_its_table_and_nothing_else(path: Path) -> None:
    assert problems(symbols(path)) == []


@pytest.mark.skipif(not OBJECTS, reason="the objects of the build are not kept here (not a source checkout)")
def test_there_is_an_object_per_family_and_instruction_set() -> None:
    assert len(OBJECTS) == 8 * len(cisdl_ops.build_info()["isas"])


def test_notices_a_shared_symbol(tmp_path: Path) -> None:
    source = tmp_path / "shared.cpp"
    source.write_text(
        "inline int twice(int x) { static int calls = 0; return 2 * x + calls++; }\n"
        'extern "C" int table(int x) { return twice(x); }\n'
    )
    compiled = tmp_path / "shared.o"
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler is installed")
    subprocess.run([compiler, "-O0", "-c", str(source), "-o", str(compiled)], check=True)
    assert any("twice" in problem for problem in problems(symbols(compiled)))
