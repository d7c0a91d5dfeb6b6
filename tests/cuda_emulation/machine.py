"""The emulated GPU as Python sees it: settings, memory, and running a problem of csrc/common/problems.h."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

Number = int | bool


# What emulation_run calls the number types: those from 2 on are for tensor cores.
KINDS = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}
TF32 = 4
HOPPER = {torch.bfloat16: 5, torch.float16: 6}  # on those of compute capability 9.0


def bits(number: float) -> int:
    """A real number among a problem's integers."""
    [as_integer] = struct.unpack("q", struct.pack("d", number))
    return int(as_integer)


class EmulationError(RuntimeError):
    """A launch that failed: the emulator noticed something."""


class NotForTensorCores(EmulationError):
    """The launcher says so itself: another kernel has to take this problem."""


@dataclass(frozen=True)
class Order:
    """In which order the threads of a block, and the blocks, run; and how many blocks a grid has at most."""

    name: str
    code: int
    seed: int = 0
    max_blocks: int = 0  # 0: as many as the launch asks for


# The last two leave so few blocks that each has to walk through several pieces of work.
ORDERS = (
    Order("forward", 0),
    Order("reverse", 1, max_blocks=1),
    Order("shuffled", 2, seed=20, max_blocks=2),
)


def _flat(tensor: Tensor, channels_last: bool) -> Tensor:
    """The elements in the order in which they lie in memory."""
    return (tensor.permute(0, 2, 3, 1) if channels_last and tensor.dim() == 4 else tensor).reshape(-1)


