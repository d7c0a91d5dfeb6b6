"""word2vec and GloVe: what they learn, on both backends; the mistakes that are easily made with them."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cisdl import backend, tasks
from cisdl.data import word_eval, word_groups
from cisdl.data.windows import pairs, subsampled, windows
from cisdl.data.words import paragraphs
from cisdl.errors import DataError, UsageError
from cisdl.models import registry
from cisdl.models.word2vec import Word2Vec, loss
from cisdl.tasks.word_vectors import Scored, WordVectorTask
from cisdl.training import word2vec as word2vec_training
from cisdl.training.config import configure
from cisdl.training.glove import portions
from cisdl.training.word2vec import Stretch

from cisdl_ops.glove import Records
from cisdl_ops.word_vectors import Vocabulary, WordVectors
from tests.models.training import trained

MODELS = ("word2vec", "glove")
BACKENDS = ("cisdl", "torch")


def options_of(name: str, **changed: Any) -> dict[str, Any]:
    return dict(registry.get(name).options) | changed


def loaded(name: str, **given: Any) -> WordVectorTask:
    torch.set_num_threads(1)
    entry = registry.get(name)
    given["options"] = options_of(name, **given.get("options", {}))
    task = tasks.load(entry, configure(entry, **given))
    assert isinstance(task, WordVectorTask)
    return task


def model_of(task: WordVectorTask) -> Any:
    torch.manual_seed(task.config.seed)
    return task.build(backend.get(task.config.backend))


def text_file(folder: Path, text: str) -> str:
    path = folder / "some.txt"
    path.write_text(text, encoding="utf-8")
    return str(path)


# what they learn


@pytest.mark.parametrize(("name", "least"), [("word2vec", 0.4), ("glove", 0.3)])
def test_a_short_training_groups_alike_words(name: str, least: float, tmp_path: Path) -> None:
    outcome = trained(name, tmp_path, epochs=8)
    scored = outcome.evaluation
    assert isinstance(scored, Scored)
    assert scored.groups.used >= 70
    one_hot, counts = outcome.baselines.values()
    assert isinstance(one_hot, Scored)
    assert isinstance(counts, Scored)
    assert scored.groups.value > max(least, 4 * one_hot.groups.value)
    assert counts.groups.value > 0.6
    assert f"/{scored.groups.used} words" in str(scored)
    result = json.loads((tmp_path / "result.json").read_text())["test"]
    assert result["groups_used"] == scored.groups.used
    assert result["judged"] > 1000


@pytest.mark.models
@pytest.mark.parametrize(
    ("name", "changed", "least"),
    [
        ("word2vec", {}, 0.68),
        ("word2vec", {"shared_negatives": True}, 0.70),
        ("word2vec", {"algorithm": "cbow"}, 0.52),
        ("glove", {}, 0.46),
    ],
)
def test_the_default_training(name: str, changed: dict[str, Any], least: float, tmp_path: Path) -> None:
    evaluation = trained(name, tmp_path, options=options_of(name, **changed)).evaluation
    assert isinstance(evaluation, Scored)
    assert evaluation.groups.value >= least


def test_equal_runs_give_equal_vectors(tmp_path: Path) -> None:
    found = []
    for number in range(2):
        task = loaded("word2vec", limit=20_000, epochs=2)
        model = model_of(task)
        trainer = task.trainer(model)
        for epoch in (1, 2):
            for batch in task.batches(epoch):
                trainer.step(batch)
        found.append(model.vectors.clone())
        torch.rand(number + 1)  # global state decides nothing
    assert torch.equal(*found)


# both backends


@pytest.mark.parametrize("name", MODELS)
def test_shapes_and_parameters(name: str) -> None:
    task = loaded(name, limit=20_000, options={"dim": 10})
    model, words = model_of(task), len(task.vocabulary)
    expected = 2 * words * 10 + (2 * words if name == "glove" else 0)
    assert sum(p.numel() for p in model.parameters()) == expected
    assert model.vectors.shape == (words, 10)
    assert model(*task.example()).shape == ((1, 6) if name == "word2vec" else (1,))


@pytest.mark.parametrize("name", MODELS)
def test_backends_begin_alike(name: str) -> None:
    """Their negatives are other draws, so word2vec's first losses are equal only on average."""
    losses, judged = [], []
    for which in BACKENDS:
        task = loaded(name, limit=20_000, backend=which, lr=1e-7)
        model = model_of(task)
        judged.append(task.evaluate(model, "validation").loss)
        losses.append(task.trainer(model).step(next(iter(task.batches(1)))).loss.item())
    assert judged[0] == judged[1]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4 if name == "glove" else 1e-2)
    if name == "word2vec":
        assert losses[0] == pytest.approx(6 * math.log(2), rel=0.02)


