"""What is wrong with this machine, each with the exact command that mends it: `cisdl env`.

It reads the facts of `environment.gather`. A command is for this interpreter and this source tree, so that it
mends what was looked at and nothing beside it.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cisdl.environment import SOURCE

TORCH = "torch==2.13.0"
"""The release that requirements.txt names, and the oldest one below."""
OLDEST_TORCH = (2, 11)
OLDEST_NVCC = 12
"""The first that compiles C++20."""
TO_BUILD = ("ninja", "pybind11", "setuptools")
FORCING = ("CISDL_ISA", "CISDL_IMPL")

Problem = tuple[str, str]
"""What is wrong, and the command that mends it."""


def problems(facts: dict[str, Any]) -> list[Problem]:
    """Everything that is wrong, the most serious first."""
    return [*of_packages(facts), *of_compiler(facts), *of_kernels(facts), *of_gpu(facts), *of_threads(facts)]


def of_packages(facts: dict[str, Any]) -> Iterator[Problem]:
    torch = facts["torch"]
    if torch["error"]:
        what = "is missing" if torch["version"] is None else f"does not load ({torch['error']})"
        again = "--force-reinstall " if torch["version"] else ""
        yield f"torch {what}: nothing can be trained", pip(again + TORCH)
    elif numbers(torch["version"])[:2] < OLDEST_TORCH:
        oldest = ".".join(map(str, OLDEST_TORCH))
        yield (
            f"torch {torch['version']} is older than {oldest}: the kernels cannot be built for it",
            (f"{pip(TORCH)} && {build_command()}"),
        )
    for package, version in facts["packages"].items():
        if version is None:
            lacking = "the kernels cannot be built" if package in TO_BUILD else "parts of the command fail"
            yield f"{package} is missing: {lacking}", pip(package)


def of_compiler(facts: dict[str, Any]) -> Iterator[Problem]:
    chosen = os.environ.get("CXX")
    if facts["compiler"] is None:
        if chosen and shutil.which("g++"):
            yield f"no C++ compiler: CXX is {chosen}, which is not there", "unset CXX"
        else:
            yield "no C++ compiler: the kernels cannot be built", install_compiler()
    elif not facts["cxx20"]:
        yield f"the C++ compiler ({facts['compiler']}) does not take -std=c++20", install_compiler()
    if not facts["headers"]:
        yield "Python's headers are missing: the kernels cannot be built", install_headers()


def of_kernels(facts: dict[str, Any]) -> Iterator[Problem]:
    if facts["torch"]["error"]:
        return  # they cannot load without it, and it has been named
    error, forced = facts["kernels"]["error"], [name for name in FORCING if name in facts["variables"]]
    if error:
        why = error.split("; ")[0]  # the rest is advice, and the command below is exact
        wrong_setting = [name for name in forced if name in error or error.startswith("implementation of ")]
        if wrong_setting:
            yield f"the kernels do not load: {why}", f"unset {' '.join(wrong_setting)}"
        else:
            yield f"the kernels do not load: {why}", build_command()
        return
    build = facts["kernels"]["build"]
    supported = build.get("isas_supported") or [build.get("isa")]
    if build.get("isa") != supported[-1] and "CISDL_ISA" in forced:
        what = f"CISDL_ISA keeps the kernels to {build['isa']}, this CPU has {supported[-1]}"
        yield what, "unset CISDL_ISA"


def of_gpu(facts: dict[str, Any]) -> Iterator[Problem]:
    torch, build = facts["torch"], facts["kernels"]["build"] or {}
    release = re.search(r"release (\d+)", facts["nvcc"] or "")
    too_old = release is not None and int(release[1]) < OLDEST_NVCC
    if facts["driver"] and not torch["error"]:
        if torch["cuda"] is None:
            command = f"{pip(f'--force-reinstall {TORCH}')} && {build_command()}"
            yield "a GPU is there, but this torch has no CUDA", command
        elif not facts["gpus"] and "CUDA_VISIBLE_DEVICES" in facts["variables"]:
            yield "a GPU is there, but CUDA_VISIBLE_DEVICES hides it", "unset CUDA_VISIBLE_DEVICES"
    if facts["gpus"] and not facts["kernels"]["error"] and not build.get("cuda"):
        if facts["nvcc"] is None:
            what = "a GPU is there, but the kernels are CPU only for want of nvcc"
            yield what, install_nvcc(torch["cuda"])
        elif not too_old:
            what = "a GPU and nvcc are there, but the kernels were built without CUDA"
            yield what, f"CISDL_CUDA=1 {build_command()}"
    if too_old:
        what = f"nvcc ({facts['nvcc']}) does not take -std=c++20: a build would fail"
        yield what, install_nvcc(torch["cuda"]) if facts["gpus"] else f"CISDL_CUDA=0 {build_command()}"


def of_threads(facts: dict[str, Any]) -> Iterator[Problem]:
    usable = facts["cpu"]["usable"]
    threads = facts["torch"]["threads"]
    if threads is not None and threads > usable:
        cores = f"{usable} core{'s' if usable > 1 else ''}"
        yield (
            f"torch uses {threads} threads on {cores}: slower than {usable}",
            f"export OMP_NUM_THREADS={usable}",
        )


def numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version.

    >>> numbers("2.13.0+cpu")
    (2, 13, 0)
    """
    return tuple(map(int, re.findall(r"\d+", version.partition("+")[0])))


