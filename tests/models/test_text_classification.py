"""Recurrent classifiers of texts: what they compute, what they learn, what a finished run can do."""

from __future__ import annotations

import math
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from cisdl import backend, tasks
from cisdl.data import opinions
from cisdl.data.padding import padded
from cisdl.data.vocabulary import UNKNOWN
from cisdl.errors import DataError, UsageError
from cisdl.models import registry
from cisdl.models.recurrent import CELLS, RowClassifier, TextClassifier
from cisdl.report import gates
from cisdl.report.layers import layers
from cisdl.tasks.classification import Classified
from cisdl.tasks.text_classification import TextClassification
from cisdl.training import checkpoint
from cisdl.training.config import configure
from torch import Tensor, nn

from tests.models.training import trained

BACKENDS = ("cisdl", "torch")
TEXTS = [[3, 4, 5, 6, 7], [8, 9], [2], [4, 4, 4]]


def model_of(cell: str, ops: str = "torch", **settings: object) -> TextClassifier:
    torch.manual_seed(0)
    return TextClassifier(backend.get(ops), cell, 12, 6, 5, 3, **settings).eval()  # type: ignore[arg-type]


def task_of(name: str = "lstm", **given: object) -> TextClassification:
    entry = registry.get(name)
    task = tasks.load(entry, configure(entry, **given))
    assert isinstance(task, TextClassification)
    return task


@pytest.mark.parametrize("ops", BACKENDS)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("summary", ["last", "mean", "max"])
@pytest.mark.parametrize("wide", [{}, {"layers": 2, "bidirectional": True}])
def test_padding_changes_no_answer(cell: str, summary: str, wide: dict[str, object], ops: str) -> None:
    """The last state read after right-padding would."""
    model = model_of(cell, ops, summary=summary, **wide)
    together = model(*padded(TEXTS))
    for text, scores in zip(TEXTS, together, strict=True):
        torch.testing.assert_close(model(*padded([text]))[0], scores, rtol=1e-4, atol=1e-5)
    longer, lengths = padded([*TEXTS, [1] * 9])
    torch.testing.assert_close(model(longer, lengths)[:4], together, rtol=1e-4, atol=1e-5)


def test_the_last_state_is_that_after_the_last_word() -> None:
    model = model_of("LSTM")
    rows, lengths = padded(TEXTS)
    outputs, _ = model.recurrent(model.embedding(rows))
    last = outputs[torch.arange(len(TEXTS)), lengths - 1]
    torch.testing.assert_close(model(rows, lengths), model.output(last))
    assert not torch.allclose(model(rows, lengths), model.output(outputs[:, -1]), atol=1e-3)


def test_the_backward_direction_ends_at_the_first_word() -> None:
    model = model_of("GRU", bidirectional=True)
    outputs, _ = model.recurrent(model.embedding(torch.tensor([TEXTS[0]])))
    ends = torch.cat([outputs[:, -1, :5], outputs[:, 0, 5:]], 1)
    torch.testing.assert_close(model(*padded(TEXTS[:1])), model.output(ends))


