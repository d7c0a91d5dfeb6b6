"""Who may know whom: the command the library, the library the compiled module, the kernels nobody."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def imported(path: Path) -> set[str]:
    """Top-level names of the modules that a Python file imports, at any depth of its code."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


def included(path: Path) -> list[str]:
    return re.findall(r'^\s*#\s*include\s*[<"]([^>"]+)', path.read_text(), re.MULTILINE)


LIBRARY = sorted((ROOT / "cisdl_ops").rglob("*.py"))
KERNELS = sorted(
    p for folder in ("common", "cpu", "cuda") for p in (ROOT / "csrc" / folder).iterdir() if p.is_file()
)


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: p.name)
def test_library_does_not_know_the_command(path: Path) -> None:
    assert not imported(path) & {"cisdl", "click", "rich", "matplotlib", "sklearn"}


@pytest.mark.parametrize("path", KERNELS, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_kernels_do_not_know_torch(path: Path) -> None:
    bad = [name for name in included(path) if name.startswith(("torch", "ATen", "c10", "pybind11"))]
    assert bad == []


@pytest.mark.parametrize(
    "path", sorted((ROOT / "csrc").rglob("*.c*")), ids=lambda p: f"{p.parent.name}/{p.name}"
)
def test_no_arithmetic_of_torch_in_the_kernels(path: Path) -> None:
    """The convolution, matrix product, pooling and recurrent cells are ours, not a call of torch's."""
    found = re.findall(
        r"\bat::(?:native::)?(\w*(?:conv|mm|matmul|linear|pool|lstm|gru|einsum|bmm|addmv|dot)\w*)\s*\(",
        path.read_text(),
    )
    assert found == []


def test_no_cuda_library_is_linked() -> None:
    setup = (ROOT / "setup.py").read_text()
    assert not re.findall(r"-l(?:cublas|cudnn|mkl)", setup)


# Loads and stores under a mask, gathers and scatters.
MASKED = (
    r"_mm\d*_(?:mask\w*_(?:\w*store\w*|\w*load\w*)|maskload\w*|maskstore\w*|\w*gather\w*|\w*scatter\w*)\s*\("
)
CPU = sorted((ROOT / "csrc" / "cpu").iterdir())


def untold(text: str) -> list[str]:
    """Lines with a masked access, but no word to the sanitizer in the lines before."""
    lines = text.splitlines()
    return [
        line
        for i, line in enumerate(lines)
        if re.search(MASKED, line)
        and not any(re.search(r"\b(?:reads|writes)\(", before) for before in lines[max(0, i - 14) : i])
    ]


@pytest.mark.parametrize("path", CPU, ids=lambda p: p.name)
def test_the_sanitizers_are_told_of_masked_accesses(path: Path) -> None:
    """They do not see them by themselves (csrc/cpu/sanitizer.h)."""
    assert untold(path.read_text()) == []


def test_notices_a_masked_access() -> None:
    assert untold("_mm512_mask_storeu_ps(p, mask, v);") != []
    assert untold("x = _mm256_maskload_ps(p, mask);") != []
    assert untold("writes(p, n);\n_mm512_mask_cvtepi32_storeu_epi8(p, mask, v);") == []
