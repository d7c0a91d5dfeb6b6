"""The ops, with the signatures and semantics of ``torch.nn.functional``.

All take float32, float64, bfloat16 and float16 tensors (the last two are summed in float32) on the CPU or, in
a build with CUDA, on a GPU; anything else raises ``RuntimeError`` naming the argument, what was expected and
what came. Autograd of any order, ``torch.func``, ``torch.compile`` and autocast work; ``docs/drop-in.md`` has
the few exceptions.
"""

from cisdl_ops.functional.arguments import ACTIVATIONS, check_activation
from cisdl_ops.functional.convolution import conv2d, conv_transpose2d
from cisdl_ops.functional.linear import linear
from cisdl_ops.functional.loss import cross_entropy
from cisdl_ops.functional.pooling import adaptive_avg_pool2d, adaptive_max_pool2d, avg_pool2d, max_pool2d
from cisdl_ops.functional.recurrent import gru_cell, lstm_cell, rnn_relu_cell, rnn_tanh_cell

__all__ = [
    "ACTIVATIONS",
    "adaptive_avg_pool2d",
    "adaptive_max_pool2d",
    "avg_pool2d",
    "check_activation",
    "conv2d",
    "conv_transpose2d",
    "cross_entropy",
    "gru_cell",
    "linear",
    "lstm_cell",
    "max_pool2d",
    "rnn_relu_cell",
    "rnn_tanh_cell",
]
