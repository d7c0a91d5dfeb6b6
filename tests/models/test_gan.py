"""The two networks, the steps they take in turns, and the referee that judges what is made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from cisdl import backend, tasks
from cisdl.baselines.images import normal
from cisdl.errors import UsageError
from cisdl.models import registry
from cisdl.models.gan import GAN
from cisdl.report import samples
from cisdl.tasks import referee
from cisdl.tasks.base import SampleRequest
from cisdl.tasks.generation import Generation
from cisdl.tasks.referee import Referee, frechet
from cisdl.training import checkpoint
from cisdl.training.config import TrainConfig, configure
from PIL import Image
from torch import Tensor, nn

from tests.models.training import trained

BACKENDS = ("cisdl", "torch")
ARCHITECTURES = ("mlp", "dcgan")
SMALL = {"hidden": (16, 24), "width": 4, "latent": 5}


def task_of(architecture: str = "mlp", **given: object) -> Generation:
    entry = registry.get("gan")
    options = SMALL | {"architecture": architecture}
    task = tasks.load(entry, configure(entry, **({"options": options, "backend": "torch"} | given)))
    assert isinstance(task, Generation)
    return task


def build(architecture: str, ops: str = "torch", shape: tuple[int, int, int] = (1, 8, 8)) -> GAN:
    torch.manual_seed(0)
    model = registry.get("gan").build(backend.get(ops), shape=shape, **SMALL, architecture=architecture)
    assert isinstance(model, GAN)
    return model


@pytest.mark.parametrize("ops", BACKENDS)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 12, 20)])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_shapes(architecture: str, shape: tuple[int, int, int], ops: str) -> None:
    model = build(architecture, ops, shape)
    made = model.generator(torch.randn(4, 5)).detach()
    assert made.shape == (4, *shape)
    assert 0 <= float(made.min()) < float(made.max()) <= 1
    assert model.discriminator(made).shape == (4,)
    assert model(torch.randn(4, 5)).shape == (4,)


def test_parameters_are_those_of_the_formula() -> None:
    def count(module: nn.Module) -> int:
        return sum(p.numel() for p in module.parameters())

    mlp, dcgan = build("mlp"), build("dcgan")
    assert count(mlp.generator) == 5 * 16 + 2 * 16 + 16 * 24 + 2 * 24 + 24 * 64 + 64
    assert count(mlp.discriminator) == 64 * 24 + 24 + 24 * 16 + 16 + 16 + 1
    assert count(dcgan.generator) == 5 * 8 * 4 + 2 * 8 + 8 * 4 * 16 + 2 * 4 + 4 * 16 + 1
    assert count(dcgan.discriminator) == 4 * 16 + 4 + 4 * 8 * 16 + 8 + 8 * 4 + 1


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_our_backend_uses_our_layers_only(architecture: str) -> None:
    """All but normalisation and dropout."""
    for module in build(architecture, "cisdl").modules():
        plain = (nn.BatchNorm1d, nn.BatchNorm2d, nn.Dropout)
        if not list(module.children()) and not isinstance(module, plain):
            assert type(module).__module__.split(".")[0] == "cisdl_ops"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_backends_agree_on_the_first_losses(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(referee, "STEPS", 1)
    losses = []
    for name in BACKENDS:
        task = task_of(architecture, backend=name, limit=64)
        torch.manual_seed(0)
        model = task.build(backend.get(name))
        trainer = task.trainer(model)
        torch.manual_seed(1)  # dropout
        losses.append([float(trainer.step(batch).loss) for batch in task.batches(1)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_a_dcgan_refuses_sides_it_cannot_halve_twice() -> None:
    for size in (1, 4, 10):
        with pytest.raises(UsageError, match=f"multiples of 4, got {size} x {size}"):
            build("dcgan", shape=(1, size, size))


def test_other_scales_are_refused() -> None:
    with pytest.raises(UsageError, match=r"makes pixels in \[0, 1\], expected unit, got standard"):
        task_of(scale="standard")


def changed(before: dict[str, Tensor], model: nn.Module) -> bool:
    return any(not torch.equal(before[name], p) for name, p in model.named_parameters())


def copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def test_each_loss_moves_its_own_network_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The discriminator's gradient must not reach the generator, nor the generator's step move the other."""
    monkeypatch.setattr(referee, "STEPS", 1)
    task = task_of()
    model = task.build(backend.get("torch"))
    trainer = task.trainer(model)
    batch = next(task.batches(1))
    generator, discriminator = copy(model.generator), copy(model.discriminator)
    for group in trainer.generator.param_groups:
        group["lr"] = 0.0
    trainer.step(batch)
    assert not changed(generator, model.generator)
    assert changed(discriminator, model.discriminator)
    trainer.set_lr(1e-3)
    for group in trainer.discriminator.param_groups:
        group["lr"] = 0.0
    discriminator = copy(model.discriminator)
    trainer.step(batch)
    assert changed(generator, model.generator)
    assert not changed(discriminator, model.discriminator)


