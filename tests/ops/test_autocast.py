"""torch.autocast: our ops choose the precision that torch's choose, and give what that precision gives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from cisdl_ops.cases import OPS, Case
from tests.ops.running import GRAD_CASES, REDUCED_DTYPES, name_of

FIRST_OF_OP = [next(case for case in GRAD_CASES if case.op == op) for op in OPS]


def outputs_and_gradients(case: Case, function: Any, dtype: torch.dtype, low: set[str]) -> list[Tensor]:
    """Under autocast to ``dtype``, with the inputs named in ``low`` in that type already."""
    tensors = {
        name: tensor.to(dtype if name in low else torch.float32).detach().requires_grad_()
        for name, tensor in case.inputs(torch.float32).items()
    }
    with torch.autocast("cpu", dtype):
        outputs = [output for output in case.call(function, tensors) if output.is_floating_point()]
    total = torch.stack([output.float().square().sum() for output in outputs]).sum()
    grads = torch.autograd.grad(total, list(tensors.values()))
    return [*outputs, *grads]


@pytest.mark.parametrize("dtype", REDUCED_DTYPES, ids=name_of)
@pytest.mark.parametrize("case", FIRST_OF_OP, ids=name_of)
def test_precision_is_torchs(case: Case, dtype: torch.dtype) -> None:
    """All float32; activations already low, as after another layer; a low state."""
    states = {name for name in case.shapes if name in ("hx", "cx")}
    for low in (set(), {"input"}, {"input", *states}):
        ours = outputs_and_gradients(case, OPS[case.op].ours, dtype, low)
        theirs = outputs_and_gradients(case, OPS[case.op].torch, dtype, low)
        eps = torch.finfo(dtype).eps
        for a, b in zip(ours, theirs, strict=True):
            assert a.dtype == b.dtype, f"with {low or 'nothing'} in {dtype}"
            torch.testing.assert_close(a.float(), b.float(), rtol=16 * eps, atol=16 * eps)


def test_weights_are_cast_once() -> None:
    """The cache: within one autocast region a leaf weight is converted once."""
    case = next(case for case in FIRST_OF_OP if case.op == "linear")
    tensors = case.inputs(requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        first, second = (case.call(OPS["linear"].ours, tensors)[0] for _ in range(2))
    casts = [node.next_functions[1][0] for node in (first.grad_fn, second.grad_fn) if node is not None]
    assert len(casts) == 2
    assert casts[0] is casts[1]


def test_float64_is_left_alone() -> None:
    case = next(case for case in FIRST_OF_OP if case.op == "conv2d")
    with torch.autocast("cpu", torch.bfloat16):
        assert case.call(OPS["conv2d"].ours, case.inputs(torch.float64))[0].dtype == torch.float64
