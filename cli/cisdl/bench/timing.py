"""Clocks, and rounds in which the competitors take turns."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Protocol

import torch

from cisdl.bench.statistics import quartiles
from cisdl.errors import DeviceError

Function = Callable[[], object]


@dataclass(frozen=True)
class Effort:
    """How long to measure: seconds for one comparison, the length of one sample, bounds on the rounds."""

    budget: float = 1.0
    sample: float = 2e-3
    least_rounds: int = 11
    most_rounds: int = 60


QUICK = Effort(budget=0.25, sample=1e-3, least_rounds=9, most_rounds=25)


CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
USUAL_CACHE = 64 << 20
"""Bytes of the last-level cache where the system does not tell."""
SIZES_OF_CACHE = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class Clock(Protocol):
    """Measures how long a function takes."""

    beside: float
    """Seconds that a call costs besides what is measured."""

    def seconds(self, function: Function, calls: int) -> float:
        """Seconds for one call, averaged over ``calls``."""
        ...


class CpuClock:
    """Wall time of calls one after the other."""

    beside = 0.0

    def seconds(self, function: Function, calls: int) -> float:
        start = perf_counter()
        for _ in range(calls):
            function()
        return (perf_counter() - start) / calls


class ColdClock:
    """Wall time of calls that find nothing in the CPU's caches.

    Before each call a buffer larger than the last-level cache is read from end to end by every thread that
    torch uses; that is not timed. What the call works on has then to come from memory.
    """

    def __init__(self) -> None:
        try:
            # Ones, not zeros: pages that nobody wrote are all the same one, and that stays in the cache.
            self._buffer = torch.ones(swept_bytes() // 8, dtype=torch.int64)
        except RuntimeError as error:
            raise DeviceError(
                f"--cache cold: expected {swept_bytes() >> 20} MiB of free memory to sweep the caches with, "
                "got less; use --cache hot"
            ) from error
        self.sweep()
        start = perf_counter()
        self.sweep()
        self.beside = perf_counter() - start

    def sweep(self) -> None:
        self._buffer.sum()

    def seconds(self, function: Function, calls: int) -> float:
        total = 0.0
        for _ in range(calls):
            self.sweep()
            start = perf_counter()
            function()
            total += perf_counter() - start
        return total / calls


def swept_bytes() -> int:
    """Half as much again as the largest cache that the system tells of."""
    sizes = []
    for path in CACHES.glob("index*/size"):
        with suppress(OSError, ValueError, KeyError, IndexError):
            text = path.read_text().strip()
            sizes.append(int(text[:-1]) * SIZES_OF_CACHE[text[-1]])
    return 3 * (max(sizes, default=0) or USUAL_CACHE) // 2


class CudaClock:
    """CUDA events around each call, the L2 cache overwritten before it, synchronised at the end.

    The device is busy with the overwriting while the host enqueues the call, so launch cost is not counted.
    """

    beside = 0.0

    def __init__(self, device: torch.device) -> None:
        cache = getattr(torch.cuda.get_device_properties(device), "L2_cache_size", 0) or 64 << 20
        self._scratch = torch.empty(4 * cache, dtype=torch.uint8, device=device)
        self._device = device

    def seconds(self, function: Function, calls: int) -> float:
        pairs = []
        for _ in range(calls):
            start, end = timing_event(), timing_event()
            self._scratch.zero_()
            start.record()
            function()
            end.record()
            pairs.append((start, end))
        torch.cuda.synchronize(self._device)
        total: float = sum(start.elapsed_time(end) for start, end in pairs)
        return total * 1e-3 / calls


def timing_event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


def clock_for(device: torch.device, cache: str = "hot") -> Clock:
    """Of a GPU always the one that overwrites the cache before each call."""
    if device.type == "cuda":
        return CudaClock(device)
    return ColdClock() if cache == "cold" else CpuClock()


@dataclass(frozen=True)
class Timing:
    """Seconds per call of one competitor, one entry a round."""

    provider: str  # "ours", "torch" or "compiled"
    layout: str
    seconds: list[float]

    @property
    def median(self) -> float:
        return quartiles(self.seconds)[1]


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def interleave(functions: Sequence[Function], clock: Clock, effort: Effort) -> list[list[float]]:
    """Seconds per call of each function, one list a function, one entry a round.

    In a round each function runs once for about ``effort.sample`` seconds, in an order that turns from round
    to round, so drift of the clock frequency and noise of neighbours fall on all of them alike.
    """
    with no_garbage_collection():
        calls = []
        expected = 0.0
        for function in functions:
            clock.seconds(function, 1)  # warm up: caches, allocators, lazily chosen algorithms
            once = max(min(clock.seconds(function, 1), clock.seconds(function, 1)), 1e-7)
            calls.append(max(1, math.ceil(effort.sample / (once + clock.beside))))
            expected += calls[-1] * (once + clock.beside)
        rounds = min(max(round(effort.budget / expected), effort.least_rounds), effort.most_rounds)
        samples: list[list[float]] = [[] for _ in functions]
        for i in range(rounds):
            order = [(i // 2 + j) % len(functions) for j in range(len(functions))]
            for which in reversed(order) if i % 2 else order:
                samples[which].append(clock.seconds(functions[which], calls[which]))
    return samples
