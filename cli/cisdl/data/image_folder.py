"""Reader for folders of images, one for each class: `cats/*.png`, `dogs/*.jpg`.

    train/CLASS/*  test/CLASS/*  valid/CLASS/*         parts of their own; `val` and `validation` will do
    CLASS/*                                            a tenth to validate on and a tenth to be judged on,
                                                       drawn by the seed

PNG, JPEG, BMP, GIF and WebP. If all are grey there is one channel, else red, green and blue. Images of
different sizes need a size to be brought to. What is no image is refused with its name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch.nn import functional as F

from cisdl.data.images import ImageData, assembled
from cisdl.data.registry import IMAGE_ENDINGS
from cisdl.errors import DataError

TRAIN, TEST, VALIDATION = ("train",), ("test",), ("valid", "val", "validation")
GREY = ("1", "L", "LA", "I;16", "I")

Labelled = list[tuple[Path, int]]


def is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_ENDINGS and not path.name.startswith(".")


def class_folders(folder: Path) -> list[Path]:
    """The folders below that hold images, in the order of their names."""
    below = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    return [p for p in below if any(is_image(file) for file in p.iterdir())]


def opened(path: Path, decode: bool = True) -> Image.Image:
    """The image in a file, its pixels only if `decode`; a `DataError` for anything else."""
    try:
        with Image.open(path) as image:
            if decode:
                image.load()
    except FileNotFoundError as error:
        raise DataError(f"{path}: expected an image, got no such file") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: expected an image (PNG, JPEG), got a file of another kind") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: expected an image, got a damaged file ({error})") from error
    return image


def pixels(image: Image.Image, channels: int, size: tuple[int, int] | None) -> np.ndarray:
    """(channels, height, width), bytes; brought to `size`, (height, width), bilinearly."""
    if image.mode in {"I;16", "I"}:
        values = (np.asarray(image).astype(np.float64) / 257).clip(0, 255).round().astype(np.uint8)
        image = Image.fromarray(values)
    array = np.array(image.convert("L" if channels == 1 else "RGB"))
    array = array[None] if channels == 1 else array.transpose(2, 0, 1)
    if size is None or array.shape[1:] == size:
        return array
    # As `ImageData.resized`.
    small = torch.from_numpy(array.copy()).float()[None]
    large = F.interpolate(small, size, mode="bilinear", align_corners=False, antialias=True)
    resized: np.ndarray = large[0].round().byte().numpy()
    return resized


def read(
    files: Labelled, channels: int, size: tuple[int, int] | None
) -> tuple[np.ndarray, np.ndarray] | None:
    """Images (count, channels, height, width) and labels; None if there are no files."""
    arrays: list[np.ndarray] = []
    for path, _ in files:
        array = pixels(opened(path), channels, size)
        if arrays and array.shape != arrays[0].shape:
            (_, h0, w0), (_, h, w) = arrays[0].shape, array.shape
            raise DataError(
                f"{path}: expected {h0} x {w0} pixels as in {files[0][0].name}, got {h} x {w}; "
                "--image-size brings all to one size"
            )
        arrays.append(array)
    return (np.stack(arrays), np.array([label for _, label in files], np.uint8)) if arrays else None


def listed(folder: Path, names: Sequence[str]) -> Labelled:
    """The images of the classes in `names`, and the place of their class there."""
    files = []
    for below in class_folders(folder):
        if below.name not in names:
            raise DataError(
                f"{below}: expected a folder for a class of the training images, got '{below.name}'"
            )
        label = names.index(below.name)
        files += [(path, label) for path in sorted(below.iterdir()) if is_image(path)]
    return files


def load(
    path: Path, seed: int, whole: bool = False, size: int | None = None, channels: int | None = None
) -> ImageData:
    """The images below a folder. `channels`, 1 or 3, is what the images are made if it is given."""
    parts = {
        part: next((path / name for name in names if (path / name).is_dir()), None)
        for part, names in (("train", TRAIN), ("test", TEST), ("valid", VALIDATION))
    }
    if parts["train"] is None and parts["test"] is None:
        parts = {"train": path, "test": None, "valid": None}
    named = parts["train"] or parts["test"]
    assert named is not None
    names = tuple(folder.name for folder in class_folders(named))
    files = {part: listed(folder, names) if folder else [] for part, folder in parts.items()}
    if whole and files["test"]:
        files = {"train": [], "test": files["test"], "valid": []}
    if not whole and not files["train"]:
        raise DataError(f"{path}: expected a folder `train` with one for each class, got none")
    every = [file for some in files.values() for file, _ in some]
    if channels is None:
        modes = (opened(file, decode=False).mode in GREY for file in every)
        channels = 1 if all(modes) else 3
    square = None if size is None else (size, size)
    found = {part: read(some, channels, square) for part, some in files.items()}
    shapes = {array[0].shape[1:] for array in found.values() if array is not None}
    if len(shapes) > 1:
        raise DataError(
            f"{path}: expected test images of the training images' size; --image-size brings all to one"
        )
    data = assembled(
        path.resolve().name, str(path), names, seed, found["train"], found["test"], whole,
        validation=found["valid"], draw_test=True,
    )  # fmt: skip
    return replace(data, of_pictures=True)
