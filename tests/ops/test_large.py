"""More than 2^31 elements in a tensor: no index of a kernel or a binding is an int.

Run by ``make test-large``; each test is skipped, with the reason, where memory is short. Inputs are zeros,
whose pages the system does not even provide, with random slices at the beginning, at the end and where the
2^31st element lies. Ops treat every element of a batch alike, so torch on the slices alone says what the
slices of the result must be, and torch on one slice of zeros what all the rest must be.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cisdl_ops.cases import OPS, Case, Function, Shape, select
from tests.ops.running import LAYOUTS, layouts

pytestmark = pytest.mark.large

LIMIT = 2**31
GIB = 2**30
MARGIN = 2 * GIB  # for the process, torch's own scratch memory and the neighbours
CHUNK = 2**26  # elements compared at a time


# ----------------------------------------------------------------------------------------------- memory


def available_memory() -> int:
    """Bytes that this process can still get: the machine's, or its control group's if that is less."""
    fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    found = int(fields["MemAvailable"].split()[0]) * 1024
    group = Path("/sys/fs/cgroup")
    with suppress(OSError, ValueError):  # no such group, or "max"
        limit = int((group / "memory.max").read_text())
        found = min(found, limit - int((group / "memory.current").read_text()))
    return found


def need(elements: int) -> None:
    """Skips the test if that many float32 and what surrounds them do not fit."""
    wanted, found = 4 * elements + MARGIN, available_memory()
    if wanted > found:
        pytest.skip(f"needs {wanted / GIB:.1f} GiB of memory, {found / GIB:.1f} GiB are available")


@pytest.fixture(autouse=True)
def all_threads(one_thread: None) -> None:
    torch.set_num_threads(os.cpu_count() or 1)


# ------------------------------------------------------------------------------------------------ cases


def is_batched(name: str) -> bool:
    """Whether a tensor has one entry for each element of the batch, and is no parameter."""
    return not name.startswith(("w", "b"))


def with_batch(case: Case, batch: int) -> Case:
    shapes = {n: (batch, *shape[1:]) if is_batched(n) else shape for n, shape in case.shapes.items()}
    return replace(case, name=f"{case.name}_batch_{batch}", shapes=shapes)


def large_case(op: str) -> Case:
    """The case that, with a batch so large that one of its tensors passes the limit, writes the least."""
    found: list[tuple[int, str, Case]] = []
    for case in select(glob=f"{op}/*"):
        if len(case.shapes["input"]) not in (2, 4) or case.values != "normal":
            continue
        one = with_batch(case, 1)
        outputs = [prod(shape) for shape in one.output_shapes()]
        if 0 in outputs or 0 in map(prod, one.shapes.values()):
            continue
        largest = max(prod(one.shapes["input"]), *outputs)
        if prod(one.shapes["input"]) < 64 or largest > 2**16:
            continue  # for the batch not to be the only large number, nor a small one
        large = with_batch(case, LIMIT // largest + 3)
        found.append((large.shapes["input"][0] * sum(outputs), case.id, large))
    assert found, f"no case of {op} has a batch"
    return min(found)[2]


LARGE = [large_case(op) for op in OPS]
IN_LAYOUTS = [
    pytest.param(case, layout, id=f"{case.id}-{name}")
    for case in LARGE
    for name, layout in LAYOUTS.items()
    if layout in layouts(case)
]


# -------------------------------------------------------------------------------------- slices and zeros


def zeros(shape: Shape, layout: torch.memory_format = torch.contiguous_format) -> Tensor:
    """By numpy, which leaves its memory untouched where torch would fill it."""
    if layout == torch.channels_last and len(shape) == 4:
        n, c, h, w = shape
        return zeros((n, h, w, c)).permute(0, 3, 1, 2)
    return torch.from_numpy(np.zeros(shape, dtype=np.float32))


def slices(batch: int, tensors: list[Shape]) -> list[slice]:
    """Places in the batch: both ends, and where each tensor passes the limit; disjoint and in order."""
    marks = {0, batch - 2}
    for shape in tensors:
        if prod(shape) > LIMIT:
            marks.add(min(LIMIT // prod(shape[1:]) - 1, batch - 2))
    ordered = sorted(marks)
    apart = [ordered[0]] + [later for earlier, later in pairwise(ordered) if later - earlier >= 2]
    return [slice(mark, mark + 2) for mark in apart]


def between(places: list[slice]) -> Iterator[slice]:
    for one, other in pairwise(places):
        if one.stop < other.start:
            yield slice(one.stop, other.start)


def check(result: Tensor, expected: Tensor, elsewhere: Tensor, places: list[slice]) -> None:
    """``expected`` holds the slices one behind the other, ``elsewhere`` one entry of the batch."""
    got = torch.cat([result[place] for place in places])
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    for place in between(places):
        for part in result[place].split(max(1, CHUNK // result[0].numel())):
            difference = (part - elsewhere).abs().max()
            assert difference <= 1e-5, f"wrong between {place.start} and {place.stop}: by {difference}"


@pytest.mark.parametrize(("case", "layout"), IN_LAYOUTS)
@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
def test_large_batch(case: Case, layout: torch.memory_format, backward: bool) -> None:
    batch, output_shapes = case.shapes["input"][0], case.output_shapes()
    written = sum(map(prod, output_shapes))
    if backward:  # the outputs, what forward saves for it (an LSTM's gates) and the gradients
        written = 4 * written + sum(prod(shape) for name, shape in case.shapes.items() if is_batched(name))
    need(written)

    places = slices(batch, [*case.shapes.values(), *output_shapes])
    total = sum(place.stop - place.start for place in places)
    small = with_batch(case, total).inputs(memory_format=layout)
    tensors: dict[str, Tensor] = {}
    for name, values in small.items():
        tensors[name] = zeros(case.shapes[name], layout) if is_batched(name) else values.clone()
        if is_batched(name):
            for place, part in zip(places, values.split(2), strict=True):
                tensors[name][place] = part
    empty = with_batch(case, 1).inputs(memory_format=layout)
    empty = {name: zeros(values.shape) if is_batched(name) else small[name] for name, values in empty.items()}

    op = OPS[case.op]
    for mapping in (tensors, small):
        for tensor in mapping.values():
            tensor.requires_grad_(backward)
    outputs, expected = case.call(op.ours, tensors), case.call(op.torch, small)
    assert max(map(torch.Tensor.numel, [*tensors.values(), *outputs])) > LIMIT
    with torch.no_grad():
        for result, right, elsewhere in zip(outputs, expected, case.call(op.torch, empty), strict=True):
            check(result, right, elsewhere, places)
    if not backward:
        return

    incoming, small_incoming = [], []
    for result, right in zip(outputs, expected, strict=True):
        if result.is_floating_point():
            random = torch.randn(right.shape)
            gradient = zeros(tuple(result.shape), layout)
            for place, part in zip(places, random.split(2), strict=True):
                gradient[place] = part
            incoming.append(gradient)
            small_incoming.append(random)
    differentiable = [result for result in outputs if result.is_floating_point()]
    small_outputs = [result for result in expected if result.is_floating_point()]
    del outputs, result
    for name in op.differentiable:  # one at a time, for the sake of memory
        if name not in tensors:
            continue
        grad = torch.autograd.grad(differentiable, [tensors[name]], incoming, retain_graph=True)[0]
        right = torch.autograd.grad(small_outputs, [small[name]], small_incoming, retain_graph=True)[0]
        if is_batched(name):
            check(grad, right, torch.zeros(1), places)
        else:
            torch.testing.assert_close(grad, right, rtol=1e-4, atol=1e-4)
        del grad


# ----------------------------------------------------------------------------- one image, one weight


PLANE_OPS: dict[str, dict[str, Any]] = {
    "conv2d": {"weight": torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), "stride": 2},
    "avg_pool2d": {"kernel_size": 2},
    "max_pool2d": {"kernel_size": 2, "return_indices": True},
}


def results_of(function: Function, x: Tensor, op: str) -> tuple[Tensor, ...]:
    results = function(x, **PLANE_OPS[op])
    return results if isinstance(results, tuple) else (results,)


@pytest.mark.parametrize("op", PLANE_OPS)
def test_large_plane(op: str) -> None:
    """One image of more than 2^31 pixels: also the flat indices of max pooling are larger than an int."""
    height, width, rows = 2**16 + 4, 2**15, 4
    need(height * width * 3 // 4)
    x = zeros((1, 1, height, width))
    for first in (0, height - rows):
        x[:, :, first : first + rows] = torch.randn(rows, width)
    results = results_of(OPS[op].ours, x, op)
    for first in (0, height - rows):
        expected = results_of(OPS[op].torch, x[:, :, first : first + rows].contiguous(), op)
        for got, right in zip(results, expected, strict=True):
            offset = 0 if right.is_floating_point() else first * width
            torch.testing.assert_close(got[:, :, first // 2 : (first + rows) // 2], right + offset)
    assert results[0][:, :, rows // 2 : -rows // 2].abs().max() == 0


def test_large_weight_of_linear() -> None:
    """Forward and both gradients with a matrix of more than 2^31 elements."""
    inputs, outputs, rows = 2**16, 2**15 + 8, 4
    need(LIMIT + LIMIT // 8)
    weight, x = zeros((outputs, inputs)), torch.randn(3, inputs)
    for first in (0, outputs - rows):
        weight[first : first + rows] = torch.randn(rows, inputs) / 256
    x.requires_grad_()
    y = OPS["linear"].ours(x, weight)
    ends = torch.cat([weight[:rows], weight[-rows:]])
    expected = OPS["linear"].torch(x, ends)
    torch.testing.assert_close(torch.cat([y[:, :rows], y[:, -rows:]], 1), expected, rtol=1e-4, atol=1e-4)
    assert y[:, rows:-rows].abs().max() == 0

    incoming = torch.randn_like(y)
    (grad,) = torch.autograd.grad(y, x, incoming)
    ends_incoming = torch.cat([incoming[:, :rows], incoming[:, -rows:]], 1)
    torch.testing.assert_close(grad, torch.autograd.grad(expected, x, ends_incoming)[0], rtol=1e-4, atol=1e-4)
    y = OPS["linear"].ours(x.detach(), weight.requires_grad_())
    (grad,) = torch.autograd.grad(y, weight, incoming)
    for part in (slice(0, rows), slice(outputs - rows, outputs)):
        torch.testing.assert_close(grad[part], incoming[:, part].T @ x.detach(), rtol=1e-4, atol=1e-4)
