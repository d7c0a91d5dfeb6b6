"""What kind of text is it? Words to scores, softmax cross-entropy, accuracy.

Words are numbered by a vocabulary of the training texts. In training some words, chosen anew in every epoch,
are replaced by the unknown one (--word-dropout): the model learns not to hang on single words, and what to
make of one it does not know. With --vectors the embeddings start from word vectors of a file, as `cisdl
train word2vec` and `glove` leave one, scaled to the deviation that drawn ones have.
"""

from __future__ import annotations

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
from cisdl.data.sentences import Sentence
from cisdl.data.tokens import words
from cisdl.data.vocabulary import Vocabulary
from cisdl.errors import DataError, UsageError
from cisdl.models.recurrent import EMBEDDING_DEVIATION, TextClassifier
from cisdl.models.registry import ModelEntry
from cisdl.tasks.base import Curve, Evaluation, Pictures, Prediction, Predicts, Step, Task
from cisdl.tasks.classification import Classified
from cisdl.training.config import TrainConfig

EVALUATION_BATCH = 250
LONGEST_DRAWN = 14
"""Words of a text whose states are drawn."""


@dataclass(frozen=True)
class Texts:
    """A part of the data as numbers."""

    words: list[list[int]]
    labels: list[int]


class TextClassification(Task, Predicts):
    """Trained on (words, lengths, labels)."""

    metric = "accuracy"
    loss_name = "cross-entropy"
    score = Curve("accuracy", "accuracy, %", 100.0)

    sentences: Examples[Sentence]
    vocabulary: Vocabulary
    class_names: tuple[str, ...]
    encoded: dict[str, Texts]
    """By part, in the order of `sentences`."""
    vectors: dict[int, Tensor]
    """By word number, what --vectors has of the vocabulary."""
    device = torch.device("cpu")

    def __init__(self, entry: ModelEntry, config: TrainConfig) -> None:
        super().__init__(entry, config)
        self.vectors = {}
        self.loss: nn.CrossEntropyLoss = nn.CrossEntropyLoss()
        """To train with; the backend's, once the model is built on it."""

    # the data

    def read(self) -> None:
        config = self.config
        data: Examples[Sentence] = registry.load(config.data, config.data_dir, config.seed, "sentences")
        self.sentences = data = data.limited(config.limit)
        self.class_names = tuple(sorted({sentence.label for sentence in data.train}))
        if len(self.class_names) < 2:
            raise DataError(
                f"{data.source}: expected two or more labels in the training texts, "
                f"got only '{self.class_names[0]}'"
            )
        try:
            self.vocabulary = Vocabulary.of(
                (words(sentence.text) for sentence in data.train),
                min_count=self.option["min_count"],
                max_size=self.option["max_words"],
            )
        except DataError as error:
            raise DataError(f"{data.source}: {error}") from error
        self.encode()
        if self.option.get("vectors"):
            self.vectors = self.read_vectors(self.option["vectors"])

    def read_vectors(self, path: str) -> dict[int, Tensor]:
        from cisdl_ops.word_vectors import WordVectors

        try:
            found = WordVectors.load(path)
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: expected word vectors in word2vec's text format: {error}") from error
        width = found.vectors.shape[1]
        if width != self.option["embedding"]:
            raise UsageError(f"--embedding: expected {width} as {path} has, got {self.option['embedding']}")
        rows = found.vectors * (EMBEDDING_DEVIATION / float(found.vectors.std()))
        known = self.vocabulary.numbers
        return {known[word]: row for word, row in zip(found.words, rows, strict=True) if word in known}

    def encode(self) -> None:
        numbers = {name: number for number, name in enumerate(self.class_names)}
        self.encoded = {}
        for name, part in self.sentences.parts().items():
            strange = next((s.label for s in part if s.label not in numbers), None)
            if strange is not None:
                raise DataError(
                    f"{self.sentences.source}: expected the training labels "
                    f"{', '.join(self.class_names)}, got '{strange}' in the {name} part"
                )
            texts = [self.numbers(words(sentence.text)) for sentence in part]
            self.encoded[name] = Texts(texts, [numbers[sentence.label] for sentence in part])

    def numbers(self, text: Sequence[str]) -> list[int]:
        """Words as numbers, the last --max-length of them; a text without any is one unknown word."""
        return self.vocabulary.encode(text[-self.option["max_length"] :] or ["<unk>"])

    def facts(self) -> dict[str, Any]:
        return {"classes": list(self.class_names), "vocabulary": list(self.vocabulary.words)}

    def restore(self, facts: Mapping[str, Any]) -> None:
        self.class_names = tuple(facts["classes"])
        self.vocabulary = Vocabulary(tuple(facts["vocabulary"]))

    def open(self, data: str, data_dir: str | None) -> None:
        """Labels are the classes' names or, if all are whole numbers, their numbers in order."""
        found: Examples[Sentence] = registry.load(data, data_dir, self.config.seed, "sentences", whole=True)
        test = found.test or ()
        if all(sentence.label not in self.class_names for sentence in test):
            named = {str(number): name for number, name in enumerate(self.class_names)}
            test = tuple(Sentence(s.text, named.get(s.label, s.label)) for s in test)
        self.sentences = Examples(found.name, found.source, (), (), test, found.split)
        self.encode()

    @property
    def data(self) -> Examples[Sentence]:
        return self.sentences

    def describe(self) -> dict[str, str]:
        lengths = [len(text) for part in self.encoded.values() for text in part.words]
        return {
            "classes": f"{len(self.class_names)} classes: {', '.join(self.class_names)}",
            "words": f"{len(self.vocabulary):,} words known, texts of {min(lengths)} to {max(lengths)}"
            + (f", {len(self.vectors):,} start from {self.option['vectors']}" if self.vectors else ""),
        }

    def to(self, device: torch.device) -> None:
        self.device = device

    # the model

    def build(self, ops: Backend) -> nn.Module:
        self.loss = ops.CrossEntropyLoss()
        sizes = {"vocabulary": len(self.vocabulary), "classes": len(self.class_names)}
        model = self.entry.build(ops, **sizes, **self.option)
        if self.vectors:
            assert isinstance(model, TextClassifier)
            with torch.no_grad():
                for number, row in self.vectors.items():
                    model.embedding.weight[number] = row
        return model

    def example(self) -> tuple[Tensor, ...]:
        return torch.zeros(1, 4, dtype=torch.int64), torch.tensor([4])

    # training

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        part, seed = self.encoded["train"], self.config.seed
        random = np.random.default_rng([seed, epoch, 1])
        unknown = self.vocabulary.unknown
        assert unknown is not None
        for chosen in bucketed([len(text) for text in part.words], self.config.batch_size, seed, epoch):
            rows, lengths = padded([part.words[i] for i in chosen])
            dropped = torch.from_numpy(random.random(rows.shape) < self.option["word_dropout"])
            rows.masked_fill_(dropped & (rows != 0), unknown)
            labels = torch.tensor([part.labels[i] for i in chosen])
            yield rows.to(self.device), lengths, labels.to(self.device)

    def batch_count(self) -> int:
        return -(-len(self.encoded["train"].words) // self.config.batch_size)

    def step(self, model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Step:
        rows, lengths, labels = batch
        scores = model(rows, lengths)  # (batch, classes)
        correct = int((scores.argmax(1) == labels).sum())
        return Step(self.loss(scores, labels), len(labels), correct)

    @torch.no_grad()
    def scores(self, model: nn.Module, texts: Sequence[Sequence[int]]) -> Tensor:
        """(texts, classes) on the CPU, in eval mode, the model as it was."""
        training = model.training
        model.eval()
        found = torch.empty(len(texts), len(self.class_names))
        for chosen in sorted_batches([len(text) for text in texts], EVALUATION_BATCH):
            rows, lengths = padded([texts[i] for i in chosen])
            found[chosen] = model(rows.to(self.device), lengths).cpu()
        model.train(training)
        return found

    def evaluate(self, model: nn.Module, part: str) -> Classified:
        texts = self.encoded[part]
        scores, labels = self.scores(model, texts.words), torch.tensor(texts.labels)
        correct = int((scores.argmax(1) == labels).sum())
        return Classified(float(F.cross_entropy(scores, labels)), correct, len(labels), scores)

    def baselines(self, part: str) -> Mapping[str, Classified]:
        from cisdl.baselines.texts import bag_of_words

        train, judged = self.encoded["train"], self.encoded[part]
        scores = torch.from_numpy(bag_of_words(train.words, train.labels, judged.words))
        labels = torch.tensor(judged.labels)
        correct = int((scores.argmax(1) == labels).sum())
        loss = float(F.cross_entropy(scores, labels))
        return {"bag of words, logistic regression": Classified(loss, correct, len(labels), scores)}

    # a finished run

    def predict(self, model: nn.Module, given: Sequence[str]) -> list[Prediction]:
        found = []
        for text in given:
            split = words(text)
            if not split:
                raise UsageError(f"expected a text with at least one word, got '{text}'")
            (scores,) = self.scores(model, [self.numbers(split)]).softmax(1)
            best = int(scores.argmax())
            details: dict[str, Any] = {
                "confidence": float(scores[best]),
                "scores": dict(zip(self.class_names, scores.tolist(), strict=True)),
            }
            unknown = [word for word in split if word not in self.vocabulary.numbers]
            if unknown:
                details["unknown"] = unknown
            found.append(Prediction(text, self.class_names[best], details))
        return found

    def draw(self, model: nn.Module, evaluation: Evaluation, pictures: Pictures) -> None:
        """Which classes are taken for which, and the states of the recurrent layer over a text."""
        from cisdl.report import confusion, gates

        assert isinstance(evaluation, Classified)
        folder, title, judged_on = pictures.folder, pictures.title, pictures.judged_on
        texts, names = self.encoded[judged_on], self.class_names
        predicted = evaluation.scores.argmax(1).numpy()
        counts = confusion.matrix(np.array(texts.labels), predicted, len(names))
        heading = f"{title}: {evaluation.correct:,} of {evaluation.total:,} {judged_on} texts right"
        confusion.draw(folder / "confusion.png", heading, counts, names)
        chosen = self.telling(model, texts.words)
        if chosen is None:
            return
        text, probabilities = chosen
        gates.draw(
            folder / "gates.png",
            f"{title}: a {judged_on} text, word by word",
            self.vocabulary.decode(text),
            gates.unroll(model.recurrent, model.embedding(torch.tensor(text)).detach()),  # type: ignore[operator, arg-type]
            dict(zip(names, probabilities.T.tolist(), strict=True)),
        )

    def telling(self, model: nn.Module, texts: Sequence[Sequence[int]]) -> tuple[list[int], Tensor] | None:
        """Of the short texts among the first, that over which the model changes its mind most."""
        best: tuple[float, list[int], Tensor] | None = None
        for text in [list(text) for text in texts[:200] if 3 < len(text) <= LONGEST_DRAWN]:
            beginnings = [text[:length] for length in range(1, len(text) + 1)]
            probabilities = self.scores(model, beginnings).softmax(1)  # (words, classes)
            change = float(probabilities.diff(dim=0).abs().sum())
            if best is None or change > best[0]:
                best = change, text, probabilities
        return None if best is None else best[1:]


def new(entry: ModelEntry, config: TrainConfig) -> TextClassification:
    return TextClassification(entry, config)
