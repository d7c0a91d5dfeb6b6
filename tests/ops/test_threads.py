"""The same bits for any number of threads."""

from __future__ import annotations

import pytest
import torch

from cisdl_ops import tolerance
from cisdl_ops.cases import OPS, Case
from tests.ops.running import DTYPES, TEST_CASES, case_named, layouts, name_of

# Large enough that work is really divided.
LARGER = [
    case_named(identifier)
    for identifier in (
        "linear/mlp_fc1_b64",
        "conv2d/lenet_conv1_b64",
        "conv2d/lenet_conv2_b64",
        "max_pool2d/lenet_pool1_b64",
        "avg_pool2d/lenet_pool1_b64",
        "adaptive_avg_pool2d/256_13_to_6_b16",
        "lstm_cell/h128_b32",
        "gru_cell/h128_b256",
        "rnn_tanh_cell/h128_b256",
    )
]


def check_bits(case: Case, dtype: torch.dtype) -> None:
    for layout in layouts(case):
        outcomes = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            tensors = case.inputs(dtype, memory_format=layout, requires_grad=True)
            outcomes.append(tolerance.run(case, OPS[case.op].ours, tensors))
        for name, expected in outcomes[0].tensors.items():
            for other in outcomes[1:]:
                torch.testing.assert_close(other.tensors[name], expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("case", LARGER, ids=name_of)
def test_bits_of_larger_problems(case: Case, dtype: torch.dtype) -> None:
    check_bits(case, dtype)


@pytest.mark.parametrize("case", TEST_CASES, ids=name_of)
def test_bits_of_edge_cases(case: Case) -> None:
    check_bits(case, torch.float32)
