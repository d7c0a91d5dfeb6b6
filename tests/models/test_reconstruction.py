"""Autoencoders: what they are trained on, what they are judged by, and that they beat the linear methods."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from cisdl import backend, tasks
from cisdl.baselines.images import pca, wiener
from cisdl.data import digits
from cisdl.errors import UsageError
from cisdl.models import registry
from cisdl.models.autoencoder import Autoencoder
from cisdl.models.denoising_autoencoder import DenoisingAutoencoder
from cisdl.tasks.reconstruction import Reconstruction, judge, psnr
from cisdl.training.config import configure
from torch import Tensor, nn

from tests.models.training import trained

TORCH = backend.get("torch")
DEFAULTS = {name: dict(registry.get(name).options) for name in ("autoencoder", "denoising-autoencoder")}


def task_of(name: str, **given: object) -> Reconstruction:
    entry = registry.get(name)
    task = tasks.load(entry, configure(entry, backend="torch", **given))
    assert isinstance(task, Reconstruction)
    return task


def test_the_target_stays_clean() -> None:
    """Noise added in place would make the target, and every later epoch, noisy."""
    task = task_of("denoising-autoencoder")
    before = task.images.train.images.clone()
    known = {tuple(image.flatten().tolist()) for image in before}
    for noisy, clean in task.batches(1):
        assert not torch.equal(noisy, clean)
        assert all(tuple(image.flatten().tolist()) in known for image in clean)
    assert torch.equal(task.images.train.images, before)
    assert float(before.min()) >= 0
    assert float(before.max()) <= 1


def test_noise_is_new_in_every_epoch_and_the_same_in_every_run() -> None:
    def noise(task: Reconstruction, epoch: int) -> Tensor:
        return torch.cat([noisy - clean for noisy, clean in task.batches(epoch)])

    options = {"width": 4, "noise": 0.2}
    first = noise(task_of("denoising-autoencoder", options=options), 1)
    assert torch.equal(first, noise(task_of("denoising-autoencoder", options=options), 1))
    assert not torch.equal(first, noise(task_of("denoising-autoencoder", options=options), 2))
    assert not torch.equal(first, noise(task_of("denoising-autoencoder", options=options, seed=1), 1))
    assert float(first.std()) == pytest.approx(0.2, rel=0.02)
    assert abs(float(first.mean())) < 0.005


def test_the_model_sees_noise_and_is_held_against_the_clean_image() -> None:
    task = task_of("denoising-autoencoder")
    noisy, clean = next(task.batches(1))
    given: list[Tensor] = []

    class Copy(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            given.append(images)
            return images

    taken = task.step(Copy(), (noisy, clean))
    assert given[0] is noisy
    assert taken.count == len(clean)
    assert float(taken.loss) == pytest.approx(0.3**2, rel=0.1)
    one, other = task.evaluate(Copy(), "validation"), task.evaluate(Copy(), "validation")
    assert one.loss == other.loss, "validation noise differs between epochs"
    assert one.loss == pytest.approx(0.3**2, rel=0.05)
    assert task.evaluate(Copy(), "test").loss != one.loss


def test_an_autoencoder_sees_the_image_itself() -> None:
    images, target = next(task_of("autoencoder").batches(1))
    assert images is target


def test_figures_of_an_error() -> None:
    clean = torch.zeros(2, 1, 2, 2)
    found = judge(torch.full_like(clean, 0.1), clean)
    assert found.as_dict() == pytest.approx({"loss": 0.01, "psnr": 20.0, "squared_error": 0.04, "total": 2})
    assert str(found) == "0.01000 (20.00 dB, 2 images)"
    assert psnr(0.0) == float("inf")


@pytest.mark.parametrize(("code", "error"), [(2, 0.0524), (8, 0.0244), (16, 0.0115), (32, 0.0027)])
def test_pca_on_digits(code: int, error: float) -> None:
    data = digits.load().scaled("unit")
    assert data.test is not None
    found = judge(pca(data.train.images, code)(data.test.images), data.test.images)
    assert found.loss == pytest.approx(error, abs=5e-5)


@pytest.mark.parametrize(("noise", "decibels"), [(0.1, 23.16), (0.2, 18.66), (0.3, 16.69), (0.5, 14.49)])
def test_wiener_filter_on_digits(noise: float, decibels: float) -> None:
    """Figures of one draw of the noise; another draw differs by about a tenth."""
    data = digits.load().scaled("unit")
    assert data.test is not None
    clean = data.test.images
    noisy = clean + noise * torch.from_numpy(
        np.random.default_rng(0).standard_normal(clean.shape, dtype=np.float32)
    )
    found = judge(wiener(data.train.images, noise)(noisy), clean)
    assert psnr(found.loss) == pytest.approx(decibels, abs=0.15)


def test_wiener_filter_is_the_best_linear_map_of_what_it_was_made_from() -> None:
    """Gaussian images: no other gain does better."""
    generator = torch.Generator().manual_seed(0)
    clean = (0.5 + 0.1 * torch.randn(20000, 1, 1, 2, generator=generator)) @ torch.tensor(
        [[1.0, 0.8], [0, 0.2]]
    )
    noisy = clean + 0.1 * torch.randn(clean.shape, generator=generator)
    restored = judge(wiener(clean, 0.1)(noisy), clean).loss
    design = torch.cat([noisy.flatten(1), torch.ones(len(noisy), 1)], dim=1)
    best = torch.linalg.lstsq(design, clean.flatten(1)).solution
    assert restored == pytest.approx(float((design @ best - clean.flatten(1)).square().mean()), rel=0.01)


def test_decoding_a_code_is_the_second_half() -> None:
    model = Autoencoder(TORCH, (2, 3, 5), hidden=(7,), code=4, activation="tanh")
    images = torch.rand(3, 2, 3, 5)
    code = model.encode(images)
    assert code.shape == (3, 4)
    assert torch.equal(model.decode(code), model(images))
    assert model(images).shape == images.shape


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (7, 10)])
def test_any_size_of_image_is_restored(size: tuple[int, int]) -> None:
    model = DenoisingAutoencoder(TORCH, channels=3, width=2)
    restored = model(torch.rand(2, 3, *size))
    assert restored.shape == (2, 3, *size)
    restored = restored.detach()
    assert float(restored.min()) >= 0
    assert float(restored.max()) <= 1


def test_other_scales_are_refused() -> None:
    with pytest.raises(UsageError, match=r"makes pixels in \[0, 1\], expected unit, got standard"):
        task_of("autoencoder", scale="standard")


@pytest.mark.parametrize("code", [2, 16])
def test_an_autoencoder_beats_pca(code: int, tmp_path: Path) -> None:
    """In a quarter of the epochs; more widen the gap."""
    options = {"hidden": (512,), "code": code, "activation": "relu"}
    outcome = trained("autoencoder", tmp_path, options=options, epochs=50)
    (linear,) = outcome.baselines.values()
    assert outcome.evaluation.loss < 0.85 * linear.loss


@pytest.mark.parametrize("noise", [0.2, 0.5])
def test_a_denoising_autoencoder_beats_the_wiener_filter(noise: float, tmp_path: Path) -> None:
    outcome = trained("denoising-autoencoder", tmp_path, options={"width": 16, "noise": noise}, epochs=20)
    assert outcome.evaluation.loss < outcome.baselines["Wiener filter"].loss


@pytest.mark.models
@pytest.mark.parametrize(("code", "share"), [(2, 0.7), (8, 0.6), (16, 0.6), (32, 1.0)])
def test_the_whole_training_widens_the_gap_to_pca(code: int, share: float, tmp_path: Path) -> None:
    """32 numbers for 64 pixels leave little to win."""
    outcome = trained("autoencoder", tmp_path, options=DEFAULTS["autoencoder"] | {"code": code})
    (linear,) = outcome.baselines.values()
    assert outcome.evaluation.loss < share * linear.loss


@pytest.mark.models
@pytest.mark.parametrize("noise", [0.1, 0.2, 0.3, 0.5])
def test_the_whole_training_widens_the_gap_to_the_wiener_filter(noise: float, tmp_path: Path) -> None:
    options = DEFAULTS["denoising-autoencoder"] | {"noise": noise}
    outcome = trained("denoising-autoencoder", tmp_path, options=options)
    assert outcome.evaluation.loss < 0.9 * outcome.baselines["Wiener filter"].loss
