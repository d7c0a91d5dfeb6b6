"""Twenty steps of SGD on torch's modules and on ours, from the same weights and data: the same losses.

Both sides compute in float32 and add in different orders, so the weights drift apart by rounding; at every
step the losses have to stay within 1e-4 of each other. Run with ``-s`` for the table.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

import cisdl_ops
from tests.zoo.tasks import TASKS, Task

STEPS = 20
# What the zoo holds of torch's modules besides pointwise ones, normalisation and embeddings.
OURS = {"AdaptiveAvgPool2d", "AvgPool2d", "Conv2d", "ConvTranspose2d", "Linear", "MaxPool2d"}
OURS |= {"GRU", "GRUCell", "LSTM", "LSTMCell", "RNN"}

Row = tuple[str, int, float, float, float]


@pytest.fixture(scope="module")
def table() -> Iterator[list[Row]]:
    rows: list[Row] = []
    yield rows
    print(
        f"\n{'model':<12} {'parameters':>10} {'first loss':>10} {'last loss':>10} {'largest difference':>18}"
    )
    for name, parameters, first, last, difference in rows:
        print(f"{name:<12} {parameters:>10,} {first:>10.4f} {last:>10.4f} {difference:>10.1e}")


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_same_losses(task: Task, table: list[Row]) -> None:
    plain, accelerated = task.model(), cisdl_ops.accelerate(task.model())
    left = {type(m).__name__ for m in accelerated.modules() if type(m).__module__.startswith("torch.nn")}
    assert not left & OURS

    expected, got = (torch.tensor(task.train(model, STEPS)) for model in (plain, accelerated))
    difference = ((got - expected).abs() / expected.abs()).max().item()
    parameters = sum(p.numel() for p in plain.parameters())
    table.append((task.name, parameters, expected[0].item(), expected[-1].item(), difference))
    assert difference <= 1e-4
    # Equal losses would prove little if nothing was learnt; those of a DCGAN pull in opposite directions.
    if task.name != "dcgan":
        assert got[-2:].sum() < 0.9 * got[:2].sum()
