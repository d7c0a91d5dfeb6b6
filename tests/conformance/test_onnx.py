"""ONNX's node tests for the ops we have, and ONNX's reference evaluator as a third opinion on more."""

from __future__ import annotations

import importlib
import warnings
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnx.reference
import pytest
import torch
from onnx import TensorProto, helper

from tests.conformance.onnx_recurrent import NotExpressible
from tests.conformance.onnx_runner import NODES, run_model


@cache
def node_tests() -> dict[str, Any]:
    """The official cases of our nodes by name: importing the module of a node registers its cases.

    They are drawn from numpy's global generator, which is left as it was.
    """
    state = np.random.get_state()  # noqa: NPY002
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case import node

        for name in NODES:
            importlib.import_module(f"{node.__name__}.{name.lower()}")
        cases = {case.name: case for case in node._NodeTestCases}
    np.random.set_state(state)  # noqa: NPY002
    return cases


# Named here, not collected, so that a release of onnx that loses or renames cases is noticed.
OFFICIAL = {
    "Conv": 6,
    "ConvTranspose": 11,
    "MaxPool": 18,
    "AveragePool": 20,
    "GlobalAveragePool": 2,
    "GlobalMaxPool": 2,
    "LSTM": 6,
    "GRU": 6,
    "RNN": 6,
}


def assert_outputs(
    model: onnx.ModelProto, inputs: list[Any], expected: list[Any], rtol: float, atol: float
) -> None:
    with torch.no_grad():
        got = run_model(model, [torch.from_numpy(np.array(value)) for value in inputs])
    assert len(got) == len(expected)
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, torch.from_numpy(np.array(theirs)), rtol=rtol, atol=atol)


def skip_unless_expressible(call: Any) -> None:
    try:
        call()
    except NotExpressible as reason:
        pytest.skip(str(reason))


@pytest.mark.parametrize("op", NODES)
def test_node(subtests: pytest.Subtests, op: str) -> None:
    cases = [case for case in node_tests().values() if case.model.graph.node[0].op_type == op]
    assert len(cases) >= OFFICIAL[op], f"onnx had {OFFICIAL[op]} cases of {op}, has {[c.name for c in cases]}"
    for case in cases:
        for inputs, outputs in case.data_sets:
            with subtests.test(case.name):
                skip_unless_expressible(
                    lambda case=case, inputs=inputs, outputs=outputs: assert_outputs(
                        case.model, inputs, outputs, case.rtol, case.atol
                    )
                )


def model_of(op: str, inputs: dict[str, Any], outputs: int, attributes: dict[str, Any]) -> onnx.ModelProto:
    """A model of one node, its inputs in order (None where an optional one is left out)."""
    names = [name if value is not None else "" for name, value in inputs.items()]
    results = [f"out{i}" for i in range(outputs)]
    graph = helper.make_graph(
        [helper.make_node(op, names, results, **attributes)],
        "one_node",
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
            for name, value in inputs.items()
            if value is not None
        ],
        [helper.make_tensor_value_info(name, TensorProto.UNDEFINED, None) for name in results],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)])


def images(*shape: int) -> Any:
    return np.random.default_rng(sum(shape)).standard_normal(shape, dtype=np.float32)


CONVOLUTIONS: dict[str, tuple[tuple[int, ...], tuple[int, ...], bool, dict[str, Any]]] = {
    "bias": ((2, 3, 7, 8), (4, 3, 3, 3), True, {}),
    "groups": ((2, 4, 7, 8), (6, 2, 3, 2), True, {"group": 2}),
    "depthwise": ((1, 5, 9, 9), (5, 1, 3, 3), False, {"group": 5, "pads": [1, 1, 1, 1]}),
    "dilations": ((2, 3, 11, 10), (4, 3, 3, 3), True, {"dilations": [2, 3]}),
    "strides": ((2, 3, 11, 10), (4, 3, 3, 2), False, {"strides": [3, 2]}),
    "uneven_pads": ((2, 3, 6, 7), (4, 3, 3, 3), True, {"pads": [2, 0, 1, 3]}),
    "same_upper": ((2, 3, 7, 8), (4, 3, 2, 4), True, {"auto_pad": "SAME_UPPER"}),
    "same_lower": ((2, 3, 7, 8), (4, 3, 2, 4), True, {"auto_pad": "SAME_LOWER"}),
    "same_upper_strides": (
        (2, 3, 10, 9),
        (4, 3, 3, 3),
        False,
        {"auto_pad": "SAME_UPPER", "strides": [2, 3]},
    ),
    "valid": ((2, 3, 7, 8), (4, 3, 3, 3), True, {"auto_pad": "VALID"}),
}

# Without groups, which the evaluator of onnx 1.23 cannot reshape; the node tests have them.
TRANSPOSED: dict[str, tuple[tuple[int, ...], tuple[int, ...], bool, dict[str, Any]]] = {
    "bias": ((2, 3, 5, 4), (3, 4, 3, 3), True, {}),
    "dilations": ((2, 3, 5, 4), (3, 2, 3, 2), False, {"dilations": [2, 3], "strides": [2, 1]}),
    "pads": ((2, 3, 5, 4), (3, 2, 3, 3), True, {"pads": [1, 1, 1, 1], "strides": [2, 3]}),
    "uneven_pads": ((2, 3, 5, 4), (3, 2, 4, 3), True, {"pads": [1, 0, 2, 1], "strides": [2, 2]}),
    "output_padding": ((1, 3, 5, 4), (3, 2, 3, 3), True, {"strides": [3, 2], "output_padding": [2, 1]}),
}

