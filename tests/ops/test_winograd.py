"""Winograd convolution: both orders of work, blocks of tiles, the limits of its choice, and its exactness."""

from __future__ import annotations

import pytest
import torch

import cisdl_ops
from cisdl_ops import tolerance
from cisdl_ops.cases import OPS, Case
from tests.ops.running import LAYOUTS, Expectation

ENTRIES = ("conv2d", "conv2d_backward_input", "conv2d_backward_weight")


def case(
    batch: int, channels: int, height: int, width: int, out: int, padding: int = 1, kernel: int = 3
) -> Case:
    shapes = {
        "input": (batch, channels, height, width),
        "weight": (out, channels, kernel, kernel),
        "bias": (out,),
    }
    name = f"winograd{kernel}_{batch}x{channels}x{height}x{width}_{out}"
    return Case("conv2d", name, shapes, {"padding": padding})


# Up to 8 panels times chunks, transformed weights are stored; more are made where they are used.
SHAPES = {
    "few tiles": case(2, 48, 14, 14, 80),
    "many tiles": case(5, 40, 47, 61, 36),
    "many channels": case(2, 200, 13, 9, 144),
    "many of both": case(4, 132, 28, 45, 100),
    "one panel": case(1, 33, 30, 31, 32, padding=0),
    "five taps, stored": case(1, 64, 11, 14, 64, padding=2, kernel=5),
    "five taps": case(2, 70, 14, 13, 66, padding=1, kernel=5),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_exactness_and_threads(shape: Case, layout: torch.memory_format) -> None:
    """Within the rule that every kernel keeps, and the same bits for any number of threads."""
    expected = Expectation(shape, shape.inputs(requires_grad=True), use_torch=True)
    outcomes = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        inputs = shape.inputs(memory_format=layout, requires_grad=True)
        outcomes.append(tolerance.run(shape, OPS["conv2d"].ours, inputs))
        assert [cisdl_ops.last_implementation(entry) for entry in ENTRIES] == ["winograd"] * 3
    expected.check(outcomes[0])
    for other in outcomes[1:]:
        for name, tensor in outcomes[0].tensors.items():
            assert torch.equal(other.tensors[name], tensor), name


@pytest.mark.parametrize(
    ("shape", "chosen"),
    [
        (case(1, 32, 8, 8, 513), True),
        (case(1, 31, 8, 8, 64), False),
        (case(1, 64, 8, 8, 31, kernel=5), False),
        (case(1, 64, 8, 8, 64, kernel=4), False),
    ],
    ids=["many channels", "few channels", "few channels, five taps", "four taps"],
)
def test_limits_of_the_choice(shape: Case, chosen: bool) -> None:
    tolerance.run(shape, OPS["conv2d"].ours, shape.inputs(requires_grad=True))
    assert [cisdl_ops.last_implementation(entry) == "winograd" for entry in ENTRIES] == [chosen] * 3


def test_float64_is_not_approximated() -> None:
    tolerance.run(SHAPES["few tiles"], OPS["conv2d"].ours, SHAPES["few tiles"].inputs(torch.float64))
    assert cisdl_ops.last_implementation("conv2d") != "winograd"
