"""Write the sequence that goes with another: teacher-forced cross-entropy, sequences right and edit distance.

    read      n i g h t
    before    <s>  N    AY  T        what the decoder is given, the true symbols one step late
    after     N    AY   T   </s>     what it is asked for

An answer is right if it is one of the source's targets. Otherwise its error is the smallest number of symbols
to insert, delete or change to make it one (Levenshtein). The error rate is the sum of those over the sum of
the lengths of the nearest targets: of phones it is the phoneme error rate.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cisdl.backend import Backend
from cisdl.data import registry
from cisdl.data.examples import Examples
from cisdl.data.padding import bucketed, padded, sorted_batches
from cisdl.data.pairs import Pair
from cisdl.data.tokens import words
from cisdl.data.vocabulary import END, PAD, PADDING, SPECIAL, START, UNKNOWN, Vocabulary
from cisdl.errors import DataError, UsageError
from cisdl.models.encoder_decoder import EncoderDecoder
from cisdl.models.registry import ModelEntry
from cisdl.tasks.base import Curve, Evaluation, Pictures, Prediction, Predicts, Step, Task
from cisdl.training.config import TrainConfig

EVALUATION_BATCH = 250
LARGEST_BASELINE = 200_000_000
"""Training sources times judged ones up to which the most similar is looked up."""

Batch = tuple[Tensor, Tensor, Tensor, Tensor]
"""Source rows, their lengths, `before` and `after`."""


def edits(a: Sequence[str], b: Sequence[str]) -> int:
    """Symbols to insert, delete or change to make `b` of `a`.

    >>> edits("kitten", "sitting")
    3
    """
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        corner, row[0] = row[0], i
        for j, y in enumerate(b, start=1):
            corner, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, corner + (x != y))
    return row[-1]


@dataclass(frozen=True)
class Translated(Evaluation):
    """Counts of sequences and of symbols; the loss is the mean over the targets' symbols and ends."""

    correct: int
    total: int
    errors: int
    symbols: int
    """In the nearest targets."""
    answers: list[tuple[str, ...]]

    @property
    def error_rate(self) -> float:
        return self.errors / self.symbols

    @property
    def rank(self) -> tuple[float, ...]:
        return (-self.error_rate, -self.loss)

    def as_dict(self) -> dict[str, float | int]:
        return {
            "loss": self.loss,
            "accuracy": self.correct / self.total,
            "correct": self.correct,
            "total": self.total,
            "error_rate": self.error_rate,
            "errors": self.errors,
            "symbols": self.symbols,
        }

    def __str__(self) -> str:
        return (
            f"{100 * self.correct / self.total:.2f} % ({self.correct}/{self.total}), "
            f"error rate {100 * self.error_rate:.2f} % ({self.errors}/{self.symbols} symbols)"
        )


def judge(loss: float, answers: list[tuple[str, ...]], pairs: Sequence[Pair]) -> Translated:
    """Answers beside the nearest of the targets there are."""
    correct = errors = symbols = 0
    for answer, pair in zip(answers, pairs, strict=True):
        if answer in pair.targets:
            correct += 1
            symbols += len(answer)
        else:
            distance, length = min((edits(answer, target), len(target)) for target in pair.targets)
            errors += distance
            symbols += length
    return Translated(loss, correct, len(pairs), errors, symbols, answers)


