"""Tagged sentences, the tagger, and what it is judged by."""

from __future__ import annotations

import lzma
import math
from pathlib import Path

import pytest
import torch
from cisdl import backend, tasks
from cisdl.data import python_source, registry, tags
from cisdl.data.tags import Tagged
from cisdl.errors import DataError, UsageError
from cisdl.models import registry as models
from cisdl.models.tagger import LETTER, Tagger
from cisdl.report.layers import layers
from cisdl.tasks.tagging import NEVER_SEEN, Tagging, TaggingTask, are_chunks, judge, spans
from cisdl.training import checkpoint
from cisdl.training.config import configure
from torch import Tensor, nn

from tests.models.training import trained

BACKENDS = ("cisdl", "torch")
CONLLU = """# sent_id = 1
1\tShe\tshe\tPRON\tPRP\t_\t2\tnsubj\t_\t_
2-3\tdon't\t_\t_\t_\t_\t_\t_\t_\t_
2\tdo\tdo\tAUX\tVBP\t_\t0\troot\t_\t_
3\tn't\tnot\tPART\tRB\t_\t2\tadvmod\t_\t_
3.1\tgo\tgo\tVERB\tVB\t_\t_\t_\t_\t_

1\tYes\tyes\tINTJ\tUH\t_\t0\troot\t_\t_
"""
CONLL = "-DOCSTART- -X- O\n\nHe PRP B-NP\nreckons VBZ B-VP\n\n\nIt PRP B-NP\n"


def task_of(**given: object) -> TaggingTask:
    entry = models.get("tagger")
    task = tasks.load(entry, configure(entry, **given))
    assert isinstance(task, TaggingTask)
    return task


