"""Twenty steps of SGD on torch's modules and on ours, from the same weights and data: the same losses.

Both sides compute in float32 and add in different orders, so the weights drift apart by rounding; at every
step the losses have to stay within 1e-4 of each other. ``make conformance`` prints them.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import cisdl_ops
from tests.zoo.tasks import TASKS, Task

STEPS = 20
# What the zoo holds of torch's modules besides pointwise ones, normalisation and embeddings.
OURS = {"AdaptiveAvgPool2d", "AvgPool2d", "Conv2d", "ConvTranspose2d", "Linear", "MaxPool2d"}
OURS |= {"GRU", "GRUCell", "LSTM", "LSTMCell", "RNN"}


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_same_losses(task: Task, record_property: Callable[[str, object], None]) -> None:
    plain, accelerated = task.model(), cisdl_ops.accelerate(task.model())
    left = {type(m).__name__ for m in accelerated.modules() if type(m).__module__.startswith("torch.nn")}
    assert not left & OURS

    expected, got = (torch.tensor(task.train(model, STEPS)) for model in (plain, accelerated))
    difference = ((got - expected).abs() / expected.abs()).max().item()
    record_property(
        "zoo",
        {
            "model": task.name,
            "parameters": sum(p.numel() for p in plain.parameters()),
            "first": expected[0].item(),
            "last": expected[-1].item(),
            "difference": difference,
        },
    )
    assert difference <= 1e-4
    # Equal losses would prove little if nothing was learnt; those of a DCGAN pull in opposite directions.
    if task.name != "dcgan":
        assert got[-2:].sum() < 0.9 * got[:2].sum()
