"""What was built, what runs, and how to force another implementation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cisdl_ops._load import _C, facts


def build_info() -> dict[str, Any]:
    """Facts about the compiled module.

    Returns:
        A dict: ``isa`` in use (``CISDL_ISA`` forces one), ``isas`` built, ``isas_supported`` by this CPU,
        ``torch`` it was built for, ``compiler``, ``cuda`` (nvcc's version, or None for a CPU build),
        ``cuda_archs``.
    """
    return {"isa": _C.isa(), "isas_supported": _C.isas_supported(), **facts}


def op_names() -> list[str]:
    """The ops that have a list of implementations, e.g. ``conv2d_backward_input``."""
    return list(_C.op_names())


def implementations(op: str) -> list[str]:
    """The CPU implementations of ``op``, in the order in which they are tried; the last takes everything.

    Raises:
        ValueError: ``op`` is not one of :func:`op_names`.
    """
    return list(_C.implementations(op))


def last_implementation(op: str) -> str:
    """The implementation that the latest call of ``op`` ran, on any thread; ``""`` if there was none.

    Raises:
        ValueError: ``op`` is not one of :func:`op_names`.
    """
    return str(_C.last_implementation(op))


@contextmanager
def force_implementation(op: str, name: str) -> Iterator[None]:
    """Runs the block with one implementation of ``op``; a problem that it cannot take is an error.

    Besides those that :func:`implementations` lists for the CPU, matrix products and convolutions on a GPU
    know ``cuda_hopper``, ``cuda_mma`` (tensor cores, with and without the instructions of compute capability
    9.0) and ``cuda``. The force holds for all threads of the process.

    ``CISDL_IMPL=conv2d:plain,linear:dot`` in the environment does the same for a whole process.

    Raises:
        ValueError: an unknown op or implementation.
    """
    before = _C.forced_implementation(op)
    _C.force_implementation(op, name)
    try:
        yield
    finally:
        _C.force_implementation(op, before)
