"""Arguments for every torch.ops.cisdl.* operator: what opcheck and the tests of bad arguments start from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sample:
    """One valid call of an operator by its schema's argument names, in order."""

    op: str
    arguments: dict[str, Any]

    @property
    def overload(self) -> Any:
        return getattr(torch.ops.cisdl, self.op).default

    def call(self, **changes: Any) -> Any:
        return self.overload(*(self.arguments | changes).values())


def _t(*shape: int, dtype: torch.dtype = torch.float32, grad: bool = False) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, dtype=dtype, generator=generator).requires_grad_(grad)


def _linear(dtype: torch.dtype, grad: bool) -> list[Sample]:
    x, w, b = (
        _t(4, 3, dtype=dtype, grad=grad),
        _t(5, 3, dtype=dtype, grad=grad),
        _t(5, dtype=dtype, grad=grad),
    )
    g = _t(4, 5, dtype=dtype)
    backward = {"grad_output": g, "input": x.detach(), "weight": w.detach()}
    relu = {"activation": "relu", "negative_slope": 0.0}
    through = {"grad_output": g, "output": g.relu(), "input": x.detach(), "weight": w.detach()} | relu
    return [
        Sample("linear", {"input": x, "weight": w, "bias": b}),
        Sample("linear", {"input": x, "weight": w, "bias": None}),
        Sample("linear_backward", backward | {"output_mask": [True, True, True]}),
        Sample("linear_backward", backward | {"output_mask": [True, False, False]}),
        Sample("linear_activation", {"input": x, "weight": w, "bias": b} | relu),
        Sample("linear_activation_backward", through | {"output_mask": [True, True, True]}),
    ]


def _conv2d(dtype: torch.dtype, grad: bool) -> list[Sample]:
    x, w, b = (
        _t(2, 4, 6, 7, dtype=dtype, grad=grad),
        _t(6, 2, 3, 3, dtype=dtype, grad=grad),
        _t(6, dtype=dtype, grad=grad),
    )
    geometry = {"stride": [2, 1], "padding": [1, 0, 2, 1], "dilation": [1, 2], "groups": 2}
    g = _t(2, 6, 3, 6, dtype=dtype)
    tensors = {"input": x.detach(), "weight": w.detach()}
    backward = {"grad_output": g} | tensors | geometry
    tanh = {"activation": "tanh", "negative_slope": 0.0}
    through = {"grad_output": g, "output": g.tanh()} | tensors | geometry | tanh
    return [
        Sample("conv2d_activation", {"input": x, "weight": w, "bias": b} | geometry | tanh),
        Sample("conv2d_activation_backward", through | {"output_mask": [True, True, True]}),
        Sample("conv2d", {"input": x, "weight": w, "bias": b} | geometry),
        Sample(
            "conv2d",
            {
                "input": x.detach().to(memory_format=torch.channels_last).requires_grad_(grad),
                "weight": w,
                "bias": None,
            }
            | geometry,
        ),
        Sample("conv2d_backward", backward | {"output_mask": [True, True, True]}),
        Sample("conv2d_backward", backward | {"output_mask": [False, True, False]}),
    ]


def _conv_transpose2d(dtype: torch.dtype, grad: bool) -> list[Sample]:
    x, w, b = (
        _t(2, 4, 3, 5, dtype=dtype, grad=grad),
        _t(4, 3, 3, 2, dtype=dtype, grad=grad),
        _t(6, dtype=dtype, grad=grad),
    )
    options = {"stride": [2, 1], "padding": [1, 0], "output_padding": [1, 0], "groups": 2, "dilation": [1, 2]}
    g = _t(2, 6, 6, 7, dtype=dtype)
    backward = {"grad_output": g, "input": x.detach(), "weight": w.detach()} | options
    last = x.detach().to(memory_format=torch.channels_last).requires_grad_(grad)
    return [
        Sample("conv_transpose2d", {"input": x, "weight": w, "bias": b} | options),
        Sample("conv_transpose2d", {"input": last, "weight": w, "bias": None} | options),
        Sample("conv_transpose2d_backward", backward | {"output_mask": [True, True, True]}),
        Sample("conv_transpose2d_backward", backward | {"output_mask": [True, False, False]}),
    ]


