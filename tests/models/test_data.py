"""Readers, splits, scaling and batches."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from cisdl.data import digits, idx
from cisdl.data.augment import augmented, flipped, shifted
from cisdl.data.batches import batch_count, batches, permutation
from cisdl.data.images import ImageData, Part

from tests.models.idx_files import IMAGES, images, write_folder


def test_digits_are_the_course_split() -> None:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    data = digits.load()
    assert data.counts == {"train": 1077, "validation": 360, "test": 360}
    assert data.shape == (1, 8, 8)
    assert data.test is not None
    everything = torch.cat([part.images.flatten(1) for part in data.parts().values()])
    bundled = torch.tensor(load_digits().data, dtype=torch.float32)
    assert torch.equal(everything.unique(dim=0), bundled.unique(dim=0)), "an image is missing or doubled"
    pixels, labels = load_digits(return_X_y=True)
    _, test_x, _, test_y = train_test_split(pixels, labels, test_size=0.2, random_state=1)
    assert np.array_equal(data.test.images.flatten(1).numpy(), test_x.astype(np.float32))
    assert np.array_equal(data.test.labels.numpy(), test_y)
    counts = data.test.labels.bincount()
    assert (int(counts.min()), int(counts.max())) == (29, 43)


@pytest.mark.parametrize("squeeze", [False, True])
def test_idx_images_keep_their_labels(tmp_path: Path, squeeze: bool) -> None:
    data = idx.load(write_folder(tmp_path / "set", train=50, test=20, squeeze=squeeze), seed=3)
    assert data.counts == {"train": 45, "validation": 5, "test": 20}
    for part in data.parts().values():
        assert part.images.dtype == torch.uint8
        assert torch.equal(part.images[:, 0, 0, 0].long(), part.labels)
    expected, _ = images(50)
    seen = torch.cat([data.train.images, data.validation.images]).flatten(1)
    assert torch.equal(seen.unique(dim=0), torch.from_numpy(expected).flatten(1).unique(dim=0))
    assert data.test is not None
    assert torch.equal(data.test.images[:, 0], torch.from_numpy(images(20)[0])), "test images were reordered"


def test_idx_validation_is_drawn_by_the_seed(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "set", train=100)
    one, same, other = (idx.load(folder, seed).validation.images for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_idx_without_test_files_has_no_test_part(tmp_path: Path) -> None:
    data = idx.load(write_folder(tmp_path / "set", test=0), seed=0)
    assert data.test is None
    assert set(data.parts()) == {"train", "validation"}
    assert "no test part" in data.split


def test_idx_prefers_the_plain_file_and_reads_joined_gzip(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "set")
    path = folder / f"train-{IMAGES}"
    content = path.read_bytes()
    squeezed = folder / f"train-{IMAGES}.gz"
    squeezed.write_bytes(gzip.compress(content[:1000]) + gzip.compress(content[1000:]))
    assert idx.find(folder, f"train-{IMAGES}") == path
    assert np.array_equal(idx.read_idx(squeezed, 3), idx.read_idx(path, 3))


def test_idx_known_folders_have_class_names(tmp_path: Path) -> None:
    data = idx.load(write_folder(tmp_path / "fashion-mnist"), seed=0)
    assert data.class_names[0] == "T-shirt/top"
    assert len(data.class_names) == 10


def some_data() -> ImageData:
    return digits.load().limited(50)


def test_limit_takes_the_first_of_each_part() -> None:
    data, limited = digits.load(), some_data()
    assert limited.counts == {"train": 50, "validation": 50, "test": 50}
    assert torch.equal(limited.train.images, data.train.images[:50])


@pytest.mark.parametrize("how", ["raw", "unit", "standard"])
def test_scaling_learns_from_training_images_only(how: str) -> None:
    data = some_data()
    scaled = data.scaled(how)
    shift, scale = scaled.scaling["shift"], scaled.scaling["scale"]
    assert isinstance(shift, float)
    assert isinstance(scale, float)
    for name, part in scaled.parts().items():
        torch.testing.assert_close(part.images * scale + shift, data.parts()[name].images)
    train = scaled.train.images
    if how == "unit":
        assert (float(train.min()), float(train.max())) == (0.0, 1.0)
    if how == "standard":
        assert float(train.mean()) == pytest.approx(0, abs=1e-5)
        assert float(train.std()) == pytest.approx(1, abs=1e-5)
        assert abs(float(scaled.validation.images.mean())) > 1e-4, "validation was scaled by its own mean"
    if how == "raw":
        assert torch.equal(train, data.train.images)


def test_scaling_survives_one_grey_level() -> None:
    part = Part(torch.full((4, 1, 8, 8), 7.0), torch.zeros(4, dtype=torch.int64))
    flat = ImageData("flat", "", ("a", "b"), 16.0, part, part, None, "")
    assert torch.equal(flat.scaled("standard").train.images, torch.zeros(4, 1, 8, 8))


def test_resizing_keeps_constant_images_and_order() -> None:
    data = some_data().resized(28)
    assert data.shape == (1, 28, 28)
    assert torch.equal(data.train.labels, some_data().train.labels)
    flat = Part(torch.full((2, 1, 8, 8), 5.0), torch.tensor([0, 1]))
    resized = ImageData("flat", "", ("a", "b"), 16.0, flat, flat, None, "").resized(28)
    torch.testing.assert_close(resized.train.images, torch.full((2, 1, 28, 28), 5.0))
    assert some_data().resized(None).shape == (1, 8, 8)


def test_batches_cover_every_image_once() -> None:
    part = Part(torch.arange(10.0).reshape(10, 1, 1, 1), torch.arange(10))
    seen = [labels for _, labels in batches(part, 4, seed=0, epoch=1)]
    assert [len(labels) for labels in seen] == [4, 4, 2]
    assert batch_count(part, 4) == 3
    assert sorted(torch.cat(seen).tolist()) == list(range(10))
    for images_, labels in batches(part, 3, seed=0, epoch=2):
        assert torch.equal(images_.flatten().long(), labels)


def test_the_order_depends_on_seed_and_epoch_only() -> None:
    orders = {
        (seed, epoch): tuple(permutation(50, seed, epoch).tolist()) for seed in range(4) for epoch in range(4)
    }
    assert len(set(orders.values())) == 16, "two epochs or seeds share an order"
    torch.manual_seed(99)
    assert tuple(permutation(50, 2, 3).tolist()) == orders[2, 3]
    # Seeds that agree in their low 32 bits are different seeds.
    assert not torch.equal(permutation(50, 1, 1), permutation(50, 1 + 2**32, 1))


def test_shifted_images_are_moved_and_not_mixed() -> None:
    """Image n holds n in every pixel but one, which is found again within two pixels."""
    images = torch.arange(200.0)[:, None, None, None].repeat(1, 2, 28, 30)
    images[:, :, 10, 20] = -1
    moved = shifted(images, np.random.default_rng(0))
    assert moved.shape == images.shape
    places = (moved[:, 0] == -1).nonzero()
    assert places[:, 0].tolist() == list(range(200))
    assert {int(row) - 10 for row in places[:, 1]} == {-2, -1, 0, 1, 2}
    assert {int(column) - 20 for column in places[:, 2]} == {-2, -1, 0, 1, 2}
    assert torch.equal(moved[:, 0], moved[:, 1])
    assert bool((moved.flatten(1).amax(1) == torch.arange(200.0)).all())


def test_flipped_images_are_mirrored_by_chance() -> None:
    images = torch.randn(400, 1, 4, 5)
    seen = flipped(images, np.random.default_rng(0))
    same = [torch.equal(a, b) for a, b in zip(images, seen, strict=True)]
    assert 160 < sum(same) < 240
    assert all(torch.equal(b, a if s else a.flip(2)) for a, b, s in zip(images, seen, same, strict=True))
    assert augmented(images, "none", np.random.default_rng(0)) is images
    twice = [augmented(images, "both", np.random.default_rng(3)) for _ in range(2)]
    assert torch.equal(*twice)
