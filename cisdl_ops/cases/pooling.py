"""Cases of max, average and adaptive pooling."""

from __future__ import annotations

from collections.abc import Iterator

from cisdl_ops.cases.build import EDGES, adaptive_pool, pool
from cisdl_ops.cases.table import Case


def shared_pool_cases(op: str) -> Iterator[Case]:
    test = "test"
    for n in EDGES:
        yield pool(op, test, f"width_{n}", (2, 3, 5, n), (2, 1), stride=1)
        yield pool(op, test, f"channels_{n}", (2, n, 6, 7), 2)
        yield pool(op, test, f"2x2_out_width_{n}", (1, 2, 4, 2 * n + 1), 2)
        yield pool(op, test, f"3x3_s2_out_width_{n}", (1, 2, 7, 2 * n + 1), 3, stride=2)
    yield pool(op, test, "unbatched", (3, 8, 9), 2)
    yield pool(op, test, "batch_0", (0, 3, 8, 8), 2)
    yield pool(op, test, "single_pixel", (2, 3, 1, 1), 1)
    yield pool(op, test, "global", (2, 5, 7, 6), (7, 6))
    yield pool(op, test, "stride_1", (2, 3, 9, 9), 3, stride=1, padding=1)
    yield pool(op, test, "stride_over_kernel", (2, 3, 13, 11), 2, stride=(4, 3))
    yield pool(op, test, "pairs", (2, 3, 12, 13), (3, 2), stride=(2, 3), padding=(1, 0))
    yield pool(op, test, "padding", (2, 3, 7, 8), 4, stride=2, padding=2)
    yield pool(op, test, "ceil", (2, 3, 8, 10), 3, stride=2, ceil_mode=True)
    yield pool(op, test, "ceil_padding", (2, 3, 8, 7), 3, stride=2, padding=1, ceil_mode=True)
    yield pool(
        op, test, "ceil_drops_the_window_in_padding", (1, 2, 5, 5), 2, stride=3, padding=1, ceil_mode=True
    )
    yield pool(op, test, "large_window", (1, 2, 21, 19), 17, stride=2, padding=8)
    yield pool(op, test, "special_values", (2, 3, 14, 17), 3, "special", stride=2, padding=1)
    # planes that kernels cut into strips of rows
    yield pool(op, test, "strips", (1, 1, 67, 101), 3, stride=2, padding=1)
    yield pool(op, test, "strips_2x2", (1, 1, 66, 102), 2)
    yield pool(op, "grad", "grad", (2, 2, 4, 5), 2)
    yield pool(op, "grad", "grad_overlapping", (1, 2, 5, 6), 3, stride=2, padding=1)


def pool_cases() -> Iterator[Case]:
    for op in ("max_pool2d", "avg_pool2d"):
        yield from shared_pool_cases(op)
    best, mean, test = "max_pool2d", "avg_pool2d", "test"
    yield pool(best, test, "ties", (2, 3, 11, 19), 2, "ties")
    for n in (1, 5, 17, 33):
        yield pool(best, test, f"relu_2x2_{n}", (2, n, 8, 2 * n + 1), 2, "ties", activation="relu")
    yield pool(best, test, "relu_3x3", (2, 17, 9, 11), 3, "special", stride=2, padding=1, activation="relu")
    yield pool(best, test, "relu_16x16", (1, 2, 16, 32), 16, activation="relu")
    yield pool(best, "grad", "grad_relu", (2, 2, 4, 5), 2, activation="relu")
    yield pool(best, test, "ties_overlapping", (2, 3, 13, 19), 3, "ties", stride=2, padding=1)
    yield pool(best, test, "indices", (2, 3, 9, 19), 2, "ties", return_indices=True)
    yield pool(
        best, test, "indices_overlapping", (2, 3, 9, 35), 3, "ties", stride=2, padding=1, return_indices=True
    )
    yield pool(best, test, "indices_unbatched", (3, 9, 10), 3, stride=2, return_indices=True)
    yield pool(best, test, "indices_special", (2, 3, 9, 19), (2, 3), "special", stride=2, return_indices=True)
    yield pool(
        best, test, "indices_ceil", (2, 3, 8, 10), 3, "ties", stride=2, ceil_mode=True, return_indices=True
    )
    yield pool(
        best, test, "indices_strips", (1, 1, 65, 70), 3, "ties", stride=1, padding=1, return_indices=True
    )
    yield pool(best, test, "indices_two_columns", (2, 3, 11, 34), (3, 2), "ties", return_indices=True)
    yield pool(best, test, "dilation", (2, 3, 12, 13), 3, stride=2, dilation=2, return_indices=True)
    yield pool(best, test, "dilation_padding", (1, 2, 11, 9), (2, 3), stride=1, padding=1, dilation=(1, 2))
    yield pool(best, test, "dilation_channels", (2, 33, 9, 8), 3, "ties", stride=1, padding=1, dilation=2)
    yield pool(best, test, "dilation_ceil", (1, 2, 10, 12), 2, stride=3, dilation=(3, 2), ceil_mode=True)
    yield pool(best, "grad", "grad_dilation", (1, 2, 6, 5), 2, dilation=2, stride=1)

    yield pool(mean, test, "exclude_pad", (2, 3, 7, 8), 3, stride=2, padding=1, count_include_pad=False)
    yield pool(
        mean,
        test,
        "exclude_pad_ceil",
        (2, 3, 8, 8),
        3,
        stride=2,
        padding=1,
        count_include_pad=False,
        ceil_mode=True,
    )
    yield pool(mean, test, "divisor", (2, 3, 7, 8), 2, divisor_override=3)
    yield pool(mean, test, "divisor_negative", (2, 3, 7, 8), 2, divisor_override=-2)
    yield pool(
        mean, test, "divisor_ceil", (2, 3, 8, 8), 3, stride=2, ceil_mode=True, padding=1, divisor_override=7
    )
    yield pool(
        mean, "grad", "grad_exclude_pad", (1, 2, 5, 5), 3, stride=2, padding=1, count_include_pad=False
    )
    yield pool(mean, "grad", "grad_ceil", (1, 1, 6, 6), 3, stride=2, ceil_mode=True)
    yield pool(mean, "bench", "3x3_s2_64_55_b16", (16, 64, 55, 55), 3, stride=2)
    yield pool(mean, "bench", "3x3_s2_192_27_b16", (16, 192, 27, 27), 3, stride=2)
    yield pool(mean, "bench", "3x3_s2_256_13_b16", (16, 256, 13, 13), 3, stride=2)
    yield pool(mean, "bench", "3x3_s2_p1_64_112_b8", (8, 64, 112, 112), 3, stride=2, padding=1)
    yield pool(mean, "bench", "2x2_64_112_b8", (8, 64, 112, 112), 2)
    yield pool(mean, "bench", "global_512_7_b8", (8, 512, 7, 7), 7)
    yield pool(best, "bench", "relu_2x2_6_28_b64", (64, 6, 28, 28), 2, activation="relu")
    for op in (best, mean):
        yield pool(op, "bench", "3x3_s1_p1_192_28_b8", (8, 192, 28, 28), 3, stride=1, padding=1)


