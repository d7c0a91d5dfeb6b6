"""`cisdl train --nproc N`: what `torchrun --nproc-per-node N -m cisdl train` does, with our exit codes."""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import uuid
from collections.abc import Sequence

from cisdl.errors import INTERRUPTED, OK, CisdlError, UsageError
from cisdl.training.processes import require_gloo

STOPPING = "120"
"""Seconds from Ctrl-C to SIGKILL: the step under way is finished, and the state saved."""


def launch(nproc: int, arguments: Sequence[str]) -> int:
    """Run `cisdl ARGUMENTS` in `nproc` processes on this machine; returns the exit code of all.

    They print for themselves. Ctrl-C and SIGTERM reach each of them.
    """
    require_gloo()
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.disable(logging.ERROR)  # torch's own account of what a process has said already
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // nproc)))
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", STOPPING)
    with tempfile.TemporaryDirectory(prefix="cisdl-") as folder:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=nproc,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",  # a free port
            local_addr="localhost",
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
        )
        command = ["-m", "cisdl", *(argument.replace("$", "$$") for argument in arguments)]
        try:
            elastic_launch(config, sys.executable)(*command)
        except ChildFailedError as error:
            by_signal = {
                rank: -failure.exitcode
                for rank, failure in error.failures.items()
                if failure.exitcode < 0 and -failure.exitcode not in (signal.SIGTERM, signal.SIGINT)
            }
            for rank, number in by_signal.items():
                name = signal.Signals(number).name
                why = ", perhaps for want of memory" if number == signal.SIGKILL else ""
                raise CisdlError(f"process {rank} of {nproc} was ended by {name}{why}") from error
            _, first = error.get_first_failure()
            return int(first.exitcode)
        except SignalException:
            return INTERRUPTED
    return OK


def check(nproc: int, environment: dict[str, str] | os._Environ[str]) -> bool:
    """Whether there are processes to start: not in one that was started; a `UsageError` under torchrun."""
    started = environment.get("LOCAL_WORLD_SIZE")
    if started is not None and started != str(nproc):
        raise UsageError(f"--nproc: expected none under torchrun, which started {started} here, got {nproc}")
    return started is None and nproc > 1
