"""The activation functions a model can be given by name."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cisdl.backend import Backend

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "leaky_relu": F.leaky_relu,  # slope 0.01 below zero
}


def linear(ops: Backend, inputs: int, outputs: int, activation: str) -> nn.Linear:
    """A linear layer for :func:`activated`, with the activation inside it where the backend can do that."""
    return ops.Linear(inputs, outputs, activation=activation) if ops.fuses else ops.Linear(inputs, outputs)


def max_pool(ops: Backend, size: int, activation: str) -> nn.MaxPool2d:
    """Max pooling for :func:`pooled`, with a ReLU inside it where the backend can do that."""
    inside = ops.fuses and activation == "relu"
    return ops.MaxPool2d(size, activation=activation) if inside else ops.MaxPool2d(size)


def pooled(layer: nn.Module, x: Tensor, activation: Callable[[Tensor], Tensor]) -> Tensor:
    """The pooled activation of x, whichever of the two applies it."""
    y: Tensor = layer(x) if getattr(layer, "activation", None) else layer(activation(x))
    return y


def activated(layer: nn.Module, x: Tensor, activation: Callable[[Tensor], Tensor]) -> Tensor:
    """The activation of the layer's output, whichever of the two applies it."""
    y: Tensor = layer(x)
    return y if getattr(layer, "activation", None) else activation(y)