def test_columns_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.conllu").write_text(CONLLU)
    assert tags.read(tmp_path / "a.conllu") == [
        Tagged(("She", "do", "n't"), ("PRON", "AUX", "PART")),
        Tagged(("Yes",), ("INTJ",)),
    ]
    (tmp_path / "b.txt.xz").write_bytes(lzma.compress(CONLL.encode()))
    assert tags.read(tmp_path / "b.txt.xz") == [
        Tagged(("He", "reckons"), ("B-NP", "B-VP"), ("PRP", "VBZ")),
        Tagged(("It",), ("B-NP",), ("PRP",)),
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.conllu", "1\tShe\tPRON\n", "line 1: expected 10 columns, got 3"),
        ("a.txt", "He PRP B-NP\nreckons VBZ\n", "line 2: expected 3 columns, got 2"),
        ("a.conll", "lonely\n", "line 1: expected 2 columns, got 1"),
        ("a.conllu", "# only a comment\n", "expected tagged sentences, got none"),
        ("a.txt", "", "expected text, got an empty file"),
        ("a.txt", "a X\n\nb Y\n", "expected at least 3 different examples, got 2"),
    ],
)
def test_bad_columns_are_refused_in_one_sentence(
    name: str, content: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(DataError) as refused:
        registry.load(str(path), None, 0, "tags")
    assert str(refused.value) == f"{path}: {message}"


def test_python_source_is_what_tokenize_says() -> None:
    (found,) = python_source.sentences("if x >= 1.5: y = 'it is'  # so\n")
    assert list(zip(found.words, found.tags, strict=True)) == [
        ("if", "B-KEYWORD"), ("x", "B-NAME"), (">", "B-OP"), ("=", "I-OP"), ("1", "B-NUMBER"),
        (".", "I-NUMBER"), ("5", "I-NUMBER"), (":", "B-OP"), ("y", "B-NAME"), ("=", "B-OP"),
        ("'", "B-STRING"), ("it", "I-STRING"), ("is", "I-STRING"), ("'", "I-STRING"),
        ("#", "B-COMMENT"), ("so", "I-COMMENT"),
    ]  # fmt: skip
    assert not list(python_source.sentences('"""Two\nlines."""\n'))
    data = python_source.load()
    assert data == python_source.load(seed=4)
    lines = [sentence.words for part in data.parts().values() for sentence in part]
    assert len(set(lines)) == len(lines) > 10_000, "a line is in two parts"
    assert min(data.counts.values()) > 500


def test_chunks_of_a_sentence() -> None:
    assert spans(["B-NP", "I-NP", "B-NP", "O", "I-VP", "I-NP", "I-NP"]) == {
        (0, 2, "NP"), (2, 3, "NP"), (4, 5, "VP"), (5, 7, "NP"),
    }  # fmt: skip
    assert spans(["O", "O"]) == set()
    assert spans(["O", "B-A", "I-B"]) == {(1, 2, "A"), (2, 3, "B")}
    assert are_chunks(["O", "B-NP", "I-NP"])
    assert not are_chunks(["NOUN", "X"])
    assert not are_chunks(["O"])


def test_f1_of_a_case_worked_out_by_hand() -> None:
    """4 chunks there, 4 answered: the first is right; one has a wrong end, one a wrong name, one is split.

    Sentence 1: [NP a b] c [VP d e]    answered [NP a b] c [VP d] e
    Sentence 2: [PP a] [NP b c]        answered [NP a] b [NP c]
    """
    sentences = [
        Tagged(tuple("abcde"), ("B-NP", "I-NP", "O", "B-VP", "I-VP")),
        Tagged(tuple("abc"), ("B-PP", "B-NP", "I-NP")),
    ]
    answers = [["B-NP", "I-NP", "O", "B-VP", "O"], ["B-NP", "O", "B-NP"]]
    found = judge(0.5, answers, sentences, chunked=True)
    assert found.chunks == (1, 4, 4)
    assert found.f1 == pytest.approx(1 / 4)
    assert (found.correct, found.total, found.sentences) == (4, 8, 2)
    assert str(found) == "50.00 % of words (4/8), F1 25.00 (of 4 chunks 4 answered, 1 right)"
    plain = judge(0.5, answers, sentences, chunked=False)
    assert str(plain) == "50.00 % of words (4/8)"
    assert plain.rank == (0.5, -0.5)


@pytest.mark.parametrize("ops", BACKENDS)
def test_padding_changes_no_answer(ops: str) -> None:
    task = task_of(limit=40)
    model = task.build(backend.get(ops)).eval()
    sentences = task.sentences.train[:6]
    together = model(*task.batch(sentences)[:-1])
    for sentence, scores in zip(sentences, together, strict=True):
        alone = model(*task.batch([sentence])[:-1])[0]
        torch.testing.assert_close(scores[: len(sentence.words)], alone, rtol=1e-4, atol=1e-5)


def test_shapes_and_parameters_are_those_of_the_formulas() -> None:
    model = Tagger(backend.get("cisdl"), 30, 9, 4, embedding=10, spelling=6, hidden=7, layers=1, dropout=0.1)
    spelling = 2 * 4 * (6 * LETTER + 6 * 6 + 2 * 6)
    sentence = 2 * 4 * (7 * (10 + 12) + 7 * 7 + 2 * 7)
    expected = 30 * 10 + 9 * LETTER + spelling + sentence + 14 * 4 + 4
    assert sum(p.numel() for p in model.parameters()) == expected
    task = task_of(limit=40)
    built = task.build(backend.get("cisdl"))
    described = layers(built, task.example())
    assert sum(layer.parameters for layer in described) == sum(p.numel() for p in built.parameters())
    for module in built.modules():
        if not list(module.children()) and not isinstance(module, nn.Embedding | nn.Dropout):
            assert type(module).__module__.split(".")[0] == "cisdl_ops"


def test_both_backends_have_equal_weights_and_losses() -> None:
    task = task_of(limit=40)
    batch = next(iter(task.batches(1)))
    found = []
    for ops in BACKENDS:
        torch.manual_seed(0)
        model = task.build(backend.get(ops)).eval()
        taken = task.step(model, batch)
        taken.loss.backward()  # type: ignore[no-untyped-call]
        found.append((taken.loss.item(), [p.grad for p in model.parameters()]))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-4)
    for ours, theirs in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)


