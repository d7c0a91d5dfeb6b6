"""Pairs of sequences, the encoder-decoder, and what it is judged by."""

from __future__ import annotations

import lzma
import math
from pathlib import Path

import pytest
import torch
from cisdl import backend, tasks
from cisdl.data import numbers, pairs, registry
from cisdl.data.pairs import Pair
from cisdl.data.vocabulary import END, PAD, START
from cisdl.errors import DataError, UsageError
from cisdl.models import registry as models
from cisdl.models.encoder_decoder import EncoderDecoder
from cisdl.report.layers import layers
from cisdl.tasks.translation import Translated, Translation, edits, judge
from cisdl.training import checkpoint
from cisdl.training.config import configure
from torch import Tensor, nn

from tests.models.training import trained

BACKENDS = ("cisdl", "torch")
DICT = "'bout B AW1 T\ncause K AA1 Z  # a comment\ncause(2) K AO1 Z\ncause(3) K AO0 Z\nread R EH1 D\n"


def options(**given: object) -> dict[str, object]:
    return dict(models.get("encoder-decoder").options) | given


def task_of(**given: object) -> Translation:
    entry = models.get("encoder-decoder")
    task = tasks.load(entry, configure(entry, **given))
    assert isinstance(task, Translation)
    return task


def model_of(task: Translation, ops: str = "torch") -> EncoderDecoder:
    torch.manual_seed(0)
    model = task.build(backend.get(ops)).eval()
    assert isinstance(model, EncoderDecoder)
    return model


def test_a_dictionary_has_all_pronunciations_of_a_word_together(tmp_path: Path) -> None:
    path = tmp_path / "my.dict.xz"
    path.write_bytes(lzma.compress(DICT.encode()))
    assert pairs.read(path) == [
        Pair(tuple("'bout"), (("B", "AW", "T"),)),
        Pair(tuple("cause"), (("K", "AA", "Z"), ("K", "AO", "Z"))),
        Pair(tuple("read"), (("R", "EH", "D"),)),
    ]


def test_a_sentence_has_all_translations_together(tmp_path: Path) -> None:
    path = tmp_path / "fra.txt"
    path.write_text("Run!\tCours !\nHi.\tSalut !\nRun!\tCourez !\tCC-BY\n")
    assert pairs.read(path) == [
        (("run", "!"), (("cours", "!"), ("courez", "!"))),
        (("hi", "."), (("salut", "!"),)),
    ]
    path.write_text("".join(f"{'ab'[i % 2]} {i // 2}\tx {i % 3}\n" for i in range(60)) * 2)
    parts = [{pair.source for pair in part} for part in pairs.load(path, 0).parts().values()]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 60


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tsv", "Go.\tVa !\nRun!\n", "line 2: expected source<TAB>target, got 'Run!'"),
        ("a.tsv", "Go.\t \n", "line 1: expected source<TAB>target, got 'Go.\t '"),
        ("a.dict", "read R EH1 D\nlonely\n", "line 2: expected a word and its phones, got 'lonely'"),
        ("a.dict", "# only\n", "expected pairs, got none"),
        ("a.txt", "", "expected text, got an empty file"),
    ],
)
def test_bad_pairs_are_refused_in_one_sentence(name: str, content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(DataError) as refused:
        registry.load(str(path), None, 0, "pairs")
    assert str(refused.value) == f"{path}: {message}"


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "zero"),
        (13, "thirteen"),
        (20, "twenty"),
        (100, "one hundred"),
        (90210, "ninety thousand two hundred ten"),
        (415007, "four hundred fifteen thousand seven"),
        (999999, "nine hundred ninety nine thousand nine hundred ninety nine"),
    ],
)
def test_numbers_are_said_in_english(number: int, words: str) -> None:
    assert numbers.said(number) == words.split()


def test_numbers_are_split_once_for_all() -> None:
    data = numbers.load()
    assert data.counts == {"train": 4000, "validation": 500, "test": 500}
    assert data == numbers.load(seed=5)
    assert len({pair.source for part in data.parts().values() for pair in part}) == 5000


