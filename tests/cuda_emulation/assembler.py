"""What nvcc's assembler makes of a file of csrc/cuda: registers and spills by kernel, and the machine code.

Compiled once for each content and kept in build/nvcc, as the emulation is.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from .build import CUDA, ROOT

NVCC = shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")
FLAGS = ["-std=c++20", "-O3", "-Xptxas", "-v", "-cubin"]


def _flags(source: Path) -> list[str]:
    """The build compiles for every architecture; this looks at one: compute capability 9.0's."""
    own = "a" if "hopper" in source.name else ""
    return [*FLAGS, f"-gencode=arch=compute_90{own},code=sm_90{own}"]


def _find_cuobjdump() -> str | None:
    """On PATH, or as the packages nvidia-cuda-cuobjdump and nvidia-cuda-nvdisasm install it."""
    packaged = sorted(Path(sysconfig.get_paths()["purelib"]).glob("nvidia/*/bin/cuobjdump"))
    return shutil.which("cuobjdump") or (str(packaged[-1]) if packaged else None)


CUOBJDUMP = _find_cuobjdump()


@dataclass(frozen=True)
class Kernel:
    """One kernel of a file; ``name`` as the linker sees it."""

    name: str
    registers: int
    spilled: int  # bytes a thread
    shared: int  # bytes a block


def compiled(source: Path) -> Path:
    """The cubin of ``source``; the assembler's report lies beside it, as .txt."""
    folder = ROOT / "build" / "nvcc"
    flags = _flags(source)
    digest = hashlib.sha256(" ".join([str(NVCC), *flags]).encode())
    headers = [*CUDA.glob("*.cuh"), *CUDA.glob("*.h"), *(ROOT / "csrc" / "common").glob("*.h")]
    for path in sorted([source, *headers]):
        digest.update(path.name.encode() + path.read_bytes())
    target = folder / f"{source.stem}-{digest.hexdigest()[:16]}.cubin"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        part = target.with_suffix(f".{os.getpid()}")
        result = subprocess.run(
            [str(NVCC), *flags, str(source), "-o", str(part)], capture_output=True, text=True
        )
        if result.returncode:
            raise RuntimeError(f"{source.name} does not compile:\n{result.stderr}")
        target.with_suffix(".txt").write_text(result.stderr)
        part.replace(target)
    return target


@functools.cache
def ptx(source: Path, architecture: str) -> str:
    """What nvcc makes of ``source`` before it assembles, without comments."""
    command = [
        str(NVCC),
        "-std=c++20",
        "-O3",
        f"-arch=compute_{architecture}",
        "-ptx",
        str(source),
        "-o",
        "-",
    ]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return re.sub(r"//.*", "", text)


def kernels(source: Path) -> list[Kernel]:
    """By the assembler's report."""
    report = compiled(source).with_suffix(".txt").read_text()
    found = []
    for part in report.split("Compiling entry function '")[1:]:
        spilled = sum(int(size) for size in re.findall(r"(\d+) bytes spill stores", part))
        registers = re.search(r"Used (\d+) registers", part)
        shared = re.search(r"(\d+) bytes smem", part)
        assert registers, part
        found.append(
            Kernel(part.partition("'")[0], int(registers[1]), spilled, int(shared[1]) if shared else 0)
        )
    return found


def instructions(source: Path) -> dict[str, set[str]]:
    """The names of the machine instructions of each kernel, with their modifiers ("HMMA.16816.F32.BF16")."""
    assert CUOBJDUMP
    path = os.pathsep.join([str(Path(CUOBJDUMP).parent), os.environ.get("PATH", "")])  # for nvdisasm
    command = [CUOBJDUMP, "-sass", str(compiled(source))]
    listing = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "PATH": path}
    ).stdout
    found = {}
    for part in listing.split("Function : ")[1:]:
        code = re.findall(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Zx0-9_.]*)", part)
        found[part.partition("\n")[0].strip()] = set(code)
    return found


def main() -> None:
    """A table of the kernels of the files named, or of all."""
    for source in map(Path, sys.argv[1:] or sorted(CUDA.glob("*.cu"))):
        for kernel in kernels(source):
            print(
                f"{source.name:22} {kernel.registers:4} registers {kernel.spilled:4} B spilled "
                f"{kernel.shared:6} B shared  {kernel.name}"
            )


if __name__ == "__main__":
    main()