class First(nn.Module):
    """Gives the first of the tags three times the others' probability."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, words: Tensor, *_: Tensor) -> Tensor:
        scores = torch.zeros(*words.shape, self.count)
        scores[..., 0] = math.log(3)
        return scores


def test_a_loss_is_averaged_once_over_words() -> None:
    """Neither padding nor the size of a batch counts."""
    task = task_of(limit=101)
    count = len(task.tags)
    model = First(count)
    firsts = [t == task.tags[0] for s in task.sentences.train for t in s.tags]
    right, other = -math.log(3 / (count + 2)), -math.log(1 / (count + 2))
    expected = sum(right if first else other for first in firsts) / len(firsts)
    assert task.evaluate(model, "train").loss == pytest.approx(expected, rel=1e-5)
    taken = [task.step(model, batch) for batch in task.batches(1)]
    assert sum(step.count for step in taken) == len(firsts)
    assert sum(float(s.loss) * s.count for s in taken) / len(firsts) == pytest.approx(expected, rel=1e-5)
    assert sum(step.correct or 0 for step in taken) == sum(firsts)


def test_tags_never_seen_are_mistakes(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("a X\nb Y\n\nb Y\n\na X\na X\n")
    (tmp_path / "test.txt").write_text("a X\nb Z\n")
    task = task_of(data=str(tmp_path), options=dict(models.get("tagger").options) | {"min_count": 1})
    *_, numbers = task.batch(task.sentences.test or ())
    assert numbers.tolist() == [[0, NEVER_SEEN]]
    found = task.evaluate(First(2), "test")
    assert (found.correct, found.total) == (1, 2)
    assert found.loss == pytest.approx(-math.log(3 / 4))
    (tmp_path / "other.txt").write_text("a Q\n")
    with pytest.raises(DataError, match="expected the training tags, like X, Y, got only others: Q"):
        task.open(str(tmp_path / "other.txt"), None)
    (tmp_path / "train.txt").write_text("a X\nb X\n\nb X\n\na X\na X\n")
    with pytest.raises(DataError, match="expected at least two different tags, got only 'X'"):
        task_of(data=str(tmp_path), options=dict(models.get("tagger").options) | {"min_count": 1})


def test_a_trained_tagger_tags_a_new_line(tmp_path: Path) -> None:
    """A sixth of the lines, two epochs; a table of words cannot tell a string's words from names."""
    outcome = trained("tagger", tmp_path, limit=2000, epochs=2)
    found, (table,) = outcome.evaluation, outcome.baselines.values()
    assert isinstance(found, Tagging)
    assert isinstance(table, Tagging)
    assert found.f1 is not None
    assert table.f1 is not None
    assert found.f1 > 0.85 > table.f1 + 0.2

    saved = checkpoint.load(tmp_path / "best.pt")
    entry = models.get("tagger")
    task = tasks.new(entry, configure(entry))
    assert isinstance(task, TaggingTask)
    task.restore(saved["facts"])
    model = task.build(backend.get("torch"))
    model.load_state_dict(saved["model"])
    (answer,) = task.predict(model, ["x = y  # the answer"])
    assert answer.details["words"] == ["x", "=", "y", "#", "the", "answer"]
    assert answer.answer.startswith("x/B-NAME =/B-OP y/")
    assert answer.answer.endswith(" #/B-COMMENT the/I-COMMENT answer/I-COMMENT")
    with pytest.raises(UsageError, match="expected a sentence with at least one word, got ''"):
        task.predict(model, [""])
    path = tmp_path / "mine.conll"
    path.write_text("x B-NAME\n= B-OP\n")
    task.open(str(path), None)
    assert str(task.evaluate(model, "test")).startswith("100.00 % of words (2/2)")


def test_a_column_beside_the_words_can_be_read(tmp_path: Path) -> None:
    """Words that tell nothing, and a column that tells all."""
    lines = [
        f"w{i % 7} {'XY'[i * i % 3 % 2]} {'PQ'[i * i % 3 % 2]}\n{'' if i % 5 else chr(10)}"
        for i in range(400)
    ]
    (tmp_path / "train.txt").write_text("".join(lines))
    (tmp_path / "test.txt").write_text("new X P\nnew Y Q\nnew X P\n")
    options = dict(models.get("tagger").options) | {"columns": True}
    outcome = trained("tagger", tmp_path, data=str(tmp_path), options=options, epochs=8)
    assert str(outcome.evaluation) == "100.00 % of words (3/3)"
    saved = checkpoint.load(tmp_path / "best.pt")
    entry = models.get("tagger")
    task = tasks.new(entry, configure(entry, options=options))
    assert isinstance(task, TaggingTask)
    task.restore(saved["facts"])
    with pytest.raises(UsageError, match="a tagger trained with --columns needs them"):
        task.predict(task.build(backend.get("torch")), ["new"])
    (tmp_path / "mine.txt").write_text("new P\n")
    task.open(str(tmp_path / "mine.txt"), None)
    with pytest.raises(DataError, match="expected a column between words and tags, as in training, got none"):
        task.evaluate(task.build(backend.get("torch")), "test")


@pytest.mark.models
def test_the_default_tags_python_source(tmp_path: Path) -> None:
    found = trained("tagger", tmp_path).evaluation
    assert isinstance(found, Tagging)
    assert found.f1 is not None
    assert found.f1 > 0.97