def _pool(dtype: torch.dtype, grad: bool) -> list[Sample]:
    x = _t(2, 3, 7, 8, dtype=dtype, grad=grad)
    window = {"kernel_size": [3, 2], "stride": [2, 2], "padding": [1, 0]}
    best = window | {"dilation": [1, 1], "ceil_mode": False}
    size, g = [2, 3, 7, 8], _t(2, 3, 4, 4, dtype=dtype)
    flat = torch.nn.functional.max_pool2d(x.detach(), **best, return_indices=True)[1]
    places = (
        torch.zeros(2, 3, 4, 4, dtype=torch.uint8) + 2
    )  # (r, s) = (1, 0): inside the image for every window
    back = {"grad_output": g, "input_size": size}
    return [
        Sample("max_pool2d", {"input": x} | best),
        Sample(
            "max_pool2d",
            {"input": x.detach().to(memory_format=torch.channels_last).requires_grad_(grad)} | best,
        ),
        Sample("max_pool2d_with_indices", {"input": x} | best),
        Sample("max_pool2d_window", {"input": x} | best),
        Sample(
            "max_pool2d_backward",
            {"grad_output": g, "indices": flat, "input_size": size}
            | window
            | {"dilation": [1, 1], "flat": True},
        ),
        Sample(
            "max_pool2d_backward",
            {"grad_output": g, "indices": places, "input_size": size}
            | window
            | {"dilation": [1, 1], "flat": False},
        ),
        *(
            Sample(
                "max_pool2d_gather",
                {"input": x, "indices": indices} | window | {"dilation": [1, 1], "flat": indices is flat},
            )
            for indices in (flat, places)
        ),
        Sample(
            "avg_pool2d",
            {"input": x} | window | {"ceil_mode": False, "count_include_pad": True, "divisor_override": None},
        ),
        Sample(
            "avg_pool2d",
            {"input": x} | window | {"ceil_mode": True, "count_include_pad": False, "divisor_override": 5},
        ),
        Sample("avg_pool2d_backward", back | window | {"count_include_pad": True, "divisor_override": None}),
    ]


def _adaptive_pool(dtype: torch.dtype, grad: bool) -> list[Sample]:
    x = _t(2, 3, 7, 8, dtype=dtype, grad=grad)
    last = x.detach().to(memory_format=torch.channels_last).requires_grad_(grad)
    size, g = [2, 3, 7, 8], _t(2, 3, 3, 5, dtype=dtype)
    flat = torch.nn.functional.adaptive_max_pool2d(x.detach(), (3, 5), return_indices=True)[1]
    return [
        Sample("adaptive_max_pool2d", {"input": x, "output_size": [3, 5]}),
        Sample("adaptive_max_pool2d", {"input": last, "output_size": [7, 4]}),
        Sample("adaptive_max_pool2d_with_indices", {"input": x, "output_size": [3, 5]}),
        Sample("adaptive_max_pool2d_backward", {"grad_output": g, "indices": flat, "input_size": size}),
        Sample("adaptive_max_pool2d_gather", {"input": x, "indices": flat}),
        Sample("adaptive_avg_pool2d", {"input": x, "output_size": [3, 5]}),
        Sample("adaptive_avg_pool2d", {"input": last, "output_size": [7, 4]}),
        Sample("adaptive_avg_pool2d_backward", {"grad_output": g, "input_size": size}),
    ]


def _cross_entropy(dtype: torch.dtype, grad: bool) -> list[Sample]:
    inputs: dict[str, Any] = {
        "input": _t(4, 5, dtype=dtype, grad=grad),
        "target": torch.tensor([0, 4, -100, 2]),
    }
    inputs["weight"] = _t(5, dtype=dtype).abs()
    options = {"reduction": 1, "ignore_index": -100, "label_smoothing": 0.1}
    x = inputs["input"].detach()
    largest = x.amax(1)
    saved = inputs | {"input": x, "kept": torch.stack([largest, (x - largest[:, None]).exp().sum(1)])}
    return [
        Sample("cross_entropy", inputs | options),
        Sample("cross_entropy_training", inputs | {"input": x} | options),
        Sample(
            "cross_entropy_backward", {"grad_output": _t(4, dtype=dtype)} | saved | options | {"reduction": 0}
        ),
    ]


