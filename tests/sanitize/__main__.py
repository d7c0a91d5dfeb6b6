"""``make sanitize``: the case table under the address, undefined-behaviour and thread sanitizers.

    python -m tests.sanitize                         all parts
    python -m tests.sanitize address thread          some of: address thread emulation
    python -m tests.sanitize address -- COMMAND ...  any command in its environment, to look at a finding

    address     CPU kernels, ops and binding: the case table by every implementation on every instruction set
                of this CPU, then the tests of tests/ops on the best one
    thread      the case table by every implementation, with threads that the sanitizer can follow
    emulation   the CUDA kernels, emulated, under the address sanitizer

Each part first commits deliberate faults and fails if one goes unnoticed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from tests.sanitize.build import ROOT, build, environment

SANITIZER_OF = {"address": "address", "thread": "thread", "emulation": "address"}
# test_heap.py preloads another malloc.
SUITE = ("tests/ops", "--ignore=tests/ops/test_heap.py", "-p", "no:cacheprovider")


def isas() -> list[str]:
    """The instruction sets of this CPU that were built."""
    program = "import cisdl_ops; print(*cisdl_ops.build_info()['isas_supported'])"
    command = [sys.executable, "-c", program]
    done = subprocess.run(
        command, env=environment("address"), cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def run(sanitizer: str, *arguments: str, **variables: str) -> bool:
    """Whether ``python ARGUMENTS`` ends without a finding; prints what it said."""
    done = subprocess.run(
        [sys.executable, *arguments],
        env=environment(sanitizer, **variables),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    print(done.stdout, end="", flush=True)
    if done.returncode:
        print(
            f"{sanitizer}: {variables or ''} {' '.join(arguments)}: exit code {done.returncode}", flush=True
        )
    return done.returncode == 0


def jobs(part: str) -> Iterator[Callable[[], bool]]:
    """What a part runs, the longest first."""
    sanitizer = SANITIZER_OF[part]
    if part == "address":
        yield partial(run, sanitizer, "-m", "pytest", *SUITE)
    for isa in isas() if part == "address" else [""]:
        yield partial(run, sanitizer, "-m", "tests.sanitize.table", part, CISDL_ISA=isa)


def main(arguments: list[str]) -> int:
    if "--" in arguments:
        at = arguments.index("--")
        (sanitizer,), command = arguments[:at], arguments[at + 1 :]
        build(sanitizer)
        return subprocess.run(command, env=environment(sanitizer), cwd=ROOT).returncode
    parts = arguments or list(SANITIZER_OF)
    if unknown := [part for part in parts if part not in SANITIZER_OF]:
        print(f"part: expected one of {', '.join(SANITIZER_OF)}, got {unknown[0]}", file=sys.stderr)
        return 2
    begin = time.monotonic()
    for sanitizer in sorted({SANITIZER_OF[part] for part in parts}):
        build(sanitizer)
    print(f"built in {time.monotonic() - begin:.0f} s", flush=True)
    if not all(run(SANITIZER_OF[part], "-m", "tests.sanitize.faults", part) for part in parts):
        return 1
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        passed = all([*pool.map(lambda job: job(), [job for part in parts for job in jobs(part)])])
    print(f"{'nothing found' if passed else 'FAILED'} in {time.monotonic() - begin:.0f} s")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
