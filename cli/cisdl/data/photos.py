"""Pieces of the two photographs bundled with scikit-learn, a temple in China and a flower: 32 x 32 in colour.

From left to right, the first 70 % of each photo are to train on, in pieces that overlap by half; then 15 % to
validate on and 15 % to be judged on, in pieces that do not overlap. No pixel lies in two parts.

Source: scikit-learn's `load_sample_images` (china.jpg by Kumar Appaiah, flower.jpg by dany13, CC BY 2.0).
"""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_sample_images

from cisdl.data.images import ImageData, Part

SIDE = 32
STRIDE = 16
TO_TRAIN, TO_VALIDATE = 0.7, 0.85
NAMES = ("china", "flower")


def pieces(photo: np.ndarray, left: int, right: int, stride: int) -> np.ndarray:
    """(count, 3, 32, 32) from the columns left ... right - 1 of a photo (height, width, 3)."""
    found = [
        photo[top : top + SIDE, start : start + SIDE]
        for top in range(0, photo.shape[0] - SIDE + 1, stride)
        for start in range(left, right - SIDE + 1, stride)
    ]
    return np.stack(found).transpose(0, 3, 1, 2)


def load(seed: int = 0, whole: bool = False) -> ImageData:
    """The split is always the same: `seed` changes nothing."""
    del seed
    photos = load_sample_images().images
    parts = []
    for first, last, stride in (
        (0.0, TO_TRAIN, STRIDE),
        (TO_TRAIN, TO_VALIDATE, SIDE),
        (TO_VALIDATE, 1.0, SIDE),
    ):
        images, labels = [], []
        for label, photo in enumerate(photos):
            width = photo.shape[1]
            found = pieces(photo, round(first * width), round(last * width), stride)
            images.append(torch.from_numpy(found.copy()))
            labels.append(torch.full((len(found),), label, dtype=torch.int64))
        parts.append(Part(torch.cat(images), torch.cat(labels)))
    train, validation, test = parts
    data = ImageData(
        "photos",
        "bundled with scikit-learn",
        NAMES,
        255.0,
        train,
        validation,
        test,
        "from left to right: 70 % of each photo, 15 % to validate, 15 % to test",
    )
    return data.whole() if whole else data
