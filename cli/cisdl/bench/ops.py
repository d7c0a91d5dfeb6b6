"""One case of the table: verified, then each of its passes timed against torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cisdl.bench.results import Row
from cisdl.bench.timing import Clock, Effort, Timing, interleave
from cisdl.bench.verify import require_agreement
from cisdl_ops.cases import OPS, Case, Function

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
LIST_OF_PASS = {
    "forward": "",
    "grad_input": "_backward_input",
    "grad_weight": "_backward_weight",
    "backward": "_backward",
}


@dataclass(frozen=True)
class Settings:
    """How to bench: where, in which precision and layouts, which passes, how long."""

    device: torch.device
    dtype: torch.dtype
    layouts: tuple[str, ...]
    forward: bool
    backward: bool
    compiled: bool
    effort: Effort
    clock: Clock


def layouts_of(case: Case, wanted: Sequence[str]) -> list[str]:
    """The wanted layouts that make a difference; an op without images has only one."""
    images = case.op != "linear" and any(len(shape) == 4 for shape in case.shapes.values())
    return list(wanted) if images else ["contiguous"]


def forward_of(case: Case, function: Function, tensors: dict[str, Tensor]) -> Callable[[], Any]:
    """The forward alone; no tensor requires a gradient, so nothing is recorded."""
    return case.bind(function, tensors)


def backward_of(case: Case, function: Function, tensors: dict[str, Tensor]) -> Callable[[], Any]:
    """The gradients of the tensors that require one, through autograd, from a graph that is kept."""
    outputs = [output for output in case.call(function, tensors) if output.requires_grad]
    wanted = [tensor for tensor in tensors.values() if tensor.requires_grad]
    incoming = [torch.randn_like(output) for output in outputs]
    return lambda: torch.autograd.grad(outputs, wanted, incoming, retain_graph=True)


def providers(case: Case, settings: Settings) -> dict[str, Function]:
    op = OPS[case.op]
    functions = {"ours": op.ours, "torch": op.torch}
    if settings.compiled:
        torch._functorch.config.donated_buffer = False  # the graph is kept
        torch._dynamo.reset()
        functions["compiled"] = torch.compile(op.torch, fullgraph=True)
    return functions


def bench_case(case: Case, settings: Settings) -> Iterator[Row]:
    """One row a pass. The case is verified in every layout before anything is timed."""
    layouts = layouts_of(case, settings.layouts)
    for layout in layouts:
        require_agreement(case, settings.dtype, settings.device, LAYOUTS[layout])
    functions = providers(case, settings)
    if settings.forward:
        yield time_pass(case, settings, layouts, functions, "forward", (), 1)
    if settings.backward:
        for part in OPS[case.op].passes:
            yield time_pass(case, settings, layouts, functions, part.name, part.wrt, part.work)


def time_pass(
    case: Case,
    settings: Settings,
    layouts: Sequence[str],
    functions: dict[str, Function],
    part: str,
    wrt: tuple[str, ...],
    work: int,
) -> Row:
    make = backward_of if wrt else forward_of
    names, calls = [], []
    for layout in layouts:
        for provider, function in functions.items():
            tensors = case.inputs(settings.dtype, settings.device, LAYOUTS[layout], requires_grad=wrt)
            names.append((provider, layout))
            calls.append(make(case, function, tensors))
    samples = interleave(calls, settings.clock, settings.effort)
    timings = [Timing(*name, seconds) for name, seconds in zip(names, samples, strict=True)]
    row = Row(
        case=case.id,
        part=part,
        dtype=str(settings.dtype).removeprefix("torch."),
        timings=timings,
        implementation="",
        flops=case.flops(work),
        bytes=case.bytes(settings.dtype.itemsize, work),
    )
    best = names.index(("ours", row.best("ours").layout))
    return Row(**{**vars(row), "implementation": implementation_of(case, part, calls[best])})


def implementation_of(case: Case, part: str, call: Callable[[], Any]) -> str:
    """What runs in our best layout, found by running it once more."""
    import cisdl_ops

    call()
    return cisdl_ops.last_implementation(case.op + LIST_OF_PASS[part])