def adaptive_pool_cases() -> Iterator[Case]:
    best, test = "adaptive_max_pool2d", "test"
    for op in (best, "adaptive_avg_pool2d"):
        for n in EDGES:
            yield adaptive_pool(op, test, f"width_{n}", (2, 3, 5, n), (2, 4))
            yield adaptive_pool(op, test, f"out_width_{n}", (1, 3, 5, 13), (3, n))
            yield adaptive_pool(op, test, f"channels_{n}", (2, n, 7, 8), (3, 5))
        yield adaptive_pool(op, test, "unbatched", (3, 7, 8), (3, 5))
        yield adaptive_pool(op, test, "batch_0", (0, 3, 7, 8), (3, 5))
        yield adaptive_pool(op, test, "global", (2, 5, 7, 6), 1)
        yield adaptive_pool(op, test, "equal_windows", (2, 5, 12, 9), (4, 3))
        yield adaptive_pool(op, test, "equal_rows_only", (2, 5, 12, 9), (4, 4))
        yield adaptive_pool(op, test, "same_size", (2, 3, 5, 6), (None, None))
        yield adaptive_pool(op, test, "own_height", (2, 3, 5, 6), (None, 4))
        yield adaptive_pool(op, test, "larger_than_input", (2, 3, 4, 5), (9, 7))
        yield adaptive_pool(op, test, "single_pixel", (2, 3, 1, 1), (2, 3))
        yield adaptive_pool(op, test, "large_plane", (1, 2, 67, 71), (8, 9))
        yield adaptive_pool(op, test, "special_values", (2, 3, 14, 17), (5, 6), "special")
        yield adaptive_pool(op, "grad", "grad", (2, 2, 5, 4), (3, 3))
        yield adaptive_pool(op, "grad", "grad_equal_windows", (1, 2, 4, 6), 2)
        yield adaptive_pool(op, "grad", "grad_larger_than_input", (1, 2, 2, 3), (3, 5))

        yield adaptive_pool(op, "bench quick", "global_512_7_b8", (8, 512, 7, 7), 1)
        yield adaptive_pool(op, "bench", "256_13_to_6_b16", (16, 256, 13, 13), 6)
        yield adaptive_pool(op, "bench", "512_14_to_7_b8", (8, 512, 14, 14), 7)
    yield adaptive_pool(best, test, "ties", (2, 3, 11, 19), (4, 7), "ties")
    yield adaptive_pool(best, test, "indices", (2, 19, 11, 9), (4, 4), "ties", return_indices=True)
    yield adaptive_pool(best, test, "indices_equal", (2, 3, 10, 18), (5, 6), "ties", return_indices=True)
    yield adaptive_pool(best, test, "indices_special", (2, 3, 9, 17), (4, 5), "special", return_indices=True)
    yield adaptive_pool(best, test, "indices_unbatched", (3, 9, 10), (4, None), return_indices=True)
    yield adaptive_pool(best, test, "indices_large", (1, 2, 67, 71), (8, 9), "ties", return_indices=True)
