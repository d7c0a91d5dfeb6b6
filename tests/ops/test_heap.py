"""The table under glibc's checking malloc: a write past the end of any output or scratch aborts."""

from __future__ import annotations

import ctypes.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = "libc_malloc_debug.so.0"

PROGRAM = """
import torch
from tests.ops.running import TEST_CASES, layouts
from cisdl_ops import tolerance
from cisdl_ops.cases import OPS

if {overrun}:
    import ctypes

    torch.set_num_threads(1)
    # The check's marks depend on the address, and one block in 256 may hide that they changed: so, several.
    blocks = [torch.full((64,), value) for value in (0.0, 1.0, 2.0, 3.0)]
    for block in blocks:
        past_the_end = (ctypes.c_ubyte * {overrun}).from_address(block.data_ptr() + 64 * 4)
        for i in range({overrun}):
            past_the_end[i] ^= 0xFF
    del block, blocks
for case in TEST_CASES:
    for dtype in (torch.float32, torch.float64):
        for layout in layouts(case):
            tensors = case.inputs(dtype, memory_format=layout, requires_grad=True)
            tolerance.run(case, OPS[case.op].ours, tensors)
print("done")
"""


def run(overrun: int) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LD_PRELOAD": LIBRARY, "GLIBC_TUNABLES": "glibc.malloc.check=3"}
    program = PROGRAM.format(overrun=overrun)
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def available() -> bool:
    try:
        ctypes.CDLL(LIBRARY)
    except OSError:
        return False
    return True


pytestmark = pytest.mark.skipif(not available(), reason=f"needs glibc's {LIBRARY}")


def test_no_write_past_the_end() -> None:
    done = run(overrun=0)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == "done\n"


def test_the_check_works() -> None:
    """Eight bytes too many abort the process."""
    assert run(overrun=8).returncode != 0
