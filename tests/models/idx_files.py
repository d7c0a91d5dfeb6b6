"""Making IDX files, for tests of their reader."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np

IMAGES, LABELS = "images-idx3-ubyte", "labels-idx1-ubyte"


def idx(values: np.ndarray) -> bytes:
    """An IDX file of unsigned bytes."""
    header = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    return header + values.astype(np.uint8).tobytes()


def images(count: int, size: int = 28, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noise of which each image's corner pixel is its label, and labels that run through 0 .. 9."""
    pixels = np.random.default_rng(seed).integers(0, 256, (count, size, size), dtype=np.uint8)
    labels = (np.arange(count) % 10).astype(np.uint8)
    pixels[:, 0, 0] = labels
    return pixels, labels


def write_folder(
    folder: Path, train: int = 40, test: int = 20, squeeze: bool = False, size: int = 28
) -> Path:
    """A folder of IDX files; no t10k files for `test` 0; gzip files for `squeeze`."""
    folder.mkdir(parents=True)
    for prefix, count in (("train", train), ("t10k", test)):
        if count:
            for name, values in zip((IMAGES, LABELS), images(count, size), strict=True):
                content = idx(values)
                path = folder / f"{prefix}-{name}{'.gz' if squeeze else ''}"
                path.write_bytes(gzip.compress(content) if squeeze else content)
    return folder
