"""The case table in a sanitized process. Results are looked at for NaN: unwritten memory is full of it.

Run by ``python -m tests.sanitize`` as ``python -m tests.sanitize.table PART`` in the sanitized environment.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import cache, partial

import torch

import cisdl_ops
from cisdl_ops import tolerance
from cisdl_ops.cases import OPS, Case, Function
from tests.cuda_emulation.emulated import Emulated
from tests.cuda_emulation.emulated_recurrence import emulated
from tests.cuda_emulation.machine import ORDERS, Machine
from tests.cuda_emulation.test_hopper import CASES as HOPPER_CASES
from tests.cuda_emulation.test_recurrence import LAYERS
from tests.cuda_emulation.test_tensor_cores import CASES as TENSOR_CORE_CASES
from tests.ops.running import DTYPES, REDUCED_DTYPES, TEST_CASES, layouts
from tests.ops.test_implementations import LISTS
from tests.ops.test_memory import shifted
from tests.ops.test_threads import LARGER, check_bits
from tests.sanitize.emulation import sanitized_library

Forced = Callable[[], AbstractContextManager[None]]


def choices(case: Case) -> Iterator[tuple[str, Forced]]:
    """The usual implementations, then every single one forced."""
    yield "", nullcontext
    for entry in LISTS.get(case.op, ()):
        for name in cisdl_ops.implementations(entry):
            yield f"{entry}:{name}", lambda e=entry, n=name: cisdl_ops.force_implementation(e, n)


@cache
def by_torch(case: Case, dtype: torch.dtype) -> tolerance.Outcome:
    return tolerance.run(case, OPS[case.op].torch, case.inputs(dtype, requires_grad=True))


def check_nan(case: Case, dtype: torch.dtype, outcome: tolerance.Outcome, situation: str) -> None:
    for name, expected in by_torch(case, dtype).tensors.items():
        got = outcome.tensors[name]
        if got.is_floating_point() and not torch.equal(got.isnan(), expected.isnan()):
            sys.exit(f"{case.id} {dtype} {situation}: {name} has NaN where torch has none: unwritten memory")


def attempt(forced: Forced, body: Callable[[], None]) -> None:
    """Does nothing where the forced implementation says that it cannot run the problem."""
    try:
        with forced():
            body()
    except (RuntimeError, ValueError) as error:
        if "implementation of" not in str(error):
            raise


def address() -> int:
    """Forward and backward by every implementation; by the usual one unaligned, and on three threads."""
    runs = 0

    def run(case: Case, dtype: torch.dtype, layout: torch.memory_format, change: Function, why: str) -> None:
        nonlocal runs
        inputs = case.inputs(dtype, memory_format=layout)
        tensors = {name: change(tensor).requires_grad_() for name, tensor in inputs.items()}
        check_nan(case, dtype, tolerance.run(case, OPS[case.op].ours, tensors), f"{layout} {why}")
        runs += 1

    torch.set_num_threads(1)
    for case in TEST_CASES:
        for dtype in DTYPES:
            for layout in layouts(case):
                for choice, forced in choices(case):
                    attempt(forced, partial(run, case, dtype, layout, torch.clone, choice))
                run(case, dtype, layout, shifted, "unaligned")
    torch.set_num_threads(3)
    for case in [*TEST_CASES, *LARGER]:
        for layout in layouts(case):
            run(case, torch.float32, layout, torch.clone, "on 3 threads")
    return runs


def thread() -> int:
    """The same bits on one, two and three threads, by every implementation."""
    runs = 0
    for case in [*TEST_CASES, *LARGER]:
        for dtype in DTYPES if case in LARGER else DTYPES[:1]:
            for _, forced in choices(case):
                attempt(forced, partial(check_bits, case, dtype))
                runs += 1
    return runs


def emulation() -> int:
    """Every CUDA kernel in every order of threads, float64 in one; tensor cores, recurrences: own cases."""
    machine, runs = Machine(sanitized_library()), 0
    torch.set_num_threads(1)
    cases = [(case, dtype, False) for case in TENSOR_CORE_CASES for dtype in (torch.float32, *REDUCED_DTYPES)]
    cases += [(case, dtype, True) for case in HOPPER_CASES for dtype in REDUCED_DTYPES]
    for case, dtype, hopper in cases:
        function = Emulated(machine, tf32=dtype == torch.float32, hopper=hopper).function(case.op)
        for order in ORDERS:
            machine.configure(order)
            outcome = tolerance.run(case, function, case.inputs(dtype, requires_grad=True))
            check_nan(case, dtype, outcome, f"tensor cores {order.name}")
            runs += 1
    for layer in LAYERS:
        for dtype in (torch.float32, *REDUCED_DTYPES):
            tensors = layer.inputs(dtype)
            for order in ORDERS:
                machine.configure(order)
                results = emulated(machine, layer, tensors)
                ones = [torch.ones_like(one) for one in results]
                grads = torch.autograd.grad(list(results), list(tensors.values()), ones)
                if any(one.isnan().any() for one in (*results, *grads)):
                    sys.exit(f"{layer.id} {dtype} {order.name}: NaN: unwritten memory")
                runs += 1
    for case in TEST_CASES:
        for dtype in (torch.float32, torch.float64):
            for layout in layouts(case):
                function = Emulated(machine, layout == torch.channels_last).function(case.op)
                for order in ORDERS if dtype == torch.float32 else ORDERS[-1:]:
                    machine.configure(order)
                    outcome = tolerance.run(case, function, case.inputs(dtype, requires_grad=True))
                    check_nan(case, dtype, outcome, f"{layout} {order.name}")
                    runs += 1
    return runs


def main(part: str) -> None:
    begin = time.monotonic()
    runs = {"address": address, "thread": thread, "emulation": emulation}[part]()
    where = part if part == "emulation" else f"{part} {cisdl_ops.build_info()['isa']}"
    print(f"{where}: {runs} runs of {len(TEST_CASES)} cases, nothing found, {time.monotonic() - begin:.0f} s")


if __name__ == "__main__":
    main(*sys.argv[1:])
