"""A model's layers with shapes and parameter counts, found by running it once on an example."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Layer:
    """One module without children; `calls`: how often a forward pass runs it (a cell: once a step)."""

    name: str
    kind: str
    output: str
    """Shape of its output for one example, without the batch dimension."""
    parameters: int
    calls: int


@torch.no_grad()
def layers(model: nn.Module, example: tuple[Tensor, ...]) -> list[Layer]:
    """The layers of `model` in the order a forward pass first reaches them.

    `example` is what `forward` takes, as a batch of one.
    """
    names = {module: name for name, module in model.named_modules() if not list(module.children())}
    outputs: dict[nn.Module, str] = {}
    calls: dict[nn.Module, int] = dict.fromkeys(names, 0)

    def seen(module: nn.Module, inputs: Any, output: Any) -> None:
        first: Any = output
        while isinstance(first, tuple):  # outputs and states; a PackedSequence begins with its data
            first = first[0]
        outputs[module] = " x ".join(map(str, first.shape[1:]))
        calls[module] += 1

    hooks = [module.register_forward_hook(seen) for module in names]
    training = model.training
    try:
        model.eval()(*example)
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return [
        Layer(
            name=names[module],
            kind=f"{type(module).__name__}({module.extra_repr()})",
            output=output,
            parameters=sum(p.numel() for p in module.parameters()),
            calls=calls[module],
        )
        for module, output in outputs.items()
    ]


def layer_table(described: list[Layer]) -> Table:
    from rich.table import Table

    total = sum(layer.parameters for layer in described)
    table = Table(title=f"{total:,} parameters", title_justify="left")
    table.add_column("layer")
    table.add_column("kind")
    table.add_column("output", justify="right")
    table.add_column("parameters", justify="right")
    table.add_column("calls", justify="right")
    for layer in described:
        table.add_row(layer.name, layer.kind, layer.output, f"{layer.parameters:,}", str(layer.calls))
    return table
