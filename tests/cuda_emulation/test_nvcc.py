"""Where nvcc is installed, its assembler's report: no kernel spills registers to memory worth mentioning.

The build itself compiles for every architecture; this looks at one.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from .build import CUDA

NVCC = shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")
ARCHITECTURE = "sm_90"
ALLOWED_SPILL = 16  # bytes a thread: a value or two, put away outside the inner loop


@pytest.mark.skipif(NVCC is None, reason="nvcc is not installed")
@pytest.mark.parametrize("source", sorted(CUDA.glob("*.cu")), ids=lambda path: path.stem)
def test_no_spills(source: Path, tmp_path: Path) -> None:
    flags = f"-std=c++20 -O3 -arch={ARCHITECTURE} -Xptxas -v -cubin".split()
    command = [str(NVCC), *flags, str(source), "-o", str(tmp_path / "out.cubin")]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    spills = [int(size) for size in re.findall(r"(\d+) bytes spill stores", result.stderr)]
    assert spills, f"no report in: {result.stderr}"
    assert max(spills) <= ALLOWED_SPILL, result.stderr
