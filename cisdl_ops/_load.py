"""Loads the compiled module, or says in one sentence why it cannot and which command mends it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

REBUILD = "pip install --no-build-isolation --no-deps -e ."
_HERE = Path(__file__).parent


def read_build_facts(folder: Path = _HERE) -> dict[str, Any]:
    """What setup.py wrote beside the compiled module: torch, compiler, isas, cuda, cuda_archs.

    Raises:
        ImportError: nothing has been built there.
    """
    try:
        facts: dict[str, Any] = json.loads((folder / "_build.json").read_text())
    except FileNotFoundError:
        raise ImportError(
            f"cisdl_ops is not built: expected compiled kernels in {folder}, found none; "
            f"run in the project's folder: {REBUILD}"
        ) from None
    return facts


def check_torch(built_for: str, running: str) -> None:
    """A compiled module fits one torch release only: its C++ interface changes between them.

    Raises:
        ImportError: the build was made for another torch.
    """
    if built_for != running:
        raise ImportError(
            f"cisdl_ops was built for torch {built_for} but torch {running} is installed; "
            f"rebuild it in the project's folder: {REBUILD}"
        )


facts = read_build_facts()
check_torch(facts["torch"], torch.__version__)
from cisdl_ops import _C as _C  # noqa: E402  after the checks: it would fail in a raw `undefined symbol`
