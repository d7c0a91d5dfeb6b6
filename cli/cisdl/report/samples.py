"""Pictures of made images: grids, the same z through the epochs, neighbours, the game of the two networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.ticker import MaxNLocator
from PIL import Image
from torch import Tensor

from cisdl.files import write_atomically
from cisdl.report import style
from cisdl.report.restoration import shown

COLUMNS = 10
LEAST_PIXELS = 56
"""A made image is drawn that large at least, by whole multiples of its size."""
GAP = 2
EPOCHS = 8
FRAMES = 40
FRAME_MILLISECONDS, LAST_MILLISECONDS = 150, 1500


def grid(images: Tensor) -> np.ndarray:
    """Images (count, C, H, W) in [0, 1] side by side as bytes (rows, columns) or (rows, columns, 3)."""
    count, channels, height, width = images.shape
    factor = max(1, -(-LEAST_PIXELS // max(height, width)))
    columns = min(count, int(np.ceil(np.sqrt(count))))
    rows = -(-count // columns)
    high, wide = height * factor + GAP, width * factor + GAP
    canvas = torch.full((channels, rows * high - GAP, columns * wide - GAP), 1.0)
    large = images.clamp(0, 1).repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    for index, image in enumerate(large):
        top, left = index // columns * high, index % columns * wide
        canvas[:, top : top + high - GAP, left : left + wide - GAP] = image
    return bytes_of(canvas)


def bytes_of(image: Tensor) -> np.ndarray:
    """(C, H, W) in [0, 1] as bytes (H, W) or (H, W, 3)."""
    pixels: np.ndarray = (image.clamp(0, 1) * 255).round().byte().numpy()
    return pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)


def write_grid(path: Path, images: Tensor) -> None:
    """The images as one PNG."""
    write_png(path, grid(images))


def write_image(path: Path, image: Tensor) -> None:
    """One image, (C, H, W) in [0, 1]."""
    write_png(path, bytes_of(image))


def write_png(path: Path, pixels: np.ndarray) -> None:
    picture = Image.fromarray(pixels)
    write_atomically(path, lambda temporary: picture.save(temporary, format="PNG"))


def write_gif(path: Path, history: Sequence[Tensor]) -> None:
    """A frame for each of at most 40 epochs, equally spaced, the last one held."""
    frames = [Image.fromarray(grid(history[epoch])) for epoch in spaced(len(history), FRAMES)]
    durations = [FRAME_MILLISECONDS] * (len(frames) - 1) + [LAST_MILLISECONDS]
    write_atomically(
        path,
        lambda temporary: frames[0].save(
            temporary, format="GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0
        ),
    )


def spaced(count: int, most: int) -> list[int]:
    """At most `most` of the numbers 0 to count - 1, the first and the last among them."""
    return sorted({round(place) for place in np.linspace(0, count - 1, min(most, count))})


def draw_epochs(path: Path, title: str, history: Sequence[Tensor]) -> None:
    """A row for each of some epochs; below each other, what one z became."""
    chosen = spaced(len(history), EPOCHS)
    columns = min(COLUMNS, len(history[0]))
    with style.figure(path, 0.95 * columns + 1.2, 1.0 * len(chosen) + 0.5, title) as fig:
        lines = fig.subplots(len(chosen), columns, squeeze=False)
        for line, epoch in zip(lines, chosen, strict=True):
            line[0].set_ylabel(f"epoch {epoch + 1}", rotation=0, ha="right", va="center")
            for axes, image in zip(line, history[epoch], strict=False):
                axes.imshow(shown(image), cmap="gray", vmin=0, vmax=1)
                style.bare(axes)


def nearest(images: Tensor, known: Tensor) -> Tensor:
    """Of each image the place of the nearest of the known ones, by the distance of their pixels."""
    return torch.cdist(images.flatten(1), known.flatten(1)).argmin(1)


def draw_nearest(path: Path, title: str, images: Tensor, known: Tensor) -> None:
    """Ten images and below each the nearest known one: a copy would look the same."""
    columns = min(COLUMNS, len(images))
    images = images[:columns]
    places = nearest(images, known)
    with style.figure(path, max(1.0 * columns + 1.2, 7.5), 3.0, title) as fig:
        lines = fig.subplots(2, columns, squeeze=False)
        for line, name, row in zip(lines, ("made", "training"), (images, known[places]), strict=True):
            line[0].set_ylabel(name, rotation=0, ha="right", va="center")
            for axes, image in zip(line, row, strict=True):
                axes.imshow(shown(image), cmap="gray", vmin=0, vmax=1)
                style.bare(axes)
        for axes, image, other in zip(lines[1], images, known[places], strict=True):
            rms = float((image - other).square().mean().sqrt())
            axes.set_xlabel(f"{rms:.2f}", fontsize=8.5, color=style.FAINT)
        fig.supxlabel(
            "below: root mean square difference of the pixels, which lie in [0, 1]",
            x=0.012, ha="left", fontsize=9, color=style.FAINT,
        )  # fmt: skip


def draw_game(path: Path, title: str, metrics: Sequence[Mapping[str, Any]]) -> None:
    """D(x) and D(G(z)) over the epochs; where D can tell nothing, both are a half."""
    epochs = [row["epoch"] for row in metrics]
    with style.figure(path, 7.2, 4.2, title) as fig:
        axes = fig.add_subplot()
        axes.axhline(0.5, color=style.FAINT, linewidth=1, linestyle=":")
        for key, name, color in (
            ("d_real", "D(x), real", style.BLUE),
            ("d_made", "D(G(z)), made", style.ORANGE),
        ):
            for part, line in (("train", "-"), ("validation", "--")):
                values = [row[f"{part}_{key}"] for row in metrics]
                marker = "o" if len(epochs) < 3 else ""
                axes.plot(epochs, values, line, color=color, marker=marker, label=f"{name}, {part}")
        axes.set_ylim(0, 1)
        axes.set_xlabel("epoch")
        axes.set_ylabel("mean probability of being real")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(axis="y", linewidth=0.8)
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
