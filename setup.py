"""Builds cisdl_ops._C: CPU kernels once per instruction set, CUDA kernels if nvcc is there, one binding.

The compiler calls are ninja's, written to build/build.ninja, so a second build compiles only what changed.

    CISDL_CUDA=auto|0|1   auto (default): build the CUDA kernels if nvcc is found; 1: fail without it; 0: no
    CISDL_CUDA_ARCHS      e.g. "90" or "80 90": only these instead of every architecture that nvcc knows
    CUDA_HOME             where bin/nvcc is, if not on PATH or in /usr/local/cuda
    CISDL_SANITIZE        address (with undefined behaviour) or thread: a module for `make sanitize`, without
                          CUDA, in build/<sanitizer>; only with the command build_ext
    CXX, MAX_JOBS         the compiler, and how many run at once
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
CSRC = ROOT / "csrc"
SANITIZER = os.environ.get("CISDL_SANITIZE", "")
BUILD = ROOT / "build" / SANITIZER

MACHINE = platform.machine().replace("AMD64", "x86_64").replace("arm64", "aarch64")

# Least first: the last one that the CPU runs is used (csrc/cpu/dispatch.cpp).
ISAS: dict[str, dict[str, str]] = {
    "x86_64": {
        "baseline": "",
        "avx2": "-mavx2 -mfma",
        "avx512": "-mavx512f -mavx512dq -mavx512bw -mavx512vl -mavx2 -mfma -mprefer-vector-width=512",
    },
    "aarch64": {"neon": ""},
}
ISA_SOURCES = [
    "conv2d",
    "conv2d_stems",
    "lane_groups",
    "winograd",
    "winograd_stride2",
    "pool2d",
    "linear",
    "lstm_cell",
    "recurrent",
    "recurrent_layer",
    "elementwise",
    "word2vec",
    "glove",
    "peak",
]
CUDA_SOURCES = [
    "conv2d",
    "conv2d_mma",
    "pool2d",
    "linear_mma",
    "conv2d_mma_weight",
    "linear_activation",
    "linear",
    "recurrence",
    "recurrent",
    "lstm_cell",
    "lstm_cell_mma",
    "recurrent_cells_mma",
    "cross_entropy",
    "optimizer",
    "hopper_gemm",
    "linear_hopper",
    "conv2d_hopper",
]

# Architectures that run the code of another one of their family, by NVIDIA's rule for desktop and server GPUs
# (not for those on a system chip): a quarter of nvcc's time.
SAME_CODE = {"86": "80", "89": "80", "103": "100"}

# GPUs on one chip with ARM cores (Orin, Thor, GB10): no other machine has them. Another quarter.
ON_ARM_CHIPS = {"87", "88", "110", "121"}

# Architectures whose machine code comes from the PTX of another one: nvcc would write the same for them, save
# the name (tests/cuda_emulation/test_nvcc.py compares). A third of what is left.
SAME_PTX = {"87": "80", "88": "80", "90": "80", "110": "100", "120": "100"}

# What was built and for which torch; cisdl_ops reads it before it loads the module.
FACTS = "_build.json"

WARNINGS = "-Wall -Wextra -Wno-maybe-uninitialized"  # GCC 12 warns of its own AVX-512 intrinsics
KERNEL_FLAGS = f"-std=c++20 -O3 -fPIC -fvisibility=hidden -ffp-contract=fast -fno-math-errno {WARNINGS}"
BINDING_FLAGS = f"-std=c++20 -O2 -fPIC -fvisibility=hidden -fopenmp {WARNINGS} -Wno-unknown-pragmas"
NVCC_FLAGS = "-std=c++20 -O3 -Xcompiler -fPIC,-fvisibility=hidden -Xfatbin -compress-all"
# They come after the others: -O1 counts. Calls instead of inline checks: two thirds of the compile time.
# No vptr: it wants torch's type information. The faults in FAULTY prove that the flags are at work.
SANITIZER_FLAGS = {
    "": "",
    "address": "-O1 -g1 -fno-omit-frame-pointer -fsanitize=address,undefined,float-cast-overflow "
    "-fno-sanitize=vptr -fno-sanitize-recover=all --param asan-instrumentation-with-call-threshold=0",
    "thread": "-O1 -g1 -fno-omit-frame-pointer -fsanitize=thread -Wno-tsan -DCISDL_STD_THREADS",
}
FAULTY = ROOT / "tests" / "sanitize"


def stop(sentence: str) -> NoReturn:
    sys.exit(f"cisdl: {sentence}")


def check_sanitizer(commands: list[str]) -> None:
    """A sanitized module must not end up in a package: only a process made for it can load it."""
    if SANITIZER not in SANITIZER_FLAGS:
        stop(f"CISDL_SANITIZE: expected address or thread, got {SANITIZER}")
    if SANITIZER and commands != ["build_ext"]:
        stop(f"CISDL_SANITIZE: expected the command build_ext, got {' '.join(commands)}")


@dataclass(frozen=True)
class Cuda:
    """The CUDA toolkit to build with."""

    nvcc: str
    version: str
    libraries: Path
    archs: list[str]

    def gencode(self, source: str) -> str:
        """Machine code for every architecture, and PTX of the last for those to come."""
        if "hopper" in source:  # instructions that no other one has
            if "90" in self.archs:
                return "-gencode=arch=compute_90a,code=sm_90a"
            arch = self.archs[-1]  # an empty kernel; 177: what it would call
            return f"-gencode=arch=compute_{arch},code=sm_{arch} -DCISDL_NO_HOPPER -diag-suppress=177"
        own_code = [a for a in self.archs if SAME_CODE.get(a) not in self.archs]
        ptx = {a: SAME_PTX[a] if SAME_PTX.get(a) in own_code else a for a in own_code}
        last = ptx[own_code[-1]]
        flags = [f"-gencode=arch=compute_{ptx[a]},code=sm_{a}" for a in own_code]
        return " ".join([*flags, f"-gencode=arch=compute_{last},code=compute_{last}"])


def find_cuda() -> Cuda | None:
    """The toolkit, or None for a CPU build."""
    wanted = os.environ.get("CISDL_CUDA", "auto")
    if wanted not in ("auto", "0", "1"):
        stop(f"CISDL_CUDA: expected auto, 0 or 1, got {wanted}")
    if wanted == "0" or SANITIZER:
        return None
    home = os.environ.get("CUDA_HOME")
    candidates = [f"{home}/bin/nvcc"] if home else [shutil.which("nvcc"), "/usr/local/cuda/bin/nvcc"]
    for nvcc in candidates:
        if nvcc and Path(nvcc).exists():
            return describe_cuda(nvcc)
    if wanted == "1":
        stop("CISDL_CUDA=1 but nvcc was not found; install the CUDA toolkit or set CUDA_HOME to its folder")
    return None


def describe_cuda(nvcc: str) -> Cuda:
    def ask(*arguments: str) -> str:
        answer = subprocess.run([nvcc, *arguments], capture_output=True, text=True)
        return answer.stdout + answer.stderr

    release = re.search(r"release ([\d.]+)", ask("--version"))
    # nvcc may be a link or a script: it says itself where its toolkit lies.
    top = re.search(r"^#\$ TOP=(.+)$", ask("--dryrun", "-x", "cu", os.devnull), re.MULTILINE)
    folder = Path(top.group(1)).resolve() if top else Path(nvcc).resolve().parents[1]
    places = [folder / "lib64", folder / "targets/x86_64-linux/lib", folder / "lib"]
    libraries = next((p for p in places if (p / "libcudart_static.a").exists()), None)
    if not libraries:
        stop(f"nvcc is at {nvcc}, libcudart_static.a not under {folder}: set CUDA_HOME or CISDL_CUDA=0")
    archs = os.environ.get("CISDL_CUDA_ARCHS", "").replace(",", " ").split()
    if not archs:
        known = set(re.findall(r"^sm_(\d+)$", ask("--list-gpu-code"), re.MULTILINE))
        archs = sorted(known - (set() if MACHINE == "aarch64" else ON_ARM_CHIPS), key=int)
    return Cuda(nvcc, release.group(1) if release else "unknown", libraries, archs)


class Ninja:
    """Collects rules and build edges and writes them as a build.ninja."""

    def __init__(self) -> None:
        self.lines = ["ninja_required_version = 1.5"]
        self.outputs: list[str] = []

    def rule(self, name: str, command: str, depfile: bool = True) -> None:
        self.lines += [f"rule {name}", f"  command = {command}", f"  description = {name} $out"]
        if depfile:
            self.lines += ["  depfile = $out.d", "  deps = gcc"]

    def edge(self, rule: str, out: str, sources: list[str], flags: str = "", after: str = "") -> None:
        """`after`: what `out` depends on besides its sources."""
        inputs = " ".join(s.replace(" ", "$ ").replace(":", "$:") for s in sources)
        inputs += f" | {after}" if after else ""
        self.lines += [f"build {out}: {rule} {inputs}", f"  flags = {flags}"]
        if out.endswith(".o"):
            self.outputs.append(out)

    def write(self, path: Path) -> None:
        text = "\n".join(self.lines) + "\n"
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def precompiles(cxx: str) -> bool:
    """Whether torch's headers are compiled once for all files: ccache would keep none of these."""
    return Path(shutil.which(cxx) or cxx).resolve().name != "ccache"


