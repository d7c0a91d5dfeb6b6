"""Processes that train one model together, on torch.distributed. Alone, everything here does nothing.

All processes draw the same mini-batches, those that one process would see, and each trains on its rows of
them: row r belongs to process r mod N, so texts that were sorted by length are dealt out evenly. A loss is
weighted such that the mean of the processes' gradients, which DistributedDataParallel takes, is the gradient
of the mean over the whole mini-batch, however unequal the shares are. A process that gets no row of a small
mini-batch takes part with another's row, of weight zero.

What is not a tensor of a model (counts, losses, decisions) goes over gloo on the CPU, on any device.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from cisdl.environment import one_line
from cisdl.errors import INTERRUPTED, BuildError, CisdlError, DeviceError, UsageError

if TYPE_CHECKING:
    from cisdl.tasks.base import Step

T = TypeVar("T")

WAIT = timedelta(hours=2)
"""For the others in a collective: one process evaluates, saves and draws while they wait."""
GRACE = timedelta(seconds=10)
"""For the exit code of the process that failed first."""

_store: Any = None
"""A torch.distributed.Store of all processes; None where this one is alone."""


# who there is


def begin() -> None:
    """Meet the other processes that torchrun started; once, and nothing if it did not start this one."""
    global _store
    if _store is not None or (world := _number("WORLD_SIZE", 1)) == 1:
        return
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise UsageError(
            f"WORLD_SIZE: expected {', '.join(missing)} beside it, as torchrun sets them, got WORLD_SIZE="
            f"{world} alone; unset it, or use torchrun or --nproc"
        )
    require_gloo()
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    nccl = torch.cuda.is_available() and dist.is_nccl_available()
    try:
        store, rank_, world = next(rendezvous("env://", timeout=WAIT))
        backend = "cpu:gloo,cuda:nccl" if nccl else "gloo"
        dist.init_process_group(backend, store=store, rank=rank_, world_size=world, timeout=WAIT)
    except (RuntimeError, ValueError) as error:
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise CisdlError(f"the {world} processes cannot meet at {where} ({one_line(error)})") from error
    _store = PrefixStore("cisdl", store)
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _end)
    atexit.register(dist.destroy_process_group)


def require_gloo() -> None:
    """A `BuildError` if this torch cannot run several processes."""
    if not dist.is_available() or not dist.is_gloo_available():
        raise BuildError(
            f"several processes: expected a torch with gloo, got {torch.__version__} without; use one process"
        )


def world_size() -> int:
    """How many processes train together."""
    return 1 if _store is None else dist.get_world_size()


def alone() -> bool:
    return _store is None


def rank() -> int:
    """This process's number, from 0 on."""
    return 0 if _store is None else dist.get_rank()


def is_first() -> bool:
    """Whether this is the process that judges, writes and prints."""
    return rank() == 0


def device(chosen: torch.device) -> torch.device:
    """Where this process computes: of several on GPUs, each has that of its number on its machine."""
    if _store is None or chosen.type != "cuda":
        return chosen
    if chosen.index:
        raise UsageError(
            f"--device: expected cpu or cuda for several processes, each of which takes a GPU, got {chosen}"
        )
    number, there = _number("LOCAL_RANK", rank()), torch.cuda.device_count()
    if number >= there:
        raise DeviceError(
            f"--device cuda: expected at most as many processes on a machine as GPUs, here {there}, "
            f"got {_number('LOCAL_WORLD_SIZE', world_size())}"
        )
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


def failed(code: int) -> tuple[int, bool]:
    """For a process about to end with an error: the exit code of all, and whether to say why.

    The first that fails says it, or the first process of all where they have not met.
    """
    if _store is None:
        return code, os.environ.get("RANK", "0") == "0"
    atexit.unregister(dist.destroy_process_group)  # it may wait for the others
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # this one ends by itself
    try:
        if _store.add("failures", 1) == 1:
            _store.set("exit code", str(code))
            return code, True
        _store.set_timeout(GRACE)
        return int(_store.get("exit code")), False
    except (RuntimeError, ValueError):
        return code, True


