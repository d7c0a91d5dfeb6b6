"""Every op called with good, bad and absurd arguments, in processes of their own: a crash there is a failure.

Against torch: what it takes gives the same values and gradients, what it refuses is refused in words that
name the op. Integers are held against ``fuzz_shapes``, which cannot overflow. Every run makes the same calls.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conformance.fuzz_arguments import GOOD, WITH_NUMBERS

ROOT = Path(__file__).resolve().parents[2]
Record = Callable[[str, object], None]
EXAMPLES = {"good": 200, "spoiled": 300, "absurd": 300, "operator": 1000, "crash": 1}


def fuzz(op: str, folder: Path, *properties: str) -> int:
    """How many calls were made; fails with the call that killed the process, or with hypothesis' report."""
    log = folder / "calls.log"
    wanted = [f"{name}={EXAMPLES[name]}" for name in properties]
    done = subprocess.run(
        [sys.executable, "-m", "tests.conformance.fuzz_worker", op, str(log), *wanted],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=500,
        check=False,
    )
    calls = log.read_text().splitlines() if log.exists() else []
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        pytest.fail(f"{name} in this call of {calls[-1] if calls else 'nothing'}\n{done.stdout}")
    assert done.returncode == 0, done.stdout
    made = sum(call.startswith("ours:") for call in calls)
    least = sum(EXAMPLES[name] for name in properties) // 2  # hypothesis draws some twice and drops them
    assert made >= least, f"expected at least {least} calls, got {made}\n{done.stdout}"
    return made


@pytest.mark.parametrize("op", GOOD)
def test_function(op: str, tmp_path: Path, record_property: Record) -> None:
    absurd = ["absurd"] if op in WITH_NUMBERS else []
    record_property("samples", fuzz(op, tmp_path, "good", "spoiled", *absurd))


def test_operators(tmp_path: Path, record_property: Record) -> None:
    """``torch.ops.cisdl.*``, the backward ones too, with arguments that autograd would never make."""
    record_property("samples", fuzz("*", tmp_path, "operator"))


def test_a_crash_is_told_with_its_call(tmp_path: Path) -> None:
    """The harness itself: a process that dies names the call."""
    with pytest.raises(pytest.fail.Exception, match=r"SIGSEGV in this call of ours: linear\(input="):
        fuzz("linear", tmp_path, "crash")
