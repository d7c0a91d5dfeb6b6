"""Swap the modules of a torch model for ours."""

from __future__ import annotations

from typing import TypeVar

import torch

from cisdl_ops import nn

Module = TypeVar("Module", bound=torch.nn.Module)

SWAPS: dict[type[torch.nn.Module], type[torch.nn.Module]] = {
    getattr(torch.nn, name): getattr(nn, name) for name in nn.__all__
}


def accelerate(model: Module) -> Module:
    """Makes every ``torch.nn`` module of ``model`` that we have a kernel for run on it, in place.

    Only the class of a module changes: parameters, buffers, hooks, train/eval mode, names and the modules'
    identities stay, so optimisers and a later ``state_dict`` need no change. Modules of a class derived from
    torch's are left alone, for their ``forward`` may be their own.

    Returns:
        ``model`` itself.
    """
    for module in model.modules():
        ours = SWAPS.get(type(module))
        if ours is not None:
            module.__class__ = ours
    return model