def test_edit_distance() -> None:
    assert edits("kitten", "sitting") == 3
    assert edits("", "ab") == edits("ab", "") == 2
    assert edits("ab", "ab") == 0
    assert edits("abc", "bcd") == 2


def test_an_answer_is_held_against_the_nearest_target() -> None:
    """The first is right by its second target, the second is one change from its first."""
    there = [Pair(tuple("a"), (("X",), ("Y", "Z"))), Pair(tuple("b"), (("P", "Q"), ("R", "S", "T")))]
    found = judge(0.0, [("Y", "Z"), ("P", "T")], there)
    assert (found.correct, found.total, found.errors, found.symbols) == (1, 2, 1, 4)
    assert str(found) == "50.00 % (1/2), error rate 25.00 % (1/4 symbols)"


def test_the_decoder_is_given_the_symbol_before_the_one_it_is_asked_for() -> None:
    """A target shifted wrongly would hand it the answer."""
    task = task_of(limit=200)
    start, end = task.symbols.number(START), task.symbols.number(END)
    for _, _, before, after in task.batches(1):
        assert before.shape == after.shape
        assert torch.equal(before[:, 0], torch.full((len(before),), start))
        for given, asked in zip(before.tolist(), after.tolist(), strict=True):
            length = asked.index(end)
            assert given[1 : length + 1] == asked[:length]
            assert asked[length + 1 :] == given[length + 1 :] == [PAD] * (len(asked) - length - 1)
    rows, lengths, before, _ = next(iter(task.batches(1)))
    model = model_of(task)
    scores = model(rows, lengths, before)
    later = before.clone()
    later[:, 3:] = start
    torch.testing.assert_close(model(rows, lengths, later)[:, :3], scores[:, :3])


@pytest.mark.parametrize("ops", BACKENDS)
@pytest.mark.parametrize("changed", [{}, {"attention": False}, {"cell": "gru", "layers": 2}])
def test_padding_changes_no_answer(changed: dict[str, object], ops: str) -> None:
    task = task_of(limit=100, options=options(**changed))
    model = model_of(task, ops)
    flat = sorted(task.flat("train"), key=lambda pair: len(pair[0]))[::30]
    rows, lengths, before, after = task.batch(flat)
    assert int(lengths.min()) < int(lengths.max())
    together = model(rows, lengths, before)
    for pair, scores in zip(flat, together, strict=True):
        alone = model(*task.batch([pair])[:3])[0]
        torch.testing.assert_close(scores[: len(alone)], alone, rtol=1e-4, atol=1e-5)
    assert after.shape == together.shape[:2]


@pytest.mark.parametrize("attention", [True, False])
def test_greedy_answers_are_those_of_teacher_forcing_on_themselves(attention: bool) -> None:
    task = task_of(limit=100, options=options(attention=attention))
    model = model_of(task, "cisdl")
    rows, lengths, _, _ = task.batch(task.flat("validation")[:5])
    start = task.symbols.number(START)
    found, looked = model.answer(rows, lengths, start, end=-1, longest=6)
    assert found.shape == (5, 6)
    before = torch.cat([torch.full((5, 1), start), found[:, :-1]], 1)
    assert torch.equal(model(rows, lengths, before).argmax(2), found)
    if attention:
        assert looked is not None
        torch.testing.assert_close(looked.sum(2), torch.ones(5, 6))
        for row, length in enumerate(lengths.tolist()):
            assert float(looked[row, :, length:].sum()) == 0, "it looked at padding"
    else:
        assert looked is None


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_both_backends_have_equal_weights_losses_and_gradients(cell: str) -> None:
    task = task_of(limit=100, options=options(cell=cell))
    batch = next(iter(task.batches(1)))
    found = []
    for ops in BACKENDS:
        model = model_of(task, ops)
        loss = task.step(model, batch).loss
        loss.backward()  # type: ignore[no-untyped-call]
        found.append((loss.item(), [p.grad for p in model.parameters()]))
        if ops == "cisdl":
            for module in model.modules():
                if not list(module.children()) and not isinstance(module, nn.Embedding | nn.Dropout):
                    assert type(module).__module__.split(".")[0] == "cisdl_ops"
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-4)
    for ours, theirs in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)


