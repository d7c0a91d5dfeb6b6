"""Neural-network kernels written by hand in C++ and CUDA, as PyTorch operators.

The functions have the signatures and semantics of ``torch.nn.functional``; ``cisdl_ops.nn`` has the modules;
``accelerate`` swaps the modules of a model that you already have. Every op is also there as
``torch.ops.cisdl.<name>``.
"""

from cisdl_ops import _flops as _flops
from cisdl_ops import _load as _load  # first: refuses a build made for another torch
from cisdl_ops import _vmap as _vmap
from cisdl_ops import glove as glove
from cisdl_ops import nn as nn
from cisdl_ops import optim as optim
from cisdl_ops import word2vec as word2vec
from cisdl_ops import word_vectors as word_vectors
from cisdl_ops._info import (
    build_info,
    force_implementation,
    implementations,
    last_implementation,
    op_names,
)
from cisdl_ops.accelerate import accelerate, restore
from cisdl_ops.functional import (
    adaptive_avg_pool2d,
    adaptive_max_pool2d,
    avg_pool2d,
    conv2d,
    conv_transpose2d,
    cross_entropy,
    gru_cell,
    linear,
    lstm_cell,
    max_pool2d,
    rnn_relu_cell,
    rnn_tanh_cell,
)
from cisdl_ops.tuning import tune, tuned_choices

__version__ = "0.1.0"

__all__ = [
    "accelerate",
    "adaptive_avg_pool2d",
    "adaptive_max_pool2d",
    "avg_pool2d",
    "build_info",
    "conv2d",
    "conv_transpose2d",
    "cross_entropy",
    "force_implementation",
    "glove",
    "gru_cell",
    "implementations",
    "last_implementation",
    "linear",
    "lstm_cell",
    "max_pool2d",
    "nn",
    "op_names",
    "optim",
    "restore",
    "rnn_relu_cell",
    "rnn_tanh_cell",
    "tune",
    "tuned_choices",
    "word2vec",
    "word_vectors",
]
