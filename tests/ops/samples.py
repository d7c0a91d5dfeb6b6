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
    return [
        Sample("linear", {"input": x, "weight": w, "bias": b}),
        Sample("linear", {"input": x, "weight": w, "bias": None}),
        Sample("linear_backward", backward | {"output_mask": [True, True, True]}),
        Sample("linear_backward", backward | {"output_mask": [True, False, False]}),
    ]


def _conv2d(dtype: torch.dtype, grad: bool) -> list[Sample]:
    x, w, b = (
        _t(2, 4, 6, 7, dtype=dtype, grad=grad),
        _t(6, 2, 3, 3, dtype=dtype, grad=grad),
        _t(6, dtype=dtype, grad=grad),
    )
    geometry = {"stride": [2, 1], "padding": [1, 0, 2, 1], "dilation": [1, 2], "groups": 2}
    g = _t(2, 6, 3, 6, dtype=dtype)
    backward = {"grad_output": g, "input": x.detach(), "weight": w.detach()} | geometry
    return [
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


def samples(dtype: torch.dtype = torch.float32, grad: bool = False) -> list[Sample]:
    """At least one call of every operator."""
    families = (_linear, _conv2d, _conv_transpose2d, _pool, _adaptive_pool, _lstm_cell)
    return [sample for family in families for sample in family(dtype, grad)]
