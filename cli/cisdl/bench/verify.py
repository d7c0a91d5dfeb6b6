"""Nothing is timed before it is right."""

from __future__ import annotations

import warnings

import torch

from cisdl.errors import KernelDisagreesError
from cisdl_ops import tolerance
from cisdl_ops.cases import Case, op_of


def compare(
    case: Case, dtype: torch.dtype, device: torch.device, layout: torch.memory_format
) -> list[tolerance.Comparison]:
    """Outputs and all gradients of a case: ours against torch in the same precision and the exact result.

    The exact result of a small case comes from the plain reference; a bench case is too large for it and
    takes torch's in float64.
    """
    # torch says this about its own convolution when a case of ours has such a kernel.
    warnings.filterwarnings("ignore", "Using padding='same' with even kernel lengths")
    op = op_of(case)
    tensors = case.inputs(dtype, device, layout, requires_grad=True)
    exact = tolerance.exact(case, tensors, use_torch="bench" in case.tags)
    by_torch = tolerance.run(case, op.torch, tolerance.copies(tensors))
    return tolerance.compare(tolerance.run(case, op.ours, tensors), by_torch, exact)


def require_agreement(
    case: Case, dtype: torch.dtype, device: torch.device, layout: torch.memory_format
) -> None:
    """Raise `KernelDisagreesError` unless every output and gradient of the case is right."""
    complaints = [one.complaint for one in compare(case, dtype, device, layout) if one.complaint]
    if complaints:
        raise KernelDisagreesError(
            f"{case.id} is wrong and was not timed: {complaints[0]}; `cisdl check {case.op}` looks closer"
        )
