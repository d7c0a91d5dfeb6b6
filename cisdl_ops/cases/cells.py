"""Cases of the recurrent cells."""

from __future__ import annotations

from collections.abc import Iterator

from cisdl_ops.cases.build import EDGES, cell
from cisdl_ops.cases.table import Case


def cell_cases(op: str) -> Iterator[Case]:
    yield from (cell(op, "test", f"hidden_{n}", 3, 6, n) for n in EDGES)
    yield from (cell(op, "test", f"batch_{n}", n, 10, 12) for n in (0, *EDGES))
    yield from (cell(op, "test", f"inputs_{n}", 2, n, 8) for n in (1, 3, 17, 64))
    yield cell(op, "test", "no_bias", 5, 7, 9, bias=False)
    yield cell(op, "test", "no_bias_batch_1", 1, 16, 32, bias=False)
    yield cell(op, "test", "odd_blocks", 37, 53, 67)
    yield cell(op, "test", "long_sums", 17, 530, 19)
    yield cell(op, "grad", "grad", 2, 3, 2)
    yield cell(op, "grad", "grad_no_bias", 1, 2, 3, bias=False)
    for batch in (1, 32, 64, 128, 256):
        for hidden in (128, 256, 512, 1024):
            quick = " quick" if (batch, hidden) in ((1, 256), (64, 128), (64, 512)) else ""
            yield cell(op, f"bench{quick}", f"h{hidden}_b{batch}", batch, hidden, hidden)
