"""The container that joins neighbouring modules into one op where nobody can tell."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch.nn.modules.module import _has_any_global_hook
from torch.overrides import has_torch_function_unary

from cisdl_ops import functional
from cisdl_ops.nn.layers import Conv2d, ConvTranspose2d, Linear, MaxPool2d

__all__ = ["Sequential", "has_pairs"]

Module = torch.nn.Module

# Modules whose output is new memory that they do not read again: a ReLU may overwrite it, or not.
_FRESH = (Conv2d, ConvTranspose2d, Linear, torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)


class Sequential(torch.nn.Sequential):
    """``torch.nn.Sequential`` in which Linear or Conv2d -> ReLU and ReLU -> MaxPool2d run as one op each.

    Of Conv2d -> ReLU -> MaxPool2d the last two are joined: that reads less.

    What :func:`cisdl_ops.accelerate` makes of a ``Sequential`` with such neighbours. They are joined in a
    call only if no one sees what passes between them: no hook on either module (nor a global one, nor a
    ``forward`` of its own), no graph in the making, no function mode or tensor subclass; and a ReLU that
    works in place has before it a layer whose output it alone receives. The modules stay what they are, and
    run one by one wherever they are called in another way.
    """

    def forward(self, input: Any) -> Any:
        watched = has_torch_function_unary(input) or _has_any_global_hook()  # type: ignore[no-untyped-call]
        if torch.compiler.is_compiling() or watched:
            return super().forward(input)  # type: ignore[no-untyped-call]
        modules = list(self._modules.values())
        count, i = len(modules), 0
        while i < count:
            first: Any = modules[i]
            second: Any = modules[i + 1] if i + 1 < count else None
            third: Any = modules[i + 2] if i + 2 < count else None
            if (
                _is_pair(first, second)
                and _is_private(modules[i - 1] if i else None, first, second)
                and not (_is_pair(second, third) and _is_private(first, second, third))
            ):
                if type(first) is Linear:
                    input = functional.linear(input, first.weight, first.bias, activation="relu")
                elif type(first) is Conv2d:
                    input = first.convolve(input, first.weight, first.bias, "relu")
                else:
                    input = functional.max_pool2d(
                        input,
                        second.kernel_size,
                        second.stride,
                        second.padding,
                        second.dilation,
                        second.ceil_mode,
                        activation="relu",
                    )
                i += 2
            else:
                input = first(input)
                i += 1
        return input


def has_pairs(module: torch.nn.Sequential) -> bool:
    """Whether two neighbours of ``module`` can be joined."""
    modules = list(module._modules.values())
    return any(_is_pair(*pair) for pair in pairwise(modules))


def _is_pair(first: Any, second: Any) -> bool:
    if type(first) in (Linear, Conv2d):
        return type(second) is torch.nn.ReLU and first.activation is None
    return (
        type(first) is torch.nn.ReLU
        and type(second) is MaxPool2d
        and second.activation is None
        and not second.return_indices
    )


def _is_private(before: Module | None, first: Any, second: Any) -> bool:
    """Whether no one sees what passes from ``first`` to ``second``, nor misses what a ReLU does in place."""
    if _is_watched(first) or _is_watched(second):
        return False
    in_place = type(first) is torch.nn.ReLU and first.inplace
    return not in_place or (type(before) in _FRESH and not _is_watched(before))


def _is_watched(module: Any) -> bool:
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or "forward" in module.__dict__
    )