def test_shapes_and_parameters_are_those_of_the_formulas() -> None:
    model = EncoderDecoder(backend.get("torch"), "lstm", 9, 7, 5, 8, 1, 0.0, attention=True)
    encoder = 2 * 4 * (4 * 5 + 4 * 4 + 2 * 4)
    decoder = 4 * (8 * 5 + 8 * 8 + 2 * 8)
    expected = 9 * 5 + 7 * 5 + encoder + decoder + 8 * 8 + (16 * 8 + 8) + (8 * 7 + 7)
    assert sum(p.numel() for p in model.parameters()) == expected
    task = task_of(limit=50)
    built = model_of(task)
    described = layers(built, task.example())
    assert sum(layer.parameters for layer in described) == sum(p.numel() for p in built.parameters())
    with pytest.raises(UsageError, match="encoder-decoder: --hidden takes one even width, got 7"):
        task_of(limit=50, options=options(hidden=(7,))).build(backend.get("torch"))


class Constant(nn.Module):
    """Gives the end three times the others' probability."""

    def __init__(self, count: int, end: int) -> None:
        super().__init__()
        self.scores = torch.zeros(count)
        self.scores[end] = math.log(3)

    def forward(self, rows: Tensor, lengths: Tensor, before: Tensor) -> Tensor:
        return self.scores.expand(*before.shape, -1)


def test_a_loss_is_averaged_once_over_symbols() -> None:
    task = task_of(limit=101)
    count, end = len(task.symbols), task.symbols.number(END)
    lengths = [len(target) for _, target in task.flat("train")]
    right, other = -math.log(3 / (count + 2)), -math.log(1 / (count + 2))
    expected = sum(right + n * other for n in lengths) / sum(n + 1 for n in lengths)
    taken = [task.step(Constant(count, end), batch) for batch in task.batches(1)]
    assert sum(step.count for step in taken) == sum(n + 1 for n in lengths)
    total = sum(float(step.loss) * step.count for step in taken)
    assert total / sum(step.count for step in taken) == pytest.approx(expected, rel=1e-5)


def test_a_restored_run_answers_as_it_was_judged(tmp_path: Path) -> None:
    """Hardly trained: what it says is what counts here."""
    outcome = trained("encoder-decoder", tmp_path, limit=300, epochs=2)
    assert isinstance(outcome.evaluation, Translated)
    (similar,) = outcome.baselines.values()
    assert outcome.evaluation.total == 300
    assert isinstance(similar, Translated)
    assert similar.total == 300

    saved = checkpoint.load(tmp_path / "best.pt")
    entry = models.get("encoder-decoder")
    task = tasks.new(entry, configure(entry))
    assert isinstance(task, Translation)
    task.restore(saved["facts"])
    model = task.build(backend.get("cisdl"))
    model.load_state_dict(saved["model"])
    sources = ["".join(pair.source) for pair in (numbers.load().test or ())[:20]]
    found = task.predict(model, sources)
    judged = [" ".join(answer) for answer in outcome.evaluation.answers[:20]]
    assert [answer.answer for answer in found] == judged
    assert task.predict(model, ["1x"])[0].details["unknown"] == ["x"]
    with pytest.raises(UsageError, match="expected a text, got ' '"):
        task.predict(model, [" "])
    path = tmp_path / "mine.tsv"
    path.write_text("".join(f"{i}\t{' '.join(numbers.said(i))}\n" for i in range(1000, 1010)))
    task.open(str(path), None)
    assert task.pairs.test is not None
    assert task.pairs.test[7].source == tuple("1007")
    assert task.evaluate(model, "test").total == 10
    path.write_text("1\tun\n")
    with pytest.raises(DataError, match="expected targets of the training symbols, got only others: un"):
        task.open(str(path), None)


@pytest.mark.models
def test_the_default_says_numbers_it_never_saw(tmp_path: Path) -> None:
    found = trained("encoder-decoder", tmp_path).evaluation
    assert isinstance(found, Translated)
    assert found.correct >= 490