def pip(package: str) -> str:
    return f"{shlex.quote(sys.executable)} -m pip install {package}"


def build_command() -> str:
    """How the kernels are built for this interpreter, from where this command runs; what changed is compiled.

    Not `make install`: it looks at the sources alone, and does nothing after a change of torch or of CUDA.
    """
    if (SOURCE / "setup.py").is_file():
        return pip(f"--no-build-isolation --no-deps -e {shlex.quote(str(SOURCE))}")
    return pip("--no-build-isolation --no-deps --force-reinstall cisdl")


def package_manager() -> str:
    """The beginning of a command that installs packages of the system; as root without sudo."""
    sudo = "" if hasattr(os, "geteuid") and os.geteuid() == 0 else "sudo "
    known = {
        # A fresh container has no lists of packages yet.
        "apt-get": f"{sudo}apt-get update && {sudo}apt-get install -y",
        "dnf": f"{sudo}dnf install -y",
        "pacman": f"{sudo}pacman -S",
        "brew": "brew install",
    }
    return next((command for tool, command in known.items() if shutil.which(tool)), "your package manager:")


def install_compiler() -> str:
    if sys.platform == "darwin":
        return "xcode-select --install"
    package = "g++" if shutil.which("apt-get") else "gcc-c++" if shutil.which("dnf") else "gcc"
    return f"{package_manager()} {package}"


def install_headers() -> str:
    if shutil.which("apt-get"):
        return f"{package_manager()} python{sys.version_info.major}.{sys.version_info.minor}-dev"
    return f"{package_manager()} {'python3-devel' if shutil.which('dnf') else 'python3'}"


def install_nvcc(cuda: str | None) -> str:
    """From PyPI, where CUDA's compiler is to be had from 13 on, beside the torch that will use it."""
    version = numbers(cuda or "13")
    if version[0] < 13:
        return f"{package_manager()} nvidia-cuda-toolkit && CISDL_CUDA=1 {build_command()}"
    wanted = f"=={cuda}.*" if cuda else ""
    names = ("nvidia-cuda-nvcc", "nvidia-cuda-runtime", "nvidia-cuda-crt", "nvidia-nvvm", "nvidia-cuda-cccl")
    packages = " ".join(f"'{name}{wanted}'" for name in names)
    home = Path(sysconfig.get_path("purelib")) / "nvidia" / f"cu{version[0]}"
    return f"{pip(packages)} && CUDA_HOME={shlex.quote(str(home))} CISDL_CUDA=1 {build_command()}"
