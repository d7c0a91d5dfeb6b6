"""CIFAR's binary files, folders of images, photos; what a finished run says of images."""

from __future__ import annotations

import gzip
import lzma
from pathlib import Path

import numpy as np
import pytest
import torch
from cisdl import backend, tasks
from cisdl.data import cifar, idx, image_folder, photos, registry
from cisdl.data.images import ImageData
from cisdl.errors import DataError
from cisdl.models import registry as models
from cisdl.tasks.base import Predicts, Task
from cisdl.training import checkpoint
from cisdl.training.config import TrainConfig, configure
from PIL import Image
from torch import nn

from tests.models.idx_files import IMAGES, LABELS, write_folder
from tests.models.idx_files import idx as idx_bytes
from tests.models.training import trained


def records(count: int, seed: int = 0) -> tuple[bytes, np.ndarray, np.ndarray]:
    """A file's content, its images (count, 3, 32, 32) and labels 0, 1, ... 9, 0, ..."""
    images = np.random.default_rng(seed).integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
    labels = (np.arange(count) % 10).astype(np.uint8)
    content = b"".join(bytes([label]) + image.tobytes() for label, image in zip(labels, images, strict=True))
    return content, images, labels


def everything(data: ImageData) -> torch.Tensor:
    return torch.cat([part.images for part in data.parts().values()]).flatten(1)


@pytest.mark.parametrize(("ending", "pack"), [("", bytes), (".gz", gzip.compress), (".xz", lzma.compress)])
def test_cifar_folder(ending: str, pack: object, tmp_path: Path) -> None:
    assert callable(pack)
    for number in (1, 2):
        (tmp_path / f"data_batch_{number}.bin{ending}").write_bytes(pack(records(20, number)[0]))
    (tmp_path / f"test_batch.bin{ending}").write_bytes(pack(records(10, 3)[0]))
    (tmp_path / "batches.meta.txt").write_text("not read")
    data = cifar.load(tmp_path, seed=0)
    assert data.counts == {"train": 36, "validation": 4, "test": 10}
    assert (data.shape, data.class_names[9]) == ((3, 32, 32), "truck")
    assert data.test is not None
    assert np.array_equal(data.test.images.numpy(), records(10, 3)[1])
    assert np.array_equal(data.test.labels.numpy(), records(10, 3)[2])
    assert cifar.load(tmp_path, 0, whole=True).counts == {"test": 10}


