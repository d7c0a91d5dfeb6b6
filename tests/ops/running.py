"""What the tests of this folder share: cases by tag, layouts, devices, and one call that checks a case."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor

import cisdl_ops
from cisdl_ops import tolerance
from cisdl_ops.cases import CASES, OPS, Case, select

DTYPES = (torch.float32, torch.float64)
REDUCED_DTYPES = (torch.bfloat16, torch.float16)
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
DEVICES = ("cpu", "cuda") if torch.cuda.is_available() and cisdl_ops.build_info()["cuda"] else ("cpu",)
TEST_CASES = select("test")
GRAD_CASES = select("grad")


def case_named(identifier: str) -> Case:
    return next(case for case in CASES if case.id == identifier)


def name_of(value: object) -> str:
    """The part of a test's name that stands for a case or a dtype."""
    return value.id if isinstance(value, Case) else str(value).removeprefix("torch.")


def layouts(case: Case) -> list[torch.memory_format]:
    """channels_last only where an op knows images."""
    images = OPS[case.op].images and len(case.shapes["input"]) == 4
    return list(LAYOUTS.values()) if images else [torch.contiguous_format]


@contextmanager
def poisoned_memory() -> Iterator[None]:
    """torch fills fresh memory with NaN in this mode: an element that a kernel forgets to write shows."""
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


class Expectation:
    """What torch and the exact computation give for a case; runs of ours are held against it."""

    def __init__(self, case: Case, tensors: Mapping[str, Tensor], use_torch: bool = False) -> None:
        self.case = case
        self.exact = tolerance.exact(case, tensors, use_torch)
        self.by_torch = tolerance.run(case, OPS[case.op].torch, tolerance.copies(tensors))

    def check(self, outcome: tolerance.Outcome, situation: str = "") -> None:
        compared = tolerance.compare(outcome, self.by_torch, self.exact)
        complaints = [one.complaint for one in compared if one.complaint]
        assert not complaints, f"{self.case.id} {situation}: " + "; ".join(complaints)


@cache
def expectation(identifier: str, dtype: torch.dtype, device: str = "cpu") -> Expectation:
    """By the reference, for the case's own inputs with every gradient; computed once for all tests."""
    case = case_named(identifier)
    return Expectation(case, case.inputs(dtype, device, requires_grad=True))


def check_case(case: Case, tensors: Mapping[str, Tensor]) -> tolerance.Outcome:
    """Forward and the gradients that ``tensors`` ask for: ours against torch in this and in double precision.

    ``tensors`` go to ours as they are; torch gets copies. Returns our outcome.
    """
    expected = Expectation(case, tensors, use_torch=True)
    ours = tolerance.run(case, OPS[case.op].ours, tensors)
    expected.check(ours)
    return ours