def write_ninja(cxx: str, isas: dict[str, str], cuda: Cuda | None) -> None:
    """One edge per object, the slowest first, and the link."""
    import pybind11
    import torch
    from torch.utils import cpp_extension

    include = [*cpp_extension.include_paths(), pybind11.get_include(), sysconfig.get_paths()["include"]]
    binding_flags = " ".join(
        [
            BINDING_FLAGS,
            # Read by nobody: another torch at the same place is another command line, so ninja compiles anew.
            f"-DCISDL_FOR_TORCH={re.sub(r'[^0-9A-Za-z]', '_', torch.__version__)}",
            f"-D_GLIBCXX_USE_CXX11_ABI={int(torch._C._GLIBCXX_USE_CXX11_ABI)}",
            "-DCISDL_WITH_CUDA" if cuda else "",
            *(f"-isystem {p}" for p in include),
        ]
    )
    each_isa = "'-DCISDL_FOR_EACH_ISA(X)=" + " ".join(f"X({name})" for name in isas) + "'"

    ninja = Ninja()
    sanitizer_flags = SANITIZER_FLAGS[SANITIZER]
    ninja.rule("cxx", f"{cxx} -MMD -MF $out.d $flags {sanitizer_flags} -c $in -o $out")
    libraries = "-ltorch -ltorch_cpu -lc10 -ltorch_python"
    if cuda:
        ninja.rule("nvcc", f"{cuda.nvcc} -ccbin {cxx} -MMD -MF $out.d $flags -c $in -o $out")
        for name in CUDA_SOURCES:
            flags = f"{NVCC_FLAGS} {cuda.gencode(name)}"
            ninja.edge("nvcc", f"cuda/{name}.o", [str(CSRC / f"cuda/{name}.cu")], flags)
        libraries += f" -L{cuda.libraries} -lcudart_static -ldl -lrt -lpthread"
    for name in ISA_SOURCES:
        for isa, isa_flags in isas.items():
            flags = f"{KERNEL_FLAGS} -DCISDL_ISA={isa} {isa_flags}"
            ninja.edge("cxx", f"cpu/{name}.{isa}.o", [str(CSRC / f"cpu/{name}.cpp")], flags)
    if SANITIZER:
        for isa, isa_flags in isas.items():
            flags = f"{KERNEL_FLAGS} -DCISDL_ISA={isa} {isa_flags}"
            ninja.edge("cxx", f"faulty/kernel.{isa}.o", [str(FAULTY / "faulty_kernel.cpp")], flags)
        ninja.edge("cxx", "faulty/op.o", [str(FAULTY / "faulty_op.cpp")], f"{binding_flags} {each_isa}")
    # The compiler finds what it compiled of precompiled.h beside where it would look for it first.
    headers = "ops/precompiled.h"
    if precompiles(cxx):
        ninja.edge("cxx", f"{headers}.gch", [str(CSRC / headers)], f"{binding_flags} -x c++-header")
        with_headers = f"{binding_flags} -iquote {CSRC} -include {headers}", f"{headers}.gch"
    else:
        with_headers = binding_flags, ""
    for source in [*sorted((CSRC / "ops").glob("*.cpp")), CSRC / "bindings.cpp"]:
        ninja.edge("cxx", f"ops/{source.stem}.o", [str(source)], *with_headers)
    for name in ("cooccurrence", "dispatch", "scratch", "tuning"):
        ninja.edge("cxx", f"cpu/{name}.o", [str(CSRC / f"cpu/{name}.cpp")], f"{KERNEL_FLAGS} {each_isa}")
    # No -fopenmp here: the OpenMP runtime is then the one that torch already carries, not a second one.
    folder = Path(torch.__file__).parent / "lib"
    link = f"{cxx} -shared {sanitizer_flags} -Wl,--exclude-libs,ALL $in -o $out -L{folder} {libraries}"
    ninja.rule("link", link, depfile=False)
    ninja.edge("link", "_C.so", list(ninja.outputs))
    ninja.write(BUILD / "build.ninja")