# The evaluator of onnx 1.23 gives negative indices where there is padding, and rounds the size of strided
# SAME down against the specification: the node tests have both.
POOLS: dict[str, tuple[str, tuple[int, ...], int, dict[str, Any]]] = {
    "max_strides": ("MaxPool", (2, 3, 9, 10), 2, {"kernel_shape": [3, 2], "strides": [2, 3]}),
    "max_pads": ("MaxPool", (2, 3, 9, 10), 1, {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    "max_dilations": ("MaxPool", (2, 3, 9, 10), 2, {"kernel_shape": [3, 2], "dilations": [2, 3]}),
    "max_ceil": ("MaxPool", (2, 3, 8, 9), 1, {"kernel_shape": [3, 2], "strides": [2, 2], "ceil_mode": 1}),
    "max_same_lower": (
        "MaxPool",
        (2, 3, 7, 8),
        1,
        {"kernel_shape": [2, 4], "auto_pad": "SAME_LOWER"},
    ),
    "average_pads": (
        "AveragePool",
        (2, 3, 7, 8),
        1,
        {"kernel_shape": [3, 4], "pads": [1, 2, 1, 2], "strides": [2, 1]},
    ),
    "average_count_pads": (
        "AveragePool",
        (2, 3, 7, 8),
        1,
        {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1, "strides": [2, 3]},
    ),
    "average_uneven_pads": (
        "AveragePool",
        (2, 3, 7, 8),
        1,
        {"kernel_shape": [3, 3], "pads": [0, 2, 1, 0], "strides": [2, 2]},
    ),
    "average_dilations": (
        "AveragePool",
        (2, 3, 9, 9),
        1,
        {"kernel_shape": [3, 2], "dilations": [2, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1},
    ),
    "global_average": ("GlobalAveragePool", (2, 5, 9, 7), 1, {}),
    "global_max": ("GlobalMaxPool", (2, 5, 9, 7), 1, {}),
}

RECURRENT: dict[str, tuple[str, dict[str, Any], bool]] = {
    "lstm": ("LSTM", {}, True),
    "lstm_reverse": ("LSTM", {"direction": "reverse"}, True),
    "lstm_bidirectional": ("LSTM", {"direction": "bidirectional"}, True),
    "lstm_batch_first": ("LSTM", {"layout": 1}, True),
    "lstm_no_state": ("LSTM", {"direction": "bidirectional"}, False),
    "gru": ("GRU", {"linear_before_reset": 1}, True),
    "gru_reverse": ("GRU", {"linear_before_reset": 1, "direction": "reverse"}, True),
    "gru_bidirectional": ("GRU", {"linear_before_reset": 1, "direction": "bidirectional"}, True),
    "gru_no_state": ("GRU", {"linear_before_reset": 1}, False),
    "rnn": ("RNN", {}, True),
    "rnn_reverse": ("RNN", {"direction": "reverse"}, True),
    "rnn_bidirectional": ("RNN", {"direction": "bidirectional"}, True),
}


def assert_as_reference(model: onnx.ModelProto, inputs: dict[str, Any]) -> None:
    """Our outputs are those of ONNX's own evaluator, which is numpy code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = onnx.reference.ReferenceEvaluator(model).run(None, dict(inputs))
    assert_outputs(model, list(inputs.values()), list(expected), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("op", "name"),
    [("Conv", name) for name in CONVOLUTIONS] + [("ConvTranspose", name) for name in TRANSPOSED],
)
def test_convolution_as_the_reference(op: str, name: str) -> None:
    x, w, has_bias, attributes = (CONVOLUTIONS if op == "Conv" else TRANSPOSED)[name]
    inputs = {"x": images(*x), "w": images(*w)}
    if has_bias:
        out_channels = w[0] if op == "Conv" else w[1] * attributes.get("group", 1)
        inputs["b"] = images(out_channels)
    assert_as_reference(model_of(op, inputs, 1, attributes), inputs)


@pytest.mark.parametrize("name", POOLS)
def test_pooling_as_the_reference(name: str) -> None:
    op, shape, outputs, attributes = POOLS[name]
    inputs = {"x": images(*shape)}
    assert_as_reference(model_of(op, inputs, outputs, attributes), inputs)


@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_as_the_reference(name: str) -> None:
    op, attributes, with_state = RECURRENT[name]
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[op]
    directions = 2 if attributes.get("direction") == "bidirectional" else 1
    steps, batch, size, hidden = 4, 3, 2, 5
    x, state = (steps, batch, size), (directions, batch, hidden)
    if attributes.get("layout"):
        x, state = (batch, steps, size), (batch, directions, hidden)
    inputs = {
        "X": images(*x),
        "W": images(directions, gates * hidden, size),
        "R": images(directions, gates * hidden, hidden),
        "B": images(directions, 2 * gates * hidden),
        "sequence_lens": None,
        "initial_h": images(*state) if with_state else None,
        "initial_c": images(*state) * 0.5 if with_state and op == "LSTM" else None,
    }
    while inputs and next(reversed(inputs.values())) is None:
        inputs.popitem()
    model = model_of(op, inputs, 3 if op == "LSTM" else 2, {"hidden_size": hidden, **attributes})
    assert_as_reference(model, {name: value for name, value in inputs.items() if value is not None})


def test_what_cannot_be_said_is_refused() -> None:
    """A skip of a node test is decided by these words, not by a failure."""
    inputs = {"X": images(2, 1, 3), "W": images(1, 12, 3), "R": images(1, 12, 4)}
    model = model_of("GRU", inputs, 2, {"hidden_size": 4})
    with pytest.raises(NotExpressible, match="linear_before_reset"):
        run_model(model, [torch.from_numpy(value) for value in inputs.values()])
