"""Cases of conv2d."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cisdl_ops.cases.build import EDGES, conv2d
from cisdl_ops.cases.table import Case


def conv2d_cases() -> Iterator[Case]:
    test = "test"
    for n in EDGES:
        yield conv2d(test, f"width_{n}", (2, 3, 5, n), (4, 3, 3, 3), padding=1)
        yield conv2d(test, f"out_channels_{n}", (2, 4, 6, 5), (n, 4, 3, 3), padding=1)
        yield conv2d(test, f"in_channels_{n}", (2, n, 5, 6), (6, n, 3, 3))
    yield conv2d(test, "no_bias", (2, 3, 8, 7), (5, 3, 3, 3), bias=False)
    yield conv2d(test, "unbatched", (3, 9, 8), (5, 3, 3, 3), padding=1)
    yield conv2d(test, "batch_0", (0, 3, 8, 8), (4, 3, 3, 3))
    yield conv2d(test, "batch_17", (17, 2, 5, 5), (3, 2, 3, 3))
    yield conv2d(test, "single_pixel", (2, 5, 1, 1), (7, 5, 1, 1))
    yield conv2d(test, "single_pixel_padded", (2, 5, 1, 1), (7, 5, 3, 3), padding=1)
    yield conv2d(test, "one_output_pixel", (3, 4, 5, 5), (6, 4, 5, 5))
    yield conv2d(test, "one_by_one", (2, 19, 7, 9), (17, 19, 1, 1))
    yield conv2d(test, "one_by_one_strided", (2, 8, 7, 9), (9, 8, 1, 1), stride=2)
    yield conv2d(test, "one_by_one_padded", (2, 8, 5, 4), (9, 8, 1, 1), padding=1)
    yield conv2d(test, "row_kernel", (2, 3, 6, 11), (4, 3, 1, 5), padding=(0, 2))
    yield conv2d(test, "column_kernel", (2, 3, 11, 6), (4, 3, 5, 1), padding=(2, 0))
    yield conv2d(test, "stride_2", (2, 3, 9, 10), (5, 3, 3, 3), stride=2, padding=1)
    yield conv2d(test, "stride_pair", (2, 3, 11, 10), (5, 3, 3, 3), stride=(3, 2), padding=(1, 0))
    yield conv2d(test, "stride_over_kernel", (2, 3, 14, 13), (4, 3, 2, 2), stride=4)
    yield conv2d(test, "stride_leaves_rows_unused", (1, 2, 10, 12), (3, 2, 3, 3), stride=4)
    yield conv2d(test, "padding_over_half", (2, 2, 5, 6), (3, 2, 3, 3), padding=2)
    yield conv2d(test, "padding_over_kernel", (1, 2, 3, 4), (3, 2, 2, 2), padding=4)
    yield conv2d(test, "padding_pair", (2, 2, 6, 5), (3, 2, 3, 5), padding=(1, 2))
    yield conv2d(test, "valid", (2, 3, 7, 8), (4, 3, 3, 3), padding="valid")
    yield conv2d(test, "same", (2, 3, 7, 8), (4, 3, 3, 5), padding="same")
    yield conv2d(test, "same_even_kernel", (2, 3, 7, 8), (4, 3, 2, 4), padding="same")
    yield conv2d(test, "same_even_dilated", (2, 2, 9, 8), (3, 2, 4, 2), padding="same", dilation=(1, 3))
    yield conv2d(test, "dilation_2", (2, 3, 11, 12), (4, 3, 3, 3), padding=2, dilation=2)
    yield conv2d(
        test, "dilation_pair", (1, 2, 12, 11), (3, 2, 3, 2), dilation=(2, 3), stride=(1, 2), padding=(3, 1)
    )
    yield conv2d(test, "groups_2", (2, 6, 7, 6), (8, 3, 3, 3), groups=2, padding=1)
    yield conv2d(test, "groups_odd", (2, 9, 6, 7), (15, 3, 3, 3), groups=3, stride=2)
    yield conv2d(test, "depthwise", (2, 17, 8, 9), (17, 1, 3, 3), groups=17, padding=1)
    yield conv2d(test, "depthwise_strided", (2, 8, 9, 9), (8, 1, 3, 3), groups=8, stride=2, padding=1)
    yield conv2d(test, "depthwise_multiplier", (1, 4, 7, 7), (12, 1, 3, 3), groups=4, dilation=2, padding=2)
    # Winograd with stride 2; the second has weights for two rounds.
    yield conv2d(test, "stride2_4x4_odd", (6, 33, 9, 11), (47, 33, 4, 4), stride=2, padding=1)
    yield conv2d(test, "stride2_4x4", (2, 100, 16, 16), (512, 100, 4, 4), stride=2, padding=1, bias=False)

    # Large enough to be cut into chunks of rows by the gradient of the weight.
    yield conv2d(test, "one_by_one_chunks", (2, 130, 40, 30), (129, 130, 1, 1))
    yield conv2d(test, "one_by_one_to_few", (3, 21, 12, 16), (2, 21, 1, 1))
    # Planes that are operands where they lie: fewer channels out than in and the other way round, groups, few
    # channels, sums in several parts; gradients of the weight along lanes, by tiles, and from runs of images.
    yield conv2d(test, "pointwise_reduces", (3, 45, 20, 24), (18, 45, 1, 1))
    yield conv2d(test, "pointwise_expands", (9, 9, 20, 24), (40, 9, 1, 1), bias=False)
    yield conv2d(test, "pointwise_from_few", (2, 3, 7, 9), (19, 3, 1, 1))
    yield conv2d(test, "pointwise_groups", (2, 42, 20, 20), (10, 21, 1, 1), groups=2, activation="relu")
    yield conv2d(test, "pointwise_long_sum", (1, 1040, 20, 20), (20, 1040, 1, 1), activation="relu")
    yield conv2d(test, "pointwise_to_few_long_sum", (1, 1040, 4, 5), (3, 1040, 1, 1), activation="relu")
    yield conv2d(test, "strided_chunks", (1, 48, 61, 61), (64, 48, 3, 3), stride=2, bias=False)

    # Groups within a vector: strips of every width, tiles that overlap, columns and lanes that are missing.
    yield conv2d(test, "depthwise_5x5", (1, 18, 9, 15), (18, 1, 5, 5), groups=18, padding=2)
    yield conv2d(
        test, "depthwise_7x7_strided", (1, 16, 13, 18), (16, 1, 7, 7), groups=16, stride=2, padding=3
    )
    yield conv2d(test, "depthwise_dilated", (1, 16, 9, 12), (16, 1, 3, 3), groups=16, dilation=2, padding=2)
    yield conv2d(test, "depthwise_even", (2, 16, 5, 17), (16, 1, 2, 4), groups=16, padding=(1, 2))
    yield conv2d(test, "groups_of_2", (2, 22, 6, 23), (22, 2, 3, 3), groups=11, padding=1, stride=(1, 2))
    yield conv2d(test, "groups_of_4", (1, 20, 9, 8), (20, 4, 3, 3), groups=5, padding=1)
    yield conv2d(test, "groups_of_8", (2, 24, 5, 9), (24, 8, 3, 2), groups=3, padding=1, stride=2)
    yield conv2d(
        test,
        "everything",
        (2, 4, 13, 11),
        (6, 2, 3, 2),
        stride=(2, 3),
        padding=(3, 1),
        dilation=(2, 1),
        groups=2,
    )
    yield conv2d(test, "lenet_like", (3, 1, 28, 28), (6, 1, 5, 5), padding=2)
    yield conv2d(test, "alexnet_like", (1, 3, 35, 35), (10, 3, 11, 11), stride=4, padding=2)
    yield conv2d(test, "resnet_like", (2, 32, 14, 14), (48, 32, 3, 3), padding=1)

    # Enough channels for Winograd; sizes that are no multiple of its tiles.
    yield conv2d(test, "winograd_odd", (2, 33, 9, 13), (35, 33, 3, 3), bias=False)
    yield conv2d(test, "winograd_small", (3, 32, 3, 2), (32, 32, 3, 3), padding=1)
    yield conv2d(test, "winograd_wide_padding", (1, 40, 5, 6), (33, 40, 3, 3), padding=(3, 2))
    yield conv2d(test, "winograd_two_chunks", (1, 70, 6, 5), (67, 70, 3, 3), padding=1)
    yield conv2d(test, "winograd_five_taps", (2, 70, 9, 10), (35, 70, 5, 5), padding=2)

    # Batches that fill vector lanes of every width, the last group of lanes not quite; tiles of all sizes.
    yield conv2d(test, "lanes", (16, 3, 7, 9), (5, 3, 3, 3), padding=1)
    yield conv2d(test, "lanes_two_groups", (25, 1, 3, 20), (6, 1, 5, 5), padding=2)
    yield conv2d(test, "lanes_narrow", (13, 3, 4, 3), (3, 3, 5, 5), padding=(3, 2), bias=False)
    yield conv2d(
        test, "lanes_uneven", (13, 2, 9, 16), (7, 2, 3, 2), stride=(2, 3), padding=(3, 1), dilation=(2, 1)
    )
    yield conv2d(test, "lanes_one_channel", (14, 2, 3, 13), (1, 2, 2, 3), padding=(0, 1))

    # Rows that fill lanes, with tails of rows, channels and taps; strided kernels that become 3x3 ones.
    yield conv2d(test, "rows", (2, 3, 9, 45), (9, 3, 3, 3), padding=1)
    yield conv2d(test, "rows_strided", (2, 2, 9, 31), (5, 2, 4, 4), stride=2, padding=1)
    yield conv2d(
        test, "rows_dilated", (1, 1, 8, 66), (6, 1, 3, 5), padding=(2, 1), dilation=(1, 2), bias=False
    )
    yield conv2d(test, "space_to_depth", (2, 3, 38, 41), (34, 3, 11, 11), stride=4, padding=2)
    yield conv2d(
        test, "space_to_depth_3", (2, 4, 20, 17), (32, 4, 8, 7), stride=3, padding=(3, 2), bias=False
    )
    yield conv2d(test, "space_to_depth_2", (3, 9, 11, 12), (33, 9, 5, 6), stride=2, padding=(0, 2))

    # An activation inside every kernel; sums in several parts, of which the last alone may be rectified.
    relu: dict[str, Any] = {"activation": "relu"}
    yield conv2d(test, "relu_long_sum", (2, 60, 4, 20), (5, 60, 3, 3), padding=1, **relu)
    yield conv2d(test, "relu_winograd", (2, 70, 9, 13), (35, 70, 3, 3), **relu)
    yield conv2d(test, "relu_winograd_stride2", (6, 33, 9, 11), (47, 33, 4, 4), stride=2, padding=1, **relu)
    yield conv2d(test, "relu_space_to_depth", (2, 3, 38, 41), (34, 3, 11, 11), stride=4, padding=2, **relu)
    yield conv2d(test, "relu_lanes", (13, 2, 9, 16), (7, 2, 3, 2), stride=(2, 3), padding=(3, 1), **relu)
    yield conv2d(test, "relu_rows", (2, 3, 9, 45), (9, 3, 3, 3), padding=1, **relu)
    yield conv2d(test, "relu_lane_groups", (2, 22, 6, 23), (22, 2, 3, 3), groups=11, padding=1, **relu)
    yield conv2d(test, "relu_one_output_pixel", (3, 4, 5, 5), (6, 4, 5, 5), **relu)
    yield conv2d(test, "relu_one_by_one", (2, 19, 7, 9), (17, 19, 1, 1), bias=False, **relu)
    yield conv2d(test, "relu_batch_0", (0, 3, 8, 8), (4, 3, 3, 3), **relu)
    for activation in ("leaky_relu", "sigmoid", "tanh"):
        yield conv2d(test, f"{activation}_unbatched", (3, 7, 8), (5, 3, 3, 3), activation=activation)
        yield conv2d("grad", f"{activation}_grad", (1, 2, 3, 4), (2, 2, 2, 3), activation=activation)
    yield conv2d("grad", "relu_grad", (2, 2, 4, 5), (3, 2, 3, 3), padding=1, **relu)

    yield conv2d("grad", "grad", (2, 2, 4, 5), (3, 2, 3, 3), padding=1)
    yield conv2d("grad", "grad_strided", (1, 2, 6, 5), (2, 2, 2, 3), stride=2, padding=(1, 0), bias=False)
    yield conv2d("grad", "grad_same_even", (1, 1, 4, 4), (2, 1, 2, 2), padding="same")
    yield conv2d("grad", "grad_dilated_groups", (1, 4, 6, 5), (4, 2, 2, 2), dilation=2, groups=2)

    # What the layer lists of networks.py do not have.
    yield conv2d("bench", "relu_3x3_64_112_b8", (8, 64, 112, 112), (64, 64, 3, 3), padding=1, **relu)
    yield conv2d("bench", "relu_1x1_32_to_128_27_b8", (8, 32, 27, 27), (128, 32, 1, 1), **relu)
    yield conv2d("bench", "1x1_64_to_256_56_b8", (8, 64, 56, 56), (256, 64, 1, 1))
    yield conv2d("bench", "1x1_512_to_128_28_b8", (8, 512, 28, 28), (128, 512, 1, 1))
    yield conv2d("bench", "depthwise_3x3_64_56_b8", (8, 64, 56, 56), (64, 1, 3, 3), padding=1, groups=64)
    yield conv2d(
        "bench",
        "depthwise_3x3_s2_128_28_b8",
        (8, 128, 28, 28),
        (128, 1, 3, 3),
        stride=2,
        padding=1,
        groups=128,
    )
    yield conv2d("bench", "grouped_3x3_128_28_g32_b8", (8, 128, 28, 28), (128, 4, 3, 3), padding=1, groups=32)
    yield conv2d("bench", "dilated_3x3_128_28_b8", (8, 128, 28, 28), (128, 128, 3, 3), padding=2, dilation=2)
    for kernel, channels, size in ((5, 240, 28), (7, 96, 56)):  # EfficientNet's and ConvNeXt's
        yield conv2d(
            "bench",
            f"depthwise_{kernel}x{kernel}_{channels}_{size}_b8",
            (8, channels, size, size),
            (channels, 1, kernel, kernel),
            padding=kernel // 2,
            groups=channels,
        )
