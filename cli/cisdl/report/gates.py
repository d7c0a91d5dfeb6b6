"""gates.png: what a recurrent layer keeps and lets go, word by word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from cisdl.report import style

GATES = {
    "LSTM": {"i": "input gate i", "f": "forget gate f", "o": "output gate o"},
    "GRU": {"r": "reset gate r", "z": "update gate z"},
    "RNN": {},
}
UNITS_DRAWN = 48


@torch.no_grad()
def unroll(layer: nn.RNNBase, x: Tensor) -> dict[str, Tensor]:
    """Gates and states (T, hidden) of the first layer, forward in time, on inputs x (T, features).

    Worked out step by step from the layer's weights, since the layer itself does not hand them out.
    """
    weights = layer.state_dict()
    w, u, b, c = (weights[f"{name}_l0"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    hidden = layer.hidden_size
    h, cell = torch.zeros(hidden), torch.zeros(hidden)
    rows: dict[str, list[Tensor]] = {}
    for step in x:
        from_input, from_state = w @ step + b, u @ h + c
        if isinstance(layer, nn.LSTM) or layer.mode == "LSTM":
            i, f, g, o = (from_input + from_state).chunk(4)
            i, f, o = torch.sigmoid(i), torch.sigmoid(f), torch.sigmoid(o)
            cell = f * cell + i * torch.tanh(g)
            h = o * torch.tanh(cell)
            values = {"i": i, "f": f, "o": o, "c": cell, "h": h}
        elif layer.mode == "GRU":
            (a, z, n), (a_h, z_h, n_h) = from_input.chunk(3), from_state.chunk(3)
            r, z = torch.sigmoid(a + a_h), torch.sigmoid(z + z_h)
            h = (1 - z) * torch.tanh(n + r * n_h) + z * h
            values = {"r": r, "z": z, "h": h}
        else:
            h = torch.tanh(from_input + from_state)
            values = {"h": h}
        for name, value in values.items():
            rows.setdefault(name, []).append(value)
    return {name: torch.stack(values) for name, values in rows.items()}


def draw(
    path: Path,
    title: str,
    words: Sequence[str],
    states: Mapping[str, Tensor],
    probabilities: Mapping[str, Sequence[float]],
) -> None:
    """From above: the answer after each word, the gates' means over all units, the hidden state.

    Units of the hidden state are in order of their last value, and only the most active are drawn.
    """
    at = range(len(words))
    gates = {name: states[name].numpy() for name in states if name not in ("c", "h")}
    with style.figure(path, max(7.0, 0.62 * len(words) + 3.2), 8.2, title) as fig:
        upper, middle, lower = fig.subplots(3, 1, sharex=True, height_ratios=(2, 2, 4))
        colors = (style.BLUE, style.ORANGE, style.GREEN, style.RED, style.FAINT)
        for color, (name, answers) in zip(colors, probabilities.items(), strict=False):
            upper.plot(at, answers, "o-", color=color, label=name, markersize=4)
        upper.set_title("probability, if the text ended with this word")
        labels = {name: label for kind in GATES.values() for name, label in kind.items()}
        for color, (name, values) in zip(colors, gates.items(), strict=False):
            middle.plot(at, values.mean(1), "o-", color=color, label=labels[name], markersize=4)
        middle.set_title("gates, mean over units: 1 is open" if gates else "no gates")
        for axes in (upper, middle):
            axes.set_ylim(-0.03, 1.03)
            axes.grid(axis="y", linewidth=0.8)
            axes.tick_params(labelbottom=False, length=0)
            if axes.lines:
                axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
        h = states["h"].numpy()
        chosen = np.argsort(-np.abs(h).max(0), kind="stable")[:UNITS_DRAWN]
        chosen = chosen[np.argsort(-h[-1, chosen], kind="stable")]
        shown = lower.imshow(h[:, chosen].T, aspect="auto", cmap="RdBu_r", vmin=-1, vmax=1)
        more = f", the {len(chosen)} most active of {h.shape[1]} units" if len(chosen) < h.shape[1] else ""
        lower.set_title(f"hidden state{more}")
        lower.set_yticks([])
        lower.set_ylabel("unit, by its last value")
        lower.set_xticks(at, words, rotation=40, ha="right")
        lower.tick_params(length=0)
        fig.colorbar(shown, ax=lower, label="h", shrink=0.8)
