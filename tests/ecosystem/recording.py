"""Which operators ran, forward and backward, as a dispatch mode sees them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode


class Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.called: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.called.append(func.overloadpacket._qualified_op_name)
        return func(*args, **(kwargs or {}))


def operators(function: Callable[[], Any]) -> set[str]:
    """The operators that ``function`` ran, such as ``cisdl::conv2d`` and ``aten::relu``."""
    with Recorder() as recorder:
        function()
    return set(recorder.called)
