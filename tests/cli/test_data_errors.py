"""Missing and damaged data: exit 7 and one sentence with the file, what was expected and what was found."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cisdl import errors

from tests.cli.conftest import Command
from tests.models.idx_files import IMAGES, LABELS, idx, write_folder

TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES = f"train-{IMAGES}", f"train-{LABELS}", f"t10k-{IMAGES}"


def replace(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)


def cut(name: str, keep: int) -> Callable[[Path], None]:
    return lambda folder: replace(folder, name, (folder / name).read_bytes()[:keep])


def squeeze_and_cut(folder: Path) -> None:
    """Only the gzip file stays, without its second half."""
    content = gzip.compress((folder / TRAIN_IMAGES).read_bytes())
    (folder / TRAIN_IMAGES).unlink()
    replace(folder, f"{TRAIN_IMAGES}.gz", content[: len(content) // 2])


def not_gzip(folder: Path) -> None:
    (folder / TRAIN_IMAGES).rename(folder / f"{TRAIN_IMAGES}.gz")


DAMAGE: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "truncated": (cut(TRAIN_IMAGES, 16 + 100), (TRAIN_IMAGES, "truncated", "expected 31360", "got 100")),
    "truncated header": (cut(TRAIN_IMAGES, 10), (TRAIN_IMAGES, "expected a header of 16 bytes", "got 10")),
    "empty file": (cut(TRAIN_LABELS, 0), (TRAIN_LABELS, "truncated", "got 0 bytes")),
    "truncated gzip": (squeeze_and_cut, (f"{TRAIN_IMAGES}.gz", "truncated", "expected 31360")),
    "no gzip": (not_gzip, (f"{TRAIN_IMAGES}.gz", "expected gzip data")),
    "too long": (
        lambda folder: replace(folder, TRAIN_LABELS, (folder / TRAIN_LABELS).read_bytes() + b"x"),
        (TRAIN_LABELS, "too long", "expected 40", "got 41"),
    ),
    "wrong magic": (
        lambda folder: replace(folder, TRAIN_IMAGES, (folder / TRAIN_LABELS).read_bytes()),
        (TRAIN_IMAGES, "wrong magic number", "expected 0x00000803", "got 0x00000801"),
    ),
    "floats": (
        lambda folder: replace(folder, TRAIN_IMAGES, b"\0\0\x0d\x03" + bytes(12)),
        (TRAIN_IMAGES, "expected 0x00000803", "got 0x00000d03"),
    ),
    "labels missing in the count": (
        lambda folder: replace(folder, TRAIN_LABELS, idx(np.zeros(39, np.uint8))),
        (TRAIN_LABELS, "expected 40 labels", "got 39"),
    ),
    "no images at all": (
        lambda folder: replace(folder, TRAIN_IMAGES, idx(np.zeros((0, 28, 28), np.uint8))),
        (TRAIN_IMAGES, "empty", "got 0 x 28 x 28"),
    ),
    "images without labels": (
        lambda folder: (folder / TRAIN_LABELS).unlink(),
        (f"expected {TRAIN_LABELS}[.gz] beside {TRAIN_IMAGES}", "got no such file"),
    ),
    "no training files": (
        lambda folder: [(folder / name).unlink() for name in (TRAIN_IMAGES, TRAIN_LABELS)] and None,
        ("expected train-images-idx3-ubyte[.gz]", "got neither"),
    ),
    "other size in test": (
        lambda folder: replace(folder, TEST_IMAGES, idx(np.zeros((20, 14, 28), np.uint8))),
        ("expected test images of 28 x 28", "got 14 x 28"),
    ),
    "unknown class in test": (
        lambda folder: replace(folder, f"t10k-{LABELS}", idx(np.full(20, 77, np.uint8))),
        ("expected test labels up to 9", "got 77"),
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_idx_folder(damage: str, cisdl: Command, tmp_path: Path) -> None:
    spoil, expected = DAMAGE[damage]
    spoil(write_folder(tmp_path / "set"))
    result = cisdl("train", "lenet", "--backend", "torch", "--data", "./set")
    assert result.code == errors.DATA
    sentence = result.sentence()
    for part in expected:
        assert part in sentence
    assert not (tmp_path / "runs").exists()


def test_missing_path(cisdl: Command) -> None:
    result = cisdl("train", "mlp", "--data", "no/such/folder")
    assert result.code == errors.DATA
    sentence = result.sentence()
    assert "no/such/folder: expected a folder of IDX files or " in sentence
    assert sentence.endswith(" or a folder of images for each class, got no such file or folder")


def test_a_file_is_no_folder(cisdl: Command, tmp_path: Path) -> None:
    (tmp_path / "images.gz").touch()
    result = cisdl("train", "mlp", "--data", "images.gz")
    assert result.code == errors.DATA
    assert "expected a folder of IDX files or " in result.sentence()
    assert result.sentence().endswith("got a file of another kind")


def test_a_misspelt_name_is_corrected(cisdl: Command) -> None:
    result = cisdl("train", "mlp", "--data", "fashion_mnist")
    assert result.code == errors.DATA
    assert "did you mean 'fashion-mnist'?" in result.sentence()


def test_a_name_says_where_it_was_looked_for(
    cisdl: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert str(tmp_path / "data" / "mnist") in cisdl("train", "mlp", "--data", "mnist").sentence()
    monkeypatch.setenv("CISDL_DATA", str(tmp_path / "elsewhere"))
    assert str(tmp_path / "elsewhere" / "mnist") in cisdl("train", "mlp", "--data", "mnist").sentence()
    result = cisdl("train", "mlp", "--data", "mnist", "--data-dir", str(tmp_path / "third"))
    assert str(tmp_path / "third" / "mnist") in result.sentence()
    assert result.code == errors.DATA


def test_without_test_files_validation_is_reported_as_such(cisdl: Command, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "data" / "mnist", test=0)
    arguments = ("--data", "mnist", "--epochs", "1", "--threads", "1", "--backend", "torch")
    result = cisdl("train", "mlp", *arguments)
    assert result.code == errors.OK, result.err
    line = result.out.splitlines()[-2]
    assert line.startswith("validation accuracy ")
    assert "/4)" in line
    assert "mnist has no test part, this one chose the epoch too" in line
    assert "test accuracy" not in result.out
    assert folder.name == "mnist"
