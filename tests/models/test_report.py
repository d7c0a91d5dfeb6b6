"""What the pictures show, before they are drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from cisdl import backend
from cisdl.models.lenet import LeNet
from cisdl.report import confusion, convolutions, curves, mistakes
from cisdl.tasks.base import Curve
from matplotlib.image import imread


def lenet() -> LeNet:
    return LeNet(backend.get("torch"), 1, 10, "relu", "max")


def is_picture(path: Path) -> None:
    pixels = imread(path)
    assert min(pixels.shape[:2]) > 200
    assert float(pixels[..., :3].std()) > 0.02, "the picture is blank"


def test_confusion_counts_true_by_predicted(tmp_path: Path) -> None:
    labels, predicted = np.array([0, 0, 1, 2, 2, 2]), np.array([0, 1, 1, 2, 2, 0])
    counts = confusion.matrix(labels, predicted, 3)
    assert counts.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 2]]
    confusion.draw(tmp_path / "c.png", "title", counts, ("a", "ankle boot", "c"))
    is_picture(tmp_path / "c.png")


def test_confusion_of_a_class_without_images(tmp_path: Path) -> None:
    counts = confusion.matrix(np.array([0]), np.array([0]), 3)
    confusion.draw(tmp_path / "c.png", "title", counts, ("a", "b", "c"))
    is_picture(tmp_path / "c.png")


def test_mistakes_are_the_most_confident_wrong_answers() -> None:
    scores = torch.tensor([[5.0, 0.0], [0.0, 1.0], [0.0, 9.0], [2.0, 0.0]])
    chosen, wrong = mistakes.choose(scores, torch.tensor([0, 0, 0, 1]), 10)
    assert (chosen.tolist(), wrong) == ([2, 3, 1], True)
    chosen, wrong = mistakes.choose(scores, scores.argmax(1), 2)
    assert (chosen.tolist(), wrong) == ([1, 3], False)


def test_mistakes_draws_with_and_without_mistakes(tmp_path: Path) -> None:
    images, scores = torch.rand(3, 1, 8, 8), torch.eye(3)
    names = ("0", "1", "2")
    mistakes.draw(tmp_path / "none.png", "title", images, scores, torch.tensor([0, 1, 2]), names)
    mistakes.draw(tmp_path / "one.png", "title", images, scores, torch.tensor([0, 1, 1]), names)
    colour = torch.randn(3, 3, 8, 8)
    mistakes.draw(tmp_path / "colour.png", "title", colour, scores, torch.tensor([0, 1, 1]), names)
    is_picture(tmp_path / "none.png")
    is_picture(tmp_path / "one.png")
    is_picture(tmp_path / "colour.png")


def test_feature_maps_are_what_the_network_computes(tmp_path: Path) -> None:
    model, image = lenet(), torch.rand(1, 28, 28)
    maps, probabilities = convolutions.activations(model, image)
    assert {name: plane.shape for name, plane in maps.items()} == {
        "conv1": (6, 28, 28),
        "pool1": (6, 14, 14),
        "conv2": (16, 10, 10),
        "pool2": (16, 5, 5),
    }
    with torch.no_grad():
        first = torch.relu(model.conv1(image[None]))
        assert np.allclose(maps["conv1"], first[0].numpy())
        assert np.allclose(maps["pool1"], model.pool1(first)[0].numpy())
        assert np.allclose(probabilities, model(image[None]).softmax(1)[0].numpy())
    convolutions.draw_feature_maps(tmp_path / "maps.png", "title", model, image, tuple("0123456789"))
    convolutions.draw_filters(tmp_path / "filters.png", "title", model)
    is_picture(tmp_path / "maps.png")
    is_picture(tmp_path / "filters.png")


def test_curves_of_one_epoch_and_of_zero_loss(tmp_path: Path) -> None:
    row = {
        "epoch": 1,
        "train_loss": 0.0,
        "validation_loss": 2.0,
        "train_accuracy": 1.0,
        "validation_accuracy": 0.5,
    }
    curves.draw(
        tmp_path / "one.png", "title", [row], 1, "footer", "cross-entropy", Curve("accuracy", "%", 100)
    )
    is_picture(tmp_path / "one.png")


def test_tiles_keep_planes_apart() -> None:
    planes = np.arange(2 * 3 * 2 * 2, dtype=np.float32).reshape(2, 3, 2, 2)
    image = convolutions.tile(planes, gap=1)
    assert image.shape == (5, 8)
    assert np.array_equal(image[3:5, 6:8], planes[1, 2])
    assert np.isnan(image[2]).all()
    assert np.isnan(image[:, 2]).all()
    assert convolutions.centres(3, 2, 1).tolist() == [0.5, 3.5, 6.5]
