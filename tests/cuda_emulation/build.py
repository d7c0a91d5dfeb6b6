"""Compiles csrc/cuda as plain C++ with the emulator: one shared library, named after its content's hash."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CUDA = ROOT / "csrc" / "cuda"
COMPILER = os.environ.get("CXX", "g++")
FLAGS = (
    "-std=c++20 -O2 -g1 -fPIC -fvisibility=hidden -Wall -Wextra -Wno-unknown-pragmas "
    f"-I{CUDA} -include {HERE / 'cuda_emulation.h'} -x c++"
).split()


def sources() -> list[Path]:
    """What is compiled: every launcher of csrc/cuda, the emulator and the entry points."""
    return [*sorted(CUDA.glob("*.cu")), *sorted(HERE.glob("*.cpp")), *sorted(HERE.glob("*.cu"))]


def _fingerprint(flags: Sequence[str]) -> str:
    files = [
        path
        for folder in (CUDA, HERE, ROOT / "csrc" / "common")
        for path in sorted(folder.iterdir())
        if path.suffix in (".cu", ".cuh", ".h", ".cpp")
    ]
    digest = hashlib.sha256(" ".join([COMPILER, *flags]).encode())
    for path in files:
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _compile(command: list[str]) -> None:
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(f"the CUDA emulation does not compile:\n{' '.join(command)}\n{result.stderr}")


def library(folder: Path = ROOT / "build" / "cuda_emulation", extra_flags: Sequence[str] = ()) -> Path:
    """The path of the library; compiled only if no file of it has been compiled before with this content."""
    flags = [*FLAGS, *extra_flags]
    target = folder / f"emulation-{_fingerprint(flags)}.so"
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{target.stem}-{os.getpid()}"
    objects = {source: Path(f"{part}-{source.stem}-{source.suffix[1:]}.o") for source in sources()}
    try:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            command = [COMPILER, *flags, "-c"]
            list(
                pool.map(
                    _compile, [[*command, str(source), "-o", str(out)] for source, out in objects.items()]
                )
            )
        _compile([COMPILER, *extra_flags, "-shared", "-o", f"{part}.so", *map(str, objects.values())])
        Path(f"{part}.so").replace(target)  # complete or not there, even with several test runs at once
    finally:
        for file in objects.values():
            file.unlink(missing_ok=True)
    return target
