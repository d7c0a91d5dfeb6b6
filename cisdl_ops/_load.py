"""Loads the compiled module, or says in one sentence why it cannot and which command mends it.

``CISDL_BUILD`` in the environment names another folder that holds a compiled module and its ``_build.json``,
e.g. ``build/address``, which ``CISDL_SANITIZE=address python setup.py build_ext`` makes.
"""

from __future__ import annotations

import json
import os
import struct
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import torch

import cisdl_ops

REBUILD = "pip install --no-build-isolation --no-deps -e ."
_HERE = Path(__file__).parent


def read_build_facts(folder: Path = _HERE) -> dict[str, Any]:
    """What setup.py wrote beside the compiled module: torch, compiler, isas, cuda, cuda_archs.

    Raises:
        ImportError: nothing has been built there.
    """
    try:
        facts: dict[str, Any] = dict(json.loads((folder / "_build.json").read_text()))
    except FileNotFoundError:
        raise ImportError(
            f"cisdl_ops is not built: expected compiled kernels in {folder}, found none; "
            f"run in the project's folder: {REBUILD}"
        ) from None
    except (TypeError, ValueError) as error:
        raise ImportError(f"cisdl_ops: {folder / '_build.json'} is damaged ({error}); {_rebuild()}") from None
    return facts


def check_torch(built_for: str, running: str) -> None:
    """A compiled module fits one torch release only: its C++ interface changes between them.

    Raises:
        ImportError: the build was made for another torch.
    """
    if built_for != running:
        raise ImportError(
            f"cisdl_ops was built for torch {built_for} but torch {running} is installed; {_rebuild()}"
        )


def find_module(folder: Path) -> Path:
    """The compiled module in ``folder``, whole.

    Raises:
        ImportError: it is missing, or ends too early: loading it would end the process with a bus error.
    """
    names = [f"_C{suffix}" for suffix in EXTENSION_SUFFIXES]
    module = next((folder / name for name in names if (folder / name).exists()), None)
    if module is None:
        raise ImportError(
            f"cisdl_ops: expected a compiled module ({', '.join(names)}) in {folder}, found none; "
            f"{_rebuild()}"
        )
    if _is_cut_off(module):
        raise ImportError(f"cisdl_ops: the compiled module {module} is cut off; {_rebuild()}")
    return module


def _rebuild() -> str:
    return f"rebuild it in the project's folder: {REBUILD}"


def _is_cut_off(module: Path) -> bool:
    """Whether an ELF file is shorter than its segments, which its program headers list at its beginning."""
    with module.open("rb") as file:
        head = file.read(64)
        if not head.startswith(b"\x7fELF"):
            return False  # another format: the loader knows it, or says that it does not
        if len(head) < 64:
            return True
        (at,), (size, count) = struct.unpack_from("<Q", head, 32), struct.unpack_from("<HH", head, 54)
        file.seek(at)
        table = file.read(size * count)
        ends: list[int] = [
            sum(struct.unpack_from("<Q16xQ", table, i * size + 8)) for i in range(len(table) // size)
        ]
    return len(ends) < count or module.stat().st_size < max(ends)


def _load() -> dict[str, Any]:
    """Imports ``cisdl_ops._C`` and returns the facts about it.

    Raises:
        ImportError: it is missing, was built for another torch, or cannot be loaded.
    """
    folder = Path(os.environ.get("CISDL_BUILD") or _HERE).resolve()
    facts = read_build_facts(folder)
    check_torch(facts.get("torch", "of an unknown version"), torch.__version__)
    find_module(folder)
    if folder != _HERE:
        cisdl_ops.__path__.insert(0, str(folder))  # where `from cisdl_ops import _C` looks first
    try:
        from cisdl_ops import _C as _C
    except ImportError as error:
        if error.path is None:  # it was loaded and said no itself: a wrong CISDL_ISA or CISDL_IMPL
            raise
        raise ImportError(f"cisdl_ops: its compiled module does not load ({error}); {_rebuild()}") from None
    return facts


facts = _load()
from cisdl_ops import _C as _C  # noqa: E402
