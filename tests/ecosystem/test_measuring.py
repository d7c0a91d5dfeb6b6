"""torch's flop counter and profiler see in an accelerated model what they see in a plain one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import cisdl_ops
from tests.zoo.tasks import TASKS

IMAGE = (2, 4, 9, 8)
STEPS = (6, 3, 5)

# name: module, shape of an input, whether the input needs a gradient
COUNTED: dict[str, tuple[nn.Module, tuple[int, ...], bool]] = {
    "linear": (nn.Linear(5, 7), (3, 5), True),
    "linear_3d": (nn.Linear(5, 7, bias=False), (2, 3, 5), True),
    "linear_first": (nn.Linear(5, 7), (3, 5), False),
    "conv2d": (nn.Conv2d(4, 6, 3, stride=2, padding=1), IMAGE, True),
    "conv2d_first": (nn.Conv2d(4, 6, (3, 2), dilation=2), IMAGE, False),
    "conv2d_groups": (nn.Conv2d(4, 6, 3, groups=2), IMAGE, True),
    "conv2d_unbatched": (nn.Conv2d(4, 6, 3), IMAGE[1:], True),
    "conv_transpose2d": (nn.ConvTranspose2d(4, 6, 3, stride=2, output_padding=1), IMAGE, True),
    "conv_transpose2d_unbatched": (nn.ConvTranspose2d(4, 6, 3), IMAGE[1:], True),
    "max_pool2d": (nn.MaxPool2d(2), IMAGE, True),
    "lstm_cell": (nn.LSTMCell(5, 7), (3, 5), True),
    "gru_cell": (nn.GRUCell(5, 7), (3, 5), False),
    "rnn_cell": (nn.RNNCell(5, 7), (3, 5), True),
    "lstm": (nn.LSTM(5, 7, num_layers=2, bidirectional=True), STEPS, True),
    "lstm_projection": (nn.LSTM(5, 7, proj_size=4), STEPS, True),
    "gru": (nn.GRU(5, 7, num_layers=2), STEPS, False),
    "rnn": (nn.RNN(5, 7, bidirectional=True), STEPS, True),
}


def counted(module: nn.Module, x: Tensor) -> tuple[int, int]:
    """Of the forward, and of forward and backward."""
    with FlopCounterMode(display=False) as forward:
        result: Any = module(x)
    with FlopCounterMode(display=False) as both:
        result = module(x)
        while not isinstance(result, Tensor):
            result = result[0]
        if result.requires_grad:
            result.sum().backward()
    return forward.get_total_flops(), both.get_total_flops()


@pytest.mark.parametrize("name", COUNTED)
def test_flops(name: str) -> None:
    module, shape, needs_grad = COUNTED[name]
    x = torch.randn(shape, requires_grad=needs_grad)
    # torch does not count what it hands to oneDNN whole.
    with torch.backends.mkldnn.flags(enabled=False, allow_tf32=None):
        plain = counted(cisdl_ops.restore(module), x)
    assert counted(cisdl_ops.accelerate(module), x) == plain
    assert plain[0] > 0 or name == "max_pool2d"


def test_flops_of_a_model_by_module() -> None:
    model = cisdl_ops.accelerate(TASKS["unet"].model())
    x = TASKS["unet"].batch(1)[0]
    with FlopCounterMode(display=False) as ours:
        model(x)
    with FlopCounterMode(display=False) as theirs:
        cisdl_ops.restore(model)(x)
    of_ours, of_theirs = (
        {k: sum(v.values()) for k, v in c.get_flop_counts().items()} for c in (ours, theirs)
    )
    assert of_ours == of_theirs
    assert of_ours["UNet.up.0"] > 0


def test_profiler_names_our_operators() -> None:
    model = cisdl_ops.accelerate(TASKS["lenet"].model())
    x = TASKS["lenet"].batch(2)[0]
    with torch.profiler.profile(record_shapes=True) as profile:
        model(x).sum().backward()
    events = {event.key: event for event in profile.key_averages()}
    for op in ("conv2d", "avg_pool2d", "linear"):
        assert events[f"cisdl::{op}"].count == events[f"cisdl::{op}_backward"].count > 0
    shapes = [
        e.input_shapes for e in profile.key_averages(group_by_input_shape=True) if e.key == "cisdl::conv2d"
    ]
    assert [[2, 1, 28, 28], [6, 1, 5, 5], [6]] in [each[:3] for each in shapes]
