"""Where a model's layers come from: `cisdl_ops.nn` (our kernels) or `torch.nn` (torch's).

Models are written once against a `Backend`. Our modules are subclasses of torch's with the same initial
weights and the same state_dict, so one seed gives one training run on either, and a checkpoint of one loads
into the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from types import ModuleType

from torch import nn

from cisdl.environment import one_line
from cisdl.errors import BuildError, UsageError, did_you_mean

NAMES = ("cisdl", "torch")


@dataclass(frozen=True)
class Backend:
    """The layers a model may be built from."""

    name: str
    fuses: bool
    """Whether Linear, Conv2d and MaxPool2d take an ``activation``."""
    Linear: Callable[..., nn.Linear]
    Conv2d: type[nn.Conv2d]
    ConvTranspose2d: type[nn.ConvTranspose2d]
    MaxPool2d: Callable[..., nn.MaxPool2d]
    AvgPool2d: type[nn.AvgPool2d]
    AdaptiveAvgPool2d: type[nn.AdaptiveAvgPool2d]
    LSTMCell: type[nn.LSTMCell]
    GRUCell: type[nn.GRUCell]
    RNNCell: type[nn.RNNCell]
    LSTM: Callable[..., nn.Module]
    GRU: Callable[..., nn.Module]
    RNN: Callable[..., nn.Module]
    Sequential: type[nn.Sequential]
    CrossEntropyLoss: type[nn.CrossEntropyLoss]


def get(name: str) -> Backend:
    """The backend called `name`, one of `NAMES`. A `BuildError` if its kernels do not load."""
    if name == "torch":
        return _of(name, nn, fuses=False)
    if name != "cisdl":
        raise UsageError(f"unknown backend '{name}'; {did_you_mean(name, NAMES)}")
    try:
        import cisdl_ops.nn as ours
    except ImportError as error:
        raise BuildError(f"{one_line(error)}; or use torch's own ops: --backend torch") from error
    return _of(name, ours, fuses=True)


def _of(name: str, layers: ModuleType, fuses: bool) -> Backend:
    """The layers of `torch.nn` or `cisdl_ops.nn`, which have the same names."""
    kinds = [field.name for field in fields(Backend) if field.name[0].isupper()]
    return Backend(name, fuses, **{kind: getattr(layers, kind) for kind in kinds})
