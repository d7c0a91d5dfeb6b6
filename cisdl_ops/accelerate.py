"""Swap the modules of a torch model for ours, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor
from torch._subclasses import FakeTensor
from torch.nn.parameter import Parameter, UninitializedParameter
from torch.nn.utils import parametrize

from cisdl_ops import nn
from cisdl_ops.nn.containers import Sequential, has_pairs

Module = TypeVar("Module", bound=torch.nn.Module)
Kind = type[torch.nn.Module]

SWAPS: dict[Kind, Kind] = {
    getattr(torch.nn, name): getattr(nn, name) for name in nn.__all__ if name != "Sequential"
}
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def accelerate(model: Module) -> Module:
    """Makes every ``torch.nn`` module of ``model`` that we have a kernel for run on it, in place.

    Only the class of a module changes: parameters, buffers, hooks, train/eval mode, names and the modules'
    identities stay, so optimisers, shared weights and a later ``state_dict`` need no change. It reaches
    modules inside any container and wrapper (``DistributedDataParallel``, a compiled model); parametrised
    modules (``torch.nn.utils.parametrizations``) stay parametrised, lazy ones become ours when they learn
    their shape. A second call changes nothing; :func:`restore` undoes it.

    In a ``torch.nn.Sequential`` a Linear or Conv2d and the ReLU after it, and a ReLU and the MaxPool2d after
    it, run as one op in every call in which nobody sees what passes between them
    (:class:`cisdl_ops.nn.containers.Sequential`).

    Left alone, so that they work as before:

    - modules of a class derived from torch's, for their ``forward`` may be their own. That holds for
      quantised modules, and for parts that torch's own layers do not call as modules (the projection inside
      ``MultiheadAttention``, which has a class of its own);
    - modules with a parameter that our kernels do not take: complex or of another type than ``DTYPES``,
      sparse, or of a tensor subclass such as ``DTensor``. So accelerate before ``fully_shard``, which
      gathers the weights before our kernels see them, and after ``parallelize_module``, whose split layers
      are torch's;
    - pooling in a model that holds quantised modules: it is given quantised tensors there;
    - scripted modules, and a ``forward`` that was replaced on a single module.

    Tools that look for torch's classes by exact type or for torch's operators (eager-mode quantisation,
    ``torch.jit.script``, ONNX export) want the model as it was: use them first, or on ``restore(model)``.
    Our modules are instances of torch's classes, too, but for LSTM, GRU and RNN (see :mod:`cisdl_ops.nn`).

    Returns:
        ``model`` itself.
    """
    quantised = any(_is_quantised(module) for module in model.modules())
    for module in model.modules():
        kind = _counterpart(type(module), SWAPS)
        if kind is not None:
            parameters = list(module.parameters())
            if all(_is_ours_to_read(p) for p in parameters) and (parameters or not quantised):
                module.__class__ = kind
    for module in model.modules():  # when what it holds is ours
        if type(module) is torch.nn.Sequential and has_pairs(module):
            module.__class__ = Sequential
    return model


def restore(model: Module) -> Module:
    """Undoes :func:`accelerate`: every module of ``cisdl_ops.nn`` becomes torch's again, in place.

    Returns:
        ``model`` itself.

    Raises:
        ValueError: a layer has an activation in it, which torch's layers cannot have.
    """
    theirs = {ours: torchs for torchs, ours in SWAPS.items()} | {Sequential: torch.nn.Sequential}
    for name, module in model.named_modules():
        kind = _counterpart(type(module), theirs)
        if kind and getattr(module, "activation", None) is not None:
            raise ValueError(f"restore: {name or 'model'}: torch's {kind.__name__} has no activation inside")
    for module in model.modules():
        module.__class__ = _counterpart(type(module), theirs) or type(module)
    return model


def _counterpart(kind: Kind, swaps: Mapping[Kind, Kind]) -> Kind | None:
    """What ``kind`` is swapped for, or None if it stays."""
    if kind in swaps or kind.__module__ != parametrize.__name__:
        return swaps.get(kind)
    # torch made this class, with the parametrised tensors of one module as properties: the same ones on ours.
    base = swaps.get(kind.__bases__[0])
    made_anew = ("__dict__", "__weakref__")
    contents = {name: value for name, value in vars(kind).items() if name not in made_anew}
    return base and type(kind.__name__, (base,), contents)


def _is_quantised(module: torch.nn.Module) -> bool:
    """Whether the module passes on quantised tensors: it knows their scale, and is not dynamic."""
    origin = type(module).__module__
    return origin.startswith("torch.ao.nn.") and ".dynamic." not in origin and hasattr(module, "zero_point")


def _is_ours_to_read(parameter: Tensor) -> bool:
    kind = type(parameter)
    plain = (
        kind is UninitializedParameter
        or issubclass(kind, FakeTensor)
        or (issubclass(kind, Parameter) and kind.__torch_function__ is Parameter.__torch_function__)
    )
    return plain and parameter.layout is torch.strided and parameter.dtype in DTYPES
