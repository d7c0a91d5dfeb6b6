"""Runs a case of the table and decides whether a result is right. One rule for tests, check and bench.

The exact value is computed in float64 from the same (upcast) inputs. With ``error(x) = max |x - exact|``
over the finite elements, a result agrees when

    error(ours) <= FACTOR * error(torch in the same precision) + FLOOR * eps * max(1, max |exact|)

so the tolerance is earned from torch's own error instead of guessed. FACTOR lets another order of
summation lose two bits where torch is good; FLOOR keeps the rule meaningful where torch happens to be
exact. Tensors of the case table are of order 1, hence the 1. NaN and infinities have to be in the same
places: no tolerance there.

bfloat16 and float16 sums are formed in float32 and rounded once, so their floor is a single eps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from cisdl_ops.cases import Case, Function, op_of

FACTOR = 4.0
FLOOR = 16.0
FLOOR_REDUCED_PRECISION = 1.0


@dataclass(frozen=True)
class Outcome:
    """The outputs of one call and the gradients of its inputs, by name ("output 0", "grad input", ...)."""

    tensors: dict[str, Tensor]


@dataclass(frozen=True)
class Comparison:
    """The largest error of one named tensor, what the rule allows, and the complaint if it is not met."""

    name: str
    error: float
    torch_error: float
    allowed: float
    complaint: str | None


def run(
    case: Case, function: Function, tensors: Mapping[str, Tensor], grad_dtype: torch.dtype | None = None
) -> Outcome:
    """Forward, then backward of every output against random gradients, the same for every function.

    Gradients are computed for the tensors that require one. Those of the outputs are drawn in ``grad_dtype``
    (the output's by default), so that a float64 run can use the values a float32 run rounded to.
    """
    outputs = case.call(function, tensors)
    results = {f"output {i}": output.detach() for i, output in enumerate(outputs)}
    wanted = {name: tensor for name, tensor in tensors.items() if tensor.requires_grad}
    if wanted:
        generator = torch.Generator().manual_seed(1)
        differentiable = [output for output in outputs if output.is_floating_point()]
        grad_outputs = [
            torch.empty_like(output).copy_(
                torch.randn(output.shape, dtype=grad_dtype or output.dtype, generator=generator)
            )
            for output in differentiable
        ]
        grads = torch.autograd.grad(differentiable, list(wanted.values()), grad_outputs)
        results |= {f"grad {name}": grad for name, grad in zip(wanted, grads, strict=True)}
    return Outcome(results)


def copies(tensors: Mapping[str, Tensor], dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """New leaves with the same values, strides and requires_grad, in another dtype if one is given."""
    return {
        name: tensor.detach().clone().to(dtype or tensor.dtype).requires_grad_(tensor.requires_grad)
        for name, tensor in tensors.items()
    }


def exact(case: Case, tensors: Mapping[str, Tensor], use_torch: bool = False) -> Outcome:
    """The outcome in float64: by the plain reference, or by torch where the reference would take too long."""
    dtype = next(iter(tensors.values())).dtype
    op = op_of(case)
    return run(
        case, op.torch if use_torch else op.reference, copies(tensors, torch.float64), grad_dtype=dtype
    )


def error(result: Tensor, exact: Tensor) -> float:
    """max |result - exact| over the elements where exact is finite; 0 for an empty tensor."""
    difference = (result.double() - exact.double())[exact.isfinite()].abs()
    return difference.max().item() if difference.numel() else 0.0


def allowed_error(torch_result: Tensor, exact: Tensor) -> float:
    """The right side of the rule, with eps of ``torch_result``'s dtype."""
    finite = exact[exact.isfinite()].abs()
    scale = max(1.0, finite.max().item()) if finite.numel() else 1.0
    reduced = torch_result.dtype in (torch.bfloat16, torch.float16)
    floor = FLOOR_REDUCED_PRECISION if reduced else FLOOR
    return FACTOR * error(torch_result, exact) + floor * torch.finfo(torch_result.dtype).eps * scale


def compare_tensor(name: str, ours: Tensor, torch_result: Tensor, exact: Tensor) -> Comparison:
    """Shape and dtype as torch's, special values in place, integers equal, error within the rule."""
    if ours.shape != torch_result.shape or ours.dtype != torch_result.dtype:
        expected = f"shape {tuple(torch_result.shape)} and {torch_result.dtype}"
        got = f"{tuple(ours.shape)} and {ours.dtype}"
        return Comparison(name, float("inf"), 0.0, 0.0, f"{name}: expected {expected}, got {got}")
    if not ours.is_floating_point():
        wrong = int((ours != torch_result).sum())
        return Comparison(
            name, wrong, 0.0, 0.0, f"{name}: {wrong} integers differ from torch's" if wrong else None
        )
    worst, torch_error = error(ours, exact), error(torch_result, exact)
    allowed = allowed_error(torch_result, exact)
    complaint: str | None = None
    for kind, test in (("NaN", torch.isnan), ("+inf", torch.isposinf), ("-inf", torch.isneginf)):
        if not torch.equal(test(ours), test(exact)):
            complaint = f"{name}: {kind} in other places than in the exact result"
    if complaint is None and not worst <= allowed:
        complaint = f"{name}: error {worst:.3g}, allowed {allowed:.3g} (torch's own is {torch_error:.3g})"
    return Comparison(name, worst, torch_error, allowed, complaint)


def compare(ours: Outcome, torch_outcome: Outcome, exact_outcome: Outcome) -> list[Comparison]:
    """One comparison for every output and every gradient."""
    return [
        compare_tensor(name, ours.tensors[name], torch_outcome.tensors[name], exact_outcome.tensors[name])
        for name in exact_outcome.tensors
    ]