def _end(number: int, frame: FrameType | None) -> None:
    """Ctrl-C outside of training; SIGTERM, by which torchrun ends the others after a failure, Slurm a job."""
    code, speaks = failed(INTERRUPTED)
    if speaks:
        print("cisdl: interrupted; nothing was saved", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def is_loss_of_another(error: BaseException) -> bool:
    """Whether an exception says no more than that another process has ended."""
    if _store is None or not isinstance(error, RuntimeError):
        return False
    text = str(
        error
    )  # "...gloo/transport/tcp/pair.cc:547] Connection closed by peer"; NCCL: "remote process exited"
    return ("gloo" in text and "peer" in text) or "remote process" in text


# data and gradients


def rows(count: int) -> tuple[slice, bool]:
    """Which of `count` rows are this process's, and whether they count.

    Where it has none it is lent the first, which does not count.
    """
    return (own(), True) if rank() < count else (slice(0, 1), False)


def own() -> slice:
    """Which rows of a mini-batch are this process's, maybe none."""
    return slice(rank(), None, world_size())


def parallel(model: nn.Module) -> nn.Module:
    """What to call in a training step: `model`, whose gradients become the mean over the processes.

    Its batch normalisation becomes that of all processes' rows.
    """
    if _store is None:
        return model
    from cisdl.training import batch_norm

    # Of one channel a layout is any other too, and the gradient's need not be called what the weight's is.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    return nn.parallel.DistributedDataParallel(batch_norm.joined(model))


def joined(taken: Step, counted: bool) -> tuple[Tensor, Step]:
    """Of this process's part of a step: the loss to take the gradient of, and the step of all processes."""
    from cisdl.tasks.base import Step

    count = taken.count if counted else 0
    local = [0.0] * (3 + len(taken.values))
    if counted:
        means = (taken.loss.item(), *taken.values.values())
        local = [count, taken.correct or 0, *(count * mean for mean in means)]
    total, correct, *sums = total_of(local)
    loss, *values = (each / total for each in sums)
    whole = Step(
        torch.tensor(loss, dtype=torch.float64),
        int(total),
        None if taken.correct is None else int(correct),
        dict(zip(taken.values, values, strict=True)),
    )
    return taken.loss * (count * world_size() / total), whole


def mean_over(count: int) -> Callable[[Tensor], Tensor]:
    """A function of this process's values, of `count` of all, whose mean over processes is theirs."""
    if _store is None:
        return torch.mean
    return lambda values: values.sum() * (world_size() / count)


def averaged(taken: Step) -> Step:
    """The step whose figures are the means over the processes of each one's."""
    if _store is None:
        return taken
    loss, *values = total_of([float(taken.loss), *taken.values.values()])
    means = {name: value / world_size() for name, value in zip(taken.values, values, strict=True)}
    return replace(taken, loss=torch.tensor(loss / world_size(), dtype=torch.float64), values=means)


def total_of(values: Sequence[float]) -> list[float]:
    """The sums over all processes, in double precision."""
    sums = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(sums)
    found: list[float] = sums.tolist()
    return found


def rows_of_all(own: Tensor, count: int, dim: int) -> Tensor:
    """`count` rows along `dim`, of which each process has those of `rows`."""
    if _store is None:
        return own
    shape = list(own.shape)
    shape[dim] = count
    whole = own.new_zeros(shape)
    chosen, counted = rows(count)
    if counted:
        whole.movedim(dim, 0)[chosen] = own.movedim(dim, 0)
    dist.all_reduce(whole)
    return whole


def own_rows(whole: Tensor, dim: int) -> Tensor:
    """Those of `rows` along `dim`."""
    if _store is None:
        return whole
    chosen, _ = rows(whole.shape[dim])
    return whole.movedim(dim, 0)[chosen].movedim(0, dim).contiguous()


def seed(*numbers: int) -> None:
    """Dropout of every process but the first is decided by these numbers and its own.

    The first draws on from where the weights were drawn, as a process alone does. Its generator is saved; the
    others' need not be.
    """
    if not is_first():
        mixed = np.random.SeedSequence([rank(), *numbers]).generate_state(1, np.uint64)
        torch.manual_seed(int(mixed[0]))


# decisions


def any_of(*flags: bool) -> list[bool]:
    """Whether any process says so, of each: the same answer for all."""
    if _store is None:
        return list(flags)
    found = torch.tensor(flags, dtype=torch.uint8)
    dist.all_reduce(found, op=dist.ReduceOp.MAX)
    return [bool(flag) for flag in found.tolist()]


def wait() -> None:
    """Until all processes are here."""
    any_of(False)


def told(value: T | None) -> T:
    """The first process's value, for all."""
    if _store is None:
        assert value is not None
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0, device=torch.device("cpu"))
    assert values[0] is not None
    return values[0]


def done_by_first(work: Callable[[], T]) -> T:
    """What `work` returns, which only the first process does."""
    return told(work() if is_first() else None)


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isdecimal():
        raise UsageError(f"{name}: expected a number, as torchrun sets it, got '{text}'")
    return int(text)
