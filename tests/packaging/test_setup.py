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
