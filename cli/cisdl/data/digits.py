"""The handwritten digits bundled with scikit-learn: 1797 real images of 8 x 8 pixels, grey levels 0 to 16.

Split as in the course, 60/20/20 by two calls of `train_test_split(random_state=1)`: 1077 training, 360
validation and 360 test images. The split is not stratified and does not depend on the run's seed, so
accuracies of different seeds, models and people speak of the same 360 test images (29 to 43 of each class).

Source: Alpaydin, Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998
(its test part; public, no download needed).
"""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from cisdl.data.images import ImageData, Part


def load(seed: int = 0, whole: bool = False) -> ImageData:
    """The split is always the same: `seed` changes nothing."""
    del seed
    bunch = load_digits()
    rest_x, test_x, rest_y, test_y = train_test_split(
        bunch.images, bunch.target, test_size=0.2, random_state=1
    )
    train_x, validation_x, train_y, validation_y = train_test_split(
        rest_x, rest_y, test_size=0.25, random_state=1
    )

    def part(images: object, labels: object) -> Part:
        pixels = torch.as_tensor(images, dtype=torch.float32).unsqueeze(1)  # (count, 1, 8, 8)
        return Part(pixels, torch.as_tensor(labels, dtype=torch.int64))

    data = ImageData(
        name="digits",
        source="bundled with scikit-learn",
        class_names=tuple("0123456789"),
        peak=16.0,
        train=part(train_x, train_y),
        validation=part(validation_x, validation_y),
        test=part(test_x, test_y),
        split="60/20/20 by train_test_split(random_state=1)",
    )
    return data.whole() if whole else data