def test_cifar_file(tmp_path: Path) -> None:
    content, images, _ = records(30)
    path = tmp_path / "some.bin"
    path.write_bytes(content)
    data = cifar.load(path, seed=0)
    assert data.counts == {"train": 24, "validation": 3, "test": 3}
    assert torch.equal(everything(data).unique(dim=0), torch.from_numpy(images).flatten(1).unique(dim=0)), (
        "an image is missing or in two parts"
    )
    assert cifar.load(path, 0, whole=True).counts == {"test": 30}
    path.write_bytes(content[: cifar.RECORD])
    assert cifar.load(path, 0, whole=True).counts == {"test": 1}
    with pytest.raises(DataError, match=r"expected at least 3 training images .*, got 1"):
        cifar.load(path, 0)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "expected records of 3073 bytes as in CIFAR-10, got an empty file"),
        (records(2)[0][:-1], "got 1 records and 3072 bytes"),
        (records(1)[0] + b"\x0a" + bytes(3072), "expected labels up to 9, got 10 in record 2 of 2"),
    ],
)
def test_damaged_cifar_files(content: bytes, fault: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.bin"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"bad.bin: .*{fault}"):
        cifar.load(path, 0)
    (tmp_path / "bad.bin.xz").write_bytes(lzma.compress(b"x" * 100)[:-20])
    with pytest.raises(DataError, match=r"bad.bin.xz: damaged, expected xz data"):
        cifar.load(tmp_path / "bad.bin.xz", 0)


def picture(path: Path, value: int, mode: str = "L", size: tuple[int, int] = (6, 4)) -> None:
    """One colour, `value`, but for the first pixel, which is 0; size: width, height."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new(mode, size, value if mode == "L" else (value, value // 2, 0))
    image.putpixel((0, 0), 0)
    image.save(path)


def classes(folder: Path, count: int = 10, mode: str = "L", names: tuple[str, ...] = ("ant", "bee")) -> Path:
    for label, name in enumerate(names):
        for number in range(count):
            picture(folder / name / f"{number}.png", 20 * label + number + 1, mode)
    return folder


def test_folder_of_images_by_class(tmp_path: Path) -> None:
    classes(tmp_path)
    (tmp_path / "ant" / "notes.txt").write_text("not read")
    (tmp_path / ".hidden").mkdir()
    data = image_folder.load(tmp_path, seed=0)
    assert data.counts == {"train": 16, "validation": 2, "test": 2}
    assert (data.shape, data.class_names) == ((1, 4, 6), ("ant", "bee"))
    for part in data.parts().values():
        assert torch.equal((part.images[:, 0, 1, 1] > 20).long(), part.labels)
        assert bool((part.images[:, 0, 0, 0] == 0).all())
    assert len(everything(data).unique(dim=0)) == 20
    assert image_folder.load(tmp_path, 0, whole=True).counts == {"test": 20}


def test_folder_with_parts_of_its_own(tmp_path: Path) -> None:
    classes(tmp_path / "train")
    classes(tmp_path / "test", 3, names=("bee",))
    classes(tmp_path / "val", 2)
    data = image_folder.load(tmp_path, seed=0)
    assert data.counts == {"train": 20, "validation": 4, "test": 3}
    assert data.test is not None
    assert data.test.labels.tolist() == [1, 1, 1], "a class is found by its name, not by its place"
    assert image_folder.load(tmp_path, 0, whole=True).counts == {"test": 3}
    classes(tmp_path / "test", 1, names=("wasp",))
    with pytest.raises(DataError, match="expected a folder for a class of the training images, got 'wasp'"):
        image_folder.load(tmp_path, seed=0)


def test_one_colour_image_makes_all_of_them_coloured(tmp_path: Path) -> None:
    classes(tmp_path)
    picture(tmp_path / "bee" / "x.png", 200, "RGB")
    data = image_folder.load(tmp_path, seed=0)
    assert data.shape == (3, 4, 6)
    assert [200, 100, 0] in torch.cat([p.images for p in data.parts().values()])[:, :, 2, 2].tolist()
    assert image_folder.load(tmp_path, 0, channels=1).shape == (1, 4, 6)


def test_sizes_are_brought_to_one_only_if_asked(tmp_path: Path) -> None:
    classes(tmp_path)
    picture(tmp_path / "bee" / "x.png", 200, size=(9, 4))
    with pytest.raises(DataError, match=r"x.png: expected 4 x 6 pixels as in 0.png, got 4 x 9; --image-size"):
        image_folder.load(tmp_path, seed=0)
    assert image_folder.load(tmp_path, seed=0, size=5).shape == (1, 5, 5)
    found = registry.load(str(tmp_path), None, 0, "images", size=7)
    assert found.shape == (1, 7, 7)


def test_files_that_are_no_images(tmp_path: Path) -> None:
    classes(tmp_path)
    bad = tmp_path / "bee" / "bad.png"
    bad.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"bad.png: expected an image .*, got a file of another kind"):
        image_folder.load(tmp_path, seed=0)
    noise = np.random.default_rng(0).integers(0, 256, (60, 60), dtype=np.uint8)
    Image.fromarray(noise).save(bad)
    bad.write_bytes(bad.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"bad.png: expected an image, got a damaged file"):
        image_folder.load(tmp_path, seed=0)


def test_deep_grey_keeps_its_light(tmp_path: Path) -> None:
    Image.fromarray(np.full((2, 3), 257 * 100, np.uint16)).save(tmp_path / "deep.png")
    array = image_folder.pixels(image_folder.opened(tmp_path / "deep.png"), 1, None)
    assert array.tolist() == [[[100, 100, 100]] * 2]


def test_pieces_of_photos_are_in_one_part_only() -> None:
    data = photos.load()
    assert data.shape == (3, 32, 32)
    assert data.counts == {"train": 2 * 25 * 27, "validation": 2 * 13 * 3, "test": 2 * 13 * 3}
    photo = photos.load_sample_images().images[0]
    width = photo.shape[1]
    for part, first in (("train", 0.0), ("validation", 0.7), ("test", 0.85)):
        left = round(first * width)
        expected = photo[:32, left : left + 32].transpose(2, 0, 1)
        assert np.array_equal(data.parts()[part].images[0].numpy(), expected)
    assert round(0.7 * width) >= (27 - 1) * 16 + 32, "the last piece to train on reaches into validation"
    assert round(0.85 * width) >= round(0.7 * width) + 3 * 32


def test_idx_folders_to_be_judged_need_no_training_files(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "set", train=0, test=1)
    assert idx.load(folder, 0, whole=True).counts == {"test": 1}
    one = write_folder(tmp_path / "one", train=1, test=0)
    assert idx.load(one, 0, whole=True).counts == {"test": 1}
    for name in (IMAGES, LABELS):
        path = one / f"train-{name}"
        (one / f"train-{name}.xz").write_bytes(lzma.compress(path.read_bytes()))
        path.unlink()
    assert idx.load(one, 0, whole=True).counts == {"test": 1}


def test_what_cannot_be_learnt_from_is_refused(tmp_path: Path) -> None:
    entry = models.get("mlp")

    def load(folder: Path) -> Task:
        return tasks.load(entry, configure(entry, data=str(folder)))

    folder = write_folder(tmp_path / "set")
    (folder / f"train-{LABELS}").write_bytes(idx_bytes(np.full(40, 3, np.uint8)))
    (folder / f"t10k-{LABELS}").write_bytes(idx_bytes(np.full(20, 3, np.uint8)))
    with pytest.raises(DataError, match="training images of 2 classes or more, got 36 of the class '3'"):
        load(folder)
    with pytest.raises(DataError, match="expected images of 2 pixels or more, got 1 x 1"):
        load(write_folder(tmp_path / "tiny", size=1))
    with pytest.raises(DataError, match="expected training images of 2 classes or more, got 8 of the class"):
        load(classes(tmp_path / "one", names=("ant",)))


def restored(name: str, folder: Path) -> tuple[Task, nn.Module]:
    state = checkpoint.load(folder / "best.pt")
    task = tasks.new(models.get(name), TrainConfig(**state["config"]))
    task.restore(state["facts"])
    model = task.build(backend.get("cisdl"))
    model.load_state_dict(state["model"])
    return task, model


def test_predicting_images_and_judging_a_folder_of_them(tmp_path: Path) -> None:
    """Digits have 16 levels, files 256; both are brought to what the model knows."""
    from cisdl.data import digits

    trained("mlp", tmp_path)
    task, model = restored("mlp", tmp_path)
    assert isinstance(task, Predicts)
    test = digits.load().test
    assert test is not None
    paths = []
    for number, (image, label) in enumerate(zip(test.images[:50], test.labels[:50], strict=True)):
        pixels = (image[0] * (255 / 16)).round().byte().numpy()
        path = tmp_path / "mine" / str(int(label)) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        colour = "RGB" if number % 2 else "L"
        Image.fromarray(pixels).convert(colour).resize((64, 64), Image.Resampling.NEAREST).save(path)
        paths.append(str(path))
    answers = task.predict(model, paths)
    right = [answer.answer == Path(answer.given).parent.name for answer in answers]
    assert [answer.given for answer in answers] == paths
    assert sum(right) >= 46
    details = answers[0].details
    assert 1 >= details["confidence"] >= max(details["then"].values())
    with pytest.raises(DataError, match=r"nowhere.png: expected an image, got no such file"):
        task.predict(model, ["nowhere.png"])
    with pytest.raises(DataError, match="expected images of 1 x 8 x 8 as in training, got 1 x 64 x 64"):
        task.open(str(tmp_path / "mine"), None)
    for path in paths:
        Image.open(path).resize((8, 8), Image.Resampling.NEAREST).save(path)
    task.open(str(tmp_path / "mine"), None)
    found = task.evaluate(model, "test").as_dict()
    assert found["total"] == 50
    assert abs(found["correct"] - sum(right)) <= 1, "one may look another way in 64 x 64 pixels"


def test_classes_of_a_judged_folder_are_found_by_name(tmp_path: Path) -> None:
    folder = classes(tmp_path / "all", names=("ant", "bee", "cat"))
    trained("mlp", tmp_path, data=str(folder), epochs=1)
    task, _ = restored("mlp", tmp_path)
    task.open(str(classes(tmp_path / "some", 2, names=("bee", "cat"))), None)
    assert getattr(task, "images").parts()["test"].labels.tolist() == [1, 1, 2, 2]  # noqa: B009
    with pytest.raises(DataError, match=r"of the training images \(ant, bee, cat\), got 'dog'"):
        task.open(str(classes(tmp_path / "other", 2, names=("ant", "dog"))), None)


def test_restoring_a_picture_of_another_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    trained("denoising-autoencoder", tmp_path, epochs=1, limit=50)
    task, model = restored("denoising-autoencoder", tmp_path)
    assert isinstance(task, Predicts)
    picture(tmp_path / "noisy.png", 100, "RGB", size=(23, 14))
    (answer,) = task.predict(model, ["noisy.png"])
    assert answer.answer == "noisy-restored.png"
    with Image.open(tmp_path / answer.answer) as image:
        assert (image.size, image.mode) == ((23, 14), "L")