def _lstm_cell(dtype: torch.dtype, grad: bool) -> list[Sample]:
    inputs = {
        "input": _t(3, 4, dtype=dtype, grad=grad),
        "hx": _t(3, 5, dtype=dtype, grad=grad),
        "cx": _t(3, 5, dtype=dtype, grad=grad) * 1.0,
        "w_ih": _t(20, 4, dtype=dtype, grad=grad),
        "w_hh": _t(20, 5, dtype=dtype, grad=grad),
        "b_ih": _t(20, dtype=dtype, grad=grad),
        "b_hh": _t(20, dtype=dtype, grad=grad),
    }
    inputs = {name: tensor.detach().requires_grad_(grad) for name, tensor in inputs.items()}
    saved = {name: inputs[name].detach() for name in ("input", "hx", "cx", "w_ih", "w_hh")}
    saved |= {"c": _t(3, 5, dtype=dtype), "gates": torch.sigmoid(_t(3, 20, dtype=dtype))}
    return [
        Sample("lstm_cell", inputs),
        Sample("lstm_cell", inputs | {"b_ih": None, "b_hh": None}),
        Sample("lstm_cell_training", inputs),
        Sample(
            "lstm_cell_backward",
            {"grad_h": _t(3, 5, dtype=dtype), "grad_c": _t(3, 5, dtype=dtype)}
            | saved
            | {"output_mask": [True] * 7},
        ),
        Sample(
            "lstm_cell_backward",
            {"grad_h": None, "grad_c": _t(3, 5, dtype=dtype)}
            | saved
            | {"output_mask": [True, False] * 3 + [False]},
        ),
    ]


def _cells(dtype: torch.dtype, grad: bool) -> list[Sample]:
    """The cells with one state: gru_cell, rnn_tanh_cell, rnn_relu_cell."""
    found = []
    for op, gates in (("gru_cell", 3), ("rnn_tanh_cell", 1), ("rnn_relu_cell", 1)):
        rows = gates * 5
        inputs = {
            "input": _t(3, 4, dtype=dtype, grad=grad),
            "hx": _t(3, 5, dtype=dtype, grad=grad),
            "w_ih": _t(rows, 4, dtype=dtype, grad=grad),
            "w_hh": _t(rows, 5, dtype=dtype, grad=grad),
            "b_ih": _t(rows, dtype=dtype, grad=grad),
            "b_hh": _t(rows, dtype=dtype, grad=grad),
        }
        found += [Sample(op, inputs), Sample(op, inputs | {"b_ih": None, "b_hh": None})]
        grads = {"grad_h": _t(5, 3, dtype=dtype).t()}
        grads |= {name: inputs[name].detach() for name in ("input", "hx", "w_ih", "w_hh")}
        if op == "gru_cell":
            found.append(Sample("gru_cell_training", inputs))
            op = "gru_cell_backward"
            grads |= {"gates": torch.sigmoid(_t(3, 15, dtype=dtype)), "h_part_n": _t(3, 5, dtype=dtype)}
        else:
            grads |= {"h": torch.sigmoid(_t(3, 5, dtype=dtype)), "relu": op == "rnn_relu_cell"}
            op = "rnn_cell_backward"
        for mask in ([True] * 6, [True, False] * 3):
            found.append(Sample(op, grads | {"output_mask": mask}))
    return found


