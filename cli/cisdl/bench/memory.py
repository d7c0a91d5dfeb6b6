"""Peak memory of a case, ours beside torch's.

Each measurement runs in a child forked from a process that has not run a kernel yet: no allocator has kept
pages and no library has its buffers. The child runs a tiny case of the same op first, so that the code of the
kernels is in memory; what its resident set then grows by, up to its highest point, is what the layer takes.
Linux tells that highest point (VmHWM in /proc/self/status) and lets a process reset it.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cisdl.errors import CisdlError
from cisdl_ops.cases import Case, Function, op_of, select

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
STATUS = Path("/proc/self/status")
RESET = Path("/proc/self/clear_refs")
RESET_HIGHEST = "5"
PAUSE_SECONDS = 120.0


@dataclass(frozen=True)
class Peak:
    """Bytes that a case takes at its highest point: tensors, gradients and everything in between."""

    case: str
    layout: str
    tensors: int  # inputs, outputs and all their gradients: no implementation takes less
    ours: int
    torch: int

    @property
    def ratio(self) -> float:
        return self.ours / self.torch

    def as_json(self) -> dict[str, Any]:
        return {
            "case": self.case,
            "layout": self.layout,
            "tensor_bytes": self.tensors,
            "ours_bytes": self.ours,
            "torch_bytes": self.torch,
        }


def measurable() -> bool:
    """Whether this system tells the highest point of a process's memory."""
    return STATUS.exists() and RESET.exists()


def resident(name: str) -> int:
    """VmRSS (now) or VmHWM (highest) of this process, in bytes."""
    found = re.search(rf"^{name}:\s+(\d+) kB$", STATUS.read_text(), re.MULTILINE)
    if not found:
        raise CisdlError(f"{STATUS}: expected a line {name}, found none; use a Linux that tells it")
    return int(found[1]) * 1024


def train_once(case: Case, function: Function, tensors: Mapping[str, Tensor]) -> None:
    """Forward and backward into every gradient."""
    outputs = [output for output in case.call(function, tensors) if output.requires_grad]
    torch.autograd.backward(outputs, [torch.ones_like(output) for output in outputs])


def grown_by(case: Case, function: Function, layout: str, dtype: torch.dtype, threads: int) -> int:
    """Bytes from before the tensors exist to the highest point of one forward and backward."""
    torch.set_num_threads(threads)
    wanted = op_of(case).differentiable
    tiny = next(one for one in [*select("grad"), *select("tiny")] if one.op == case.op)
    train_once(tiny, function, tiny.inputs(dtype, memory_format=LAYOUTS[layout], requires_grad=wanted))
    with suppress(AttributeError):  # memory that was freed but kept would be free for the case
        ctypes.CDLL(None).malloc_trim(0)
    before = resident("VmRSS")
    tensors = case.inputs(dtype, memory_format=LAYOUTS[layout], requires_grad=wanted)
    RESET.write_text(RESET_HIGHEST)  # making the tensors took more for a moment
    train_once(case, function, tensors)
    return resident("VmHWM") - before


def _child(
    pipe: Any, case: Case, function: Function, layout: str, dtype: torch.dtype, threads: int
) -> None:  # pragma: no cover  (runs in a child)
    pipe.send(grown_by(case, function, layout, dtype, threads))
    pipe.close()


def in_a_child(case: Case, function: Function, layout: str, dtype: torch.dtype, threads: int) -> int:
    """`grown_by` in a forked child.

    Raises:
        CisdlError: the child died or did not answer, for want of memory most likely.
    """
    context = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(sending, case, function, layout, dtype, threads))
    child.start()
    sending.close()
    try:
        if not receiving.poll(PAUSE_SECONDS):
            raise CisdlError(
                f"{case.id}: measuring its memory took over {PAUSE_SECONDS:.0f} s; "
                "choose smaller cases by GLOB"
            )
        grown: int = receiving.recv()
    except EOFError as error:
        raise CisdlError(
            f"{case.id}: the process that measured its memory died; choose smaller cases by GLOB"
        ) from error
    finally:
        child.kill()
        child.join()
    return grown


def measure(case: Case, dtype: torch.dtype, threads: int) -> Iterator[Peak]:
    """One peak a layout."""
    op = op_of(case)
    # A gradient for every tensor; the output's own is what backward is given.
    tensors = 2 * case.bytes(dtype.itemsize)
    for layout in LAYOUTS if op.images else ["contiguous"]:
        ours, theirs = (in_a_child(case, one, layout, dtype, threads) for one in (op.ours, op.torch))
        yield Peak(case.id, layout, tensors, ours, theirs)
