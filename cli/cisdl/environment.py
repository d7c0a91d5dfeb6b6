"""What a run depends on outside its configuration: machine, versions, compilers, how the kernels were built.

`gather` collects facts for env.json and `cisdl env`; `cisdl.diagnosis` reads them and names what is wrong.
"""

from __future__ import annotations

import math
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path
from typing import Any

from cisdl import __version__

CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
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
PACKAGES = (
    "numpy",
    "scikit-learn",
    "matplotlib",
    "click",
    "rich",
    "Jinja2",
    "pybind11",
    "ninja",
    "setuptools",
)


def gather() -> dict[str, Any]:
    """Every fact, as plain values; also where torch is missing."""
    compiler = os.environ.get("CXX", "g++")
    return {
        "cisdl": __version__,
        "commit": commit(),
        "os": operating_system(),
        "python": f"{platform.python_version()} ({sys.executable})",
        "cpu": cpu(),
        "torch": torch_facts(),
        "gpus": gpus(),
        "driver": driver_sees_gpu(),
        "compiler": first_line([compiler, "--version"]),
        "cxx20": takes_cxx20(compiler),
        "headers": (Path(sysconfig.get_path("include")) / "Python.h").is_file(),
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


def torch_facts() -> dict[str, Any]:
    """Version, threads, CUDA; `error` in words where it does not load, and then nothing else."""
    try:
        import torch
    except (ImportError, OSError) as error:
        unknown = dict.fromkeys(("threads", "cpu_capability", "cuda"))
        return {"version": version("torch"), "error": one_line(error), "processes": [], **unknown}
    return {
        "version": str(torch.__version__),
        "error": None,
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cuda": torch.version.cuda,
        "processes": distributed(),
    }


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
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    facts: dict[str, Any] = {
        "name": platform.processor() or platform.machine(),
        "cores": cores,
        "usable": min(cores, quota() or cores),
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


def quota() -> int | None:
    """The cores' worth of time that a container is given, rounded up; None without such a limit."""
    try:
        limit, period = CPU_QUOTA.read_text().split()
        return math.ceil(int(limit) / int(period))
    except (OSError, ValueError):  # no cgroup, or "max"
        return None


def takes_cxx20(compiler: str) -> bool:
    """Whether it compiles the language that the kernels are written in."""
    command = [compiler, "-std=c++20", "-fsyntax-only", "-x", "c++", os.devnull]
    try:
        return subprocess.run(command, capture_output=True, timeout=10, check=False).returncode == 0
    except (OSError, subprocess.SubprocessError):
        return False


def gpus() -> list[str]:
    try:
        import torch
    except (ImportError, OSError):
        return []
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
