"""gradient_lag.png and states.png: what a recurrent network can learn to remember, and what it does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cisdl.report import style

SMALLEST = 1e-12
SHOWN = 80
"""Characters over which states are drawn."""
UNITS = 48
"""Hidden units of which the course is drawn."""


def gradient_norms(model: nn.Module, inputs: Tensor, targets: Tensor) -> np.ndarray:
    """|d loss at the last step / d input at step t|, averaged over the sequences, for t = 1 .. steps.

    `targets` (batch,) of the last step: class numbers, or the numbers that its only output should be.
    """
    inputs = inputs.clone().requires_grad_()
    last = model(inputs)[0][:, -1]
    if targets.is_floating_point():
        loss = F.mse_loss(last[:, 0], targets, reduction="sum")
    else:
        loss = F.cross_entropy(last, targets, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, inputs)
    norms: np.ndarray = gradient.norm(dim=2).mean(0).numpy()
    return norms


def draw_gradients(path: Path, title: str, norms: Mapping[str, np.ndarray]) -> None:
    """`norms`: a name and gradient norms by step; those whose name starts with "untrained" are dashed.

    Each is divided by that of the last input, so that only the way back in time is compared.
    """
    colors = (style.RED, style.BLUE, style.GREEN, style.FAINT)
    untrained = iter(colors)
    with style.figure(path, 8.4, 4.6, title) as fig:
        axes = fig.add_subplot()
        smallest = 1.0
        for name, values in norms.items():
            back = values[::-1] / max(float(values[-1]), 1e-30)
            smallest = min(smallest, float(back.min()))
            dashed = name.startswith("untrained")
            color = next(untrained) if dashed else style.ORANGE
            axes.plot(
                np.arange(len(back)), np.maximum(back, SMALLEST), label=name, color=color,
                linestyle=(0, (4, 2)) if dashed else "-", linewidth=1.6 if dashed else 2.2,
            )  # fmt: skip
        axes.set_yscale("log")
        axes.set_ylim(bottom=max(smallest, SMALLEST))
        axes.grid(axis="y", linewidth=0.8)
        axes.set_xlabel("lag: steps between the input and the loss")
        axes.set_ylabel("norm of d loss / d input, lag 0 = 1")
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))


def draw_states(path: Path, title: str, rows: Mapping[str, Tensor], steps: Sequence[str] = ()) -> None:
    """`rows`: a name and numbers (units, steps) in [-1, 1] or [0, 1], one picture below the other."""
    tall = [min(len(row), UNITS) for row in rows.values()]
    heights = [max(1.2, 0.055 * units) if units > 3 else 0.35 * units for units in tall]
    columns = next(iter(rows.values())).shape[1]
    with style.figure(path, min(13.0, max(7.0, 0.17 * columns)), sum(heights) + 1.3, title) as fig:
        panels = fig.subplots(len(rows), 1, squeeze=False, sharex=True, height_ratios=heights)[:, 0]
        for axes, (name, row) in zip(panels, rows.items(), strict=True):
            low = -1 if row.min() < 0 else 0
            colors = "RdBu_r" if low < 0 else "viridis"
            shown = axes.imshow(row[:UNITS].numpy(), aspect="auto", cmap=colors, vmin=low, vmax=1)
            axes.set_ylabel(name, rotation=0, ha="right", va="center")
            axes.set_yticks([])
            axes.tick_params(length=0)
            if len(row) > 3:
                fig.colorbar(shown, ax=axes, pad=0.01, fraction=0.03)
        if not steps:
            panels[-1].set_xlabel("step")
        else:
            panels[-1].set_xticks(range(len(steps)), steps, family="monospace", fontsize=9)


@torch.no_grad()
def hidden_states(layer: nn.Module, inputs: Tensor) -> Tensor:
    """(units, steps) of the last layer of a recurrent module, for one sequence (1, steps, inputs)."""
    states: Tensor = layer(inputs)[0][0]
    return states.T


@torch.no_grad()
def gates(layer: nn.LSTM, inputs: Tensor) -> dict[str, Tensor]:
    """Input, forget and output gate (units, steps) of the first layer of an LSTM, for one sequence.

    Worked out from the states that the layer gives: W x_t + U h_{t-1} + b.
    """
    weights = dict(layer.named_parameters())
    if layer.num_layers == 1:
        states = layer(inputs)[0][0]
    else:
        first = nn.LSTM(layer.input_size, layer.hidden_size, batch_first=True)
        first.load_state_dict({name: value for name, value in weights.items() if name.endswith("_l0")})
        states = first(inputs)[0][0]
    before = torch.cat([torch.zeros_like(states[:1]), states[:-1]])
    sums = F.linear(inputs[0], weights["weight_ih_l0"], weights["bias_ih_l0"])
    sums = sums + F.linear(before, weights["weight_hh_l0"], weights["bias_hh_l0"])
    i, f, _, o = sums.chunk(4, dim=1)
    named = {"input gate": i, "forget gate": f, "output gate": o}
    return {name: gate.sigmoid().T for name, gate in named.items()}