class Machine:
    def __init__(self, library: Path) -> None:
        self._lib = ctypes.CDLL(str(library))
        for name in ("run", "faulty", "barriers", "bounds_checks"):
            getattr(self._lib, f"emulation_{name}").restype = ctypes.c_char_p
        self._lib.emulation_allocate.restype = ctypes.c_void_p
        self._lib.emulation_free.restype = ctypes.c_size_t
        self.configure(ORDERS[0])
        self.on_tensor_cores = 0  # how many problems ran there
        self.on_hopper = 0  # and of them, on those of compute capability 9.0

    def configure(self, order: Order) -> None:
        seed, max_blocks = ctypes.c_uint64(order.seed), ctypes.c_int64(order.max_blocks)
        self._lib.emulation_configure(order.code, seed, max_blocks)

    @staticmethod
    def _places(text: bytes) -> list[tuple[str, int]]:
        lines = (line.rpartition(":") for line in text.decode().split())
        return [(file, int(line)) for file, _, line in lines]

    def barriers(self) -> list[tuple[str, int]]:
        """Every barrier, and wait for asynchronous copies, reached so far: file and line."""
        return self._places(self._lib.emulation_barriers())

    def bounds_checks(self) -> list[tuple[str, int]]:
        """Every bounds check (CISDL_INSIDE) reached so far: file and line."""
        return self._places(self._lib.emulation_bounds_checks())

    @contextmanager
    def without_bounds_check(self, number: int) -> Iterator[None]:
        """The check at this index of ``bounds_checks`` is taken for true."""
        self._lib.emulation_skip_bounds_check(number)
        try:
            yield
        finally:
            self._lib.emulation_skip_bounds_check(-1)

    @contextmanager
    def without_barrier(self, file: str, line: int) -> Iterator[None]:
        self._lib.emulation_skip_barrier(file.encode(), line)
        try:
            yield
        finally:
            self._lib.emulation_skip_barrier(b"", 0)

    @contextmanager
    def _memory(
        self, tensor: Tensor, channels_last: bool, filled: bool, read_only: bool
    ) -> Iterator[tuple[int, Tensor]]:
        """Device memory for ``tensor``: its address and, for its flat elements, a tensor that looks at it."""
        size = tensor.numel() * tensor.element_size()
        address = self._lib.emulation_allocate(ctypes.c_size_t(size))
        try:
            if size:
                view = torch.frombuffer((ctypes.c_char * size).from_address(address), dtype=tensor.dtype)
            else:
                view = tensor.reshape(-1)
            if filled:
                view.copy_(_flat(tensor.detach(), channels_last))
            if read_only:
                self._lib.emulation_make_read_only(ctypes.c_void_p(address))
            yield address, view
        finally:
            overrun = self._lib.emulation_free(ctypes.c_void_p(address))
        if overrun:
            raise EmulationError(f"bad address: written {overrun} bytes before an allocation of {size} bytes")

    def run(
        self,
        problem: str,
        numbers: Sequence[Number],
        inputs: Sequence[Tensor | None],
        outputs: Sequence[Tensor | None],
        channels_last: bool = False,
        updated: Sequence[Tensor] = (),
        tf32: bool = False,
        hopper: bool = False,
        behind: Sequence[Tensor] = (),
        dtype: torch.dtype | None = None,
    ) -> None:
        """Runs a problem: its numbers, then its tensors, in the order of its struct; None is a null pointer.

        Inputs are read-only for the kernel. ``updated``, which come after the inputs, it may read and write.
        Outputs hold NaN until it writes them. Both are changed in place. ``behind`` are inputs that come
        after the outputs in the struct; ``dtype`` is the problem's, by default that of its first tensor.
        Products in bfloat16, float16 and, with ``tf32``, float32 run on tensor cores (``hopper``: on its
        own); `NotForTensorCores` if they cannot.
        """
        if dtype is None:
            dtype = next(tensor.dtype for tensor in (*inputs, *updated, *outputs) if tensor is not None)
        kind = HOPPER[dtype] if hopper else TF32 if tf32 else KINDS[dtype]
        tensors = [(tensor, True, True) for tensor in inputs]
        tensors += [(tensor, True, False) for tensor in updated]
        tensors += [(tensor, False, False) for tensor in outputs]
        tensors += [(tensor, True, True) for tensor in behind]
        with ExitStack() as stack:
            addresses: list[int | None] = []
            views: list[tuple[Tensor, Tensor]] = []
            for tensor, filled, read_only in tensors:
                if tensor is None:
                    addresses.append(None)
                    continue
                address, view = stack.enter_context(self._memory(tensor, channels_last, filled, read_only))
                addresses.append(address)
                if not read_only:
                    views.append((tensor, view))
            error = self._lib.emulation_run(
                problem.encode(),
                ctypes.c_int(kind),
                (ctypes.c_int64 * len(numbers))(*map(int, numbers)),
                (ctypes.c_void_p * len(addresses))(*addresses),
            )
            if error == b"not for tensor cores":
                raise NotForTensorCores(problem)
            if error:
                raise EmulationError(f"{problem}: {error.decode()}")
            self.on_tensor_cores += kind > KINDS[torch.float64]
            self.on_hopper += hopper
            for tensor, view in views:
                if channels_last and tensor.dim() == 4:
                    n, c, h, w = tensor.shape
                    tensor.copy_(view.view(n, h, w, c).permute(0, 3, 1, 2))
                else:
                    tensor.copy_(view.view(tensor.shape))

    def run_faulty(self, fault: str, numbers: Tensor, claimed: int | None = None) -> Tensor:
        """A kernel of faulty.cu on a flat tensor; it is told that there are ``claimed`` elements."""
        output = torch.empty_like(numbers)
        with ExitStack() as stack:
            source, _ = stack.enter_context(self._memory(numbers, False, True, True))
            target, view = stack.enter_context(self._memory(output, False, False, False))
            error = self._lib.emulation_faulty(
                fault.encode(),
                ctypes.c_void_p(source),
                ctypes.c_void_p(target),
                ctypes.c_int64(claimed or numbers.numel()),
            )
            output.copy_(view)
        if error:
            raise EmulationError(f"{fault}: {error.decode()}")
        return output
