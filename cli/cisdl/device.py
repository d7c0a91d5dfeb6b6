"""Choosing the device and the number of threads, and saying plainly when they are not to be had."""

from __future__ import annotations

import re

import torch

from cisdl.errors import DeviceError, UsageError


def resolve(name: str) -> torch.device:
    """The device called "cpu", "cuda" or "cuda:N"; a `DeviceError` if this machine or this torch lacks it."""
    if name == "cpu":
        return torch.device("cpu")
    matched = re.fullmatch(r"cuda(?::(\d+))?", name)
    if matched is None:
        raise UsageError(f"--device: expected cpu, cuda or cuda:N, got '{name}'")
    if torch.version.cuda is None and torch.version.hip is None:
        raise DeviceError(
            f"--device {name}: this torch ({torch.__version__}) is built without CUDA; use --device cpu"
        )
    if not torch.cuda.is_available():
        raise DeviceError(
            f"--device {name}: no GPU is visible (`nvidia-smi` should list one); use --device cpu"
        )
    index, count = int(matched[1] or 0), torch.cuda.device_count()
    if index >= count:
        raise DeviceError(
            f"--device {name}: expected a number below {count}, this machine's count of GPUs, got {index}"
        )
    return torch.device("cuda", index)


def prepare(device: torch.device, threads: int | None) -> int:
    """Set the number of CPU threads (None: torch's choice) and plain float32 on GPUs; returns the number."""
    if threads is not None:
        torch.set_num_threads(threads)
    if device.type == "cuda":
        # TF32 would round the inputs of torch's convolutions to 10 bits: not float32, not comparable.
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
    return torch.get_num_threads()
