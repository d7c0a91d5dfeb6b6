"""A model's layers with shapes, parameters, work and kernels, found by running it on an example."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

if TYPE_CHECKING:
    from rich.table import Table

OPS = {
    "Linear": "linear",
    "Conv2d": "conv2d",
    "ConvTranspose2d": "conv_transpose2d",
    "MaxPool2d": "max_pool2d",
    "AvgPool2d": "avg_pool2d",
    "AdaptiveMaxPool2d": "adaptive_max_pool2d",
    "AdaptiveAvgPool2d": "adaptive_avg_pool2d",
    "LSTMCell": "lstm_cell",
    "GRUCell": "gru_cell",
    "LSTM": "lstm_layer",
    "GRU": "gru_layer",
    "RNN": "rnn_layer",
}
"""The op of `cisdl_ops` that does a module's work."""


@dataclass(frozen=True)
class Layer:
    """One module without children; `calls`: how often a forward pass runs it (a cell: once a step)."""

    name: str
    kind: str
    output: str
    """Shape of its output for one example, without the batch dimension."""
    parameters: int
    calls: int
    flops: int
    """Forward, for one example, over all its calls; of matrix products and convolutions only."""
    kernel: str
    """The implementation that ran a forward pass of a whole batch; empty if it is not ours."""


@torch.no_grad()
def layers(model: nn.Module, example: tuple[Tensor, ...], batch_size: int = 1) -> list[Layer]:
    """The layers of `model` in the order a forward pass first reaches them.

    `example` is what `forward` takes, as a batch of one; `batch_size` decides which kernels run.
    """
    names = {module: name for name, module in model.named_modules() if not list(module.children())}
    outputs: dict[nn.Module, str] = {}
    calls: dict[nn.Module, int] = dict.fromkeys(names, 0)
    flops: dict[nn.Module, int] = dict.fromkeys(names, 0)
    kernels: dict[nn.Module, str] = dict.fromkeys(names, "")
    started = 0

    def starts(module: nn.Module, inputs: Any) -> None:
        nonlocal started
        started = counter.get_total_flops()

    def seen(module: nn.Module, inputs: Any, output: Any) -> None:
        first: Any = output
        while isinstance(first, tuple):  # outputs and states; a PackedSequence begins with its data
            first = first[0]
        outputs[module] = " x ".join(map(str, first.shape[1:]))
        calls[module] += 1
        flops[module] += counter.get_total_flops() - started

    def ran(module: nn.Module, inputs: Any, output: Any) -> None:
        kernels[module] = kernel_of(module)

    training = model.training
    model.eval()
    try:
        hooks = [module.register_forward_pre_hook(starts) for module in names]
        hooks += [module.register_forward_hook(seen) for module in names]
        try:
            with FlopCounterMode(display=False) as counter:
                model(*example)
        finally:
            for hook in hooks:
                hook.remove()
        hooks = [module.register_forward_hook(ran) for module in names]
        try:
            model(*(one.repeat(batch_size, *[1] * (one.dim() - 1)) for one in example))
        finally:
            for hook in hooks:
                hook.remove()
    finally:
        model.train(training)
    return [
        Layer(
            name=names[module],
            kind=f"{type(module).__name__}({module.extra_repr()})",
            output=output,
            parameters=sum(p.numel() for p in module.parameters()),
            calls=calls[module],
            flops=flops[module],
            kernel=kernels[module],
        )
        for module, output in outputs.items()
    ]


def kernel_of(module: nn.Module) -> str:
    """Which of our implementations the module's call has just run."""
    kind = type(module).__name__
    if not type(module).__module__.startswith("cisdl_ops"):
        return ""
    import cisdl_ops

    op = f"rnn_{module.nonlinearity}_cell" if kind == "RNNCell" else OPS.get(kind)
    return cisdl_ops.last_implementation(op) if op else ""


def layer_table(described: list[Layer]) -> Table:
    from rich.table import Table

    total = sum(layer.parameters for layer in described)
    work = sum(layer.flops for layer in described)
    table = Table(title=f"{total:,} parameters, {work:,} FLOPs an example", title_justify="left")
    table.add_column("layer")
    table.add_column("kind")
    table.add_column("output", justify="right")
    table.add_column("parameters", justify="right")
    table.add_column("calls", justify="right")
    table.add_column("FLOPs", justify="right")
    table.add_column("kernel")
    for layer in described:
        numbers = (f"{layer.parameters:,}", str(layer.calls), f"{layer.flops:,}")
        table.add_row(layer.name, layer.kind, layer.output, *numbers, layer.kernel)
    return table
