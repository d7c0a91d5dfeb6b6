"""Proof that the sanitizers are at work: every fault of faulty_*.cpp and faulty.cu ends its process.

Run by ``python -m tests.sanitize`` as ``python -m tests.sanitize.faults PART`` in the sanitized environment;
``PART WHERE FAULT`` commits one fault and no more.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable

import torch

from cisdl_ops import _C
from tests.cuda_emulation.machine import Machine
from tests.sanitize.emulation import sanitized_library

# Each fault and words of the report that it must lead to.
KERNEL = {
    "read_behind": "heap-buffer-overflow",
    "write_before": "heap-buffer-overflow",
    "read_vector": "AddressSanitizer",
    "write_vector": "AddressSanitizer",
    "read_partial": "heap-buffer-overflow",
    "write_partial": "heap-buffer-overflow",
    "read_scratch": "use-after-poison",
    "local_array": "index 4 out of bounds",
    "signed_overflow": "signed integer overflow",
    "misaligned": "misaligned address",
    "float_to_integer": "outside the range of representable values",
}
OPS = {
    "address": {"write_behind": "heap-buffer-overflow"},
    "thread": {"race": "data race"} | {f"race_{isa}": "data race" for isa in _C.isas_supported()},
}
EMULATION = {
    "shared_read": "use-after-poison",
    "read_before": "use-after-poison",
    "local_array": "index 4 out of bounds",
    "signed_overflow": "signed integer overflow",
}


Commit = Callable[[str], object]


def faulty(symbol: str) -> Commit:
    """Commits a fault of faulty_*.cpp on a tensor."""
    function = getattr(ctypes.CDLL(_C.__file__), symbol)
    function.restype = ctypes.c_bool

    def commit(fault: str) -> None:
        data = torch.zeros(100)
        known = function(fault.encode(), ctypes.c_void_p(data.data_ptr()), ctypes.c_int64(data.numel()))
        assert known, f"{symbol} has no fault {fault}"

    return commit


def places(part: str) -> dict[str, tuple[Commit, dict[str, str]]]:
    """Where faults are committed, and which."""
    if part == "emulation":
        machine, numbers = Machine(sanitized_library()), torch.arange(512.0)
        return {part: (lambda fault: machine.run_faulty(fault, numbers), EMULATION)}
    found = {"csrc/ops": (faulty("cisdl_faulty_op"), OPS[part])}
    if part == "address":
        for isa in _C.isas_supported():
            found[isa] = faulty(f"cisdl_faulty_kernel_{isa}"), KERNEL
    return found


def in_copy(commit: Commit, fault: str) -> tuple[int, str]:
    """Exit code and standard error of a copy of this process that commits the fault."""
    with tempfile.TemporaryFile() as errors:
        child = os.fork()
        if child == 0:
            signal.alarm(60)  # a lock that another thread held at the fork is never released here
            os.dup2(errors.fileno(), 2)
            commit(fault)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        errors.seek(0)
        return os.waitstatus_to_exitcode(status), errors.read().decode(errors="replace")


def in_new_process(part: str, where: str, fault: str) -> tuple[int, str]:
    """Where a copy will not do: the thread sanitizer does not look at one, and in one no threads start."""
    command = [sys.executable, "-m", "tests.sanitize.faults", part, where, fault]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    return done.returncode, done.stderr


def main(part: str, *one: str) -> None:
    torch.set_num_threads(2)
    found = places(part)
    if one:
        where, fault = one
        found[where][0](fault)
        return
    noticed = 0
    for where, (commit, faults) in found.items():
        for fault, words in {"none": "", **faults}.items():
            if part == "thread" or where == "csrc/ops":
                code, report = in_new_process(part, where, fault)
            else:
                code, report = in_copy(commit, fault)
            if fault == "none" and code != 0:
                sys.exit(f"{where}: sound code is reported:\n{report}")
            if fault != "none" and (code == 0 or words not in report):
                sys.exit(
                    f"{where}: {fault}: expected a report of {words}, got exit code {code} and:\n{report}"
                )
        noticed += len(faults)
    print(f"{part}: all {noticed} deliberate faults noticed")


if __name__ == "__main__":
    main(*sys.argv[1:])
