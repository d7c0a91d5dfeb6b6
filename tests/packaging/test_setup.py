"""setup.py refuses what it cannot build, in a sentence, before it compiles anything."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


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
