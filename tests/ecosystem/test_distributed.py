"""Two processes that train an accelerated model together end where one does: data parallel and sharded."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from tests.ecosystem import distributed_worker

pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="torch was built without gloo")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, list[Tensor]]]:
    """What each of two processes holds at the end, by model and wrapper."""
    folder = tmp_path_factory.mktemp("processes")
    command = [sys.executable, distributed_worker.__file__, str(folder), "2"]
    running = [
        subprocess.Popen([*command, str(rank)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for rank in range(2)
    ]
    said = [process.communicate(timeout=300)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0], said
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("name", distributed_worker.NAMES)
@pytest.mark.parametrize("wrapper", distributed_worker.WRAPPERS)
def test_two_processes_equal_one(name: str, wrapper: str, weights: list[dict[str, list[Tensor]]]) -> None:
    first, second = (of_rank[f"{name}/{wrapper}"] for of_rank in weights)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    alone = distributed_worker.train(name, lambda model: model, world=1, rank=0)
    torch.testing.assert_close(first, alone, rtol=1e-4, atol=1e-5)
