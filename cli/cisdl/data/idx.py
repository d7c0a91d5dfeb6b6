"""Reader for a folder of IDX files, the format of MNIST and Fashion-MNIST, plain or gzip.

An IDX file is: two zero bytes, a type byte (8: unsigned byte), the number of dimensions, each dimension as a
big-endian 32-bit integer, then the values in row-major order.

    train-images-idx3-ubyte[.gz]  train-labels-idx1-ubyte[.gz]     needed
    t10k-images-idx3-ubyte[.gz]   t10k-labels-idx1-ubyte[.gz]      both or neither

Nothing is half loaded: a file that is truncated, too long or of another kind is refused with its name, what
was expected and what was found.

Source: http://yann.lecun.com/exdb/mnist (format), LeCun, Cortes, Burges.
"""

from __future__ import annotations

import math
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cisdl.data.images import ImageData, Part
from cisdl.errors import DataError

VALIDATION_SHARE = 0.1
UNSIGNED_BYTE = 0x08

CLASS_NAMES = {
    "fashion-mnist": (
        "T-shirt/top", "trouser", "pullover", "dress", "coat",
        "sandal", "shirt", "sneaker", "bag", "ankle boot",
    ),
}  # fmt: skip


def find(folder: Path, stem: str) -> Path | None:
    """The file called `stem` in the folder, as it is or with `.gz`."""
    candidates = (folder / stem, folder / f"{stem}.gz")
    return next((path for path in candidates if path.is_file()), None)


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """The unsigned bytes of one IDX file with that many dimensions; a `DataError` for anything else."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    if path.suffix == ".gz":
        content = gunzip(path, content)

    if len(content) < 4:
        raise DataError(f"{path}: truncated, expected an IDX header of 4 bytes, got {len(content)} bytes")
    wanted = bytes([0, 0, UNSIGNED_BYTE, dimensions])
    if content[:4] != wanted:
        raise DataError(
            f"{path}: wrong magic number, expected 0x{wanted.hex()} (bytes, {dimensions} dimensions), "
            f"got 0x{content[:4].hex()}"
        )
    header = 4 + 4 * dimensions
    if len(content) < header:
        raise DataError(f"{path}: truncated, expected a header of {header} bytes, got {len(content)} bytes")
    sizes = [int(size) for size in np.frombuffer(content, ">u4", dimensions, offset=4)]
    if 0 in sizes:
        raise DataError(f"{path}: empty, expected sizes above 0, got {' x '.join(map(str, sizes))}")
    expected, got = math.prod(sizes), len(content) - header
    if got != expected:
        fault = "truncated" if got < expected else "too long"
        described = " x ".join(map(str, sizes))
        raise DataError(f"{path}: {fault}, expected {expected} bytes of data ({described}), got {got}")
    return np.frombuffer(content, np.uint8, offset=header).reshape(sizes)


def gunzip(path: Path, content: bytes) -> bytes:
    """Every byte that can be unpacked; a stream that stops early is left to the caller's length check."""
    unpacked = []
    while content:
        stream = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        try:
            unpacked.append(stream.decompress(content))
        except zlib.error as error:
            raise DataError(
                f"{path}: damaged, expected gzip data, got bytes that fail with {error}"
            ) from error
        content = stream.unused_data
    return b"".join(unpacked)


def read_pair(folder: Path, prefix: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Images (count, height, width) and labels (count,) of "train" or "t10k"; None if there is neither."""
    stems = (f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte")
    images_path, labels_path = (find(folder, stem) for stem in stems)
    if images_path is None and labels_path is None:
        return None
    if images_path is None or labels_path is None:
        present, missing = (labels_path, stems[0]) if images_path is None else (images_path, stems[1])
        raise DataError(
            f"{folder}: expected {missing}[.gz] beside {present and present.name}, got no such file"
        )
    images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
    if len(images) != len(labels):
        raise DataError(
            f"{labels_path}: expected {len(images)} labels, one for each image of {images_path.name}, "
            f"got {len(labels)}"
        )
    return images, labels


def load(folder: Path, seed: int, whole: bool = False) -> ImageData:
    """The folder's images. A validation part of a tenth is drawn from the training images by `seed`.

    `whole`: the t10k images, or all of them where there are none, are the test part, the others are empty.
    """
    train = read_pair(folder, "train")
    if train is None:
        raise DataError(
            f"{folder}: expected train-images-idx3-ubyte[.gz] and train-labels-idx1-ubyte[.gz], got neither"
        )
    test = read_pair(folder, "t10k")
    images, labels = train
    if len(images) < 2:
        raise DataError(
            f"{folder}: expected at least 2 training images (one to validate on), got {len(images)}"
        )
    if test is not None and test[0].shape[1:] != images.shape[1:]:
        expected, got = (" x ".join(map(str, a.shape[1:])) for a in (images, test[0]))
        raise DataError(f"{folder}: expected test images of {expected} pixels as in training, got {got}")
    classes = max(int(labels.max()) + 1, 2)
    if test is not None and int(test[1].max()) >= classes:
        raise DataError(
            f"{folder}: expected test labels up to {classes - 1} as in training, got {int(test[1].max())}"
        )

    order = np.random.default_rng(seed).permutation(len(images))
    held_out = max(1, round(len(images) * VALIDATION_SHARE))
    known = CLASS_NAMES.get(folder.resolve().name, ())
    data = ImageData(
        name=folder.resolve().name,
        source=str(folder),
        class_names=known if len(known) == classes else tuple(map(str, range(classes))),
        peak=255.0,
        train=part(images, labels, order[held_out:]),
        validation=part(images, labels, order[:held_out]),
        test=None if test is None else part(*test),
        split=f"validation: a tenth of the training images, drawn by seed {seed}; "
        + ("test: the t10k files" if test is not None else "no t10k files, so no test part"),
    )
    return data.whole() if whole else data


def part(images: np.ndarray, labels: np.ndarray, chosen: np.ndarray | None = None) -> Part:
    """A `Part` of the chosen images, as bytes with a channel dimension (count, 1, height, width)."""
    if chosen is not None:
        images, labels = images[chosen], labels[chosen]
    pixels: Tensor = torch.from_numpy(images.copy()).unsqueeze(1)
    return Part(pixels, torch.from_numpy(labels.astype(np.int64)))
