"""Whole recurrent layers, for ``cisdl bench`` alone: their tests are files of their own.

A layer is a module, ``torch.nn.LSTM`` or ours, made around the tensors of the case when they are bound to it;
what is timed is its call. ``training`` is forward and backward together, as a step of training runs them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod

import torch
from torch import Tensor

from cisdl_ops.cases.build import tagged
from cisdl_ops.cases.table import LAYERS, Case, Function, Op, Pass, Shape

GATES = {"lstm_layer": 4, "gru_layer": 3, "rnn_layer": 1}
PARAMETERS = {"w_ih": "weight_ih_l0", "w_hh": "weight_hh_l0", "b_ih": "bias_ih_l0", "b_hh": "bias_hh_l0"}

# steps, batch, hidden units (and as many features of the input)
SHAPES = (
    (32, 1, 128),
    (100, 1, 512),
    (100, 16, 64),
    (32, 16, 256),
    (32, 32, 512),
    (32, 64, 128),
    (100, 64, 256),
    (32, 64, 512),
    (100, 128, 64),
    (32, 128, 128),
    (32, 128, 512),
)
QUICK = ((32, 1, 128), (32, 64, 128))


def _bound(module: Function, case: Case, tensors: Mapping[str, Tensor]) -> Function:
    """A module of this class with these tensors for parameters, ready to be called on the others."""
    made = module(case.shapes["input"][-1], case.shapes["hx"][-1], device="meta")
    for name, parameter in PARAMETERS.items():
        delattr(made, parameter)
        setattr(made, parameter, tensors[name])
    x, state = tensors["input"], tensors["hx"]
    states = (state, tensors["cx"]) if "cx" in tensors else state

    def call() -> tuple[Tensor, ...]:
        output, ended = made(x, states)
        return (output, ended) if isinstance(ended, Tensor) else (output, *ended)

    return call


def _flops(case: Case) -> int:
    steps, batch = case.shapes["input"][:2]
    return 2 * steps * batch * (prod(case.shapes["w_ih"]) + prod(case.shapes["w_hh"]))


def _op(name: str, module: type[torch.nn.RNNBase]) -> Op:
    states = ("hx", "cx") if name == "lstm_layer" else ("hx",)
    tensors = ("input", *states, *PARAMETERS)
    passes = (Pass("training", tensors, work=3, with_forward=True),)
    return Op(name, tensors, module, module, passes, _flops, module=module.__name__, bound=_bound)


MODULES = {"lstm_layer": torch.nn.LSTM, "gru_layer": torch.nn.GRU, "rnn_layer": torch.nn.RNN}
LAYERS.update((name, _op(name, module)) for name, module in MODULES.items())


def layer_case(op: str, tags: str, name: str, steps: int, batch: int, hidden: int) -> Case:
    state, rows = (1, batch, hidden), GATES[op] * hidden
    shapes: dict[str, Shape] = {"input": (steps, batch, hidden), "hx": state}
    shapes |= {"cx": state} if op == "lstm_layer" else {}
    shapes |= {"w_ih": (rows, hidden), "w_hh": (rows, hidden), "b_ih": (rows,), "b_hh": (rows,)}
    return Case(op, name, shapes, {}, tagged(tags))


def layer_cases(op: str) -> Iterator[Case]:
    yield layer_case(op, "tiny", "tiny", 2, 1, 2)
    for steps, batch, hidden in SHAPES:
        tags = "bench quick" if (steps, batch, hidden) in QUICK else "bench"
        yield layer_case(op, tags, f"h{hidden}_b{batch}_t{steps}", steps, batch, hidden)
