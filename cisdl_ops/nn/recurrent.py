"""Recurrent cells and layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import Proxy
from torch.nn.utils.rnn import PackedSequence

from cisdl_ops import functional

__all__ = ["GRU", "LSTM", "RNN", "GRUCell", "LSTMCell", "RNNCell"]


def _one_node(module: torch.nn.Module, input: Proxy, hx: Any) -> Any:
    """The call of a recurrent module as one node of a ``torch.fx`` graph.

    ``torch.fx.symbolic_trace`` makes one of every module of torch's. Ours it enters, down to the functions;
    but a recurrent module asks its input for its shape, which a symbol has not.
    """
    tracer: Any = input.tracer
    arguments = (input,) if hx is None else (input, hx)
    return tracer.create_proxy("call_module", tracer.path_of_module(module), arguments, {})


def _check_cell(cell: torch.nn.RNNCellBase, input: Tensor, states: tuple[Tensor, ...]) -> bool:
    """Whether ``input`` is a batch.

    Raises:
        ValueError: the input or a state is neither a batch nor a single sample.
    """
    name = type(cell).__name__
    if input.dim() not in (1, 2):
        raise ValueError(
            f"{name}: input: expected shape [batch, {cell.input_size}] or [{cell.input_size}], "
            f"got {list(input.shape)}"
        )
    for state in states:
        if state.dim() not in (1, 2):
            raise ValueError(
                f"{name}: hx: expected shape [batch, {cell.hidden_size}] or [{cell.hidden_size}], "
                f"got {list(state.shape)}"
            )
    return input.dim() == 2


class LSTMCell(torch.nn.LSTMCell):
    """One LSTM step; see ``torch.nn.LSTMCell``. Takes ``[batch, input_size]`` or ``[input_size]``."""

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        if isinstance(input, Proxy):
            node: tuple[Tensor, Tensor] = _one_node(self, input, hx)
            return node
        batched = _check_cell(self, input, hx or ())
        if hx is None:
            zeros = input.new_zeros(*input.shape[:-1], self.hidden_size)
            hx = (zeros, zeros)
        h, c = hx
        if not batched:
            input, h, c = input.unsqueeze(0), h.unsqueeze(0), c.unsqueeze(0)
        h, c = functional.lstm_cell(input, (h, c), self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
        return (h, c) if batched else (h.squeeze(0), c.squeeze(0))


class GRUCell(torch.nn.GRUCell):
    """One GRU step; see ``torch.nn.GRUCell``. Takes ``[batch, input_size]`` or ``[input_size]``."""

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        if isinstance(input, Proxy):
            node: Tensor = _one_node(self, input, hx)
            return node
        batched = _check_cell(self, input, () if hx is None else (hx,))
        if hx is None:
            hx = input.new_zeros(*input.shape[:-1], self.hidden_size)
        weights = (self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
        if batched:
            return functional.gru_cell(input, hx, *weights)
        return functional.gru_cell(input.unsqueeze(0), hx.unsqueeze(0), *weights).squeeze(0)


class RNNCell(torch.nn.RNNCell):
    """One plain step; see ``torch.nn.RNNCell``. Takes ``[batch, input_size]`` or ``[input_size]``."""

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        if isinstance(input, Proxy):
            node: Tensor = _one_node(self, input, hx)
            return node
        batched = _check_cell(self, input, () if hx is None else (hx,))
        steps = {"tanh": functional.rnn_tanh_cell, "relu": functional.rnn_relu_cell}
        if self.nonlinearity not in steps:
            raise RuntimeError(f"RNNCell: nonlinearity: expected 'tanh' or 'relu', got {self.nonlinearity!r}")
        step = steps[self.nonlinearity]
        if hx is None:
            hx = input.new_zeros(*input.shape[:-1], self.hidden_size)
        weights = (self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
        if batched:
            return step(input, hx, *weights)
        return step(input.unsqueeze(0), hx.unsqueeze(0), *weights).squeeze(0)


States = tuple[Tensor, ...]  # h, or h and c


class _Layers(torch.nn.RNNBase):
    """What LSTM, GRU and RNN share: everything but one layer in one direction."""

    def _layer(
        self,
        input: Tensor,
        states: States,
        weights: list[Tensor | None],
        batch_sizes: Tensor | None,
        reverse: bool,
    ) -> tuple[Tensor, States]:
        """Output and last states of one layer in one direction.

        Args:
            input: ``[steps, batch, features]``, or the data of a PackedSequence with its ``batch_sizes``.
            states: each ``[batch, features]``.
            weights: w_ih, w_hh, b_ih, b_hh, w_hr.
        """
        raise NotImplementedError

    def _state_sizes(self) -> tuple[int, ...]:
        return (self.hidden_size,)

    def _weights(self, index: int) -> list[Tensor | None]:
        """Of a layer in one direction, taken by name: they may have been replaced since construction."""
        kinds = {"weight_ih": 0, "weight_hh": 1, "bias_ih": 2, "bias_hh": 3, "weight_hr": 4}
        found: list[Tensor | None] = [None] * len(kinds)
        for name in self._all_weights[index]:
            found[kinds[name.split("_l")[0]]] = getattr(self, name)
        return found

    def _run(self, input: Tensor, states: States, batch_sizes: Tensor | None) -> tuple[Tensor, States]:
        """All layers, ``_layer`` after ``_layer``; states are ``[layers*directions, batch, features]``."""
        directions = 2 if self.bidirectional else 1
        last: list[States] = []
        for layer in range(self.num_layers):
            if layer > 0 and self.training and self.dropout > 0:
                input = torch.nn.functional.dropout(input, self.dropout)
            outputs = []
            for direction in range(directions):
                index = layer * directions + direction
                output, ended = self._layer(
                    input,
                    tuple(state[index] for state in states),
                    self._weights(index),
                    batch_sizes,
                    direction == 1,
                )
                outputs.append(output)
                last.append(ended)
            input = outputs[0] if directions == 1 else torch.cat(outputs, -1)
        return input, tuple(map(_stacked, zip(*last, strict=True)))

    def _initial_states(self, input: Tensor, batch: int) -> States:
        layers = self.num_layers * (2 if self.bidirectional else 1)
        return tuple(input.new_zeros(layers, batch, size) for size in self._state_sizes())

    def forward(self, input: Any, hx: Any = None) -> Any:
        if isinstance(input, Proxy):
            return _one_node(self, input, hx)
        self._update_flat_weights()  # check_input looks at them
        given: States | None = None
        if hx is not None:
            given = (hx,) if len(self._state_sizes()) == 1 else tuple(hx)
        if isinstance(input, PackedSequence):
            output, states = self._forward_packed(input, given)
        else:
            output, states = self._forward_dense(input, given)
        return output, states[0] if len(states) == 1 else states

    def _check(self, input: Tensor, states: States, batch_sizes: Tensor | None) -> None:
        hidden: Any = states[0] if len(states) == 1 else states
        self.check_forward_args(input, hidden, batch_sizes)

    def _forward_packed(self, input: PackedSequence, given: States | None) -> tuple[Any, States]:
        data, batch_sizes, sorted_indices, unsorted_indices = input
        if given is None:
            states = self._initial_states(data, int(batch_sizes[0]))
        else:
            states = tuple(_permuted(state, sorted_indices) for state in given)
        self._check(data, states, batch_sizes)
        output, states = self._run(data, states, batch_sizes)
        return (
            PackedSequence(output, batch_sizes, sorted_indices, unsorted_indices),
            tuple(_permuted(state, unsorted_indices) for state in states),
        )

    def _forward_dense(self, input: Tensor, given: States | None) -> tuple[Any, States]:
        name = type(self).__name__
        if input.dim() not in (2, 3):
            raise ValueError(f"{name}: Expected input to be 2D or 3D, got {input.dim()}D instead")
        batched = input.dim() == 3
        batch_dim = 0 if self.batch_first else 1
        if not batched:
            input = input.unsqueeze(batch_dim)
        if given is None:
            states = self._initial_states(input, input.shape[batch_dim])
        else:
            self._check_dims(given, batched)
            states = given if batched else tuple(state.unsqueeze(1) for state in given)
        self._check(input, states, None)
        if input.shape[1 - batch_dim] == 0:
            raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
        # Both directions read the same rows: laid out by steps once.
        steps_first = input.transpose(0, 1).contiguous() if self.batch_first else input
        output, states = self._run(steps_first, states, None)
        if self.batch_first:
            output = output.transpose(0, 1)
        if not batched:
            output, states = output.squeeze(batch_dim), tuple(state.squeeze(1) for state in states)
        return output, states

    def _check_dims(self, states: States, batched: bool) -> None:
        """States have as many dimensions as the input: in torch's words."""
        expected = 3 if batched else 2
        if all(state.dim() == expected for state in states):
            return
        kind = f"{'batched 3' if batched else 'unbatched 2'}-D input"
        got = ", ".join(f"{state.dim()}-D" for state in states)
        if len(states) == 1:
            raise RuntimeError(f"For {kind}, hx should also be {expected}-D but got {got} tensor")
        raise RuntimeError(f"For {kind}, hx and cx should also be {expected}-D but got ({got}) tensors")


