"""filters.png and feature_maps.png: what convolutions learned, and what LeNet's make of one image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor, nn

from cisdl.models.lenet import LeNet
from cisdl.report import style
from cisdl.report.restoration import shown, stretched

STAGES = ("conv1", "pool1", "conv2", "pool2")


def tile(planes: np.ndarray, gap: int) -> np.ndarray:
    """Planes (rows, columns, height, width) as one image, `gap` pixels of NaN (left white) between them."""
    rows, columns, height, width = planes.shape
    image = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap), np.nan, planes.dtype)
    for row in range(rows):
        for column in range(columns):
            top, left = row * (height + gap), column * (width + gap)
            image[top : top + height, left : left + width] = planes[row, column]
    return image


def centres(count: int, size: int, gap: int) -> np.ndarray:
    """Where the planes of a tiled image have their middle, along one axis."""
    return np.arange(count) * (size + gap) + (size - 1) / 2


def draw_filters(path: Path, title: str, model: LeNet) -> None:
    """conv1 as a row of filters, conv2 as a table of input by output channels; red above zero, blue below."""
    first = model.conv1.weight.detach().numpy()[None, :, 0]  # (1, 6, 5, 5), the first input channel
    second = model.conv2.weight.detach().numpy().swapaxes(0, 1)  # (6, 16, 5, 5)
    with style.figure(path, 10.5, 6.3, title) as fig:
        top, bottom = fig.subplots(2, 1, height_ratios=[1, 2.5])
        top.set_title("conv1: 6 filters of 5 x 5", fontweight="normal")
        draw_weights(top, first)
        what = "conv2: one column for each output channel, one row for each channel of pool1 that it reads"
        bottom.set_title(what, fontweight="normal")
        draw_weights(bottom, second)
        bottom.set_ylabel("input channel", color=style.FAINT)
        bottom.set_xlabel("output channel", color=style.FAINT)
        rows = second.shape[0]
        bottom.set_yticks(centres(rows, 5, 1), [str(number + 1) for number in range(rows)])


def draw_first_filters(path: Path, title: str, weight: Tensor) -> None:
    """The first layer's filters (output channels, channels, height, width), a mean over channels."""
    filters = weight.detach().numpy().mean(1)
    columns = 16 if len(filters) % 16 == 0 else len(filters)
    with style.figure(path, 10.5, 0.75 * len(filters) / columns + 1.2, title) as fig:
        axes = fig.add_subplot()
        count, height, width = filters.shape
        axes.set_title(f"first layer: {count} filters of {height} x {width}", fontweight="normal")
        draw_weights(axes, filters.reshape(-1, columns, height, width))


def draw_weights(axes: Axes, weights: np.ndarray) -> None:
    """Weights (rows, columns, height, width) in colours that are white at zero, columns numbered from 1."""
    limit = np.abs(weights).max()
    image = axes.imshow(tile(weights, gap=1), cmap="RdBu_r", vmin=-limit, vmax=limit)
    style.bare(axes)
    columns, width = weights.shape[1], weights.shape[3]
    axes.set_xticks(centres(columns, width, 1), [str(number + 1) for number in range(columns)])
    axes.tick_params(length=0, colors=style.FAINT)
    bar = axes.figure.colorbar(image, ax=axes, pad=0.015, shrink=0.9, aspect=12 if len(weights) == 1 else 30)
    bar.outline.set_visible(False)


@torch.no_grad()
def activations(model: LeNet, image: Tensor) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The maps (channels, height, width) after each stage for one image (C, 28, 28); probabilities."""
    kept: dict[str, np.ndarray] = {}

    def keep(name: str, module: nn.Module) -> torch.utils.hooks.RemovableHandle:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            shown = model.activation(output) if name.startswith("conv") else output
            kept[name] = shown[0].numpy()

        return module.register_forward_hook(hook)

    handles = [keep(name, getattr(model, name)) for name in STAGES]
    try:
        scores = model.eval()(image.unsqueeze(0))
    finally:
        for handle in handles:
            handle.remove()
    return kept, scores.softmax(1)[0].numpy()


def draw_feature_maps(path: Path, title: str, model: LeNet, image: Tensor, names: tuple[str, ...]) -> None:
    """One image on its way through the network, to the probabilities at the end."""
    maps, probabilities = activations(model, image)
    with style.figure(path, 10.5, 9.2, title) as fig:
        grid = fig.add_gridspec(5, 2, width_ratios=[1, 3.4], height_ratios=[1.7, 1.75, 1.75, 0.68, 0.68])
        draw_input(fig.add_subplot(grid[0, 0]), shown(stretched(image)))
        draw_output(fig.add_subplot(grid[0, 1]), probabilities, names)
        for row, (name, planes) in enumerate(maps.items(), start=1):
            axes = fig.add_subplot(grid[row, :])
            channels, height, width = planes.shape
            what = "after the activation" if name.startswith("conv") else f"{model.pooling} pooling"
            axes.set_title(f"{name}, {what}: {channels} maps of {height} x {width}", fontweight="normal")
            # One scale for a stage: a dark map is one that found nothing here.
            low, high = min(0.0, float(planes.min())), float(planes.max())
            axes.imshow(tile(planes[None], gap=max(1, width // 10)), cmap="magma", vmin=low, vmax=high)
            style.bare(axes)


def draw_input(axes: Axes, image: np.ndarray) -> None:
    axes.imshow(image, cmap="gray")
    axes.set_title("input", fontweight="normal")
    style.bare(axes)


def draw_output(axes: Axes, probabilities: np.ndarray, names: tuple[str, ...]) -> None:
    axes.set_title("output: probability of each class", fontweight="normal")
    colors = [style.BLUE if p == probabilities.max() else style.FAINT for p in probabilities]
    bars = axes.bar(range(len(names)), probabilities, color=colors, width=0.7)
    axes.bar_label(bars, [f"{p:.2f}" if p >= 0.005 else "" for p in probabilities], fontsize=8.5, padding=2)
    long_names = max(len(name) for name in names) > 2
    side = "right" if long_names else "center"
    axes.set_xticks(range(len(names)), names, rotation=25 if long_names else 0, ha=side)
    axes.set_ylim(0, 1.12)
    axes.set_yticks([0, 0.5, 1])
    axes.tick_params(length=0)
