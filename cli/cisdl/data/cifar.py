"""Reader for CIFAR-10's binary version: a file, or a folder with files to train on and to be judged on.

A record is 3073 bytes: the label, 0 to 9, then 32 x 32 pixels in red, as many in green and in blue, row by
row. A file may be compressed, `.bin.gz` or `.bin.xz`. In a folder, files called `*test*` are the test part,
all others are training images. What is not there is drawn from them by the seed, a tenth to validate on and
a tenth to be judged on.

Source: Krizhevsky, "Learning multiple layers of features from tiny images", 2009;
https://www.cs.toronto.edu/~kriz/cifar.html (format).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cisdl.data.images import ImageData, assembled
from cisdl.data.text import unpacked
from cisdl.errors import DataError

SIDE = 32
RECORD = 1 + 3 * SIDE * SIDE
ENDINGS = (".bin", ".bin.gz", ".bin.xz")
CLASS_NAMES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images (count, 3, 32, 32) and labels (count,) of one file."""
    content = unpacked(path)
    if not content or len(content) % RECORD:
        whole, rest = divmod(len(content), RECORD)
        fault = f"{whole} records and {rest} bytes" if content else "an empty file"
        raise DataError(f"{path}: expected records of {RECORD} bytes as in CIFAR-10, got {fault}")
    records = np.frombuffer(content, np.uint8).reshape(-1, RECORD)
    labels = records[:, 0]
    wrong = np.flatnonzero(labels >= len(CLASS_NAMES))
    if len(wrong):
        raise DataError(
            f"{path}: expected labels up to {len(CLASS_NAMES) - 1}, got {labels[wrong[0]]} in record "
            f"{wrong[0] + 1} of {len(records)}"
        )
    return records[:, 1:].reshape(-1, 3, SIDE, SIDE), labels


def joined(paths: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    parts = [read(path) for path in paths]
    return np.concatenate([images for images, _ in parts]), np.concatenate([labels for _, labels in parts])


def load(path: Path, seed: int, whole: bool = False) -> ImageData:
    """The images of a file or folder."""
    files = sorted(p for p in path.iterdir() if p.name.endswith(ENDINGS)) if path.is_dir() else [path]
    test = [p for p in files if path.is_dir() and "test" in p.name.lower()]
    train = [p for p in files if p not in test]
    if not train and not whole:
        raise DataError(f"{path}: expected .bin files to train on, got only {test[0].name}")
    return assembled(
        path.resolve().name,
        str(path),
        CLASS_NAMES,
        seed,
        joined(train) if train and not (whole and test) else None,
        joined(test) if test else None,
        whole,
        draw_test=True,
    )
