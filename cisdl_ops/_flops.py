"""What ``torch.utils.flop_counter`` counts for our operators: the same as for torch's.

A multiply-add counts as two, and all but matrix products and convolutions (bias, gates, pooling) as nothing.
A convolution is counted by torch's own formulas. A recurrent step costs its matrices times the batch, the
gradient of a matrix or of what it is multiplied with as much again.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch.utils.flop_counter import conv_backward_flop, conv_flop_count, register_flop_formula

from cisdl_ops import _load as _load  # registers the operators

# By argument name: the shape of a tensor, anything else as it is; "out" is the shape of the result.
Call = dict[str, Any]


def _elements(shape: Any) -> int:
    count: int = prod(shape)
    return count


def _linear(call: Call) -> int:
    return 2 * _elements(call["input"][:-1]) * _elements(call["weight"])


def _linear_backward(call: Call) -> int:
    gradients = call["output_mask"][0] + call["output_mask"][1]
    return int(gradients) * _linear(call)


def _batched(shape: Any) -> list[int]:
    """``[C, H, W]`` as ``[1, C, H, W]``."""
    return [1, *shape][-4:]


def _convolution(transposed: bool) -> Callable[[Call], int]:
    def count(call: Call) -> int:
        return conv_flop_count(_batched(call["input"]), call["weight"], _batched(call["out"]), transposed)

    return count


def _convolution_backward(transposed: bool) -> Callable[[Call], int]:
    formula: Any = conv_backward_flop

    def count(call: Call) -> int:
        grad, x, w = _batched(call["grad_output"]), _batched(call["input"]), call["weight"]
        bias = stride = padding = dilation = output_padding = groups = None  # it does not look at them
        options = (bias, stride, padding, dilation, transposed, output_padding, groups)
        return int(formula(grad, x, w, *options, call["output_mask"], out_val=(x, w)))

    return count


def _matrices(call: Call) -> tuple[int, int, int]:
    """Elements of the matrices for the input, the state and (LSTM layers only) the projection."""
    w_hr = call.get("w_hr")
    return _elements(call["w_ih"]), _elements(call["w_hh"]), _elements(w_hr) if w_hr else 0


def _recurrent(call: Call) -> int:
    """Of a cell, ``input: [batch, features]``, and of a layer, ``[steps, batch, features]`` or packed."""
    return 2 * _elements(call["input"][:-1]) * sum(_matrices(call))


def _recurrent_backward(call: Call) -> int:
    w_ih, w_hh, w_hr = _matrices(call)
    names = ("input", "hx", *(["cx"] if "cx" in call else []), "w_ih", "w_hh", "b_ih", "b_hh", "w_hr")
    wanted = dict(zip(names, call["output_mask"], strict=False))
    rows = _elements(call["input"][:-1])
    # The gradient of the state is needed after every step but the first, where it is that of hx.
    of_state = rows if wanted["hx"] else rows - int(call["hx"][0])
    of_matrices = rows * (w_ih * (wanted["input"] + wanted["w_ih"]) + w_hh * wanted["w_hh"])
    of_projection = rows * w_hr * (1 + wanted.get("w_hr", False))
    return int(2 * (of_matrices + of_state * w_hh + of_projection))


def _register(op: str, formula: Callable[[Call], int]) -> None:
    packet = getattr(torch.ops.cisdl, op)
    names = [argument.name for argument in packet.default._schema.arguments]

    def count(*args: Any, out_shape: Any = None, **kwargs: Any) -> int:
        return formula({**dict(zip(names, args, strict=False)), **kwargs, "out": out_shape})

    register_flop_formula(packet)(count)


def _register_all() -> None:
    formulas = {
        "linear": _linear,
        "linear_backward": _linear_backward,
        "linear_activation": _linear,
        "linear_activation_backward": _linear_backward,
        "conv2d": _convolution(False),
        "conv2d_backward": _convolution_backward(False),
        "conv2d_activation": _convolution(False),
        "conv2d_activation_backward": _convolution_backward(False),
        "conv_transpose2d": _convolution(True),
        "conv_transpose2d_backward": _convolution_backward(True),
    }
    for kind in ("lstm_cell", "gru_cell", "lstm_layer", "gru_layer"):
        formulas |= {
            kind: _recurrent,
            f"{kind}_training": _recurrent,
            f"{kind}_backward": _recurrent_backward,
        }
    formulas |= dict.fromkeys(("rnn_tanh_cell", "rnn_relu_cell", "rnn_layer"), _recurrent)
    formulas |= dict.fromkeys(("rnn_cell_backward", "rnn_layer_backward"), _recurrent_backward)
    for op, formula in formulas.items():
        _register(op, formula)


_register_all()