def _permuted(state: Tensor, indices: Tensor | None) -> Tensor:
    return state if indices is None else state.index_select(1, indices)


def _stacked(states: States) -> Tensor:
    return states[0].unsqueeze(0) if len(states) == 1 else torch.stack(states)


class LSTM(_Layers):
    """Layers of long short-term memories (Hochreiter & Schmidhuber 1997); see ``torch.nn.LSTM``.

    Takes all that torch's takes: layers, directions, dropout, ``batch_first``, ``proj_size`` (Sak et al.
    2014), unbatched input, ``PackedSequence``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__("LSTM", *args, **kwargs)

    # Of torch.nn.LSTM: there are two states to check.
    get_expected_cell_size = torch.nn.LSTM.get_expected_cell_size
    check_forward_args = torch.nn.LSTM.check_forward_args  # type: ignore[assignment]
    permute_hidden = torch.nn.LSTM.permute_hidden  # type: ignore[assignment]

    def _state_sizes(self) -> tuple[int, ...]:
        return (self.proj_size or self.hidden_size, self.hidden_size)

    def _layer(
        self,
        input: Tensor,
        states: States,
        weights: list[Tensor | None],
        batch_sizes: Tensor | None,
        reverse: bool,
    ) -> tuple[Tensor, States]:
        output, h, c = torch.ops.cisdl.lstm_layer.default(input, *states, *weights, batch_sizes, reverse)
        return output, (h, c)


class GRU(_Layers):
    """Layers of gated recurrent units (Cho et al. 2014); see ``torch.nn.GRU``, and all that it takes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        _refuse_projection(kwargs)
        super().__init__("GRU", *args, **kwargs)

    def _layer(
        self,
        input: Tensor,
        states: States,
        weights: list[Tensor | None],
        batch_sizes: Tensor | None,
        reverse: bool,
    ) -> tuple[Tensor, States]:
        output, h = torch.ops.cisdl.gru_layer.default(input, *states, *weights[:4], batch_sizes, reverse)
        return output, (h,)


class RNN(_Layers):
    """Layers of plain recurrent units (Elman 1990); see ``torch.nn.RNN``, and all that it takes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        _refuse_projection(kwargs)
        if len(args) > 3:
            self.nonlinearity = args[3]
            args = (*args[:3], *args[4:])
        else:
            self.nonlinearity = kwargs.pop("nonlinearity", "tanh")
        if self.nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"Unknown nonlinearity '{self.nonlinearity}'. Select from 'tanh' or 'relu'.")
        super().__init__(f"RNN_{self.nonlinearity.upper()}", *args, **kwargs)

    def _layer(
        self,
        input: Tensor,
        states: States,
        weights: list[Tensor | None],
        batch_sizes: Tensor | None,
        reverse: bool,
    ) -> tuple[Tensor, States]:
        relu = self.mode == "RNN_RELU"
        output, h = torch.ops.cisdl.rnn_layer.default(
            input, *states, *weights[:4], relu, batch_sizes, reverse
        )
        return output, (h,)


def _refuse_projection(kwargs: dict[str, Any]) -> None:
    if "proj_size" in kwargs:
        raise ValueError("proj_size argument is only supported for LSTM, not RNN or GRU")
