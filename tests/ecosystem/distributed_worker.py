"""One process of several that train an accelerated model together: run by test_distributed.py, not by pytest.

python distributed_worker.py FOLDER WORLD RANK
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel

sys.path.insert(0, str(Path(__file__).parents[2]))
import cisdl_ops
from tests.ecosystem.recording import Recorder
from tests.zoo.tasks import TASKS

NAMES = ("lenet", "clock", "translator")
STEPS = 3


def ddp(model: nn.Module) -> nn.Module:
    return DistributedDataParallel(cisdl_ops.accelerate(model))


def ddp_then_accelerate(model: nn.Module) -> nn.Module:
    return cisdl_ops.accelerate(DistributedDataParallel(model))


def sharded(model: nn.Module) -> nn.Module:
    cisdl_ops.accelerate(model)
    for child in model.children():
        if list(child.parameters()):
            fully_shard(child)
    return fully_shard(model)


WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "ddp": ddp,
    "ddp_then_accelerate": ddp_then_accelerate,
    "fully_shard": sharded,
}


def whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor.detach()


def train(name: str, wrap: Callable[[nn.Module], nn.Module], world: int, rank: int) -> list[Tensor]:
    """The weights after some steps, in which this process saw its share of the data only.

    A process alone trains on torch's modules, several on ours.
    """
    task = TASKS[name]
    model: Any = wrap(task.model())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    batch = task.batch(4 * STEPS)
    for step in range(STEPS):
        share = tuple(
            t.chunk(STEPS, task.batch_dim(t))[step].chunk(world, task.batch_dim(t))[rank] for t in batch
        )
        optimizer.zero_grad()
        with Recorder() as recorder:
            next(task.losses(model, share))[1].backward()
        optimizer.step()
    assert any(op.startswith("cisdl::") for op in recorder.called) == (world > 1)
    return [whole(parameter).clone() for parameter in model.parameters()]


def check_split_layers_are_left_alone(world: int) -> None:
    """Our operators do not know tensors that are spread over processes; torch's layers go on with them."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    x = torch.randn(3, 4)
    expected = model(x)
    mesh = init_device_mesh("cpu", (world,))
    parallelize_module(model, mesh, {"0": ColwiseParallel(), "2": RowwiseParallel()})
    cisdl_ops.accelerate(model)
    assert type(model[0]) is nn.Linear
    torch.testing.assert_close(model(x), expected)


def main() -> None:
    folder, world, rank = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", world_size=world, rank=rank)
    results = {
        f"{name}/{wrapper}": train(name, wrap, world, rank)
        for name in NAMES
        for wrapper, wrap in WRAPPERS.items()
    }
    check_split_layers_are_left_alone(world)
    torch.save(results, folder / f"rank{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
