"""What this machine can do at most, measured in the same process just before it is compared with.

Arithmetic: a loop of independent fused multiply-adds in registers (ours, per instruction set); on a GPU the
largest matrix product. Memory: the faster of copying and summing, for several sizes, because a small layer
lives in cache: the ceiling of a working set is the best rate of any size that is not smaller.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from cisdl.bench.timing import Clock, clock_for

SIZES = tuple(1 << power for power in range(18, 29, 2))  # bytes moved: 256 KiB ... 256 MiB
GPU_SIZES = (*SIZES, 1 << 30)  # 256 MiB are over before a GPU's memory is at its best


@dataclass(frozen=True)
class Ceilings:
    """GFLOP/s and GB/s by number of bytes moved."""

    gflops: float
    gflops_source: str
    gbytes: dict[int, float]

    def gbytes_for(self, moved: int) -> float:
        """The bandwidth that a working set of ``moved`` bytes could see."""
        fitting = [rate for size, rate in self.gbytes.items() if size >= moved]
        return max(fitting) if fitting else self.gbytes[max(self.gbytes)]

    def least_seconds(self, flops: int, moved: int) -> float:
        """No kernel that does this arithmetic and moves these bytes can be faster (the roofline)."""
        compute = flops / (self.gflops * 1e9)
        return max(compute, moved / (self.gbytes_for(moved) * 1e9))

    def bound(self, flops: int, moved: int) -> str:
        """Which of the two ceilings is the lower one: "compute" or "memory"."""
        compute = flops / (self.gflops * 1e9)
        return "compute" if compute > moved / (self.gbytes_for(moved) * 1e9) else "memory"

    def raised(self, gflops: float) -> Ceilings:
        """With another measurement of the arithmetic: the higher of the two is the ceiling."""
        return replace(self, gflops=max(self.gflops, gflops))

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def best_seconds(function: Callable[[], object], clock: Clock, calls: int, repeats: int = 7) -> float:
    clock.seconds(function, 1)
    return min(clock.seconds(function, calls) for _ in range(repeats))


def measure_bandwidth(device: torch.device, clock: Clock, size: int) -> float:
    """GB/s of the faster of a copy (size/2 read, size/2 written) and a sum (size read)."""
    source = torch.ones(size // 4, dtype=torch.float32, device=device)
    half, target = source[: size // 8], torch.empty(size // 8, dtype=torch.float32, device=device)
    calls = max(1, (16 << 20) // size)
    copy = best_seconds(lambda: target.copy_(half), clock, calls)
    read = best_seconds(source.sum, clock, calls)
    return size / min(copy, read) / 1e9


def measure_gflops(device: torch.device, dtype: torch.dtype, clock: Clock) -> tuple[float, str]:
    if device.type == "cuda":
        size = 2048 if dtype is torch.float64 else 8192
        a, b = (torch.randn(size, size, dtype=dtype, device=device) for _ in range(2))
        return 2 * size**3 / best_seconds(lambda: a @ b, clock, 1) / 1e9, f"torch.matmul of {size} x {size}"
    from cisdl_ops import _C

    gflops = _C.measure_peak_gflops(dtype is torch.float64, torch.get_num_threads())
    return gflops, "fused multiply-adds in registers"


def measure(device: torch.device, dtype: torch.dtype) -> Ceilings:
    """Both ceilings, with the number of threads torch is set to."""
    clock = clock_for(device)
    gflops, source = measure_gflops(device, dtype, clock)
    sizes = GPU_SIZES if device.type == "cuda" else SIZES
    return Ceilings(gflops, source, {size: measure_bandwidth(device, clock, size) for size in sizes})
