"""Where nvcc is installed: registers, spills, and that the machine code has the instructions that are meant.

An instruction that is missing is a kernel on a slower path: products without tensor cores, copies through
registers.
"""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

from . import assembler
from .assembler import CUOBJDUMP, NVCC, Kernel
from .build import CUDA, ROOT

HOPPER = CUDA / "hopper_gemm.cu"
# All but those that have nothing for a GPU.
SOURCES = sorted(path for path in CUDA.glob("*.cu") if not path.stem.endswith("_hopper"))
MMA_SOURCES = [one for one in SOURCES if "mma" in one.name or one.stem == "linear_activation"]
RECURRENCE = CUDA / "recurrence.cu"
REGISTERS = 65536  # of a multiprocessor
THREADS = 256
ALLOWED_SPILL = 16  # bytes a thread: a value or two, put away outside the inner loop; none with tensor cores
SPLIT_FLOATS_SPILL = 64  # where a recurrence's weights of 768 float32 units fill the registers

needs_nvcc = pytest.mark.skipif(NVCC is None, reason="nvcc is not installed")
needs_cuobjdump = pytest.mark.skipif(
    CUOBJDUMP is None, reason="cuobjdump is not installed (pip: nvidia-cuda-cuobjdump, nvidia-cuda-nvdisasm)"
)


def _least_blocks(kernel: Kernel) -> int:
    """How many blocks shall fit on a multiprocessor, as __launch_bounds__ has it."""
    return (
        2 if "gemm_kernel" in kernel.name and "hopper" not in kernel.name and "Id" not in kernel.name else 1
    )


@needs_nvcc
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_registers(source: Path) -> None:
    """No kernel spills worth mentioning; two blocks of every product in float or shorter run side by side."""
    kernels = assembler.kernels(source)
    assert kernels

    def allowed(kernel: Kernel) -> int:
        if source == RECURRENCE and "IfE" in kernel.name and "backward" in kernel.name:
            return SPLIT_FLOATS_SPILL
        return 0 if source in (*MMA_SOURCES, HOPPER, RECURRENCE) else ALLOWED_SPILL

    assert not [kernel for kernel in kernels if kernel.spilled > allowed(kernel)]
    crowded = [one for one in kernels if one.registers * THREADS * _least_blocks(one) > REGISTERS]
    assert not crowded


@needs_nvcc
@needs_cuobjdump
@pytest.mark.parametrize("source", MMA_SOURCES, ids=lambda path: path.stem)
def test_tensor_core_instructions(source: Path) -> None:
    """mma.sync of the type meant (HMMA), 16-byte cp.async (LDGSTS), ldmatrix (LDSM), no local memory."""
    products = {name: code for name, code in assembler.instructions(source).items() if "mma_gemm" in name}
    assert products
    for name, code in products.items():
        kind = "BF16" if "BFloat16" in name else "F32" if "Float16" in name else "TF32"
        assert any(one.startswith("HMMA.") and one.endswith(f".{kind}") for one in code), name
        assert any(one.startswith("LDGSTS.") and ".128" in one for one in code), name
        reads_floats_one_by_one = kind == "TF32" and "weight" in source.name
        if kind != "TF32" or not ("Lb0E" in name or reads_floats_one_by_one):
            assert any(one.startswith("LDSM.") for one in code), name
        with_functions = (
            "CellEpilogue" in name or "ActivationEpilogue" in name
        )  # exponentials behind the product
        wrong = ("LDL", "STL") if with_functions else ("LDL", "STL", "FFMA")
        assert not [one for one in code if one.startswith(wrong)], name


@needs_nvcc
def test_products_of_a_warpgroup_overlap() -> None:
    """The assembler says so where it has to wait for each product before the next (C7510 and its like)."""
    report = assembler.compiled(HOPPER).with_suffix(".txt").read_text()
    assert "wgmma" not in report, report


@needs_nvcc
@needs_cuobjdump
def test_hopper_instructions() -> None:
    """wgmma of the type meant (HGMMA), the copy engine for boxes and images (UTMALDG), mbarriers (SYNCS).

    And none of the instructions that they replace.
    """
    products = {name: code for name, code in assembler.instructions(HOPPER).items() if "gemm_kernel" in name}
    assert len(products) == 12
    for name, code in products.items():
        columns = "64x256x16" if "Li256E" in name else "64x128x16"
        kind = ["BF16"] if "BFloat16" in name else []
        assert any(one.startswith(f"HGMMA.{columns}.F32") and one.split(".")[3:] == kind for one in code), (
            name
        )
        for instruction in ("UTMALDG.3D", "UTMALDG.4D.IM2COL", "SYNCS.PHASECHK", "SYNCS.ARRIVE"):
            assert any(one.startswith(instruction) for one in code), (name, instruction)
        assert not [one for one in code if one.startswith(("LDL", "STL", "HMMA", "LDSM", "LDGSTS", "LDS"))], (
            name
        )