def _layers(dtype: torch.dtype, grad: bool) -> list[Sample]:
    """lstm_layer, gru_layer, rnn_layer: dense; packed, reverse, and the LSTM with a projection."""
    found = []
    for op, gates in (("lstm", 4), ("gru", 3), ("rnn", 1)):
        for packed, reverse in ((False, False), (True, True)):
            lengths = torch.tensor([3, 2, 2]) if packed else None
            rows = (7,) if packed else (4, 3)
            state = 2 if op == "lstm" and packed else 5  # with a projection in the packed sample
            shapes = {
                "input": (*rows, 4),
                "hx": (3, state),
                "cx": (3, 5),
                "w_ih": (gates * 5, 4),
                "w_hh": (gates * 5, state),
                "b_ih": (gates * 5,),
                "b_hh": (gates * 5,),
            }
            if op != "lstm":
                del shapes["cx"]
            inputs: dict[str, Any] = {n: _t(*shape, dtype=dtype, grad=grad) for n, shape in shapes.items()}
            projection = (
                {"w_hr": _t(2, 5, dtype=dtype, grad=grad) if packed else None} if op == "lstm" else {}
            )
            relu = {"relu": packed} if op == "rnn" else {}
            sequence = {"batch_sizes": lengths, "reverse": reverse}
            found.append(Sample(f"{op}_layer", inputs | projection | relu | sequence))
            kept = {"output": _t(*rows, state, dtype=dtype)}
            if op == "lstm":
                kept |= {"gates": _t(*rows, 20, dtype=dtype).sigmoid(), "c_before": _t(*rows, 5, dtype=dtype)}
            if op == "gru":
                kept |= {"gates": _t(*rows, 15, dtype=dtype).sigmoid(), "h_part_n": _t(*rows, 5, dtype=dtype)}
            if op != "rnn":
                found.append(Sample(f"{op}_layer_training", inputs | projection | relu | sequence))
            grads: dict[str, Any] = {"grad_output": None if reverse else _t(*rows, state, dtype=dtype)}
            grads |= {"grad_h_n": _t(3, state, dtype=dtype)}
            grads |= {"grad_c_n": _t(3, 5, dtype=dtype)} if op == "lstm" else {}
            given = {name: one.detach() for name, one in inputs.items() if not name.startswith("b_")}
            given |= {name: None if one is None else one.detach() for name, one in projection.items()}
            mask = [True] * (len(inputs) + len(projection))
            if op == "lstm" and not packed:
                mask[-1] = False
            found.append(
                Sample(f"{op}_layer_backward", grads | given | relu | sequence | kept | {"output_mask": mask})
            )
    return found


def _word2vec() -> list[Sample]:
    """float32 alone, and no gradients: the matrices are trained in place."""
    inputs = {
        "input_vectors": _t(6, 5),
        "output_vectors": _t(6, 5) * 0.5,
        "tokens": torch.tensor([0, 1, 2, 5, -1, 3, 4], dtype=torch.int32),
        "keep": None,
        "threshold": torch.linspace(0.1, 1, 6),
        "alias": torch.tensor([1, 2, 3, 4, 5, 5], dtype=torch.int32),
        "random_state": torch.tensor([3]),
        "window": 2,
        "negative": 3,
        "lr_begin": 0.1,
        "lr_end": 0.05,
        "cbow": False,
        "shared_negatives": False,
    }
    return [
        Sample("word2vec_train", inputs),
        Sample("word2vec_train", inputs | {"keep": torch.linspace(0.2, 1, 6), "shared_negatives": True}),
        Sample("word2vec_train", inputs | {"cbow": True}),
    ]


def _glove() -> list[Sample]:
    pairs = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=torch.int32)
    return [
        Sample(
            "glove_train",
            {
                "word_rows": torch.full((2, 2, 5), 0.5),
                "context_rows": torch.ones(2, 2, 5),
                "offsets": torch.tensor([0, 1, 2, 3, 4]),
                "pairs": pairs,
                "targets": torch.ones(4, 2),
                "blocks": 2,
                "lr": 0.1,
                "seed": 3,
            },
        ),
    ]


def samples(dtype: torch.dtype = torch.float32, grad: bool = False) -> list[Sample]:
    """At least one call of every operator."""
    families = (
        _linear,
        _conv2d,
        _conv_transpose2d,
        _pool,
        _adaptive_pool,
        _cross_entropy,
        _lstm_cell,
        _cells,
        _layers,
    )
    return [sample for family in families for sample in family(dtype, grad)] + _word2vec() + _glove()
