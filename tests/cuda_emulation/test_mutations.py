"""Mutations of the CUDA kernels: without any one barrier, wait or bounds check, the cases here notice.

What is left out is left out at run time, by its place in the source, so nothing is compiled anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial

import pytest
import torch

from cisdl_ops import tolerance
from cisdl_ops.cases import CASES, OPS, Case

from ..ops.test_cross_entropy import batch
from ..ops.test_cross_entropy import outcome as outcome_of_loss
from .build import CUDA
from .emulated import Emulated
from .emulated_loss import cross_entropy
from .emulated_recurrence import Layer, emulated
from .machine import ORDERS, EmulationError, Machine, bits
from .test_hopper import CASES as HOPPER_CASES
from .test_tensor_cores import CASES as TENSOR_CORE_CASES

Run = Callable[[], list[torch.Tensor]]


def _named(*identifiers: str) -> list[Case]:
    found = {case.id: case for case in (*CASES, *TENSOR_CORE_CASES, *HOPPER_CASES)}
    return [found[identifier] for identifier in identifiers]


# Cases that reach every place, and go round every loop that a barrier protects more than once.
FLOAT_CASES = _named(
    "linear/odd_blocks",
    "linear/leaky_relu_odd_blocks",
    "conv2d/resnet_like",
    "conv2d/stride_pair",
    "max_pool2d/ceil_padding",
    "max_pool2d/dilation_padding",
    "avg_pool2d/ceil_padding",
    "adaptive_max_pool2d/global",
    "adaptive_avg_pool2d/global",
)
TENSOR_CORES = _named(
    "conv2d/tensor_cores_padded",
    "linear/tensor_cores_tiles",
    "linear/tensor_cores_split",
    "conv_transpose2d/tensor_cores_transposed",
)
HOPPER = _named("linear/tensor_cores_hopper_tiles", "conv2d/tensor_cores_hopper_padded")
# Rows that end and rows that begin late, a piece of the depth and a tile of rows that are not full.
RECURRENCES = (
    Layer("lstm", 40, (4, 3, 3)),
    Layer("gru", 40, (3, *[2] * 17), reverse=True),
)


def _recurrences(machine: Machine) -> list[Run]:
    def outcome(layer: Layer) -> list[torch.Tensor]:
        tensors = layer.inputs(torch.bfloat16)
        results = emulated(machine, layer, tensors)
        grads = torch.autograd.grad(
            list(results), list(tensors.values()), list(map(torch.ones_like, results))
        )
        return [*results, *grads]

    return [partial(outcome, layer) for layer in RECURRENCES]


def _on_hopper(machine: Machine) -> list[Run]:
    def outcome(case: Case) -> list[torch.Tensor]:
        function = Emulated(machine, hopper=True).function(case.op)
        inputs = case.inputs(torch.bfloat16, requires_grad=True)
        return list(tolerance.run(case, function, inputs).tensors.values())

    return [partial(outcome, case) for case in HOPPER]


def _runs(machine: Machine) -> list[Run]:
    def outcome(case: Case, dtype: torch.dtype, channels_last: bool) -> list[torch.Tensor]:
        function = Emulated(machine, channels_last).function(case.op)
        return list(tolerance.run(case, function, case.inputs(dtype, requires_grad=True)).tensors.values())

    runs = [
        partial(outcome, case, torch.float32, channels_last)
        for case in FLOAT_CASES
        for channels_last in ((False, True) if OPS[case.op].images else (False,))
    ]

    def gather() -> list[torch.Tensor]:
        """From places of which some are none."""
        input = torch.arange(1.0, 49.0).view(1, 2, 4, 6)
        places = torch.tensor([[5, -1, 23], [0, 7, -1]]).expand(1, 2, 2, 3).contiguous()
        return [Emulated(machine).max_pool2d_gather(input, places, kernel_size=2)]

    def loss() -> list[torch.Tensor]:
        """Rows for several blocks, each shared by threads; a class that there is not."""
        scores, target, weight = batch(70, 33)
        target[0] = -1
        loss_of = partial(cross_entropy, machine)
        results = [
            tensor
            for reduction in ("none", "mean")
            for tensor in outcome_of_loss(loss_of, scores, target, weight, reduction, label_smoothing=0.1)
        ]
        scores = scores[:, :32].contiguous()  # rows of whole 16 bytes, classes that there are
        results += outcome_of_loss(loss_of, scores, target.clamp(0, 31), weight[:32], "mean")
        return [one.nan_to_num(1e9) for one in results]

    def step() -> list[torch.Tensor]:
        """Of tensors with whole 16 bytes and without, in one block and in more."""
        sizes = (7, 4096, 4101)
        weights = [torch.linspace(-1, 1, size) for size in sizes]
        grads = [weight.flip(0) for weight in weights]
        rates = map(bits, (0.1, 0.0, 0.0, 0.01))
        numbers = (*rates, False, False, False, len(sizes), *sizes)
        machine.run("sgd_step", numbers, grads, [None] * len(sizes), updated=weights)
        return weights

    runs += [loss, step]
    [rest_of_16_bytes] = _named("adaptive_avg_pool2d/global")
    runs += [gather, partial(outcome, rest_of_16_bytes, torch.bfloat16, False)]
    return [*runs, *(partial(outcome, case, torch.bfloat16, True) for case in TENSOR_CORES)]


Noticed = Callable[[str, AbstractContextManager[None]], bool]


@pytest.fixture(scope="module")
def noticed(machine: Machine) -> Noticed:
    """Whether a run in some order fails, or gives other bits, with a mutation of a file."""
    others = _runs(machine)
    recurrences, of_file = _recurrences(machine), {"hopper_gemm.cu": _on_hopper(machine)}
    machine.configure(ORDERS[0])
    expected = {run: run() for runs in (*of_file.values(), recurrences, others) for run in runs}

    def different(run: Run) -> bool:
        try:
            return not all(map(torch.equal, run(), expected[run]))
        except EmulationError:
            return True

    def any_different(file: str, mutation: AbstractContextManager[None]) -> bool:
        with mutation:
            for run in recurrences if file.startswith("recurrence") else of_file.get(file, others):
                for order in ORDERS:
                    machine.configure(order)
                    if different(run):
                        return True
        return False

    return any_different


def _of_kernels(places: Sequence[tuple[str, int]]) -> Iterator[tuple[int, str, int]]:
    return ((i, file, line) for i, (file, line) in enumerate(places) if (CUDA / file).exists())


def test_every_barrier_and_wait_is_needed(machine: Machine, noticed: Noticed) -> None:
    """Without any one __syncthreads or wait for copies, some order of threads gives another result.

    On Hopper, without any arrival, fence, copy or product, too.
    """
    places = list(_of_kernels(machine.barriers()))
    products = {"gemm.cuh", "hopper_gemm.cu", "mma_gemm.cuh", "sums.cuh"}
    others = {"adaptive_pool2d.cuh", "cross_entropy.cuh", "recurrence.cuh", "recurrence_pieces.cuh"}
    assert {file for _, file, _ in places} == products | others
    missed = [
        (file, line) for _, file, line in places if not noticed(file, machine.without_barrier(file, line))
    ]
    assert not missed, "nobody notices their absence"


def test_every_bounds_check_is_needed(machine: Machine, noticed: Noticed) -> None:
    """With any one bounds check taken for true, a run reads or writes outside, or is wrong."""
    places = list(_of_kernels(machine.bounds_checks()))
    written = {
        (path.name, number)
        for path in CUDA.glob("*.cu*")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if "CISDL_INSIDE(" in line and "#define" not in line
    }
    assert {(file, line) for _, file, line in places} == written, "every check is reached"
    missed = [(file, line) for i, file, line in places if not noticed(file, machine.without_bounds_check(i))]
    assert not missed, "nobody notices their absence"
