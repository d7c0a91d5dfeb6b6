"""One step of a recurrent layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_variadic

from cisdl_ops._load import _C


def lstm_cell(
    input: Tensor,
    hx: Sequence[Tensor],
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """One step of a long short-term memory (Hochreiter & Schmidhuber 1997); see ``torch.lstm_cell``.

    ``i, f, o = sigmoid(.)`` and ``g = tanh(.)`` of the four parts, in the order i, f, g, o, of
    ``x W_ih^T + b_ih + h W_hh^T + b_hh``; then ``c' = f c + i g`` and ``h' = o tanh(c')``.

    Args:
        input: ``[batch, input_size]``.
        hx: ``(h, c)``, each ``[batch, hidden_size]``.
        w_ih: ``[4*hidden_size, input_size]``.
        w_hh: ``[4*hidden_size, hidden_size]``.
        b_ih, b_hh: ``[4*hidden_size]``, or None.

    Returns:
        ``(h', c')``, each ``[batch, hidden_size]``.
    """
    if isinstance(hx, Tensor):
        raise ValueError("lstm_cell: hx: expected a pair (h, c), got a tensor")
    try:
        h, c = hx
    except (TypeError, ValueError):
        got = f"{len(hx)} tensors" if isinstance(hx, list | tuple) else type(hx).__name__
        raise ValueError(f"lstm_cell: hx: expected a pair (h, c), got {got}") from None
    if has_torch_function_variadic(input, h, c, w_ih, w_hh, b_ih, b_hh):
        overridden: tuple[Tensor, Tensor] = handle_torch_function(
            lstm_cell, (input, h, c, w_ih, w_hh, b_ih, b_hh), input, hx, w_ih, w_hh, b_ih, b_hh
        )
        return overridden
    if torch.compiler.is_compiling():
        result: tuple[Tensor, Tensor] = torch.ops.cisdl.lstm_cell(input, h, c, w_ih, w_hh, b_ih, b_hh)
        return result
    return _C.lstm_cell(input, h, c, w_ih, w_hh, b_ih, b_hh)


def gru_cell(
    input: Tensor,
    hx: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> Tensor:
    """One step of a gated recurrent unit (Cho et al. 2014); see ``torch.gru_cell``.

    With ``a = x W_ih^T + b_ih`` and ``u = h W_hh^T + b_hh``, each in three parts in the order r, z, n:
    ``r = sigmoid(a_r + u_r)``, ``z = sigmoid(a_z + u_z)``, ``n = tanh(a_n + r u_n)``;
    then ``h' = (1 - z) n + z h``.

    Args:
        input: ``[batch, input_size]``.
        hx: ``h``, ``[batch, hidden_size]``.
        w_ih: ``[3*hidden_size, input_size]``.
        w_hh: ``[3*hidden_size, hidden_size]``.
        b_ih, b_hh: ``[3*hidden_size]``, or None.

    Returns:
        ``h'``, ``[batch, hidden_size]``.
    """
    if has_torch_function_variadic(input, hx, w_ih, w_hh, b_ih, b_hh):
        overridden: Tensor = handle_torch_function(
            gru_cell, (input, hx, w_ih, w_hh, b_ih, b_hh), input, hx, w_ih, w_hh, b_ih, b_hh
        )
        return overridden
    if torch.compiler.is_compiling():
        result: Tensor = torch.ops.cisdl.gru_cell(input, hx, w_ih, w_hh, b_ih, b_hh)
        return result
    return _C.gru_cell(input, hx, w_ih, w_hh, b_ih, b_hh)


def rnn_tanh_cell(
    input: Tensor,
    hx: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> Tensor:
    """One step of a plain recurrent network (Elman 1990); see ``torch.rnn_tanh_cell``.

    ``h' = tanh(x W_ih^T + b_ih + h W_hh^T + b_hh)``

    Args:
        input: ``[batch, input_size]``.
        hx: ``h``, ``[batch, hidden_size]``.
        w_ih: ``[hidden_size, input_size]``.
        w_hh: ``[hidden_size, hidden_size]``.
        b_ih, b_hh: ``[hidden_size]``, or None.

    Returns:
        ``h'``, ``[batch, hidden_size]``.
    """
    if has_torch_function_variadic(input, hx, w_ih, w_hh, b_ih, b_hh):
        overridden: Tensor = handle_torch_function(
            rnn_tanh_cell, (input, hx, w_ih, w_hh, b_ih, b_hh), input, hx, w_ih, w_hh, b_ih, b_hh
        )
        return overridden
    if torch.compiler.is_compiling():
        result: Tensor = torch.ops.cisdl.rnn_tanh_cell(input, hx, w_ih, w_hh, b_ih, b_hh)
        return result
    return _C.rnn_tanh_cell(input, hx, w_ih, w_hh, b_ih, b_hh)


def rnn_relu_cell(
    input: Tensor,
    hx: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> Tensor:
    """One step of a plain recurrent network with ``relu``; see ``torch.rnn_relu_cell``.

    ``h' = max(0, x W_ih^T + b_ih + h W_hh^T + b_hh)``, a NaN staying one; shapes as in :func:`rnn_tanh_cell`.
    """
    if has_torch_function_variadic(input, hx, w_ih, w_hh, b_ih, b_hh):
        overridden: Tensor = handle_torch_function(
            rnn_relu_cell, (input, hx, w_ih, w_hh, b_ih, b_hh), input, hx, w_ih, w_hh, b_ih, b_hh
        )
        return overridden
    if torch.compiler.is_compiling():
        result: Tensor = torch.ops.cisdl.rnn_relu_cell(input, hx, w_ih, w_hh, b_ih, b_hh)
        return result
    return _C.rnn_relu_cell(input, hx, w_ih, w_hh, b_ih, b_hh)
