"""Where nvcc is installed: registers, spills, and that the machine code has the instructions that are meant.

An instruction that is missing is a kernel on a slower path: products without tensor cores, copies through
registers.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from . import assembler
from .assembler import CUOBJDUMP, NVCC, Kernel
from .build import CUDA

SOURCES = sorted(CUDA.glob("*.cu"))
MMA_SOURCES = [one for one in SOURCES if "mma" in one.name or one.stem == "linear_activation"]
REGISTERS = 65536  # of a multiprocessor
THREADS = 256
ALLOWED_SPILL = 16  # bytes a thread: a value or two, put away outside the inner loop; none with tensor cores

needs_nvcc = pytest.mark.skipif(NVCC is None, reason="nvcc is not installed")
needs_cuobjdump = pytest.mark.skipif(
    CUOBJDUMP is None, reason="cuobjdump is not installed (pip: nvidia-cuda-cuobjdump, nvidia-cuda-nvdisasm)"
)


def _least_blocks(kernel: Kernel) -> int:
    """How many blocks shall fit on a multiprocessor, as __launch_bounds__ has it."""
    return 2 if "gemm_kernel" in kernel.name and "Id" not in kernel.name else 1


@needs_nvcc
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_registers(source: Path) -> None:
    """No kernel spills worth mentioning; two blocks of every product in float or shorter run side by side."""
    kernels = assembler.kernels(source)
    assert kernels
    allowed = 0 if source in MMA_SOURCES else ALLOWED_SPILL
    assert not [kernel for kernel in kernels if kernel.spilled > allowed]
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
