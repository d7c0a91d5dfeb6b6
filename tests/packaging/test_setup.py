"""setup.py refuses what it cannot build, in a sentence, before it compiles anything."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
HEADERS = ROOT / "build" / "ops" / "precompiled.h.gch"


@pytest.fixture
def setup_py(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """setup.py as a module that sets nothing up and would build in ``tmp_path``."""
    monkeypatch.setattr("setuptools.setup", lambda **_: None)
    spec = importlib.util.spec_from_file_location("setup_py", ROOT / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "setup_py", module)
    spec.loader.exec_module(module)
    vars(module)["BUILD"] = tmp_path
    return module


@pytest.mark.parametrize(
    ("command", "environment", "sentence"),
    [
        ("build_ext", {"CISDL_CUDA": "yes"}, "CISDL_CUDA: expected auto, 0 or 1, got yes"),
        ("build_ext", {"CISDL_SANITIZE": "memory"}, "CISDL_SANITIZE: expected address or thread, got memory"),
        ("build", {"CISDL_SANITIZE": "address"}, "CISDL_SANITIZE: expected the command build_ext, got build"),
    ],
)
def test_refusals(command: str, environment: dict[str, str], sentence: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", command, "-b", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"cisdl: {sentence}"


def test_another_torch_compiles_the_binding_anew(tmp_path: Path) -> None:
    """A torch that was upgraded in place has the same paths, and ninja compares nothing but the command."""
    script = (
        "import sys, types, torch\n"
        "from pathlib import Path\n"
        "sys.modules['setuptools'].setup = lambda **_: None\n"
        "torch.__version__ = sys.argv[1]\n"
        "module = types.ModuleType('build_script')\n"
        "sys.modules['build_script'] = module\n"
        "vars(module)['__file__'] = 'setup.py'\n"
        "exec(Path('setup.py').read_text(), vars(module))\n"
        "module.BUILD = Path(sys.argv[2])\n"
        "module.write_ninja('g++', {'baseline': ''}, None)\n"
    )
    written = []
    for version in ("2.13.0+cpu", "2.13.1+cu130"):
        folder = tmp_path / version
        folder.mkdir()
        command = [sys.executable, "-c", f"import setuptools\n{script}", version, str(folder)]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        lines = (folder / "build.ninja").read_text().split("build ")
        written.append([line for line in lines if line.startswith("ops/")])
    assert len(written[0]) > 5
    assert all(one != other for one, other in zip(*written, strict=True))


def edges(folder: Path) -> dict[str, str]:
    """By output: its line of build.ninja and its flags."""
    parts = (folder / "build.ninja").read_text().split("\nbuild ")[1:]
    return {part.partition(":")[0]: part for part in parts}


def test_torch_headers_are_compiled_once(setup_py: Any, tmp_path: Path) -> None:
    """Before every file that knows torch, with the same flags; ccache keeps only what uses none."""
    for name in ("g++", "ccache"):
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "c++").symlink_to("ccache")

    setup_py.write_ninja(str(tmp_path / "g++"), {"baseline": ""}, None)
    found = edges(tmp_path)
    headers = found.pop("ops/precompiled.h.gch")
    flags = headers.partition("flags = ")[2].strip().removesuffix(" -x c++-header")
    files = {path.stem for path in (ROOT / "csrc" / "ops").glob("*.cpp")} | {"bindings"}
    assert len(files) > 5
    for name in files:
        edge = found.pop(f"ops/{name}.o")
        assert f"{name}.cpp | ops/precompiled.h.gch\n" in edge
        assert edge.endswith(f"flags = {flags} -iquote {ROOT}/csrc -include ops/precompiled.h")
    assert not [edge for edge in found.values() if "precompiled" in edge]

    setup_py.write_ninja(str(tmp_path / "c++"), {"baseline": ""}, None)
    assert "precompiled" not in (tmp_path / "build.ninja").read_text()


@pytest.mark.skipif(not HEADERS.exists(), reason="built under ccache, or by a compiler that is not GCC")
def test_the_compiler_takes_the_compiled_headers() -> None:
    """It says so, with ``-H``: left out, all would be well but for the time."""
    ninja = shutil.which("ninja") or str(Path(sys.executable).with_name("ninja"))
    asked = [ninja, "-C", str(ROOT / "build"), "-t", "commands", "ops/large_blocks.o"]
    commands = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines()
    command = shlex.split(commands[-1].partition(" -c ")[0])
    if "clang" in subprocess.run([command[0], "--version"], capture_output=True, text=True).stdout:
        pytest.skip("clang has no sign for it")
    source = str(ROOT / "csrc" / "ops" / "large_blocks.cpp")
    place = command.index("-MF")
    done = subprocess.run(
        [*command[: place - 1], *command[place + 2 :], "-H", "-fsyntax-only", source],
        cwd=ROOT / "build",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^! \S*ops/precompiled\.h\.gch$", done.stderr, re.MULTILINE)


@pytest.mark.parametrize("archs", ["75 80 86 89 90 100 103 120", "80 87 90 110 121", "90", "75 120"])
def test_every_architecture_has_code(setup_py: Any, archs: str) -> None:
    """Its own, or that of its family; from PTX of no later architecture; and PTX for those to come."""
    wanted = archs.split()
    flags = setup_py.Cuda("nvcc", "13.0", Path(), wanted).gencode("linear")
    pairs = re.findall(r"-gencode=arch=compute_(\d+),code=(sm|compute)_(\d+)", flags)
    assert len(pairs) == len(flags.split())
    assert all(int(ptx) <= int(code) for ptx, _, code in pairs)
    code = {arch for _, kind, arch in pairs if kind == "sm"}
    missing = {*wanted} - code
    assert all(setup_py.SAME_CODE[one] in code for one in missing)
    assert [ptx for ptx, kind, _ in pairs if kind == "compute"] == [pairs[-1][0]]


def test_hopper_has_instructions_of_its_own(setup_py: Any) -> None:
    """sm_90a and nothing else; where it is not wanted, no kernel but something that links."""
    flags = {
        archs: setup_py.Cuda("nvcc", "13.0", Path(), archs.split()).gencode("hopper_gemm")
        for archs in ("80 90 120", "80 120")
    }
    assert flags["80 90 120"] == "-gencode=arch=compute_90a,code=sm_90a"
    assert "code=sm_120 -DCISDL_NO_HOPPER" in flags["80 120"]
