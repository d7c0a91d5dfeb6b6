"""Cases of conv_transpose2d."""

from __future__ import annotations

from collections.abc import Iterator

from cisdl_ops.cases.build import EDGES, conv_transpose2d
from cisdl_ops.cases.table import Case


def conv_transpose2d_cases() -> Iterator[Case]:
    test = "test"
    for n in EDGES:
        yield conv_transpose2d(test, f"width_{n}", (2, 3, 5, n), (3, 4, 3, 3), padding=1)
        yield conv_transpose2d(test, f"out_channels_{n}", (2, 4, 4, 5), (4, n, 3, 3), padding=1, stride=2)
        yield conv_transpose2d(test, f"in_channels_{n}", (2, n, 4, 4), (n, 6, 2, 3))
    yield conv_transpose2d(test, "no_bias", (2, 3, 6, 5), (3, 5, 3, 3), bias=False)
    yield conv_transpose2d(test, "unbatched", (3, 5, 6), (3, 5, 3, 3), stride=2, padding=1)
    yield conv_transpose2d(test, "batch_0", (0, 3, 5, 5), (3, 4, 3, 3))
    yield conv_transpose2d(test, "single_pixel", (2, 5, 1, 1), (5, 7, 4, 4), bias=False)
    yield conv_transpose2d(test, "one_by_one", (2, 19, 7, 9), (19, 17, 1, 1))
    yield conv_transpose2d(test, "one_by_one_to_few", (2, 21, 12, 16), (21, 2, 1, 1))
    yield conv_transpose2d(test, "one_by_one_from_few", (2, 3, 12, 16), (3, 19, 1, 1))
    yield conv_transpose2d(test, "stride_pair", (2, 3, 5, 6), (3, 5, 3, 3), stride=(3, 2), padding=(1, 0))
    yield conv_transpose2d(test, "stride_over_kernel", (2, 3, 4, 3), (3, 4, 2, 2), stride=4)
    yield conv_transpose2d(
        test, "output_padding", (2, 3, 5, 4), (3, 4, 3, 3), stride=2, padding=1, output_padding=1
    )
    yield conv_transpose2d(
        test, "output_padding_pair", (2, 3, 5, 4), (3, 4, 3, 4), stride=(3, 2), output_padding=(2, 0)
    )
    yield conv_transpose2d(
        test, "output_padding_over_stride", (2, 3, 5, 4), (3, 4, 3, 3), dilation=3, output_padding=2
    )
    yield conv_transpose2d(test, "padding_cuts_most", (2, 3, 4, 5), (3, 4, 3, 3), padding=2)
    yield conv_transpose2d(test, "padding_over_kernel", (2, 3, 9, 9), (3, 4, 2, 3), padding=3)
    yield conv_transpose2d(test, "dilation_pair", (1, 2, 6, 5), (2, 3, 3, 2), dilation=(2, 3), stride=(1, 2))
    yield conv_transpose2d(test, "groups_2", (2, 6, 5, 6), (6, 4, 3, 3), groups=2, padding=1)
    yield conv_transpose2d(test, "depthwise", (2, 17, 6, 5), (17, 1, 4, 4), groups=17, stride=2, padding=1)
    yield conv_transpose2d(
        test, "depthwise_multiplier", (1, 4, 5, 5), (4, 3, 3, 3), groups=4, stride=2, output_padding=1
    )
    yield conv_transpose2d(test, "depthwise_33", (2, 33, 7, 8), (33, 1, 3, 3), groups=33, padding=1)
    yield conv_transpose2d(test, "dcgan_like", (2, 33, 7, 7), (33, 17, 4, 4), stride=2, padding=1)

    yield conv_transpose2d(
        test, "stride2_4x4", (2, 34, 8, 9), (34, 40, 4, 4), bias=False, stride=2, padding=1
    )
    yield conv_transpose2d(test, "winograd", (2, 33, 7, 6), (33, 35, 3, 3), bias=False, padding=1)

    # Batches in lanes, rows in lanes and strides turned into channels, from their other side.
    yield conv_transpose2d(test, "lanes", (13, 4, 4, 5), (4, 3, 3, 3), bias=False)
    yield conv_transpose2d(test, "rows", (2, 6, 5, 31), (6, 3, 3, 3), padding=1, bias=False)
    yield conv_transpose2d(
        test, "space_to_depth", (2, 33, 4, 5), (33, 4, 8, 7), stride=3, padding=1, bias=False
    )

    yield conv_transpose2d("grad", "grad", (2, 2, 3, 4), (2, 3, 3, 3), padding=1)
    yield conv_transpose2d(
        "grad", "grad_strided", (1, 2, 3, 3), (2, 2, 3, 2), stride=2, output_padding=1, bias=False
    )
    yield conv_transpose2d("grad", "grad_dilated_groups", (1, 4, 3, 4), (4, 2, 2, 2), dilation=2, groups=2)
