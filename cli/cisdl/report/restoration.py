"""restored.png: images and what was made of them, one below the other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch import Tensor

from cisdl.report import style

COLUMNS = 10


def shown(image: Tensor) -> np.ndarray:
    """(C, H, W) as matplotlib wants it: (H, W) in grey, (H, W, 3) in colour, cut to [0, 1]."""
    pixels: np.ndarray = image.clamp(0, 1).numpy()
    return pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)


def stretched(images: Tensor) -> Tensor:
    """Images of any scale, their darkest number 0 and their brightest 1."""
    low, high = images.min(), images.max()
    return (images - low) / (high - low).clamp_min(1e-12)


def draw(path: Path, title: str, rows: Mapping[str, Tensor]) -> None:
    """`rows`: a name and images (count, C, H, W) in [0, 1] each; the first is what the others should be.

    Under each image stands its peak signal-to-noise ratio against the first row's.
    """
    target = next(iter(rows.values()))
    columns = min(COLUMNS, len(target))
    with style.figure(path, 1.05 * columns + 1.4, 1.32 * len(rows) + 0.5, title) as fig:
        grid = fig.subplots(len(rows), columns, squeeze=False)
        for line, (name, images) in zip(grid, rows.items(), strict=True):
            line[0].set_ylabel(name.replace(", ", "\n"), rotation=0, ha="right", va="center")
            for axes, image, wanted in zip(line, images, target, strict=False):
                axes.imshow(shown(image), cmap="gray", vmin=0, vmax=1)
                style.bare(axes)
                if images is not target:
                    error = float((image - wanted).square().mean())
                    text = f"{-10 * np.log10(error):.1f} dB" if error else "equal"
                    axes.set_xlabel(text, fontsize=8.5, color=style.FAINT)
