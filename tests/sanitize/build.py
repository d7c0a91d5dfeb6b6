"""Builds what a sanitizer watches, and the environment in which it watches."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMPILER = os.environ.get("CXX", "g++")
RUNTIMES = {"address": "libasan.so", "thread": "libtsan.so"}
OPTIONS = {
    "address": {
        # Python and torch never free much of what they have. Fresh memory is NaN: what nobody wrote shows.
        "ASAN_OPTIONS": "detect_leaks=0:malloc_fill_byte=255:max_malloc_fill_size=1073741824",
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
    },
    "thread": {
        # torch, its OpenMP runtime and Python are not instrumented: what they do is not looked at.
        "TSAN_OPTIONS": "ignore_noninstrumented_modules=1:halt_on_error=1:report_signal_unsafe=0",
    },
}


def compilers_library(name: str) -> Path:
    asked = subprocess.run([COMPILER, f"-print-file-name={name}"], capture_output=True, text=True)
    found = Path(asked.stdout.strip())
    if not found.is_absolute():
        sys.exit(f"{COMPILER} has no {name}; install the compiler's sanitizer libraries, or set CXX to g++")
    return found


def build(sanitizer: str) -> None:
    """The compiled module in build/<sanitizer>."""
    environment = {**os.environ, "CISDL_SANITIZE": sanitizer}
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    if subprocess.run(command, cwd=ROOT, env=environment).returncode:
        sys.exit(f"the {sanitizer}-sanitized build failed")


def environment(sanitizer: str, **others: str) -> dict[str, str]:
    """For a process that loads the module of :func:`build` and ends at the first finding."""
    return {
        **os.environ,
        "CISDL_BUILD": str(ROOT / "build" / sanitizer),
        # Before Python, which is not linked to them; libstdc++ for the sanitizer to find its exceptions.
        "LD_PRELOAD": f"{compilers_library(RUNTIMES[sanitizer])} {compilers_library('libstdc++.so.6')}",
        "PYTHONPATH": str(ROOT),
        **OPTIONS[sanitizer],
        **others,
    }
