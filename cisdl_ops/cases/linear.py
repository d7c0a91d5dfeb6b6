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
    # The product turned round: whole tiles and a rest of rows and columns; a sum in one and in two parts.
    yield linear("test", "turned", (35, 70), 75)
    yield linear("test", "turned_long_sum", (35, 1030), 75)
    yield linear("test", "turned_weight_gradient", (257, 135), 271)
    yield linear("test", "turned_weight_gradient_128_bit", (70, 40), 81)
    # Weights that are copied as the first rows meet them, and row panels enough that the copy is used.
    yield linear("test", "many_rows", (131, 67), 65)
    yield linear("test", "many_columns", (17, 1100), 35)
    yield linear("test", "weights_by_pages", (33, 1031), 525)
    yield linear("test", "weights_by_pages_few_rows", (5, 1031), 525)
    # Rows 4 KiB apart (1024 floats, 512 doubles), which are packed panel by panel: of the weights, turned
    # round (one block and several, a sum in several parts), and of the gradient of the output.
    yield linear("test", "rows_collide", (19, 1024), 45)
    yield linear("test", "rows_collide_long_sum", (150, 2048), 200)
    yield linear("test", "gradient_rows_collide", (37, 70), 1024)
    for activation in ("relu", "leaky_relu", "sigmoid", "tanh"):
        yield linear("test", f"{activation}_odd_blocks", (37, 19), 35, activation=activation)
        yield linear("grad", f"{activation}_grad", (3, 5), 4, activation=activation)
    yield linear("test", "relu_no_bias_vector", (13,), 6, bias=False, activation="relu")
    yield linear("test", "relu_batch_0", (0, 12), 7, activation="relu")
    yield linear("test", "slope_three_dims", (3, 5, 17), 9, activation="leaky_relu", negative_slope=0.2)
    yield linear("grad", "grad_no_bias", (2, 3, 4), 5, bias=False)

    yield linear("bench quick first", "mlp_fc1_b64", (64, 784), 300)
    yield linear("bench", "mlp_fc2_b64", (64, 300), 100)
    for size in (512, 1024):
        for batch in (1, 32, 256):
            quick = " quick" if (size, batch) == (1024, 256) else ""
            yield linear(f"bench{quick}", f"square_{size}_b{batch}", (batch, size), size)
    yield linear("bench", "mlp_fc1_relu_b64", (64, 784), 300, activation="relu")
    yield linear("bench", "square_1024_sigmoid_b256", (256, 1024), 1024, activation="sigmoid")
    yield linear("bench", "classifier_1024_to_10_b256", (256, 1024), 10)
    yield linear("bench", "skinny_16_to_16_b4096", (4096, 16), 16)
    yield linear("bench", "tokens_32x35_256_to_1024", (32, 35, 256), 1024)