def test_the_losses_are_those_of_the_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(referee, "STEPS", 1)
    task = task_of("dcgan")  # no dropout: the scores can be asked for again
    model = task.build(backend.get("torch"))
    trainer = task.trainer(model)
    trainer.set_lr(0.0)
    real, z = next(task.batches(1))
    taken = trainer.step((real, z))
    with torch.no_grad():
        d_real = model.discriminator(real).sigmoid()
        d_made = model.discriminator(model.generator(z)).sigmoid()
    expected = -(d_real.log().mean() + (1 - d_made).log().mean()) / 2
    assert float(taken.loss) == pytest.approx(float(expected), rel=1e-4)
    assert taken.values["generator_loss"] == pytest.approx(float(-d_made.log().mean()), rel=1e-4)
    assert taken.values["d_real"] == pytest.approx(float(d_real.mean()), rel=1e-4)
    assert taken.values["d_made"] == pytest.approx(float(d_made.mean()), rel=1e-4)


def test_both_optimisers_are_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(referee, "STEPS", 1)
    task = task_of()
    model = task.build(backend.get("torch"))
    trainer = task.trainer(model)
    trainer.step(next(task.batches(1)))
    other = task.trainer(task.build(backend.get("torch")))
    other.load_state_dict(trainer.state_dict())
    for name in ("generator", "discriminator"):
        saved, loaded = trainer.state_dict()[name]["state"], other.state_dict()[name]["state"]
        assert saved
        assert all(torch.equal(saved[key]["exp_avg"], loaded[key]["exp_avg"]) for key in saved)


def test_noise_is_new_in_every_step_and_the_same_in_every_run() -> None:
    def drawn(epoch: int) -> list[Tensor]:
        return [z for _, z in task_of().batches(epoch)]

    first = drawn(1)
    assert all(torch.equal(a, b) for a, b in zip(first, drawn(1), strict=True))
    assert len({tuple(z[0].tolist()) for z in [*first, *drawn(2)]}) == 2 * len(first)
    assert task_of(limit=33).batch_count() == 2
    *_, (real, z) = task_of(limit=33).batches(1)
    assert (len(real), len(z)) == (1, 2), "one image alone cannot be normalised"


def test_frechet_distance_of_known_normal_distributions() -> None:
    generator = np.random.default_rng(0)
    x = torch.from_numpy(generator.standard_normal((20000, 3)))
    a, b = x[:10000], x[10000:]
    assert frechet(a, a) == pytest.approx(0, abs=1e-9)
    shifted = b + torch.tensor([3.0, 0.0, 4.0])
    assert frechet(a, shifted) == pytest.approx(25, rel=0.02)
    assert frechet(a, 3 * b) == pytest.approx(3 * (3 - 1) ** 2, rel=0.02)
    swapped = torch.diag(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
    # Commuting covariances: the sum of (s1 - s2)^2 over the axes.
    assert frechet(a @ swapped, b @ swapped.flip(1).flip(0)) == pytest.approx(8, rel=0.05)


def test_the_referee_is_no_part_of_the_model_it_judges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(referee, "STEPS", 3)
    task = task_of()
    torch.manual_seed(0)
    model = task.build(backend.get("torch"))
    assert not list(task.referee.parameters())
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in build("mlp").parameters())
    task.trainer(model)
    other = Referee(backend.get("torch"), 1, 10)
    assert not torch.equal(other.network.conv1.weight, task.referee.network.conv1.weight)
    other.load_state_dict(
        {name[8:]: value for name, value in model.state_dict().items() if name.startswith("referee.")}
    )
    images = task.images.validation.images
    assert torch.equal(other.judge(images)[1], task.referee.judge(images)[1])