@needs_nvcc
@needs_cuobjdump
def test_recurrence_instructions() -> None:
    """mma.sync of the type meant; the state read by 16 bytes past the L1 cache; no fence."""
    for name, code in assembler.instructions(RECURRENCE).items():
        kind = "BF16" if "BFloat16" in name else "F32" if "Float16" in name else "TF32"
        assert any(one.startswith("HMMA.") and one.endswith(f".{kind}") for one in code), name
        for kept_coherent, size in (("LD", ".128"), ("ST", "" if kind == "TF32" else ".U16")):
            strong = [one for one in code if one.startswith(kept_coherent) and ".STRONG.GPU" in one]
            assert any(size in one for one in strong), name
        assert not [one for one in code if one.startswith(("MEMBAR", "ATOM", "RED."))], name
        if kind != "TF32":
            assert not [one for one in code if one.startswith(("LDL", "STL"))], name


@needs_nvcc
@needs_cuobjdump
def test_float32_stays_float32() -> None:
    """The products of who does not allow TF32 are fused multiply-adds of float."""
    products = {
        name: code
        for name, code in assembler.instructions(CUDA / "linear.cu").items()
        if "gemm_kernel" in name
    }
    assert products
    for name, code in products.items():
        wanted = "DFMA" if "Id" in name else "FFMA"
        assert wanted in code, name
        assert not [one for one in code if one.startswith(("HMMA", "DMMA"))], name


@needs_nvcc
@needs_cuobjdump
@pytest.mark.parametrize(
    ("source", "kernels"),
    [
        ("pool2d", ("max_pool2d_kernel", "avg_pool2d_kernel", "pool2d_backward_kernel")),
        ("cross_entropy", ("backward_kernel",)),
        ("optimizer", ("optimizer_kernel",)),
    ],
)
def test_wide_accesses(source: str, kernels: tuple[str, ...]) -> None:
    """A thread's 16 bytes are one instruction, read and written."""
    found = assembler.instructions(CUDA / f"{source}.cu")
    wide = ("Li8E", "Li4E") if source == "pool2d" else ("Li4E", "optimizer")  # a kernel's lanes
    several = {
        name: code
        for name, code in found.items()
        if any(one in name for one in kernels) and any(one in name for one in wide) and "Li1ELi4E" not in name
    }
    assert several
    for name, code in several.items():
        assert any(one.startswith("LDG.E.128") for one in code), name
        assert any(one.startswith("STG.E.128") for one in code), name


def _same_ptx() -> dict[str, str]:
    """Which architectures setup.py builds from the PTX of which other one."""
    found = re.search(r"^SAME_PTX = (\{.*\})$", (ROOT / "setup.py").read_text(), re.MULTILINE)
    assert found
    return {str(key): str(value) for key, value in ast.literal_eval(found[1]).items()}


@needs_nvcc
@pytest.mark.parametrize(("arch", "other"), _same_ptx().items())
def test_ptx_of_another_architecture_is_the_same(arch: str, other: str) -> None:
    """All but the line that names the architecture."""
    known = subprocess.run([str(NVCC), "--list-gpu-arch"], capture_output=True, text=True).stdout.split()
    if not {f"compute_{arch}", f"compute_{other}"} <= {*known}:
        pytest.skip("this nvcc does not know both")
    source = CUDA / "linear.cu"
    mine, others = (assembler.ptx(source, one).replace(f"sm_{one}", "sm") for one in (arch, other))
    assert mine == others


def test_no_kernel_asks_for_an_architecture_that_has_none_of_its_own() -> None:
    """What asks for more than 8.0 may find no PTX compiled for it: setup.py needs a rule for such a file."""
    asked = {
        (path.name, line)
        for path in [*CUDA.glob("*.cu*"), *CUDA.glob("*.h")]
        for line in re.findall(r"^.*__CUDA_ARCH__ *[<>=!].*$", path.read_text(), re.MULTILINE)
    }
    assert asked
    assert not [one for one in asked if "__CUDA_ARCH__ < 800" not in one[1]]