class Translation(Task, Predicts):
    """Trained on a `Batch`: every target of a source is a pair of its own."""

    metric = "sequences right"
    loss_name = "cross-entropy"
    score = Curve("accuracy", "sequences right, %", 100.0)

    pairs: Examples[Pair]
    inputs: Vocabulary
    symbols: Vocabulary
    letters: bool
    """Whether a source is made of letters, and not of words."""
    longest: int
    """Of the targets to train on; an answer may be half as long again."""
    device = torch.device("cpu")

    # the data

    def read(self) -> None:
        config = self.config
        data: Examples[Pair] = registry.load(config.data, config.data_dir, config.seed, "pairs")
        self.pairs = data = data.limited(config.limit)
        min_count = self.option["min_count"]
        try:
            self.inputs = Vocabulary.of((p.source for p in data.train), SPECIAL, min_count, what="symbols")
            every = (target for pair in data.train for target in pair.targets)
            special = (PADDING, UNKNOWN, START, END)
            self.symbols = Vocabulary.of(every, special, min_count, what="symbols")
        except DataError as error:
            raise DataError(f"{data.source}: {error}") from error
        self.letters = all(len(symbol) == 1 for pair in data.train for symbol in pair.source)
        self.longest = max(len(target) for pair in data.train for target in pair.targets)

    def facts(self) -> dict[str, Any]:
        return {
            "inputs": list(self.inputs.words),
            "symbols": list(self.symbols.words),
            "letters": self.letters,
            "longest": self.longest,
        }

    def restore(self, facts: Mapping[str, Any]) -> None:
        self.inputs, self.symbols = Vocabulary(tuple(facts["inputs"])), Vocabulary(tuple(facts["symbols"]))
        self.letters, self.longest = facts["letters"], facts["longest"]

    def open(self, data: str, data_dir: str | None) -> None:
        found: Examples[Pair] = registry.load(data, data_dir, self.config.seed, "pairs", whole=True)
        test = found.test or ()
        if self.letters:  # a file of text has words
            test = tuple(Pair(tuple(" ".join(s)) if max(map(len, s)) > 1 else s, t) for s, t in test)
        self.pairs = Examples(found.name, found.source, (), (), test, found.split)
        there = {symbol for pair in test for target in pair.targets for symbol in target}
        if not there & set(self.symbols.words):
            got = ", ".join(sorted(there)[:5])
            raise DataError(f"{data}: expected targets of the training symbols, got only others: {got}")

    @property
    def data(self) -> Examples[Pair]:
        return self.pairs

    def describe(self) -> dict[str, str]:
        return {
            "symbols": f"{len(self.inputs):,} {'letters' if self.letters else 'words'} to "
            f"{len(self.symbols):,} symbols, the longest target has {self.longest}",
        }

    def to(self, device: torch.device) -> None:
        self.device = device

    # the model

    def build(self, ops: Backend) -> nn.Module:
        return self.entry.build(ops, inputs=len(self.inputs), symbols=len(self.symbols), **self.option)

    def example(self) -> tuple[Tensor, ...]:
        rows = torch.zeros(1, 4, dtype=torch.int64)
        return rows, torch.tensor([4]), rows[:, :3]

    # training

    def flat(self, part: str) -> list[tuple[list[int], list[int]]]:
        """Every source with every target of its own, as numbers."""
        return [
            (self.inputs.encode(pair.source), self.symbols.encode(target))
            for pair in self.pairs.parts()[part]
            for target in pair.targets
        ]

    def batch(self, pairs: Sequence[tuple[list[int], list[int]]]) -> Batch:
        start, end = self.symbols.number(START), self.symbols.number(END)
        rows, lengths = padded([source for source, _ in pairs])
        before, _ = padded([[start, *target] for _, target in pairs])
        after, _ = padded([[*target, end] for _, target in pairs])
        return rows.to(self.device), lengths, before.to(self.device), after.to(self.device)

    def batches(self, epoch: int) -> Iterator[Batch]:
        flat = self.flat("train")
        lengths = [len(source) for source, _ in flat]
        for chosen in bucketed(lengths, self.config.batch_size, self.config.seed, epoch):
            yield self.batch([flat[i] for i in chosen])

    def batch_count(self) -> int:
        return -(-sum(len(pair.targets) for pair in self.pairs.train) // self.config.batch_size)

    def step(self, model: nn.Module, batch: Batch) -> Step:
        rows, lengths, before, after = batch
        scores = model(rows, lengths, before)  # (batch, U, symbols)
        loss = F.cross_entropy(scores.flatten(0, 1), after.flatten(), ignore_index=PAD)
        return Step(loss, int((after != PAD).sum()))

    @torch.no_grad()
    def evaluate(self, model: nn.Module, part: str) -> Translated:
        training = model.training
        model.eval()
        flat, loss, count = self.flat(part), 0.0, 0
        for chosen in sorted_batches([len(source) for source, _ in flat], EVALUATION_BATCH):
            taken = self.step(model, self.batch([flat[i] for i in chosen]))
            loss += float(taken.loss) * taken.count
            count += taken.count
        pairs = self.pairs.parts()[part]
        answers, _ = self.answers(model, [pair.source for pair in pairs])
        model.train(training)
        return judge(loss / count, answers, pairs)

    @torch.no_grad()
    def answers(
        self, model: nn.Module, sources: Sequence[Sequence[str]]
    ) -> tuple[list[tuple[str, ...]], list[Tensor | None]]:
        """What the model writes, and where it looked at each symbol (U, T); the model in eval mode."""
        assert isinstance(model, EncoderDecoder)
        start, end = self.symbols.number(START), self.symbols.number(END)
        texts: list[tuple[str, ...]] = [()] * len(sources)
        looks: list[Tensor | None] = [None] * len(sources)
        for chosen in sorted_batches([len(source) for source in sources], EVALUATION_BATCH):
            rows, lengths = padded([self.inputs.encode(sources[i]) for i in chosen])
            rows = rows.to(self.device)
            found, looked = model.answer(rows, lengths, start, end, self.longest * 3 // 2 + 1)
            for place, (i, numbers) in enumerate(zip(chosen, found.tolist(), strict=True)):
                length = numbers.index(end) if end in numbers else len(numbers)
                texts[i] = tuple(self.symbols.decode(numbers[:length]))
                if looked is not None:
                    looks[i] = looked[place, : length + 1, : len(sources[i])].cpu()
        return texts, looks

    def baselines(self, part: str) -> Mapping[str, Translated]:
        from cisdl.baselines.texts import most_similar

        train, judged = self.pairs.train, self.pairs.parts()[part]
        if len(train) * len(judged) > LARGEST_BASELINE:
            return {}
        nearest = most_similar([pair.source for pair in train], [pair.source for pair in judged])
        answers = [train[i].targets[0] for i in nearest]
        return {"the target of the most similar source": judge(0.0, answers, judged)}

    # a finished run

    def split(self, text: str) -> tuple[str, ...]:
        return tuple(text.strip().lower()) if self.letters else tuple(words(text))

    def predict(self, model: nn.Module, given: Sequence[str]) -> list[Prediction]:
        found = []
        for text in given:
            source = self.split(text)
            if not source:
                raise UsageError(f"expected a text, got '{text}'")
            (answer,), _ = self.answers(model.eval(), [source])
            details: dict[str, Any] = {"symbols": list(answer)}
            unknown = [symbol for symbol in source if symbol not in self.inputs.numbers]
            if unknown:
                details["unknown"] = unknown
            found.append(Prediction(text, " ".join(answer), details))
        return found

    def draw(self, model: nn.Module, evaluation: Evaluation, pictures: Pictures) -> None:
        """Where the decoder looked while it wrote some of the answers."""
        from cisdl.report import attention

        folder, title, judged_on = pictures.folder, pictures.title, pictures.judged_on
        pairs = self.pairs.parts()[judged_on]
        longest_first = sorted(pairs[:200], key=lambda pair: -len(pair.source))
        sources = [pair.source for pair in longest_first[: len(pairs[:200]) // 2 : 25][:4] or pairs[:1]]
        answers, looks = self.answers(model.eval(), sources)
        shown = [(s, a, look) for s, a, look in zip(sources, answers, looks, strict=True) if look is not None]
        if shown:
            attention.draw(folder / "attention.png", f"{title}: where it looked, {judged_on}", shown)


def new(entry: ModelEntry, config: TrainConfig) -> Translation:
    return Translation(entry, config)