def test_one_image_again_and_again_is_seen_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mode collapse: one class, a large class KL, a large distance."""
    monkeypatch.setattr(referee, "STEPS", 300)
    task = task_of()
    task.trainer(task.build(backend.get("torch")))
    real = task.images.validation
    honest = task.judged(task.images.train.images[:360], real)
    collapsed = task.judged(real.images[:1].expand(360, -1, -1, -1), real)
    assert (honest.covered, honest.classes) == (10, 10)
    assert honest.class_kl < 0.05
    assert (collapsed.covered, collapsed.made, collapsed.real) == (1, 360, 360)
    assert collapsed.class_kl == pytest.approx(np.log(10), abs=0.3)
    assert collapsed.distance > 10 * honest.distance
    assert honest.rank > collapsed.rank


def test_pixels_of_a_normal_distribution_have_its_moments() -> None:
    train = 0.5 + 0.05 * torch.randn(5000, 1, 2, 2)
    train[:, 0, 1] = train[:, 0, 0]
    drawn = normal(train, 5000, seed=0)
    assert drawn.shape == train.shape
    torch.testing.assert_close(
        torch.cov(drawn.flatten(1).T), torch.cov(train.flatten(1).T), atol=3e-4, rtol=0
    )
    assert torch.equal(drawn, normal(train, 5000, seed=0))


def test_a_run_is_restored_samples_and_is_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(referee, "STEPS", 20)
    outcome = trained("gan", tmp_path, epochs=2, options=SMALL | {"architecture": "dcgan"}, limit=100)
    state = checkpoint.load(tmp_path / "best.pt")
    entry = registry.get("gan")
    task = tasks.new(entry, TrainConfig(**state["config"]))
    assert isinstance(task, Generation)
    task.restore(state["facts"])
    model = task.build(backend.get("cisdl"))
    model.load_state_dict(state["model"])
    paths = [task.sample(model, SampleRequest(5, seed, tmp_path / "samples"))[0] for seed in (1, 1, 2)]
    pictures = [np.asarray(Image.open(path)) for path in paths]
    assert pictures[0].shape == (2 * 56 + 2, 3 * 56 + 4)
    assert np.array_equal(pictures[0], pictures[1])
    assert not np.array_equal(pictures[0], pictures[2])
    with pytest.raises(UsageError, match="--temperature: expected with a model of text, got with gan"):
        task.sample(model, SampleRequest(1, 0, tmp_path, temperature=0.5))
    task.read()
    again = task.evaluate(model, "test")
    assert again.distance == pytest.approx(outcome.evaluation.as_dict()["distance"], rel=1e-6)
    task.open("digits", None)
    assert task.evaluate(model, "test").real == 360
    assert task.baselines("test") == {}


def test_grids_and_films(tmp_path: Path) -> None:
    images = torch.arange(3).view(3, 1, 1, 1).expand(3, 3, 60, 30) / 2
    pixels = samples.grid(images)
    assert pixels.shape == (2 * 60 + 2, 2 * 30 + 2, 3)
    assert [int(pixels[0, 0, 0]), int(pixels[0, 32, 1]), int(pixels[62, 0, 2])] == [0, 128, 255]
    samples.write_gif(tmp_path / "film.gif", [torch.full((4, 1, 8, 8), level / 99) for level in range(100)])
    with Image.open(tmp_path / "film.gif") as film:
        assert film.n_frames == 40
    assert samples.spaced(3, 8) == [0, 1, 2]
    assert samples.nearest(images, images.flip(0)).tolist() == [2, 1, 0]


def test_a_gan_learns_in_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(referee, "STEPS", 400)
    found = trained("gan", tmp_path, epochs=25)
    assert found.evaluation.as_dict()["covered"] == 10
    assert found.evaluation.as_dict()["class_kl"] < 0.25
    assert found.evaluation.as_dict()["distance"] < 200


@pytest.mark.models
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_default_covers_all_classes_and_beats_a_normal_distribution(
    architecture: str, tmp_path: Path
) -> None:
    options = dict(registry.get("gan").options) | {"architecture": architecture}
    outcome = trained("gan", tmp_path, options=options)
    found = outcome.evaluation.as_dict()
    linear = outcome.baselines["normal distribution of pixels"].as_dict()
    assert found["covered"] == 10
    assert found["class_kl"] < 0.06
    assert found["distance"] < 0.6 * linear["distance"]
