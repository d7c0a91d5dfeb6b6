"""The table itself: names, costs, and the reference against torch, so that the third opinion is sound."""

from __future__ import annotations

from math import prod

import pytest
import torch

from cisdl_ops import reference, tolerance
from cisdl_ops.cases import CASES, LAYERS, OPS, WORD_VECTORS, Case, select
from tests.ops.running import GRAD_CASES, TEST_CASES, case_named, name_of


def test_names_are_unique() -> None:
    assert len({case.id for case in CASES}) == len(CASES)


@pytest.mark.parametrize("tag", ["test", "grad", "bench", "quick"])
def test_every_op_has_cases_of_every_tag(tag: str) -> None:
    others = {*LAYERS, *WORD_VECTORS} if tag in ("bench", "quick") else set()
    assert {case.op for case in select(tag)} == OPS.keys() | others


def test_select_matches_op_name_and_id() -> None:
    assert {case.op for case in select(glob="conv2d")} == {"conv2d"}
    assert [case.id for case in select(glob="conv2d/everything")] == ["conv2d/everything"]
    assert {case.op for case in select("bench", "lenet*")} == {"conv2d", "linear", "max_pool2d", "avg_pool2d"}
    assert select(glob="nothing_like_this") == []


@pytest.mark.parametrize("case", [*TEST_CASES, *GRAD_CASES], ids=name_of)
def test_reference_agrees_with_torch(case: Case) -> None:
    tensors = case.inputs(torch.float64, requires_grad=True)
    op = OPS[case.op]
    expected = tolerance.run(case, op.torch, tolerance.copies(tensors))
    got = tolerance.run(case, op.reference, tensors)
    torch.testing.assert_close(got.tensors, expected.tensors, equal_nan=True, check_stride=False)


def test_inputs_repeat_and_differ_by_seed() -> None:
    case = case_named("conv2d/stride_2")
    assert torch.equal(case.inputs()["weight"], case.inputs()["weight"])
    assert not torch.equal(case.inputs()["weight"], case.inputs(seed=1)["weight"])


@pytest.mark.parametrize(
    "case", [case for case in select("bench") if case.op not in WORD_VECTORS], ids=name_of
)
def test_costs(case: Case) -> None:
    """Bytes count every tensor once; a case that is benched does some work."""
    outputs = sum(map(prod, case.output_shapes()))
    assert case.bytes(4) == 4 * (outputs + sum(map(prod, case.shapes.values())))
    assert case.flops(2) == 2 * case.flops() > 0


def test_flops_of_known_layers() -> None:
    """LeNet-5's second convolution: 10 * 10 * 16 outputs of 6 * 5 * 5 products, for 64 images."""
    assert case_named("conv2d/lenet_conv2_b64").flops() == 2 * 64 * (10 * 10 * 16) * (6 * 5 * 5)
    assert case_named("linear/square_512_b32").flops() == 2 * 32 * 512 * 512
    assert case_named("lstm_cell/h128_b1").flops() == 2 * (4 * 128) * (128 + 128)


def test_asymmetric_same_padding() -> None:
    assert reference.conv2d_padding("same", (2, 5), (1, 1)) == (0, 1, 2, 2)
    assert reference.conv2d_padding("same", (4, 2), (1, 3)) == (1, 2, 1, 2)


def test_the_rule_notices_small_errors() -> None:
    """The tolerance is tight: an error of twice its floor is refused, and so is a NaN too few."""
    exact = torch.linspace(-1, 1, 9, dtype=torch.float64)
    good = exact.float()
    bound = tolerance.allowed_error(good, exact)
    assert tolerance.compare_tensor("y", good, good, exact).complaint is None
    assert "allowed" in (tolerance.compare_tensor("y", good + 2 * bound, good, exact).complaint or "")
    exact[3] = torch.nan
    assert "NaN" in (tolerance.compare_tensor("y", good, exact.float(), exact).complaint or "")
