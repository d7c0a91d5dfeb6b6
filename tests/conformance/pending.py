"""What these suites test and the library does not have yet: such tests are skipped, not left out."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import cisdl_ops


def op(name: str) -> Any:
    """The function ``cisdl_ops.<name>``."""
    if not hasattr(cisdl_ops, name):
        pytest.skip(f"{name}: not there yet")
    return getattr(cisdl_ops, name)


def module(name: str) -> Any:
    """The class ``cisdl_ops.nn.<name>``."""
    if not hasattr(cisdl_ops.nn, name):
        pytest.skip(f"nn.{name}: not there yet")
    return getattr(cisdl_ops.nn, name)


def dtype_of_op(name: str, dtype: torch.dtype) -> None:
    """Half precision arrives op by op."""
    if dtype in (torch.float32, torch.float64):
        return
    image, kernel = torch.zeros(1, 1, 3, 3, dtype=dtype), torch.zeros(1, 1, 1, 1, dtype=dtype)
    matrix, gates = torch.zeros(1, 1, dtype=dtype), {"lstm": 4, "gru": 3}.get(name.split("_")[0], 1)
    arguments: tuple[Any, ...] = (image, 1)
    if name.startswith("conv"):
        arguments = (image, kernel)
    elif name == "linear":
        arguments = (matrix, matrix)
    elif name.endswith("_cell"):
        weight = matrix.expand(gates, 1)
        arguments = (matrix, (matrix, matrix) if name == "lstm_cell" else matrix, weight, weight)
    try:
        op(name)(*arguments)
    except RuntimeError as refusal:
        if "dtype" not in str(refusal):
            raise
        pytest.skip(f"{name} in {str(dtype).removeprefix('torch.')}: not there yet")


# The op whose dtypes a module's are.
_OP_OF = {
    "Linear": "linear",
    "Conv2d": "conv2d",
    "ConvTranspose2d": "conv_transpose2d",
    "MaxPool2d": "max_pool2d",
    "AvgPool2d": "avg_pool2d",
    "AdaptiveAvgPool2d": "adaptive_avg_pool2d",
    "AdaptiveMaxPool2d": "adaptive_max_pool2d",
    "LSTMCell": "lstm_cell",
    "GRUCell": "gru_cell",
    "RNNCell": "rnn_tanh_cell",
    "LSTM": "lstm_cell",
    "GRU": "gru_cell",
    "RNN": "rnn_tanh_cell",
}


def dtype_of_module(name: str, dtype: torch.dtype) -> None:
    module(name)
    dtype_of_op(_OP_OF[name], dtype)


def second_derivatives(name: str, run: Any) -> Any:
    """``run()``, or a skip where the op says that it has no second derivative."""
    try:
        return run()
    except RuntimeError as refusal:
        if "is not implemented" not in str(refusal):
            raise
        pytest.skip(f"{name}: second derivative not there yet")


def pool_gap(op: str, arguments: dict[str, Any]) -> bool:
    """Torch takes two more: in ceil mode a window larger than the padded image, and a padding up to half of
    the *dilated* window."""
    if "pool2d" not in op or "kernel_size" not in arguments:
        return False
    dilated = op == "max_pool2d" and arguments["dilation"] not in (1, (1,), (1, 1), [1, 1])
    return bool(arguments["ceil_mode"]) or dilated
