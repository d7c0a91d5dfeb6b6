"""Quantised models go on working when they are accelerated."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import cisdl_ops

pytestmark = [
    pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*:UserWarning:torch.ao"),
    pytest.mark.skipif(
        torch.backends.quantized.engine == "none", reason="torch has no quantised kernels here"
    ),
]


@pytest.fixture
def model() -> nn.Sequential:
    return nn.Sequential(
        torch.ao.quantization.QuantStub(),
        nn.Conv2d(1, 4, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.AvgPool2d(2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
        torch.ao.quantization.DeQuantStub(),
    ).eval()


def test_static(model: nn.Sequential) -> None:
    """Pooling is given quantised tensors there, so that stays torch's, too."""
    model.qconfig = torch.ao.quantization.get_default_qconfig("x86")  # type: ignore[assignment]
    prepared = torch.ao.quantization.prepare(model)
    x = torch.randn(2, 1, 14, 14)
    prepared(x)
    quantised = torch.ao.quantization.convert(prepared)
    kinds = [type(module) for module in quantised]
    y = quantised(x)
    cisdl_ops.accelerate(quantised)
    assert [type(module) for module in quantised] == kinds
    assert torch.equal(quantised(x), y)


def test_dynamic(model: nn.Sequential) -> None:
    """Only the linear layer is quantised and sees float tensors; the rest becomes ours."""
    quantised = torch.ao.quantization.quantize_dynamic(copy.deepcopy(model), {nn.Linear}, dtype=torch.qint8)
    kind = type(quantised[7])
    x = torch.randn(2, 1, 14, 14)
    y = quantised(x)
    cisdl_ops.accelerate(quantised)
    assert type(quantised[7]) is kind
    assert all(type(quantised[i]).__module__.startswith("cisdl_ops.nn") for i in (1, 3, 4, 5))
    torch.testing.assert_close(quantised(x), y)


def test_restored_models_are_quantised(model: nn.Sequential) -> None:
    """torch looks for its own classes by exact type: what restore() gives back, it finds."""
    cisdl_ops.accelerate(model)
    quantised = torch.ao.quantization.quantize_dynamic(
        cisdl_ops.restore(model), {nn.Linear}, dtype=torch.qint8
    )
    assert type(quantised[7]).__module__.startswith("torch.ao.nn.quantized.dynamic")
