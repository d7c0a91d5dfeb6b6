"""Writes the table of floors in docs/cuda.md: what each pass costs at least on a GPU of known rates.

    python benchmarks/cuda_floors.py

Operations and bytes come from the case table (`Case.flops`, `Case.bytes`); the rates are a vendor's, of the
data sheet named below. Nothing here is measured: a floor is the time that no kernel can be below, and the
larger of the two quotients says whether arithmetic or memory is behind it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import torch

from cisdl_ops.cases import WORD_VECTORS, Case, Pass, op_of, select
from cisdl_ops.cases.layers import layer_case

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "cuda.md"
SECTION = re.compile(r"<!-- floors -->\n.*?<!-- end of floors -->", re.DOTALL)

SOURCE = "NVIDIA's data sheet of the H200 SXM, without sparsity"
BYTES_A_SECOND = 4.8e12
OPERATIONS_A_SECOND = {torch.float32: 67e12, torch.bfloat16: 989e12}
CACHE = 50 << 20  # bytes of L2 of that chip: smaller work can be faster than its memory floor


# Too long for the case table, whose cases run on every machine: many steps of few rows.
STEPS = 1024
LONG_LAYER = layer_case("lstm_layer", "bench", f"h768_b16_t{STEPS}", STEPS, 16, 768)


def passes(case: Case) -> Iterator[Pass]:
    """The forward and each pass of the backward, without an input gradient that nobody asks for."""
    yield Pass("forward", ())
    for part in op_of(case).passes:
        if not ("first" in case.tags and part.wrt == ("input",)):
            yield part


def floor(operations: int, moved: int, dtype: torch.dtype) -> tuple[float, str]:
    """Seconds, and what is behind them."""
    arithmetic, memory = operations / OPERATIONS_A_SECOND[dtype], moved / BYTES_A_SECOND
    return max((arithmetic, "arithmetic"), (memory, "memory"))


def lines() -> Iterator[str]:
    names = ["case", "pass", "Mflop", "MB in float32"]
    names += [f"floor in {name}, us | behind it" for name in ("float32", "bfloat16")]
    yield f"| {' | '.join(names)} |"
    yield "|---|---|---|---|---|---|---|---|"
    for case in (*select("quick"), LONG_LAYER):
        if case.op in WORD_VECTORS:
            continue
        for part in passes(case):
            operations = case.flops(part.work)
            sizes = {dtype: case.bytes(dtype.itemsize, part.work) for dtype in OPERATIONS_A_SECOND}
            cells = [case.id, part.name, f"{operations / 1e6:.4g}", f"{sizes[torch.float32] / 1e6:.4g}"]
            for dtype, moved in sizes.items():
                seconds, behind = floor(operations, moved, dtype)
                cells += [f"{seconds * 1e6:.3g}", behind]
            yield f"| {' | '.join(cells)} |"


def section() -> str:
    rates = ", ".join(
        f"{rate / 1e12:.4g} Tflop/s in {str(dtype).removeprefix('torch.')}"
        for dtype, rate in OPERATIONS_A_SECOND.items()
    )
    text = [
        f"Rates: {BYTES_A_SECOND / 1e12:.4g} TB/s, {rates} ({SOURCE}).",
        f"What fits into {CACHE >> 20} MiB of L2 can be faster than its memory floor.",
        f"The steps of a layer wait for each other: `{LONG_LAYER.id}` hands its state from multiprocessor to",
        f"multiprocessor {STEPS} times forward and as often backward, and no floor counts what that takes.",
        "",
        *lines(),
    ]
    return "<!-- floors -->\n" + "\n".join(text) + "\n<!-- end of floors -->"


def main() -> None:
    PAGE.write_text(SECTION.sub(lambda _: section(), PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
