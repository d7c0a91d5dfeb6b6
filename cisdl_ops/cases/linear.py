"""Cases of linear."""

from __future__ import annotations

from collections.abc import Iterator

from cisdl_ops.cases.build import EDGES, linear
from cisdl_ops.cases.table import Case


def linear_cases() -> Iterator[Case]:
    yield from (linear("test", f"out_{n}", (5, 19), n) for n in EDGES)
    yield from (linear("test", f"in_{n}", (3, n), 21) for n in EDGES)
    yield from (linear("test", f"rows_{n}", (n, 24), 18) for n in EDGES)
    yield linear("test", "no_bias", (7, 33), 20, bias=False)
    yield linear("test", "vector", (13,), 6)
    yield linear("test", "three_dims", (3, 5, 17), 9)
    yield linear("test", "four_dims", (2, 3, 4, 11), 10)
    yield linear("test", "batch_0", (0, 12), 7)
    yield linear("test", "in_0", (4, 0), 7)
    yield linear("test", "out_0", (4, 6), 0)
    yield linear("test", "long_sum", (3, 4099), 5)
    yield linear("test", "odd_blocks", (67, 131), 97)
    yield linear("grad", "grad", (3, 5), 4)
    yield linear("grad", "grad_no_bias", (2, 3, 4), 5, bias=False)

    yield linear("bench quick first", "mlp_fc1_b64", (64, 784), 300)
    yield linear("bench", "mlp_fc2_b64", (64, 300), 100)
    for size in (512, 1024):
        for batch in (1, 32, 256):
            quick = " quick" if (size, batch) == (1024, 256) else ""
            yield linear(f"bench{quick}", f"square_{size}_b{batch}", (batch, size), size)
    yield linear("bench", "classifier_1024_to_10_b256", (256, 1024), 10)
    yield linear("bench", "skinny_16_to_16_b4096", (4096, 16), 16)
    yield linear("bench", "tokens_32x35_256_to_1024", (32, 35, 256), 1024)
