"""What a run depends on outside its configuration: machine, versions, compilers, how the kernels were built.

`gather` collects facts for env.json and `cisdl env`; `problems` reads them and names what is missing, each
with the command that mends it.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from cisdl import __version__

SOURCE = Path(__file__).resolve().parents[2]
"""The source tree, when the command runs from one."""

INSTRUCTION_SETS = (
    "sse4_2",
    "avx",
    "avx2",
    "fma",
    "f16c",
    "avx512f",
    "avx512bw",
    "avx512_bf16",
    "amx_tile",
    "asimd",
)
PACKAGES = ("numpy", "scikit-learn", "matplotlib", "click", "rich", "pybind11", "ninja")


def gather() -> dict[str, Any]:
    """Every fact, as plain values."""
    import torch

    return {
        "cisdl": __version__,
        "commit": commit(),
        "os": operating_system(),
        "python": f"{platform.python_version()} ({sys.executable})",
        "cpu": cpu(),
        "torch": {
            "version": str(torch.__version__),
            "threads": torch.get_num_threads(),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "cuda": torch.version.cuda,
            "processes": distributed(),
        },
        "gpus": gpus(),
        "compiler": first_line([os.environ.get("CXX", "g++"), "--version"]),
        "nvcc": next((line for line in output([nvcc() or "nvcc", "--version"]) if "release" in line), None),
        "packages": {name: version(name) for name in PACKAGES},
        "variables": {
            name: value
            for name, value in sorted(os.environ.items())
            if name.startswith(("CISDL_", "ATEN_CPU_", "DNNL_", "MKL_", "OMP_", "ONEDNN_"))
            or name == "CUDA_VISIBLE_DEVICES"
        },
        "kernels": kernels(),
    }


def problems(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """(what is wrong, the exact command that mends it), the most serious first."""
    found = []
    if facts["compiler"] is None:
        found.append(("no C++ compiler: the kernels cannot be built", install_compiler()))
    found += [
        (f"{package} is missing: the kernels cannot be built", pip(package))
        for package in ("ninja", "pybind11")
        if facts["packages"][package] is None
    ]
    if facts["kernels"]["error"]:
        why = facts["kernels"]["error"].split("; ")[0]  # the rest is advice, and the command below is exact
        found.append((f"the kernels do not load: {why}", build_command()))
    if driver_sees_gpu() and facts["torch"]["cuda"] is None:
        found.append(("a GPU is there, but this torch has no CUDA", pip("--force-reinstall torch==2.13.0")))
    built_for_cuda = bool((facts["kernels"]["build"] or {}).get("cuda"))
    if facts["gpus"] and not facts["kernels"]["error"] and not built_for_cuda:
        if facts["nvcc"] is None:
            what = "a GPU is there, but the kernels are CPU only for want of nvcc"
            found.append((what, f"{package_manager()} nvidia-cuda-toolkit"))
        else:
            what = "a GPU and nvcc are there, but the kernels were built without CUDA"
            found.append((what, f"CISDL_CUDA=1 {build_command()}"))
    return found


def distributed() -> list[str]:
    """What several processes can train with: gloo on the CPU, nccl on GPUs."""
    import torch.distributed as dist

    if not dist.is_available():
        return []
    there = {"gloo": dist.is_gloo_available(), "nccl": dist.is_nccl_available()}
    return [name for name, available in there.items() if available]


def kernels() -> dict[str, Any]:
    """Whether `cisdl_ops` loads, and what it says of its build."""
    try:
        import cisdl_ops
    except ImportError as error:
        return {"error": one_line(error), "build": None}
    return {"error": None, "build": dict(cisdl_ops.build_info())}


def cpu() -> dict[str, Any]:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    facts: dict[str, Any] = {
        "name": platform.processor() or platform.machine(),
        "cores": usable,
        "instructions": [],
    }
    info = Path("/proc/cpuinfo")
    if info.is_file():
        first = info.read_text(errors="replace").split("\n\n")[0]
        pairs = (line.partition(":") for line in first.splitlines())
        fields = {name.strip(): value.strip() for name, _, value in pairs}
        facts["name"] = fields.get("model name", facts["name"])
        flags = (fields.get("flags") or fields.get("Features") or "").split()
        facts["instructions"] = [name for name in INSTRUCTION_SETS if name in flags]
    elif sys.platform == "darwin":
        facts["name"] = first_line(["sysctl", "-n", "machdep.cpu.brand_string"]) or facts["name"]
    return facts


def gpus() -> list[str]:
    import torch

    if not torch.cuda.is_available():
        return []
    described = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        memory = properties.total_memory / 2**30
        described.append(f"{properties.name}, sm_{properties.major}{properties.minor}, {memory:.0f} GiB")
    return described


def operating_system() -> str:
    name = platform.platform(terse=True)
    try:
        pretty = platform.freedesktop_os_release().get("PRETTY_NAME")
    except OSError:
        return name
    return f"{pretty}, {name}" if pretty else name


def commit() -> str | None:
    """The source tree's commit, with a + if there are changes on top."""
    if not (SOURCE / ".git").exists():
        return None
    revision = first_line(["git", "-C", str(SOURCE), "rev-parse", "--short", "HEAD"])
    changed = first_line(["git", "-C", str(SOURCE), "status", "--porcelain", "--untracked-files=no"])
    return f"{revision}+" if revision and changed else revision


def nvcc() -> str | None:
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    return shutil.which("nvcc") or shutil.which(str(Path(home) / "bin" / "nvcc"))


def driver_sees_gpu() -> bool:
    listed = first_line(["nvidia-smi", "--list-gpus"])
    return listed is not None and listed.startswith("GPU")


def one_line(error: BaseException) -> str:
    """An exception's message on one line; its type where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def output(command: list[str]) -> list[str]:
    """The lines a command prints; none if it is not there or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.strip().splitlines()


def first_line(command: list[str]) -> str | None:
    return next(iter(output(command)), None)


def pip(package: str) -> str:
    return f"{sys.executable} -m pip install {package}"


def build_command() -> str:
    """How the kernels are built from where this command runs."""
    if (SOURCE / "Makefile").is_file():
        return f"make -C {SOURCE} install"
    if (SOURCE / "setup.py").is_file():
        return f"{sys.executable} -m pip install --no-build-isolation --no-deps -e {SOURCE}"
    return f"{sys.executable} -m pip install --no-build-isolation --no-deps --force-reinstall cisdl"


def package_manager() -> str:
    known = {
        "apt-get": "sudo apt-get install -y",
        "dnf": "sudo dnf install -y",
        "pacman": "sudo pacman -S",
        "brew": "brew install",
    }
    return next((command for tool, command in known.items() if shutil.which(tool)), "your package manager:")


def install_compiler() -> str:
    if sys.platform == "darwin":
        return "xcode-select --install"
    package = "g++" if shutil.which("apt-get") else "gcc-c++" if shutil.which("dnf") else "gcc"
    return f"{package_manager()} {package}"
