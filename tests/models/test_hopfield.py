"""The Hopfield network: what it stores, how it finds it again, and how much it can hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from cisdl import backend, tasks
from cisdl.data.patterns import random_patterns
from cisdl.errors import DataError, UsageError
from cisdl.models import registry
from cisdl.models.hopfield import Hopfield
from cisdl.models.options import UPDATES
from cisdl.report import recall as pictures
from cisdl.tasks.image_recall import ImageRecall, black_and_white, in_turn
from cisdl.tasks.recall import Recall
from cisdl.training import checkpoint
from cisdl.training.config import TrainConfig, configure
from torch import Tensor

from tests.models.idx_files import write_folder
from tests.models.test_report import is_picture
from tests.models.training import trained

BACKENDS = ("cisdl", "torch")
DEFAULTS = dict(registry.get("hopfield").options)


def taught(patterns: Tensor, rule: str = "hebb", ops: str = "torch") -> Hopfield:
    model = Hopfield(backend.get(ops), patterns.shape[1], len(patterns))
    model.learn(patterns, rule)
    return model


def options(**given: object) -> dict[str, object]:
    return DEFAULTS | given


@pytest.mark.parametrize("ops", BACKENDS)
def test_hebbs_rule_is_the_formula(ops: str) -> None:
    x = random_patterns(3, 20, seed=0)
    model = taught(x, "hebb", ops)
    expected = sum(torch.outer(p, p) for p in x) / 20
    expected.fill_diagonal_(0)
    torch.testing.assert_close(model.synapses.weight, expected)
    assert type(model.synapses).__module__.startswith("cisdl_ops" if ops == "cisdl" else "torch")
    assert not any(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("ops", BACKENDS)
def test_the_projection_rule_keeps_every_pattern(ops: str) -> None:
    """Off the diagonal, W is the projection on the patterns; also where two of them are equal."""
    x = torch.cat([random_patterns(8, 20, seed=0), random_patterns(1, 20, seed=0)])
    model = taught(x, "projection", ops)
    expected = torch.linalg.pinv(x) @ x
    torch.testing.assert_close(model.synapses.weight, expected.fill_diagonal_(0), atol=1e-5, rtol=0)
    assert bool((model(x) * x > 0).all())


@pytest.mark.parametrize("update", UPDATES)
def test_recall_asks_every_neuron(update: str) -> None:
    """Against a plain loop over the neurons."""
    x = random_patterns(4, 30, seed=1)
    model = taught(x)
    start = torch.where(torch.from_numpy(np.random.default_rng(0).random(x.shape) < 0.3), -x, x)
    found = model.recall(start, update, 2, np.random.default_rng(5))
    w, generator = model.synapses.weight, np.random.default_rng(5)
    s = start.clone()
    for after in found[1:]:
        if update == "synchronous":
            s = torch.where((s @ w).abs() < 1e-6, s, (s @ w).sign())
        else:
            for neuron in generator.permutation(30):
                field = s @ w[neuron]
                s[:, neuron] = torch.where(field.abs() < 1e-6, s[:, neuron], field.sign())
        assert torch.equal(after, s)
    assert torch.equal(found[0], start)


def test_asynchronous_steps_never_raise_the_energy() -> None:
    x = random_patterns(20, 60, seed=2)
    model = taught(x)
    start = random_patterns(10, 60, seed=3)
    path = model.recall(start, "asynchronous", 15, np.random.default_rng(0), every=1)
    energies = torch.stack([model.energy(state) for state in path])
    assert bool((energies.diff(dim=0) <= 1e-4).all())
    assert bool((energies[-1] < energies[0] - 1).all())
    s, w = start[0], model.synapses.weight
    assert float(energies[0, 0]) == pytest.approx(float(-s @ w @ s / 2), rel=1e-5)
    assert torch.equal(path[-1], path[-61]), "it stopped before it was at rest"


def test_two_neurons_at_once_may_never_rest() -> None:
    model = taught(torch.tensor([[1.0, -1.0]]))
    states = model.recall(torch.tensor([[1.0, 1.0]]), "synchronous", 3, np.random.default_rng(0))
    assert [state.tolist() for state in states] == [[[1, 1]], [[-1, -1]], [[1, 1]], [[-1, -1]]]
    (*_, last) = model.recall(torch.tensor([[1.0, 1.0]]), "asynchronous", 3, np.random.default_rng(0))
    assert float(last.prod()) == -1


@pytest.mark.parametrize(
    ("stored", "overlap", "margin"),
    [(100, 0.998, 0.002), (138, 0.966, 0.02), (150, 0.898, 0.05), (200, 0.475, 0.06)],
)
def test_memory_breaks_down_beyond_its_capacity(
    stored: int, overlap: float, margin: float, tmp_path: Path
) -> None:
    """1000 neurons, recall from the pattern itself. Near the capacity draws differ by some hundredths."""
    reached = []
    for seed in range(3):
        folder = tmp_path / str(seed)
        folder.mkdir()
        chosen = options(rule="hebb", stored=stored, flips=0.0)
        found = trained("hopfield", folder, data="patterns", options=chosen, seed=seed).evaluation.as_dict()
        assert found["total"] == stored
        assert found["load"] == stored / 1000
        reached.append(found["overlap"])
    assert np.mean(reached) == pytest.approx(overlap, abs=margin)


def test_digits_are_recalled_by_projection_and_too_alike_for_hebb(tmp_path: Path) -> None:
    outcome = trained("hopfield", tmp_path)
    found = outcome.evaluation.as_dict()
    assert (found["exact"], found["total"], found["neurons"]) == (10, 10, 64)
    beside = {name: one.as_dict() for name, one in outcome.baselines.items()}
    assert beside["rule hebb"]["overlap"] < beside["the spoilt patterns"]["overlap"] < 0.85
    assert beside["the nearest stored pattern"]["exact"] == 10


def test_equal_seeds_spoil_the_same_numbers() -> None:
    def starts(part: str, **given: object) -> Tensor:
        entry = registry.get("hopfield")
        config = configure(entry, data="patterns", options=options(stored=50, flips=0.2), **given)
        task = tasks.load(entry, config)
        assert isinstance(task, Recall)
        share = float((task.starts(part) != task.stored.patterns).float().mean())
        assert share == pytest.approx(0.2, abs=0.01)
        return task.starts(part)

    assert torch.equal(starts("test"), starts("test"))
    assert not torch.equal(starts("test"), starts("validation"))
    assert not torch.equal(starts("test"), starts("test", seed=1))


def test_images_are_stored_class_by_class() -> None:
    labels = torch.tensor([2, 2, 0, 1, 0, 2])
    assert in_turn(labels, 5).tolist() == [2, 3, 0, 4, 1]
    images = torch.tensor([[[[0, 9], [8, 16]]]])
    assert black_and_white(images, 8.0).tolist() == [[-1, 1, -1, 1]]


def restored(folder: Path) -> tuple[Recall, Hopfield]:
    state = checkpoint.load(folder / "best.pt")
    task = tasks.new(registry.get("hopfield"), TrainConfig(**state["config"]))
    assert isinstance(task, Recall)
    task.restore(state["facts"])
    model = task.build(backend.get("cisdl"))
    assert isinstance(model, Hopfield)
    model.load_state_dict(state["model"])
    return task, model


def test_a_finished_run_judges_other_images(tmp_path: Path) -> None:
    outcome = trained("hopfield", tmp_path)
    task, model = restored(tmp_path)
    assert isinstance(task, ImageRecall)
    task.open("digits", None)
    found = task.evaluate(model, "test")
    assert (found.total, task.data.counts) == (360, {"test": 360})
    nearest = task.baselines("test")["the nearest stored pattern"]
    assert nearest.exact > 120
    assert 60 < found.exact <= nearest.exact
    assert outcome.evaluation.as_dict()["exact"] == 10
    with pytest.raises(DataError, match="expected images of 1 x 8 x 8 as in training, got 1 x 28 x 28"):
        task.open(str(write_folder(tmp_path / "set")), None)


def test_classes_that_were_not_stored_are_refused(tmp_path: Path) -> None:
    trained("hopfield", tmp_path, options=options(stored=3))
    task, _ = restored(tmp_path)
    with pytest.raises(DataError, match="expected images of the stored classes 0, 1, 2, got one of class 3"):
        task.open("digits", None)


def test_a_finished_run_of_random_patterns(tmp_path: Path) -> None:
    outcome = trained("hopfield", tmp_path, data="patterns", options=options(rule="hebb", stored=20))
    task, model = restored(tmp_path)
    task.open("patterns", None)
    assert task.evaluate(model, "test").overlap == outcome.evaluation.as_dict()["overlap"]


def test_what_cannot_be_stored_is_refused(tmp_path: Path) -> None:
    entry = registry.get("hopfield")
    with pytest.raises(UsageError, match="at most the 1077 training images of digits, got 1078"):
        tasks.load(entry, configure(entry, options=options(stored=1078)))
    with pytest.raises(UsageError, match="at most the 250 patterns of patterns, got 251"):
        tasks.load(entry, configure(entry, data="patterns", options=options(stored=251)))
    with pytest.raises(UsageError, match="expected raw, got unit"):
        tasks.load(entry, configure(entry, scale="unit"))
    tiny = write_folder(tmp_path / "tiny", size=1)
    with pytest.raises(DataError, match="expected images of 2 x 2 pixels or more, got 1 x 1"):
        tasks.load(entry, configure(entry, data=str(tiny)))


def test_pictures(tmp_path: Path) -> None:
    patterns = random_patterns(2, 64, seed=0)
    model = taught(patterns)
    path = model.recall(random_patterns(2, 64, seed=1), "asynchronous", 5, np.random.default_rng(0), every=8)
    steps = [state.view(2, 1, 8, 8) for state in path]
    pictures.draw_strips(tmp_path / "strips.png", "title", patterns.view(2, 1, 8, 8), steps, "asynchronous")
    pictures.draw_strips(tmp_path / "still.png", "title", steps[0], [steps[0], steps[0]], "synchronous")
    pictures.draw_energy(tmp_path / "energy.png", "title", torch.stack([model.energy(s) for s in path]))
    pictures.draw_load(tmp_path / "load.png", "title", [(0.1, 1.0), (0.2, 0.5)], (0.1, 0.9, "run"))
    for name in ("strips", "still", "energy", "load"):
        is_picture(tmp_path / f"{name}.png")
