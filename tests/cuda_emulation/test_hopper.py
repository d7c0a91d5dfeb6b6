"""The kernels of compute capability 9.0, emulated: descriptors, swizzled tiles, the ring, unfolded images."""

from __future__ import annotations

import pytest
import torch

from cisdl_ops import tolerance
from cisdl_ops.cases import OPS, Case

from .emulated import Emulated
from .machine import ORDERS, Machine
from .test_tensor_cores import make_conv, make_linear

# Sizes that are no multiple of a tile or step in any of the three products, both widths of tiles, depths of
# one step and of more than the ring has stages. In the "split" ones some depths are cut into slices.
CASES = (
    make_linear("hopper_small", 3, 16, 8),
    make_linear("hopper_tiles", 200, 328, 136),
    make_linear("hopper_wide", 520, 72, 264),
    make_linear("hopper_split", 2056, 16, 24),
    make_linear("hopper_deep", 8, 2120, 10 * 8),
    make_conv("hopper_padded", (2, 64, 7, 11), (104, 64, 3, 3), padding=1, activation="relu"),
    make_conv("hopper_strided", (2, 48, 10, 9), (56, 48, 3, 2), stride=2, padding=(2, 1)),
    make_conv("hopper_dilated", (1, 56, 12, 13), (64, 56, 3, 3), dilation=2, padding=3),
    make_conv("hopper_pointwise", (3, 96, 9, 8), (264, 96, 1, 1)),
    make_conv("hopper_pointwise_strided", (2, 64, 7, 6), (64, 64, 1, 1), stride=2),
    make_conv(
        "hopper_stride_and_dilation",
        (1, 64, 13, 9),
        (64, 64, 3, 4),
        stride=(2, 1),
        dilation=(2, 3),
        padding=4,
    ),
    make_conv("hopper_stride_of_three", (1, 64, 11, 13), (48, 64, 3, 3), stride=3, padding=1),
    make_conv("hopper_transposed", (2, 64, 5, 6), (64, 48, 4, 4), stride=2, padding=1, transposed=True),
    make_conv("hopper_split", (5, 64, 16, 16), (48, 64, 1, 2), padding="same"),
)
# How many of a case's three products are for other kernels: the gradient of the input with a stride of 3.
OTHERS = {"conv2d/tensor_cores_hopper_stride_of_three": 1}
# Nothing for it: rows that are no whole chunks of 16 bytes, steps that would be mostly zeros, groups, cells
# too far apart.
REFUSED = (
    make_linear("hopper_odd", 5, 18, 7),
    make_conv("hopper_few_channels", (2, 16, 9, 11), (24, 16, 3, 3), padding=1),
    make_conv("hopper_groups", (1, 128, 6, 6), (128, 64, 3, 3), groups=2),
    make_conv("hopper_far", (1, 64, 270, 3), (64, 64, 2, 1), dilation=(256, 1)),
)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")  # torch about itself
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
@pytest.mark.parametrize("case", [*CASES, *REFUSED], ids=lambda case: case.id)
def test_products(case: Case, dtype: torch.dtype, machine: Machine) -> None:
    """Within the error that torch earns in the same precision, the same bits in every order."""
    inputs = case.inputs(dtype, requires_grad=True)
    exact = tolerance.exact(case, inputs)
    by_torch = tolerance.run(case, OPS[case.op].torch, tolerance.copies(inputs))
    function = Emulated(machine, hopper=True).function(case.op)
    first: tolerance.Outcome | None = None
    for order in ORDERS:
        machine.configure(order)
        before = machine.on_hopper
        outcome = tolerance.run(case, function, inputs)
        assert machine.on_hopper - before == (0 if case in REFUSED else 3 - OTHERS.get(case.id, 0))
        first = first or outcome
        complaints = [one.complaint for one in tolerance.compare(outcome, by_torch, exact) if one.complaint]
        assert not complaints, f"{order.name}: {complaints}"
        for name, tensor in outcome.tensors.items():
            assert torch.equal(tensor, first.tensors[name]), f"{name} differs in {order.name} order"
