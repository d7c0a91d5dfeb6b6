"""Many threads at once, and processes forked after a parallel call."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import cisdl_ops
from tests.zoo.tasks import TASKS, Batch, Task

ROOT = Path(__file__).parents[2]


def steps(task: Task, model: nn.Module, batch: Batch) -> list[Tensor]:
    """Losses and gradients, again and again."""
    results: list[Tensor] = []
    for _ in range(4):
        loss = next(task.losses(model, batch))[1]
        results += [loss.detach(), *torch.autograd.grad(loss, list(model.parameters()))]
    return results


@pytest.mark.parametrize("intraop", [1, 2])
@pytest.mark.parametrize("name", ["unet", "alexnet", "translator", "tagger"])
def test_threads_do_not_disturb_each_other(name: str, intraop: int) -> None:
    """Four threads at once give, bit by bit, what they give in turn: scratch is each one's own."""
    torch.set_num_threads(intraop)
    task, count = TASKS[name], 4
    batch = task.batch(6)
    models = []
    for seed in range(count):
        torch.manual_seed(seed)
        models.append(cisdl_ops.accelerate(task.build()).eval())  # dropout would draw from a common state
    alone = [steps(task, model, batch) for model in models]
    barrier = threading.Barrier(count)

    def work(model: nn.Module) -> list[Tensor]:
        barrier.wait()
        return steps(task, model, batch)

    with ThreadPoolExecutor(count) as pool:
        together = list(pool.map(work, models))
    for got, expected in zip(together, alone, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def test_one_model_in_many_threads() -> None:
    """A model that serves requests: one set of weights, inputs from several threads."""
    model = cisdl_ops.accelerate(TASKS["resnet"].model()).eval()
    images = [torch.randn(1 + i % 3, 3, 32, 32) for i in range(24)]
    with torch.inference_mode():
        expected = [model(x) for x in images]

        def serve(x: Tensor) -> Tensor:
            with torch.inference_mode():
                return model(x)

        with ThreadPoolExecutor(6) as pool:
            got = list(pool.map(serve, images))
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


class Filtered(Dataset[Tensor]):
    """Images that go through a convolution of ours on their way out of the data set."""

    def __init__(self) -> None:
        self.images = torch.randn(8, 3, 32, 32)
        self.filter = cisdl_ops.nn.Conv2d(3, 8, 3)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        with torch.no_grad():
            return self.filter(self.images[index])


def parallel_call() -> None:
    """Starts the threads of this process."""
    torch.set_num_threads(2)
    cisdl_ops.conv2d(torch.randn(8, 16, 32, 32), torch.randn(16, 16, 3, 3))


def test_data_loader_workers() -> None:
    """They are forked from a process whose threads have run; torch gives each of them one thread."""
    parallel_call()
    data = Filtered()
    loader = DataLoader(data, batch_size=2, num_workers=2, multiprocessing_context="fork", timeout=60)
    got = torch.cat(list(loader))
    with torch.no_grad():
        assert torch.equal(got, data.filter(data.images))


FORK = """
import os, sys, torch, cisdl_ops
torch.set_num_threads(2)
x, w = torch.randn(8, 16, 32, 32), torch.randn(16, 16, 3, 3)
y = cisdl_ops.conv2d(x, w)
child = os.fork()
if child == 0:
    torch.set_num_threads(1)
    os._exit(0 if torch.equal(cisdl_ops.conv2d(x, w), y) else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_fork() -> None:
    """With one thread a forked process computes; with more it waits for threads it lacks, as in torch."""
    done = subprocess.run([sys.executable, "-c", FORK], cwd=ROOT, timeout=120, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