class NinjaBuildExt(build_ext):
    """build_ext that hands everything to ninja in build/ and copies the result where setuptools wants it."""

    def build_extension(self, ext: Extension) -> None:
        check_sanitizer(self.distribution.commands)
        if MACHINE not in ISAS:
            stop(f"machine: expected one of {', '.join(ISAS)}, got {MACHINE}")
        try:
            import torch
        except ImportError:
            stop(
                "torch is needed to build; run: pip install -r requirements.txt && "
                "pip install --no-build-isolation --no-deps -e ."
            )
        cxx = os.environ.get("CXX", "g++")
        if not shutil.which(cxx):
            stop(f"the C++ compiler {cxx} was not found; install g++ (apt-get install g++) or set CXX")
        ninja = shutil.which("ninja") or str(Path(sys.executable).with_name("ninja"))
        if not Path(ninja).exists():
            stop("ninja is needed to build; run: pip install ninja")

        cuda = find_cuda()
        BUILD.mkdir(parents=True, exist_ok=True)
        write_ninja(cxx, ISAS[MACHINE], cuda)
        jobs = os.environ.get("MAX_JOBS")
        if subprocess.run([ninja, "-C", str(BUILD), *(["-j", jobs] if jobs else [])]).returncode != 0:
            stop("the build failed; the compiler's message is above")

        compiler = subprocess.run([cxx, "--version"], capture_output=True, text=True).stdout.partition("\n")[
            0
        ]
        facts = {
            "torch": torch.__version__,
            "python": platform.python_version(),
            "compiler": compiler,
            "isas": list(ISAS[MACHINE]),
            "cuda": cuda.version if cuda else None,
            "cuda_archs": cuda.archs if cuda else [],
            **({"sanitizer": SANITIZER} if SANITIZER else {}),
        }
        (BUILD / FACTS).write_text(json.dumps(facts, indent=2) + "\n")
        if SANITIZER:
            return
        target = Path(self.get_ext_fullpath(ext.name)).resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(BUILD / "_C.so", target)
        shutil.copy2(BUILD / FACTS, target.with_name(FACTS))

    def copy_extensions_to_source(self) -> None:
        """For an editable install: the compiled module goes beside the Python files, its facts with it."""
        if SANITIZER:
            return
        super().copy_extensions_to_source()
        build_py = self.get_finalized_command("build_py")
        for ext in self.extensions:
            package = ext.name.rpartition(".")[0]
            built = Path(self.build_lib, *package.split(".")) / FACTS
            shutil.copy2(built, Path(build_py.get_package_dir(package)) / FACTS)


setup(ext_modules=[Extension("cisdl_ops._C", sources=[])], cmdclass={"build_ext": NinjaBuildExt})
