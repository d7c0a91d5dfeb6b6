"""The character language model: streams, targets, the state that goes on, bits per character, samples."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from cisdl import backend, tasks
from cisdl.baselines import ngram
from cisdl.errors import DataError, UsageError
from cisdl.models import registry
from cisdl.tasks.base import Pictures, SampleRequest
from cisdl.tasks.characters import Characters, StreamTrainer, draw_character
from cisdl.training.config import configure
from torch import Tensor, nn
from torch.nn import functional as F

from tests.models.test_report import is_picture
from tests.models.training import trained

TORCH = backend.get("torch")
SMALL = {"cell": "lstm", "hidden": (8,), "layers": 1, "dropout": 0.0, "truncate": 10}


def written(folder: Path, text: str) -> str:
    (folder / "text.txt").write_text(text, encoding="utf-8")
    return str(folder / "text.txt")


def task_of(data: str, **given: object) -> Characters:
    entry = registry.get("char-lm")
    given = {"backend": "torch", "options": SMALL, "batch_size": 4} | given
    task = tasks.load(entry, configure(entry, data=data, **given))
    assert isinstance(task, Characters)
    return task


def loss_of(scores: Tensor, targets: Tensor) -> float:
    return F.cross_entropy(scores.flatten(0, 1), targets.flatten()).item()


@pytest.fixture
def letters(tmp_path: Path) -> Characters:
    """1000 letters at random, 800 of which are trained on."""
    drawn = np.random.default_rng(0).integers(0, 26, 1000)
    return task_of(written(tmp_path, "".join(chr(97 + i) for i in drawn)))


def test_streams_go_on_where_they_were_and_targets_are_the_next_characters(letters: Characters) -> None:
    """Targets shifted by one the wrong way, or streams cut across, would show here."""
    stretches = list(letters.batches(1))
    assert [stretch.first for stretch in stretches] == [True] + [False] * (len(stretches) - 1)
    assert len(stretches) == letters.batch_count() == 20
    inputs = torch.cat([stretch.inputs for stretch in stretches], dim=1)
    targets = torch.cat([stretch.targets for stretch in stretches], dim=1)
    assert inputs.shape == targets.shape == (4, 199)
    assert torch.equal(targets[:, :-1], inputs[:, 1:])
    text = letters.text.train
    doubled = text + text
    for row, ends in zip(inputs, targets[:, -1], strict=True):
        stream = "".join(letters.characters[i - 1] for i in [*row.tolist(), int(ends)])
        assert stream in doubled


def test_epochs_cut_elsewhere_and_runs_of_one_seed_alike(letters: Characters) -> None:
    def first(epoch: int) -> Tensor:
        inputs: Tensor = next(letters.batches(epoch)).inputs
        return inputs

    assert torch.equal(first(1), first(1))
    assert not torch.equal(first(1), first(2))


def test_the_trainer_carries_the_state_and_cuts_the_gradient(letters: Characters) -> None:
    torch.manual_seed(0)
    model = letters.build(TORCH)
    trainer = letters.trainer(model)
    one, two, *_ = letters.batches(1)
    trainer.read_on(model, one)
    assert trainer.state is not None
    assert not any(part.requires_grad for part in trainer.state), "the gradient reaches over the cut"
    _, state = model(one.inputs)
    taken = trainer.read_on(model, two)
    assert taken.loss.item() == pytest.approx(loss_of(model(two.inputs, state)[0], two.targets))
    fresh = trainer.read_on(model, one)  # the first stretch of an epoch starts without memory
    assert fresh.loss.item() == pytest.approx(loss_of(model(one.inputs)[0], one.targets))


def test_a_saved_trainer_goes_on_with_its_state(letters: Characters) -> None:
    torch.manual_seed(0)
    model = letters.build(TORCH)
    trainer = letters.trainer(model)
    one, two, *_ = letters.batches(1)
    trainer.step(one)
    other = letters.build(TORCH)
    other.load_state_dict(model.state_dict())
    again = StreamTrainer(letters.config, other, letters.share, letters.streams)
    again.load_state_dict(trainer.state_dict())
    assert torch.equal(trainer.step(two).loss, again.step(two).loss)


def test_validation_leaves_no_state_behind(letters: Characters) -> None:
    torch.manual_seed(0)
    model = letters.build(TORCH)
    trainer = letters.trainer(model)
    before = letters.evaluate(model, "validation")
    trainer.read_on(model, next(letters.batches(1)))
    kept = trainer.state
    assert letters.evaluate(model, "validation") == before
    assert trainer.state is kept


def test_every_character_but_the_first_is_judged_once(tmp_path: Path) -> None:
    """A model that says p = 0.9 for the next letter of an alphabet that goes round and round."""
    task = task_of(written(tmp_path, "abcdefg" * 200))

    class Next(nn.Module):
        def forward(self, numbers: Tensor, state: object = None) -> tuple[Tensor, None]:
            p = torch.full((*numbers.shape, 8), 0.1 / 7)
            p.scatter_(2, (numbers % 7 + 1).unsqueeze(2), 0.9)
            return p.log(), None

    for part, total in (("train", 1119), ("test", 139)):
        found = task.evaluate(Next(), part)
        assert (found.total, found.unknown) == (total, 0)
        assert found.loss == pytest.approx(-math.log(0.9), rel=1e-5)
        assert found.as_dict()["bits_per_character"] == pytest.approx(-math.log2(0.9), rel=1e-5)


def test_streams_of_an_evaluation_cost_little(letters: Characters) -> None:
    torch.manual_seed(0)
    model = letters.build(TORCH)
    numbers = letters.numbers["test"]
    with torch.no_grad():
        scores, _ = model(numbers[None, :-1])
    whole = float(F.cross_entropy(scores[0], numbers[1:]))
    assert letters.evaluate(model, "test").loss == pytest.approx(whole, rel=1e-2)


def test_characters_that_training_never_saw_are_counted(tmp_path: Path) -> None:
    task = task_of(written(tmp_path, "ab" * 45 + "abxb" + "abybz?"))
    assert task.characters == "ab"
    assert task.evaluate(task.build(TORCH), "test").unknown == 4
    assert "4 of them unknown" in str(task.evaluate(task.build(TORCH), "test"))


@pytest.mark.parametrize("text", ["a", "aa", "a" * 12])
def test_a_text_that_is_too_short_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"text.txt: expected"):
        task_of(written(tmp_path, text))


def test_one_character_over_and_over(tmp_path: Path) -> None:
    outcome = trained("char-lm", tmp_path, data=written(tmp_path, "a" * 500), options=SMALL, epochs=1)
    assert math.isfinite(outcome.evaluation.loss)


# n-grams


def test_ngram_is_the_formula_in_its_docstring() -> None:
    train, text = np.array([1, 2, 1, 2, 1, 3]), np.array([1, 2, 3, 1])
    p0 = {c: (n + 1) / (6 + 4) for c, n in {0: 0, 1: 3, 2: 2, 3: 1}.items()}
    # after 1: 2, 2, 3; after 2: 1, 1; after 3: nothing
    expected = [p0[1], (2 + 2 * p0[2]) / 5, (0 + 1 * p0[3]) / 3, p0[1]]
    assert ngram.probabilities(train, text, 4, 2) == pytest.approx(expected)


@pytest.mark.parametrize("order", [1, 2, 4])
def test_ngram_probabilities_add_up_to_one(order: int) -> None:
    train = np.random.default_rng(0).integers(0, 5, 300)
    start = train[-3:]
    total = sum(ngram.probabilities(train, np.append(start, c), 5, order)[-1] for c in range(5))
    assert total == pytest.approx(1)
    assert ngram.longest(5) ** 0 == 1
    assert 3000 ** ngram.longest(3000) < 2**62


# the network


@pytest.mark.parametrize(
    ("cell", "layers", "parameters"),
    [
        ("lstm", 1, 27 * 64 + 4 * 8 * (64 + 8 + 2) + 27 * 9),
        ("gru", 2, 27 * 64 + 3 * 8 * (64 + 8 + 2) + 3 * 8 * (8 + 8 + 2) + 27 * 9),
        ("elman", 1, 27 * 64 + 8 * (64 + 8 + 2) + 27 * 9),
    ],
)
def test_shapes_parameters_and_both_backends(
    cell: str, layers: int, parameters: int, letters: Characters
) -> None:
    options = SMALL | {"cell": cell, "layers": layers}
    models = []
    for ops in ("cisdl", "torch"):
        torch.manual_seed(0)
        models.append(
            registry.get("char-lm").build(backend.get(ops), vocabulary=letters.vocabulary, **options)
        )
    ours, theirs = models
    assert sum(p.numel() for p in ours.parameters()) == parameters
    for (name, one), other in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
        assert torch.equal(one, other), name
    for name, module in ours.named_children():
        ours_or_free = type(module).__module__.split(".")[0] == "cisdl_ops" or name in (
            "embedding",
            "dropout",
        )
        assert ours_or_free, name
    trainers = [StreamTrainer(letters.config, model, letters.share, letters.streams) for model in models]
    for stretch, _ in zip(letters.batches(1), range(3), strict=False):
        losses = [float(trainer.step(stretch).loss) for trainer in trainers]
        assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_a_restored_run_samples_and_judges(letters: Characters, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = letters.build(TORCH)
    again = tasks.new(letters.entry, letters.config)
    again.restore(letters.facts())
    assert isinstance(again, Characters)
    other = again.build(TORCH)
    other.load_state_dict(model.state_dict())

    def sampled(**given: object) -> list[str]:
        request = SampleRequest(
            **({"count": 2, "seed": 0, "folder": tmp_path, "length": 20, "start": "ab"} | given)
        )
        return again.sample(other, request)

    texts = sampled()
    assert texts == letters.sample(model, SampleRequest(2, 0, tmp_path, 20, None, "ab"))
    assert [len(text) for text in texts] == [22, 22]
    assert all(text.startswith("ab") and set(text) <= set(letters.characters) for text in texts)
    assert texts[0] != texts[1]
    assert texts[0] != sampled(seed=1)[0]
    greedy = sampled(temperature=0.0)
    assert greedy[0] == greedy[1]
    with pytest.raises(UsageError, match="--start: expected characters of the training text, got 'É'"):
        sampled(start="É")
    again.open(written(tmp_path, "other text"), None)
    assert again.evaluate(other, "test").total == 9


def test_temperature_sharpens_and_the_unknown_is_never_drawn() -> None:
    scores = np.log(np.array([0.97, 0.02, 0.01]))
    generator = np.random.default_rng(0)

    def share(temperature: float) -> float:
        drawn = [draw_character(scores, temperature, generator) for _ in range(2000)]
        assert set(drawn) <= {1, 2}
        return drawn.count(1) / 2000

    assert share(1.0) == pytest.approx(2 / 3, abs=0.04)
    assert share(0.5) == pytest.approx(4 / 5, abs=0.04)
    assert share(0) == 1


def test_it_beats_what_letters_alone_tell(tmp_path: Path) -> None:
    """A tenth of the manual, two epochs: far from its best, but past the frequencies of single letters."""
    outcome = trained("char-lm", tmp_path, limit=30_000, epochs=3, batch_size=16, schedule="constant")
    found = outcome.evaluation.as_dict()
    assert found["total"] == 29_999
    unigram = outcome.baselines["how often each character occurs"].as_dict()["bits_per_character"]
    assert found["bits_per_character"] < 0.85 * unigram


@pytest.mark.models
def test_the_default_beats_an_ngram_on_the_manual(tmp_path: Path) -> None:
    outcome = trained("char-lm", tmp_path)
    assert outcome.evaluation.loss < outcome.baselines["6-gram, Witten-Bell"].loss


def test_pictures_and_samples(letters: Characters, tmp_path: Path) -> None:
    plots = tmp_path / "plots"
    plots.mkdir()
    model = letters.build(TORCH)
    letters.draw(model, letters.evaluate(model, "test"), Pictures(plots, "char-lm", "test"))
    is_picture(plots / "states.png")
    texts = {path.name: path.read_text() for path in (tmp_path / "samples").iterdir()}
    assert set(texts) == {"temperature-0.5.txt", "temperature-0.8.txt", "temperature-1.0.txt"}
    assert all(len(text) > 400 for text in texts.values())
