"""Modules on our kernels, with the constructors, attributes and state_dict of torch's.

Each is a subclass of its namesake in ``torch.nn``, but for ``LSTM``, ``GRU`` and ``RNN``: they derive from
``torch.nn.RNNBase`` as torch's do, because ``torch.compile`` refuses whatever derives from ``torch.nn.LSTM``.
"""

from cisdl_ops.nn.containers import Sequential
from cisdl_ops.nn.layers import (
    AdaptiveAvgPool2d,
    AdaptiveMaxPool2d,
    AvgPool2d,
    Conv2d,
    ConvTranspose2d,
    CrossEntropyLoss,
    LazyConv2d,
    LazyConvTranspose2d,
    LazyLinear,
    Linear,
    MaxPool2d,
)
from cisdl_ops.nn.recurrent import GRU, LSTM, RNN, GRUCell, LSTMCell, RNNCell

__all__: list[str] = [
    "GRU",
    "LSTM",
    "RNN",
    "AdaptiveAvgPool2d",
    "AdaptiveMaxPool2d",
    "AvgPool2d",
    "Conv2d",
    "ConvTranspose2d",
    "CrossEntropyLoss",
    "GRUCell",
    "LSTMCell",
    "LazyConv2d",
    "LazyConvTranspose2d",
    "LazyLinear",
    "Linear",
    "MaxPool2d",
    "RNNCell",
    "Sequential",
]
