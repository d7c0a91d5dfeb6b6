"""Every case of the table, forward and backward, against torch and the reference."""

from __future__ import annotations

from typing import cast

import pytest
import torch

import cisdl_ops
from cisdl_ops import reference, tolerance
from cisdl_ops.cases import OPS, Case
from tests.ops.running import (
    DEVICES,
    DTYPES,
    REDUCED_DTYPES,
    TEST_CASES,
    expectation,
    layouts,
    name_of,
    poisoned_memory,
)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("case", TEST_CASES, ids=name_of)
def test_against_torch_and_reference(case: Case, dtype: torch.dtype, device: str) -> None:
    """In both layouts, and both with gradients and without: inference takes other paths (nothing is saved,
    packed weights may be kept)."""
    function = OPS[case.op].ours
    expected = expectation(case.id, dtype, device)
    for layout in layouts(case):
        with poisoned_memory():
            outcome = tolerance.run(case, function, case.inputs(dtype, device, layout, requires_grad=True))
        expected.check(outcome, f"training, {layout}")

        with torch.no_grad():
            outputs = case.call(function, case.inputs(dtype, device, layout))
        inference = {f"output {i}": output for i, output in enumerate(outputs)}
        expected.check(tolerance.Outcome({**outcome.tensors, **inference}), f"inference, {layout}")


@pytest.mark.parametrize("dtype", REDUCED_DTYPES, ids=name_of)
@pytest.mark.parametrize("case", TEST_CASES, ids=name_of)
def test_reduced_precision(case: Case, dtype: torch.dtype) -> None:
    """bfloat16 and float16 tensors in and out, sums in float32: no less exact than torch."""
    expected = expectation(case.id, dtype)
    for layout in layouts(case):
        tensors = case.inputs(dtype, memory_format=layout, requires_grad=True)
        expected.check(tolerance.run(case, OPS[case.op].ours, tensors), f"{layout}")


def test_reduced_precision_sums_in_float32() -> None:
    """4096 ones: a bfloat16 accumulator stops at 256, a float16 one at 2048."""
    for dtype in REDUCED_DTYPES:
        ones = torch.ones(1, 4096, dtype=dtype)
        assert cisdl_ops.linear(ones, ones).item() == 4096


@pytest.mark.parametrize("case", TEST_CASES, ids=name_of)
def test_one_gradient_at_a_time(case: Case) -> None:
    """Asking for one gradient alone gives what asking for all gives (output masks)."""
    function = OPS[case.op].ours
    full = tolerance.run(case, function, case.inputs(requires_grad=True))
    for name in case.shapes:
        alone = tolerance.run(case, function, case.inputs(requires_grad=[name]))
        torch.testing.assert_close(
            alone.tensors[f"grad {name}"], full.tensors[f"grad {name}"], rtol=1e-5, atol=1e-5, equal_nan=True
        )


def test_windows_without_a_cell() -> None:
    """A dilated window may fall between the cells: its maximum is -inf and its gradient goes nowhere.

    (torch's own kernel writes outside its gradient here, so only the reference is asked.)
    """
    x = torch.randn(2, 3, 2, 2, requires_grad=True)
    window = {"kernel_size": 2, "stride": 1, "padding": 1, "dilation": 3}
    ours = cisdl_ops.max_pool2d(x, **window)
    assert ours.isneginf().all()
    assert torch.equal(ours, cast(torch.Tensor, reference.max_pool2d(x, **window)))
    (gradient,) = torch.autograd.grad(ours, x, torch.ones_like(ours))
    assert torch.equal(gradient, torch.zeros_like(x))