@pytest.mark.parametrize("which", BACKENDS)
@pytest.mark.parametrize("name", MODELS)
def test_a_saved_state_goes_on_as_the_training_would(name: str, which: str) -> None:
    given: dict[str, Any] = {"limit": 6_000, "backend": which, "batch_size": 300, "epochs": 2}
    task = loaded(name, **given)
    model = model_of(task)
    trainer = task.trainer(model)
    batches = list(task.batches(1))
    trainer.step(batches[0])
    kept, state = {n: t.clone() for n, t in model.state_dict().items()}, trainer.state_dict()
    state = torch.utils._pytree.tree_map(lambda x: x.clone() if isinstance(x, torch.Tensor) else x, state)
    trainer.step(batches[1])
    again = loaded(name, **given)
    other = model_of(again)
    resumed = again.trainer(other)
    other.load_state_dict(kept)
    resumed.load_state_dict(state)
    resumed.step(list(again.batches(1))[1])
    assert torch.equal(model.vectors, other.vectors)


@pytest.mark.parametrize("name", MODELS)
def test_our_backend_calls_our_op(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    called = []
    op = f"{name}_train"
    real = getattr(torch.ops.cisdl, op)
    monkeypatch.setattr(torch.ops.cisdl, op, lambda *a: called.append(op) or real(*a))
    for which in BACKENDS:
        task = loaded(name, limit=6_000, backend=which, epochs=1)
        task.trainer(model_of(task)).step(next(iter(task.batches(1))))
    assert called == [op]


# mistakes


def test_a_negative_that_is_the_centre_does_not_count() -> None:
    scores = torch.tensor([[0.3, 1.0, -2.0]])
    both = loss(scores, torch.tensor([[4, 7, 9]]))
    one = loss(scores, torch.tensor([[4, 4, 9]]))
    assert one.item() == pytest.approx(math.log(1 + math.exp(-0.3)) + math.log(1 + math.exp(-2.0)))
    assert both.item() == pytest.approx(one.item() + math.log(1 + math.exp(1.0)))


def test_frequent_words_are_left_out_of_training_and_never_of_what_is_judged() -> None:
    task = loaded("word2vec", limit=20_000, options={"sample": 1e-5, "window": 1})
    tokens = task.tokens["validation"]
    sentences = np.split(tokens.numpy(), np.flatnonzero(tokens.numpy() < 0))
    lengths = [int((sentence >= 0).sum()) for sentence in sentences]
    assert task.evaluate(model_of(task), "validation").judged == sum(2 * max(0, n - 1) for n in lengths)
    kept = subsampled(np.array([0, 1, -1] * 1000), np.float32([0.1, 1.0]), np.random.default_rng(0))
    assert (kept == 1).sum() == (kept == -1).sum() == 1000
    assert 60 < (kept == 0).sum() < 140


@pytest.mark.parametrize("which", BACKENDS)
def test_input_and_output_vectors_are_kept_apart(which: str) -> None:
    """The text is "0 1", negatives are always word 2, V begins at zero: so V[0] = lr / 2 U[1] after it."""
    lr = 0.1
    entry = registry.get("word2vec")
    config = configure(entry, backend=which, lr=lr, options=options_of("word2vec", dim=16, sample=1.0))
    vocabulary = Vocabulary(["a", "b", "c"], [1, 1, 10**12])
    torch.manual_seed(1)
    model = Word2Vec(3, 16)
    before = model.input.weight.detach().clone()
    kind = word2vec_training.FusedTrainer if which == "cisdl" else word2vec_training.TorchTrainer
    kind(config, model, vocabulary).step(Stretch(torch.tensor([0, 1, -1], dtype=torch.int32), 2, 0.0, 0.0))
    output = model.output.weight.detach()
    torch.testing.assert_close(output[0], lr / 2 * before[1], rtol=1e-2, atol=1e-6)
    torch.testing.assert_close(output[1], lr / 2 * before[0], rtol=1e-2, atol=1e-6)
    assert torch.equal(model.vectors, model.input.weight)


def test_windows_shrink() -> None:
    """A word at distance d is within reach of (window - d + 1) / window of the centres."""
    tokens = np.arange(20_000)
    centres, contexts = windows(tokens, 5, np.random.default_rng(0))
    centre, context = pairs(centres, contexts)
    distance = (context.squeeze(1) - centre).abs()
    for d in range(1, 6):
        share = (distance == d).sum().item() / (2 * len(tokens))
        assert share == pytest.approx((5 - d + 1) / 5, abs=0.02)


def test_windows_end_with_the_sentence() -> None:
    centres, contexts = windows(np.array([0, 1, -1, 2, -1, -1, 3, 4, 5]), 1, np.random.default_rng(0))
    assert centres.tolist() == [0, 1, 3, 4, 5]  # 2 has no neighbour
    assert contexts.tolist() == [[-1, 1], [0, -1], [-1, 4], [3, 5], [4, -1]]
    sentences = np.array([0, 0, -1, 1, -1, 2, 2, 2, -1] * 50)  # a window of 5 reaches beyond each of them
    centres, contexts = windows(sentences, 5, np.random.default_rng(0))
    assert ((contexts < 0) | (contexts == centres.unsqueeze(1))).all()


def test_the_rate_falls_all_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    real = word2vec_training.word2vec.train

    def recorded(*arguments: Any, **given: Any) -> torch.Tensor:
        rates.extend((given["lr_begin"], given["lr_end"]))
        return real(*arguments, **given)

    monkeypatch.setattr(word2vec_training.word2vec, "train", recorded)
    task = loaded("word2vec", limit=20_000, epochs=3, batch_size=500)
    trainer = task.trainer(model_of(task))
    for epoch in (1, 2, 3):
        trainer.set_lr(task.config.lr_at(epoch))
        for batch in task.batches(epoch):
            trainer.step(batch)
    assert len(rates) == 2 * 3 * task.batch_count()
    assert rates[0] == 0.025
    assert rates[-1] == pytest.approx(0.025e-4)
    assert all(a >= b - 1e-12 for a, b in pairwise(rates))
    torchs = loaded("word2vec", limit=6_000, epochs=1, backend="torch")
    stepper: Any = torchs.trainer(model_of(torchs))
    for batch in torchs.batches(1):
        stepper.step(batch)
    assert stepper.optimizer.param_groups[0]["lr"] < 0.1 * 0.025


def test_every_stretch_is_trained_once_an_epoch_in_another_order() -> None:
    task = loaded("word2vec", limit=20_000, batch_size=300)
    epochs = [[batch.tokens for batch in task.batches(epoch)] for epoch in (1, 2)]
    assert len(epochs[0]) == task.batch_count()
    for tokens in epochs:
        assert sorted(torch.cat(tokens).tolist()) == sorted(task.tokens["train"].tolist())
    assert not torch.equal(torch.cat(epochs[0]), torch.cat(epochs[1]))


def test_portions_hold_every_cell_once() -> None:
    tokens = torch.randint(0, 70, (3000,), dtype=torch.int32)
    records = Records.count(tokens, 70, 5)
    dealt = portions(records, len(records) // 3)
    assert len(dealt) == 3

    def cells(of: list[Records]) -> list[list[float]]:
        rows = torch.cat([torch.cat([r.pairs.double(), r.targets.double()], 1) for r in of])
        return sorted(rows.tolist())

    assert cells(dealt) == cells([records])
    for part in dealt:
        block = torch.arange(part.blocks**2).repeat_interleave(part.offsets.diff())
        expected = part.pairs[:, 0] % part.blocks * part.blocks + part.pairs[:, 1] % part.blocks
        assert torch.equal(block, expected.long())


def test_glove_keeps_the_last_epoch(tmp_path: Path) -> None:
    assert trained("glove", tmp_path, epochs=3, limit=20_000).best_epoch == 3


# a finished run


@pytest.mark.parametrize("name", MODELS)
def test_a_restored_run_answers_and_is_saved(name: str, tmp_path: Path) -> None:
    task = loaded(name, limit=20_000, epochs=1)
    model = model_of(task)
    entry = registry.get(name)
    again = tasks.new(entry, task.config)
    assert isinstance(again, WordVectorTask)
    again.restore(json.loads(json.dumps(task.facts())))
    assert again.vocabulary.words == task.vocabulary.words
    assert torch.equal(again.vocabulary.counts, task.vocabulary.counts)
    other: Any = again.build(backend.get("cisdl"))
    other.load_state_dict(model.state_dict())
    nearest = again.nearest(other, "object", 3)
    assert nearest == task.nearest(model, "object", 3)
    assert len(again.analogy(other, ("object", "the", "is"), 2)) == 2
    with pytest.raises(UsageError, match="did you mean 'object'"):
        again.nearest(other, "Object", 1)
    with pytest.raises(UsageError, match="'zzz' is not among the"):
        again.analogy(other, ("object", "the", "zzz"), 1)
    again.open(text_file(tmp_path, "the object is an object of the name " * 20), None)
    assert again.parts == ["test"]
    assert again.evaluate(other, "test").judged > 0
    again.export(other, tmp_path)
    saved = WordVectors.load(tmp_path / "vectors.txt")
    assert saved.words == task.vocabulary.words
    assert torch.equal(saved.vectors, model.vectors)


def test_pictures(tmp_path: Path) -> None:
    from cisdl.tasks.base import Pictures

    task = loaded("word2vec", limit=60_000, options={"dim": 10})
    model = model_of(task)
    task.draw(model, task.evaluate(model, "test"), Pictures(tmp_path, "title", "test"))
    assert {path.name for path in tmp_path.iterdir()} == {"neighbours.png", "map.png", "analogies.png"}


def test_pictures_of_few_words(tmp_path: Path) -> None:
    from cisdl.report import words

    vectors = WordVectors(["aaaa", "bbbb", "cccc"], torch.eye(3))
    words.draw_neighbours(tmp_path / "neighbours.png", "title", vectors)
    words.draw_map(tmp_path / "map.png", "title", vectors)
    words.draw_analogies(tmp_path / "analogies.png", "title", vectors, (), ())
    assert [path.name for path in tmp_path.iterdir()] == ["neighbours.png"]


# words, tests of them


def test_paragraphs() -> None:
    text = "The __init__ method's\nsecond line, 42.\n \n\nÉtude\n"
    assert list(paragraphs(text)) == [
        ["the", "__init__", "method", "s", "second", "line", "42"],
        ["étude"],
    ]
    assert [len(part) for part in paragraphs("a " * 2500)] == [1000, 1000, 500]


@pytest.mark.parametrize(
    ("text", "changed", "sentence"),
    [
        ("word " * 100, {}, "expected at least 2 words that occur 5 times or more"),
        ("one two three four five six seven", {}, "got 0; try --min-count 1"),
        ("aa\n\nbb\n\n" * 60, {}, "expected two known words side by side in the train part, got none"),
    ],
)
def test_a_text_without_words_is_refused(
    text: str, changed: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=sentence):
        loaded("word2vec", data=text_file(tmp_path, text), options=changed)


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(UsageError, match="--shared-negatives: expected with --algorithm skip-gram"):
        loaded("word2vec", options={"algorithm": "cbow", "shared_negatives": True})
    with pytest.raises(UsageError, match="--device: glove is trained on the cpu, got cuda"):
        loaded("glove", device="cuda")


def test_groups_are_scored_by_hand() -> None:
    words = ["true", "false", "none", "list", "tuple", "other"]
    rows = torch.tensor([[1.0, 0, 0], [0.9, 0.1, 0], [0, 0, 1], [0, 1, 0], [0.1, 0.9, 0], [0, 0, 1]])
    score = word_groups.group_score(WordVectors(words, rows))
    assert (score.used, score.value) == (5, pytest.approx(4 / 5))  # "none" is nearest to nothing of its own
    chance = word_groups.chance(WordVectors(words, rows))
    assert chance.value == pytest.approx((3 * 2 / 4 + 2 * 1 / 4) / 5)


def write_tests(folder: Path) -> Path:
    folder.mkdir()
    (folder / "pairs.txt").write_text("list\ttuple\t9\nlist\tstatement\t1\nobject\tzebra\t5\n")
    (folder / "questions.txt").write_text(": plural\nobject objects class classes\nking queen man woman\n")
    return folder


def test_published_tests_are_read_and_say_what_they_cover(tmp_path: Path) -> None:
    folder = write_tests(tmp_path / "tests")
    task = loaded("word2vec", limit=60_000, options={"word_eval": str(folder)})
    scored = task.evaluate(model_of(task), "validation")
    assert [(s.used, s.total) for s in scored.similarity] == [(2, 3)]
    assert task.score.key == "pairs"
    assert scored.analogies is not None
    assert (scored.analogies.used, scored.analogies.total) == (1, 2)
    assert "pairs" in str(scored)
    assert "(2 of 3 pairs known)" in str(scored)
    assert "/1 questions, 1 not known)" in str(scored)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("pairs.txt", "a\tb\t1\na\tb\n", "expected two words and a score in line 2, got 'a\tb'"),
        ("pairs.txt", "a\tb\tmuch\n", "expected two words and a score in line 1"),
        ("questions.txt", ": s\na b c\n", "expected four words in line 2, got 'a b c'"),
        ("pairs.txt", "", "expected text, got an empty file"),
        ("other.md", "x", "expected a folder of .txt files"),
    ],
)
def test_damaged_tests_are_refused(name: str, content: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=sentence):
        word_eval.load(tmp_path)


def test_a_folder_of_tests_that_was_named_has_to_be_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        loaded("word2vec", limit=20_000, options={"word_eval": str(tmp_path / "none")})
