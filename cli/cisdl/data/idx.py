"""Reader for a folder of IDX files, the format of MNIST and Fashion-MNIST, plain, gzip or xz.

An IDX file is: two zero bytes, a type byte (8: unsigned byte), the number of dimensions, each dimension as a
big-endian 32-bit integer, then the values in row-major order.

    train-images-idx3-ubyte[.gz]  train-labels-idx1-ubyte[.gz]     needed to train
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

from cisdl.data.images import ImageData, assembled
from cisdl.data.text import unpacked
from cisdl.errors import DataError

UNSIGNED_BYTE = 0x08

CLASS_NAMES = {
    "fashion-mnist": (
        "T-shirt/top", "trouser", "pullover", "dress", "coat",
        "sandal", "shirt", "sneaker", "bag", "ankle boot",
    ),
}  # fmt: skip


def find(folder: Path, stem: str) -> Path | None:
    """The file called `stem` in the folder, as it is or with `.gz` or `.xz`."""
    candidates = (folder / stem, folder / f"{stem}.gz", folder / f"{stem}.xz")
    return next((path for path in candidates if path.is_file()), None)


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """The unsigned bytes of one IDX file with that many dimensions; a `DataError` for anything else."""
    if path.suffix == ".gz":
        try:
            content = gunzip(path, path.read_bytes())
        except OSError as error:
            raise DataError(
                f"{path}: cannot be read ({error.strerror}), expected a file that may be"
            ) from error
    else:
        content = unpacked(path)

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
    """Images (count, 1, height, width) and labels of "train" or "t10k"; None if there is neither."""
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
    return images[:, None], labels


def load(folder: Path, seed: int, whole: bool = False) -> ImageData:
    """The folder's images. A validation part of a tenth is drawn from the training images by `seed`.

    `whole`: the t10k images, or all of them where there are none, are the test part, the others are empty.
    """
    test = read_pair(folder, "t10k")
    train = None if whole and test is not None else read_pair(folder, "train")
    if train is None and not (whole and test is not None):
        raise DataError(
            f"{folder}: expected train-images-idx3-ubyte[.gz] and train-labels-idx1-ubyte[.gz], got neither"
        )
    named = train or test
    assert named is not None
    classes = max(int(named[1].max()) + 1, 2)
    if train is not None and test is not None:
        if test[0].shape[2:] != train[0].shape[2:]:
            expected, got = (" x ".join(map(str, a.shape[2:])) for a in (train[0], test[0]))
            raise DataError(f"{folder}: expected test images of {expected} pixels as in training, got {got}")
        if int(test[1].max()) >= classes:
            raise DataError(
                f"{folder}: expected test labels up to {classes - 1} as in training, got {int(test[1].max())}"
            )
    known = CLASS_NAMES.get(folder.resolve().name, ())
    names = known if len(known) == classes else tuple(map(str, range(classes)))
    return assembled(folder.resolve().name, str(folder), names, seed, train, test, whole)