@pytest.mark.parametrize(("summary", "reduce"), [("mean", torch.mean), ("max", torch.amax)])
def test_summaries_are_over_all_states(summary: str, reduce: object) -> None:
    model = model_of("LSTM", summary=summary)
    outputs, _ = model.recurrent(model.embedding(torch.tensor([TEXTS[0]])))
    expected = model.output(reduce(outputs, 1))  # type: ignore[operator]
    torch.testing.assert_close(model(*padded(TEXTS))[:1], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("cell", "gates_of_cell"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_parameters_are_those_of_the_formulas(cell: str, gates_of_cell: int) -> None:
    model = model_of(cell)
    weights = gates_of_cell * (5 * 6 + 5 * 5 + 2 * 5)
    assert sum(p.numel() for p in model.parameters()) == 12 * 6 + weights + 5 * 3 + 3
    described = layers(model, (torch.zeros(1, 4, dtype=torch.int64), torch.tensor([4])))
    assert {layer.name: layer.output for layer in described} == {
        "embedding": "4 x 6", "dropout": "5", "recurrent": "5", "output": "3",
    }  # fmt: skip


@pytest.mark.parametrize("cell", CELLS)
def test_both_backends_have_equal_weights_losses_and_gradients(cell: str) -> None:
    found = []
    for ops in BACKENDS:
        model = model_of(cell, ops, layers=2, bidirectional=True)
        loss = nn.functional.cross_entropy(model(*padded(TEXTS)), torch.tensor([0, 1, 2, 0]))
        loss.backward()  # type: ignore[no-untyped-call]
        found.append((loss, model.state_dict(), [p.grad for p in model.parameters()]))
    (loss, state, gradients), (their_loss, their_state, their_gradients) = found
    assert all(torch.equal(state[name], their_state[name]) for name in their_state)
    torch.testing.assert_close(loss, their_loss, rtol=1e-4, atol=0)
    for gradient, theirs in zip(gradients, their_gradients, strict=True):
        torch.testing.assert_close(gradient, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("cell", CELLS)
def test_our_backend_uses_our_layers_only(cell: str) -> None:
    """All but the table of embeddings, which has no arithmetic."""
    for model in (model_of(cell, "cisdl"), RowClassifier(backend.get("cisdl"), cell, 4, 5, 3)):
        for module in model.modules():
            if not list(module.children()) and not isinstance(module, nn.Embedding | nn.Dropout):
                assert type(module).__module__.split(".")[0] == "cisdl_ops"


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("ops", BACKENDS)
def test_unrolled_states_are_the_layers(cell: str, ops: str) -> None:
    model = model_of(cell, ops)
    x = torch.randn(7, 6)
    states = gates.unroll(cast(nn.RNNBase, model.recurrent), x)
    outputs, _ = model.recurrent(x[None])
    torch.testing.assert_close(states["h"], outputs[0].detach(), rtol=1e-4, atol=1e-5)


class Always(nn.Module):
    """Answers every text with the same scores."""

    def forward(self, rows: Tensor, lengths: Tensor) -> Tensor:
        return torch.tensor([[0.0, math.log(3)]]).expand(len(rows), 2)


def test_a_loss_is_averaged_once() -> None:
    """Whatever the batches' sizes, it is the mean over texts: -log of 1/4 or of 3/4."""
    task = task_of(limit=599)
    for part in ("train", "validation"):
        found, labels = task.evaluate(Always(), part), task.encoded[part].labels
        expected = float(np.mean([-math.log(0.75 if label else 0.25) for label in labels]))
        assert found.loss == pytest.approx(expected, rel=1e-5)
        assert (found.correct, found.total) == (sum(labels), 599)
    losses = [task.step(Always(), batch) for batch in task.batches(1)]
    total = sum(float(taken.loss) * taken.count for taken in losses)
    train = task.encoded["train"].labels
    assert sum(taken.count for taken in losses) == 599
    assert total / 599 == pytest.approx(float(np.mean([-math.log(0.75 if y else 0.25) for y in train])))


def test_dropped_words_are_new_in_every_epoch_and_the_same_in_every_run() -> None:
    options = dict(registry.get("lstm").options) | {"word_dropout": 0.3}
    task = task_of(options=options)

    def rows(task: TextClassification, epoch: int) -> list[Tensor]:
        return [rows for rows, _, _ in task.batches(epoch)]

    first = rows(task, 1)
    again = rows(task_of(options=options), 1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    words = sum(int((batch != 0).sum()) for batch in first)
    unknown = sum(int((batch == task.vocabulary.unknown).sum()) for batch in first)
    assert unknown / words == pytest.approx(0.3, abs=0.02)
    assert words == sum(map(len, task.encoded["train"].words)), "padding was replaced or a word was lost"
    assert task.vocabulary.unknown not in {n for text in task.encoded["train"].words for n in text}


def test_a_long_text_keeps_its_end() -> None:
    task = task_of(options=dict(registry.get("lstm").options) | {"max_length": 2})
    assert task.vocabulary.decode(task.numbers(["the", "film", "is", "great"])) == ["is", "great"]
    assert task.vocabulary.decode(task.numbers([])) == [UNKNOWN]


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_a_trained_classifier_answers_what_it_never_saw(name: str, tmp_path: Path) -> None:
    """Four of the twenty epochs; the bag of words does not see what a "not" or "but" belongs to."""
    outcome = trained(name, tmp_path, epochs=4)
    assert isinstance(outcome.evaluation, Classified)
    assert outcome.evaluation.total == 600
    assert outcome.evaluation.correct >= 590
    (bag,) = outcome.baselines.values()
    assert isinstance(bag, Classified)
    assert 330 < bag.correct < 450

    saved = checkpoint.load(tmp_path / "best.pt")
    entry = registry.get(name)
    task = tasks.new(entry, configure(entry))
    assert isinstance(task, TextClassification)
    task.restore(saved["facts"])
    model = task.build(backend.get("torch"))
    model.load_state_dict(saved["model"])
    asked = ["Deep Learning is great", "Deep Learning is not great", "The food was bad but the movie is FUN"]
    found = task.predict(model, asked)
    assert [answer.given for answer in found] == asked
    assert [answer.answer for answer in found] == ["positive", "negative", "positive"]
    assert found[0].details["confidence"] > 0.9
    assert found[2].details["unknown"] == ["movie"]
    with pytest.raises(UsageError, match="expected a text with at least one word, got '  '"):
        task.predict(model, ["  "])

    task.open("opinions", None)
    assert task.evaluate(model, "test").correct == outcome.evaluation.correct
    path = tmp_path / "mine.tsv"
    path.write_text("the film is great\t1\nthe film is dull\t0\n")
    task.open(str(path), None)
    assert str(task.evaluate(model, "test")) == "100.00 % (2/2)"
    path.write_text("the film is great\tpositive\nthe film is so so\tneutral\n")
    with pytest.raises(DataError, match="expected the training labels negative, positive, got 'neutral' in"):
        task.open(str(path), None)


def test_embeddings_can_start_from_word_vectors(tmp_path: Path) -> None:
    path = tmp_path / "vectors.txt"
    path.write_text("3 4\ngreat 1 0 -1 0\nstrange 1 1 1 1\nfilm 0 2 0 -2\n")
    given = dict(registry.get("lstm").options) | {"embedding": 4, "vectors": str(path)}
    task = task_of(options=given)
    model = task.build(backend.get("torch"))
    assert isinstance(model, TextClassifier)
    great, film = (model.embedding.weight[task.vocabulary.number(word)] for word in ("great", "film"))
    assert great[0].item() > 0
    assert great.tolist() == pytest.approx([great[0].item(), 0, -great[0].item(), 0])
    assert film[1].item() == pytest.approx(2 * great[0].item())
    assert len(task.vectors) == 2
    assert "2 start from" in task.describe()["words"]
    with pytest.raises(UsageError, match=r"--embedding: expected 4 as .*vectors\.txt has, got 5"):
        task_of(options=given | {"embedding": 5})
    with pytest.raises(DataError, match="expected word vectors in word2vec's text format"):
        task_of(options=given | {"vectors": str(tmp_path / "none.txt")})


@pytest.mark.models
@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_the_default_learns_the_grammar(name: str, tmp_path: Path) -> None:
    outcome = trained(name, tmp_path)
    assert isinstance(outcome.evaluation, Classified)
    assert outcome.evaluation.correct == 600


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("a\tx\nb\tx\nc\tx\n", "expected two or more labels in the training texts, got only 'x'"),
        ("a\tx\na a\ty\na a a\tx\n", "expected at least two different words, got only 'a'"),
    ],
)
def test_data_with_nothing_to_learn_are_refused(lines: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "train.tsv"
    path.write_text(lines)
    (tmp_path / "test.tsv").write_text("a\tx\n")
    with pytest.raises(DataError) as refused:
        task_of(data=str(tmp_path))
    assert str(refused.value) == f"{tmp_path}: {message}"


def test_a_label_that_training_never_saw_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text("a\tx\nb\ty\nc\tx\nd\ty\n" * 2)
    (tmp_path / "test.tsv").write_text("a\tz\n")
    with pytest.raises(DataError, match="expected the training labels x, y, got 'z' in the test part"):
        task_of(data=str(tmp_path))


def test_options_for_texts_are_refused_with_images() -> None:
    entry = registry.get("lstm")
    with pytest.raises(UsageError, match="lstm: --layers, --bidirectional and --summary are for texts"):
        entry.build(backend.get("torch"), shape=(1, 8, 8), classes=10, layers=2)


def test_pictures_are_drawn_from_a_text_that_changes_its_mind(tmp_path: Path) -> None:
    task = task_of(limit=50)
    model = task.build(backend.get("cisdl"))
    chosen = task.telling(model, task.encoded["validation"].words)
    assert chosen is not None
    text, probabilities = chosen
    assert probabilities.shape == (len(text), 2)
    states = gates.unroll(cast(nn.RNNBase, model.recurrent), torch.randn(len(text), 100))
    answers = dict(zip(("a", "b"), probabilities.T.tolist(), strict=True))
    gates.draw(tmp_path / "gates.png", "title", task.vocabulary.decode(text), states, answers)
    assert (tmp_path / "gates.png").stat().st_size > 10_000
    assert opinions.ASKED.split()[0] in task.vocabulary.numbers
