"""What is each word of a sentence? Words to scores of tags, softmax cross-entropy, accuracy and F1 of chunks.

Tags that begin with B- and I- mark chunks: what begins with B- goes on with I- of the same name. Such are
judged by their chunks: F1 is the harmonic mean of the share of chunks found and the share of found chunks
that are right, a chunk being right if its first word, last word and name are (Tjong Kim Sang, Buchholz,
CoNLL-2000). Others are judged by the share of words with the right tag.

A tag that training never saw cannot be answered: it counts as a mistake, and has no loss.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cisdl.backend import Backend
from cisdl.data import registry
from cisdl.data.examples import Examples
from cisdl.data.padding import bucketed, padded, sorted_batches
from cisdl.data.tags import Tagged
from cisdl.data.tokens import pieces
from cisdl.data.vocabulary import UNKNOWN, Vocabulary
from cisdl.errors import DataError, UsageError
from cisdl.models.registry import ModelEntry
from cisdl.tasks.base import Curve, Evaluation, Pictures, Prediction, Predicts, Step, Task
from cisdl.training import processes
from cisdl.training.config import TrainConfig

EVALUATION_BATCH = 200
LONGEST_WORD = 24
"""Of a longer word only the first and the last letters are spelled."""
NEVER_SEEN = -1
"""The number of a tag that is not in the training data."""
TAGS_DRAWN = 20

Batch = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
"""What `Tagger.forward` takes, and the tags (batch, T); `NEVER_SEEN` in padding."""
Span = tuple[int, int, str]
"""A chunk: its first word, the word after its last, its name."""


def spans(tags: Sequence[str]) -> set[Span]:
    """The chunks of a sentence. An I- that goes on with nothing of its name begins one, as for conlleval.

    >>> sorted(spans(["B-NP", "I-NP", "B-NP", "O", "I-VP", "I-NP"]))
    [(0, 2, 'NP'), (2, 3, 'NP'), (4, 5, 'VP'), (5, 6, 'NP')]
    """
    found = set()
    start, open_name = 0, ""
    for place, tag in enumerate([*tags, "O"]):
        prefix, _, name = tag.partition("-")
        goes_on = prefix == "I" and name == open_name
        if open_name and not goes_on:
            found.add((start, place, open_name))
            open_name = ""
        if prefix in ("B", "I") and not goes_on:
            start, open_name = place, name
    return found


def are_chunks(tags: Sequence[str]) -> bool:
    """Whether every tag is O, B-something or I-something."""
    return any(tag.startswith("B-") for tag in tags) and all(
        tag == "O" or tag.startswith(("B-", "I-")) for tag in tags
    )


@dataclass(frozen=True)
class Tagging(Evaluation):
    """Counts of words and, where tags mark chunks, of chunks; `tags` are the answers by sentence."""

    correct: int
    total: int
    sentences: int
    chunks: tuple[int, int, int] | None
    """Right ones among those answered, those answered, those there are."""
    tags: list[list[str]]

    @property
    def f1(self) -> float | None:
        if self.chunks is None:
            return None
        right, answered, there = self.chunks
        return 2 * right / (answered + there) if answered + there else 1.0

    @property
    def rank(self) -> tuple[float, ...]:
        return (self.correct / self.total if self.f1 is None else self.f1, -self.loss)

    def as_dict(self) -> dict[str, float | int]:
        figures: dict[str, float | int] = {
            "loss": self.loss,
            "accuracy": self.correct / self.total,
            "correct": self.correct,
            "total": self.total,
            "sentences": self.sentences,
        }
        if self.chunks is not None and self.f1 is not None:
            names = ("chunks_right", "chunks_answered", "chunks")
            figures |= {"f1": self.f1, **dict(zip(names, self.chunks, strict=True))}
        return figures

    def __str__(self) -> str:
        words = f"{100 * self.correct / self.total:.2f} % of words ({self.correct}/{self.total})"
        if self.chunks is None or self.f1 is None:
            return words
        right, answered, there = self.chunks
        return f"{words}, F1 {100 * self.f1:.2f} (of {there} chunks {answered} answered, {right} right)"


def judge(loss: float, answers: list[list[str]], sentences: Sequence[Tagged], chunked: bool) -> Tagging:
    """Answers beside the tags there are."""
    pairs = list(zip(answers, (sentence.tags for sentence in sentences), strict=True))
    correct = sum(a == b for answer, tags in pairs for a, b in zip(answer, tags, strict=True))
    chunks = None
    if chunked:
        both = [(spans(answer), spans(tags)) for answer, tags in pairs]
        chunks = (
            sum(len(a & b) for a, b in both),
            sum(len(a) for a, _ in both),
            sum(len(b) for _, b in both),
        )
    return Tagging(loss, correct, sum(map(len, answers)), len(answers), chunks, answers)


class TaggingTask(Task, Predicts):
    """Trained on a `Batch`."""

    metric = "accuracy"
    loss_name = "cross-entropy"
    score = Curve("accuracy", "words with the right tag, %", 100.0)

    sentences: Examples[Tagged]
    vocabulary: Vocabulary
    """Of words in lower case."""
    letters: Vocabulary
    tags: tuple[str, ...]
    given: Vocabulary | None = None
    """Of the column beside the words, with --columns."""
    device = torch.device("cpu")

    # the data

    def read(self) -> None:
        config = self.config
        data: Examples[Tagged] = registry.load(config.data, config.data_dir, config.seed, "tags")
        self.sentences = data = data.limited(config.limit)
        try:
            self.vocabulary = Vocabulary.of(
                ([word.lower() for word in sentence.words] for sentence in data.train),
                min_count=self.option["min_count"],
                max_size=self.option["max_words"],
            )
            self.letters = Vocabulary.of((w for s in data.train for w in s.words), what="letters")
            if self.option["columns"]:
                self.given = Vocabulary.of((s.given for s in data.train), what="entries of a column")
            every = (sentence.tags for sentence in data.train)
            self.tags = tuple(sorted(Vocabulary.of(every, special=(), what="tags").words))
        except DataError as error:
            raise DataError(f"{data.source}: {error}") from error

    def facts(self) -> dict[str, Any]:
        return {
            "tags": list(self.tags),
            "vocabulary": list(self.vocabulary.words),
            "letters": list(self.letters.words),
            "given": [] if self.given is None else list(self.given.words),
        }

    def restore(self, facts: Mapping[str, Any]) -> None:
        self.tags = tuple(facts["tags"])
        self.vocabulary = Vocabulary(tuple(facts["vocabulary"]))
        self.letters = Vocabulary(tuple(facts["letters"]))
        self.given = Vocabulary(tuple(facts["given"])) if facts.get("given") else None

    def open(self, data: str, data_dir: str | None) -> None:
        self.sentences = registry.load(data, data_dir, self.config.seed, "tags", whole=True)
        found = {tag for sentence in self.sentences.test or () for tag in sentence.tags}
        if not found & set(self.tags):
            expected, got = (", ".join(sorted(tags)[:5]) for tags in (self.tags, found))
            raise DataError(f"{data}: expected the training tags, like {expected}, got only others: {got}")

    @property
    def data(self) -> Examples[Tagged]:
        return self.sentences

    @property
    def chunked(self) -> bool:
        return are_chunks(self.tags)

    def describe(self) -> dict[str, str]:
        words = {
            name: sum(len(sentence.words) for sentence in part)
            for name, part in self.sentences.parts().items()
            if part
        }
        return {
            "tags": f"{len(self.tags)} tags{' of chunks' if self.chunked else ''}",
            "words": ", ".join(f"{count:,} {name}" for name, count in words.items())
            + f"; {len(self.vocabulary):,} known, of {len(self.letters)} letters",
        }

    def to(self, device: torch.device) -> None:
        self.device = device

    # the model

    def build(self, ops: Backend) -> nn.Module:
        given = 0 if self.given is None else len(self.given)
        sizes = {
            "given": given,
            "vocabulary": len(self.vocabulary),
            "letters": len(self.letters),
            "tags": len(self.tags),
        }
        return self.entry.build(ops, **sizes, **self.option)

    def example(self) -> tuple[Tensor, ...]:
        return self.batch([Tagged(("a", "b", "c"), ("",) * 3, ("",) * 3)])[:-1]

    def batch(self, sentences: Sequence[Tagged]) -> Batch:
        """The sentences as numbers, on the device; lengths stay on the CPU."""
        words, lengths = padded([self.vocabulary.encode(w.lower() for w in s.words) for s in sentences])
        different = {w: i for i, w in enumerate(dict.fromkeys(w for s in sentences for w in s.words))}
        half = LONGEST_WORD // 2
        spelled = [w if len(w) <= LONGEST_WORD else w[:half] + w[-half:] for w in different]
        letters, counts = padded([self.letters.encode(word) for word in spelled])
        rows, _ = padded([[different[word] for word in sentence.words] for sentence in sentences])
        numbers = {tag: number for number, tag in enumerate(self.tags)}
        tags, _ = padded([[numbers.get(t, NEVER_SEEN) for t in s.tags] for s in sentences], NEVER_SEEN)
        given = torch.zeros_like(words)
        if self.given is not None:
            if any(len(s.given) < len(s.words) for s in sentences):
                raise DataError("expected a column between words and tags, as in training, got none")
            given, _ = padded([self.given.encode(s.given) for s in sentences])
        tensors = (words, lengths, letters, counts, rows, given, tags)
        moved = [each if each is lengths or each is counts else each.to(self.device) for each in tensors]
        return tuple(moved)  # type: ignore[return-value]

    # training

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Words are left out, for the unknown one, but for their spelling."""
        train, seed = self.sentences.train, self.config.seed
        random = np.random.default_rng([seed, epoch, 1])
        unknown = self.vocabulary.number(UNKNOWN)
        for chosen in bucketed([len(s.words) for s in train], self.config.batch_size, seed, epoch):
            words, *rest = self.batch([train[i] for i in chosen])
            dropped = torch.from_numpy(random.random(tuple(words.shape)) < self.option["word_dropout"])
            yield (words.masked_fill(dropped.to(words.device), unknown), *rest)  # type: ignore[misc]

    def batch_count(self) -> int:
        return -(-len(self.sentences.train) // self.config.batch_size)

    def share(self, batch: Batch) -> tuple[Batch, bool]:
        """Some of the sentences, as long as the longest of them, and the spelling of their words."""
        words, lengths, letters, counts, spelled, given, tags = batch
        chosen, counted = processes.rows(len(words))
        lengths = lengths[chosen]
        longest = int(lengths.max())
        words, spelled, given, tags = (each[chosen, :longest] for each in (words, spelled, given, tags))
        used, spelled = spelled.unique(return_inverse=True)  # type: ignore[no-untyped-call]
        return (words, lengths, letters[used], counts[used.cpu()], spelled, given, tags), counted

    def step(self, model: nn.Module, batch: Batch) -> Step:
        *inputs, tags = batch
        scores = model(*inputs)[tags != NEVER_SEEN]  # (words of the batch, tags)
        wanted = tags[tags != NEVER_SEEN]
        return Step(F.cross_entropy(scores, wanted), len(wanted), int((scores.argmax(1) == wanted).sum()))

    @torch.no_grad()
    def answers(self, model: nn.Module, sentences: Sequence[Tagged]) -> tuple[float, list[list[str]]]:
        """The mean loss of a word, and the tags; the model is left as it was."""
        training = model.training
        model.eval()
        found: list[list[str]] = [[] for _ in sentences]
        loss, count = 0.0, 0
        for chosen in sorted_batches([len(s.words) for s in sentences], EVALUATION_BATCH):
            *inputs, tags = self.batch([sentences[i] for i in chosen])
            scores = model(*inputs)
            known = tags != NEVER_SEEN
            loss += float(F.cross_entropy(scores[known], tags[known], reduction="sum"))
            count += int(known.sum())
            for i, best in zip(chosen, scores.argmax(2).tolist(), strict=True):
                found[i] = [self.tags[tag] for tag in best[: len(sentences[i].words)]]
        model.train(training)
        return loss / max(count, 1), found

    def evaluate(self, model: nn.Module, part: str) -> Tagging:
        sentences = self.sentences.parts()[part]
        return judge(*self.answers(model, sentences), sentences, self.chunked)

    def baselines(self, part: str) -> Mapping[str, Tagging]:
        """The tag that a word most often had in training, the most frequent tag for a new word."""
        counts: dict[str, Counter[str]] = {}
        overall: Counter[str] = Counter()
        for sentence in self.sentences.train:
            overall.update(sentence.tags)
            for word, tag in zip(sentence.words, sentence.tags, strict=True):
                counts.setdefault(word, Counter())[tag] += 1
        usual = {word: tags.most_common(1)[0][0] for word, tags in counts.items()}
        new = overall.most_common(1)[0][0]
        sentences = self.sentences.parts()[part]
        answers = [[usual.get(word, new) for word in sentence.words] for sentence in sentences]
        return {"each word's most frequent tag": judge(0.0, answers, sentences, self.chunked)}

    # a finished run

    def predict(self, model: nn.Module, given: Sequence[str]) -> list[Prediction]:
        if self.given is not None:
            raise UsageError(
                "a tagger trained with --columns needs them: expected a file for cisdl eval, got text"
            )
        found = []
        for text in given:
            words = tuple(word for _, word in pieces(text))
            if not words:
                raise UsageError(f"expected a sentence with at least one word, got '{text}'")
            _, (tags,) = self.answers(model, [Tagged(words, ("",) * len(words))])
            answer = " ".join(f"{word}/{tag}" for word, tag in zip(words, tags, strict=True))
            found.append(Prediction(text, answer, {"words": list(words), "tags": tags}))
        return found

    def draw(self, model: nn.Module, evaluation: Evaluation, pictures: Pictures) -> None:
        """Which tags are taken for which, of the most frequent ones."""
        from cisdl.report import confusion

        assert isinstance(evaluation, Tagging)
        folder, title, judged_on = pictures.folder, pictures.title, pictures.judged_on
        there = [tag for sentence in self.sentences.parts()[judged_on] for tag in sentence.tags]
        answered = [tag for tags in evaluation.tags for tag in tags]
        frequent = [tag for tag, _ in Counter(there).most_common(TAGS_DRAWN)]
        names = sorted(frequent)
        numbers = {tag: number for number, tag in enumerate(names)}
        pairs = [
            (numbers[a], numbers[b]) for a, b in zip(there, answered, strict=True) if {a, b} <= set(names)
        ]
        rows, columns = np.array(pairs).T
        heading = f"{title}: {evaluation.correct:,} of {evaluation.total:,} {judged_on} words right"
        confusion.draw(folder / "confusion.png", heading, confusion.matrix(rows, columns, len(names)), names)


def new(entry: ModelEntry, config: TrainConfig) -> TaggingTask:
    return TaggingTask(entry, config)
