"""One case of the table: verified, then each of its passes timed against torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from cisdl.bench.graphs import captured
from cisdl.bench.results import IN_A_GRAPH, Row
from cisdl.bench.timing import Clock, Effort, Timing, interleave
from cisdl.bench.verify import require_agreement
from cisdl_ops.cases import Case, Function, Pass, op_of

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
HOPELESS = 4.0
LIST_OF_PASS = {
    "forward": "",
    "grad_input": "_backward_input",
    "grad_weight": "_backward_weight",
    "backward": "_backward",
    "training": "_backward",
}


@dataclass(frozen=True)
class Settings:
    """How to bench: where, in which precision and layouts, which passes, how long."""

    device: torch.device
    dtype: torch.dtype
    layouts: tuple[str, ...]
    each_layout: bool  # a row for every layout, instead of one for the best of each side
    forward: bool
    backward: bool
    compiled: bool
    effort: Effort
    clock: Clock
    together: bool = False  # one row of forward and backward in turn
    cold: Clock | None = None  # for a second row of each pass, or the only one, with nothing in the caches
    hot: bool = True
    graphs: bool = False  # on a GPU, both sides as CUDA graphs, too

    @property
    def clocks(self) -> dict[str, Clock]:
        """A row for each, by what is in the caches before a call; a GPU's is always overwritten."""
        if self.device.type == "cuda":
            return {"overwritten": self.clock}
        cold = {"cold": self.cold} if self.cold else {}
        return ({"hot": self.clock} if self.hot else {}) | cold


def layouts_of(case: Case, wanted: Sequence[str]) -> list[str]:
    """The wanted layouts that make a difference; an op without images has only one."""
    return list(wanted) if op_of(case).images else ["contiguous"]


def forward_of(case: Case, function: Function, tensors: dict[str, Tensor]) -> Callable[[], Any]:
    """The forward alone; no tensor requires a gradient, so nothing is recorded."""
    return case.bind(function, tensors)


def backward_of(case: Case, function: Function, tensors: dict[str, Tensor]) -> Callable[[], Any]:
    """The gradients of the tensors that require one, through autograd, from a graph that is kept."""
    outputs = [output for output in case.call(function, tensors) if output.requires_grad]
    wanted = [tensor for tensor in tensors.values() if tensor.requires_grad]
    incoming = [torch.randn_like(output) for output in outputs]
    return lambda: torch.autograd.grad(outputs, wanted, incoming, retain_graph=True)


def training_of(case: Case, function: Function, tensors: dict[str, Tensor]) -> Callable[[], Any]:
    """Forward and backward in turn, the graph made anew."""
    run = case.bind(function, tensors)
    wanted = [tensor for tensor in tensors.values() if tensor.requires_grad]
    first = run()
    if isinstance(first, Tensor):
        gradient = torch.randn_like(first)
        return lambda: torch.autograd.grad(run(), wanted, gradient)
    incoming = [torch.randn_like(output) for output in first]
    return lambda: torch.autograd.grad(run(), wanted, incoming)


def providers(case: Case, settings: Settings) -> dict[str, Function]:
    op = op_of(case)
    functions = {"ours": op.ours, "torch": op.torch}
    if settings.compiled:
        import torch._functorch.config as compiler_config

        compiler_config.donated_buffer = False  # the graph is kept between calls
        torch._dynamo.reset()
        functions["compiled"] = torch.compile(op.torch, fullgraph=True)
    return functions


def bench_case(case: Case, settings: Settings) -> Iterator[Row]:
    """One row a pass. The case is verified in every layout before anything is timed."""
    layouts = layouts_of(case, settings.layouts)
    for layout in layouts:
        require_agreement(case, settings.dtype, settings.device, LAYOUTS[layout])
    functions = providers(case, settings)
    for part in parts_of(case, settings):
        for group in [[layout] for layout in layouts] if settings.each_layout else [layouts]:
            for cache in settings.clocks:
                yield time_pass(case, settings, group, functions, part, cache)


def parts_of(case: Case, settings: Settings) -> list[Pass]:
    """What is timed. Nobody needs the input's gradient of a first layer."""
    backward = [part for part in op_of(case).passes if not ("first" in case.tags and part.wrt == ("input",))]
    parts = [Pass("forward", ())] if settings.forward else []
    parts += backward if settings.backward else []
    if settings.together and any(part.with_forward for part in backward):
        parts += [part for part in backward if part.with_forward]
    elif settings.together:
        wrt = tuple(name for part in backward for name in part.wrt)
        work = 1 + sum(part.work for part in backward)
        parts.append(Pass("training", wrt, work, with_forward=True))
    return parts


def time_pass(
    case: Case,
    settings: Settings,
    layouts: Sequence[str],
    functions: dict[str, Function],
    part: Pass,
    cache: str,
) -> Row:
    clock = settings.clocks[cache]
    make = training_of if part.with_forward else backward_of if part.wrt else forward_of
    names, calls = [], []
    for layout in layouts:
        for provider, function in functions.items():
            tensors = case.inputs(settings.dtype, settings.device, LAYOUTS[layout], requires_grad=part.wrt)
            names.append((provider, layout))
            calls.append(make(case, function, tensors))
    names, calls = without_hopeless(names, calls, clock)
    if settings.graphs:
        for provider, layout in list(names):
            tensors = case.inputs(settings.dtype, settings.device, LAYOUTS[layout], requires_grad=part.wrt)
            prepare = partial(make, case, functions[provider], tensors)
            names.append((provider + IN_A_GRAPH, layout))
            calls.append(captured(prepare, settings.device))
    samples = interleave(calls, clock, settings.effort)
    timings = [Timing(*name, seconds) for name, seconds in zip(names, samples, strict=True)]
    row = Row(
        case=case.id,
        part=part.name,
        layout="each" if settings.each_layout else "best",
        dtype=str(settings.dtype).removeprefix("torch."),
        timings=timings,
        implementation="",
        flops=case.flops(part.work),
        bytes=case.bytes(settings.dtype.itemsize, part.work),
        cache=cache,
    )
    best = names.index(("ours", row.best("ours").layout))
    return Row(**{**vars(row), "implementation": implementation_of(case, part, calls[best])})


def without_hopeless(
    names: list[tuple[str, str]], calls: list[Callable[[], Any]], clock: Clock
) -> tuple[list[tuple[str, str]], list[Callable[[], Any]]]:
    """Without the layouts in which a side is many times slower than in its other: they cannot be its best."""
    once = [min(clock.seconds(call, 1), clock.seconds(call, 1)) for call in calls]
    best: dict[str, float] = {}
    for (provider, _), seconds in zip(names, once, strict=True):
        best[provider] = min(seconds, best.get(provider, seconds))
    kept = [i for i, (provider, _) in enumerate(names) if once[i] <= HOPELESS * best[provider]]
    return [names[i] for i in kept], [calls[i] for i in kept]


def implementation_of(case: Case, part: Pass, call: Callable[[], Any]) -> str:
    """What runs in our best layout, found by running it once more; of several passes, each that differs."""
    import cisdl_ops

    call()
    names, passes = [part.name], op_of(case).passes
    if part.with_forward and part not in passes:
        names = ["forward", *(one.name for one in passes if set(one.wrt) <= set(part.wrt))]
    ran = [cisdl_ops.last_implementation(case.op + LIST_OF_PASS[name]) for name in names]
    return ", ".join(dict.fromkeys(ran))
