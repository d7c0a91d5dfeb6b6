"""What word2vec and GloVe share: a text and its vocabulary, scores of the vectors, neighbours and analogies.

The scores are of the vectors, whatever part is judged, and choose nothing: word2vec keeps the epoch of the
least loss on held-out text, GloVe the last. `groups` and `plurals` are small tests of our own
(`data/word_groups.py`) that fit the bundled text; the others are those of --word-eval.
"""

from __future__ import annotations

import difflib
import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cisdl.backend import Backend
from cisdl.data import registry, word_eval, word_groups
from cisdl.data.text import TextData
from cisdl.data.words import encode, vocabulary
from cisdl.errors import DataError, UsageError
from cisdl.files import write_atomically
from cisdl.models.registry import ModelEntry
from cisdl.tasks.base import Curve, Evaluation, Neighbour, Pictures, Queries, Task
from cisdl.training.config import TrainConfig
from cisdl_ops.word_vectors import Score, Vocabulary, WordVectors

FILE = "vectors.txt"
NAMED_EVAL = "word-eval"


@dataclass(frozen=True)
class Scored(Evaluation):
    """The loss is nan for what has none; `judged` are the pairs, windows or cells that it is a mean of."""

    judged: int
    groups: Score
    plurals: Score
    similarity: tuple[Score, ...] = ()
    analogies: Score | None = None
    epoch: int | None = None
    """Where the last epoch is kept, whatever its loss: this one's number."""

    @property
    def rank(self) -> tuple[float, ...]:
        return (-self.loss,) if self.epoch is None else (self.epoch,)

    @property
    def scores(self) -> tuple[Score, ...]:
        found = (self.groups, self.plurals, *self.similarity)
        return found if self.analogies is None else (*found, self.analogies)

    def as_dict(self) -> dict[str, float | int]:
        found: dict[str, float | int] = {}
        if not math.isnan(self.loss):
            found |= {"loss": self.loss, "judged": self.judged}
        for score in self.scores:
            if score.used:
                found[score.name] = score.value
            found |= {f"{score.name}_used": score.used, f"{score.name}_total": score.total}
        return found

    def __str__(self) -> str:
        said = [share(self.groups, "words")]
        if self.plurals.used:
            said.append(share(self.plurals, "questions"))
        for score in self.similarity:
            value = "none" if math.isnan(score.value) else f"{score.value:.3f}"
            said.append(f"{score.name} {value} ({score.used} of {score.total} pairs known)")
        if self.analogies is not None:
            said.append(share(self.analogies, "questions"))
        return "; ".join(said)


def share(score: Score, what: str) -> str:
    """ "groups 71.4 % (50/70 words, 9 not known)": how many of those that could be asked are right."""
    unknown = f", {score.total - score.used} not known" if score.used < score.total else ""
    if not score.used:
        return f"{score.name} none (of {score.total} {what}, none known)"
    right = score.value * score.used
    counted = f"{right:.0f}" if abs(right - round(right)) < 1e-6 else f"{right:.1f}"
    return f"{score.name} {100 * score.value:.1f} % ({counted}/{score.used} {what}{unknown})"


class WordVectorTask(Task, Queries):
    """A text, as numbers of words."""

    metric = "scores"
    score = Curve("groups", "nearest word is of its own group, %", 100.0)

    text: TextData
    tokens: dict[str, Tensor]
    """Of each part: int32, -1 after each paragraph."""

    def __init__(self, entry: ModelEntry, config: TrainConfig) -> None:
        if config.device != "cpu":
            raise UsageError(
                f"--device: {entry.name} is trained on the cpu, got {config.device}; use --device cpu"
            )
        super().__init__(entry, config)
        self.known: Vocabulary | None = None
        self._tests: word_eval.WordEval | None = None

    @property
    def vocabulary(self) -> Vocabulary:
        assert self.known is not None
        return self.known

    # the data

    def read(self) -> None:
        config = self.config
        text: TextData = registry.load(config.data, config.data_dir, config.seed, "text")
        self.text = text.limited(config.limit)
        if self.known is None:
            self.known = vocabulary(self.text, self.option["min_count"])
        self._encode()
        for path in self.tests().similarity:  # the curve is of published pairs where most of them are known
            known = WordVectors(self.vocabulary.words, torch.ones(len(self.vocabulary), 1))
            found = known.similarity_score(path, path.stem)
            if found.used > found.total / 2:
                self.score = Curve(path.stem, f"rank correlation with people, {path.stem}")  # type: ignore[misc]

    def _encode(self) -> None:
        parts = {name: part for name, part in self.text.parts().items() if part}
        self.tokens = {name: encode(part, self.vocabulary) for name, part in parts.items()}
        for name, tokens in self.tokens.items():
            neighbours = (tokens[1:] >= 0) & (tokens[:-1] >= 0)
            if not neighbours.any():
                raise DataError(
                    f"{self.text.source}: expected two known words side by side in the {name} part, got none"
                )

    def facts(self) -> dict[str, Any]:
        """The words, and how often they occur in training, in a string each: they may be many."""
        known = self.vocabulary
        return {"vocabulary": " ".join(known.words), "frequencies": " ".join(map(str, known.counts.tolist()))}

    def restore(self, facts: Mapping[str, Any]) -> None:
        counts = [int(count) for count in facts["frequencies"].split(" ")]
        self.known = Vocabulary(facts["vocabulary"].split(" "), counts)

    def open(self, data: str, data_dir: str | None) -> None:
        self.text = registry.load(data, data_dir, self.config.seed, "text", whole=True)
        self._encode()

    @property
    def data(self) -> TextData:
        return self.text

    @property
    def parts(self) -> list[str]:
        return list(self.tokens)

    def describe(self) -> dict[str, str]:
        known, words = self.vocabulary, int((self.tokens["train"] >= 0).sum())
        return {"vocabulary": f"{len(known):,} words", "words": f"{words:,} to train on"}

    def to(self, device: torch.device) -> None:
        """Nothing: the text stays on the CPU."""

    def tests(self) -> word_eval.WordEval:
        """Those of --word-eval. The folder of that name among the data need not be there, any other must."""
        if self._tests is None:
            chosen = self.option["word_eval"]
            named = chosen == NAMED_EVAL
            folder = registry.data_folder(self.config.data_dir) / NAMED_EVAL if named else Path(chosen)
            absent = named and not folder.is_dir()
            self._tests = word_eval.WordEval((), ()) if absent else word_eval.load(folder)
        return self._tests

    # the model

    def build(self, ops: Backend) -> nn.Module:
        return self.entry.build(ops, words=len(self.vocabulary), dim=self.option["dim"])

    def vectors(self, model: nn.Module) -> WordVectors:
        rows: Any = model.vectors
        return WordVectors(self.vocabulary.words, rows.cpu().clone())

    @abstractmethod
    def held_out(self, model: nn.Module, tokens: Tensor) -> tuple[float, int]:
        """The mean loss on a text that was not trained on, and of how many pairs, windows or cells."""

    @torch.no_grad()
    def evaluate(self, model: nn.Module, part: str) -> Scored:
        loss, count = self.held_out(model, self.tokens[part])
        return self.scored(self.vectors(model), loss, count)

    def scored(self, vectors: WordVectors, loss: float = math.nan, count: int = 0) -> Scored:
        """Every score that there is a test for."""
        tests = self.tests()
        similarity = tuple(vectors.similarity_score(path, path.stem) for path in tests.similarity)
        analogies = None
        if tests.analogies:
            found = [vectors.analogy_score(path)["all"] for path in tests.analogies]
            used, total = sum(one.used for one in found), sum(one.total for one in found)
            right = sum(one.value * one.used for one in found)
            analogies = Score("analogies", right / used if used else math.nan, used, total)
        groups, plurals = word_groups.group_score(vectors), word_groups.plural_score(vectors)
        return Scored(loss, count, groups, plurals, similarity, analogies)

    def baselines(self, part: str) -> dict[str, Scored]:
        """One-hot vectors, and vectors by counting, which nothing is trained for."""
        from cisdl.baselines.words import LARGEST, ppmi_svd

        vectors = WordVectors(self.vocabulary.words, torch.zeros(len(self.vocabulary), 1))
        nothing = Score("plurals", math.nan, 0, word_groups.plural_score(vectors).total)
        found = {
            "one-hot (all equally alike, by chance)": Scored(
                math.nan, 0, word_groups.chance(vectors), nothing
            )
        }
        tokens = self.tokens.get("train")
        if tokens is not None and len(tokens) <= LARGEST:
            dim = self.option["dim"]
            rows = ppmi_svd(tokens, len(self.vocabulary), dim, self.config.seed)
            name = f"counts (PPMI, {rows.shape[1]} singular vectors)"
            found[name] = self.scored(WordVectors(self.vocabulary.words, rows))
        return found

    # a finished run

    def export(self, model: nn.Module, folder: Path) -> None:
        """The vectors in word2vec's text format."""
        write_atomically(folder / FILE, self.vectors(model).save)

    def draw(self, model: nn.Module, evaluation: Evaluation, pictures: Pictures) -> None:
        from cisdl.report import words

        folder, title = pictures.folder, pictures.title
        vectors = self.vectors(model)
        words.draw_neighbours(
            folder / "neighbours.png", f"{title}: nearest words, and their cosines", vectors
        )
        words.draw_map(folder / "map.png", f"{title}: words of the groups", vectors)
        assert isinstance(evaluation, Scored)
        files = self.tests().analogies
        words.draw_analogies(folder / "analogies.png", title, vectors, files, evaluation.scores)

    def nearest(self, model: nn.Module, word: str, count: int) -> list[Neighbour]:
        self.require(word)
        return [Neighbour(*one) for one in self.vectors(model).most_similar(word, count=count)]

    def analogy(self, model: nn.Module, words: Sequence[str], count: int) -> list[Neighbour]:
        a, b, c = words
        for word in words:
            self.require(word)
        return [Neighbour(*one) for one in self.vectors(model).analogy(a, b, c, count)]

    def require(self, word: str) -> None:
        """A `UsageError` with a word like it if the word has no vector."""
        known = self.vocabulary
        if word in known:
            return
        for_case = [word.lower()] if word.lower() in known else []
        close = for_case or difflib.get_close_matches(word.lower(), known.words, n=1, cutoff=0.7)
        mean = f"; did you mean '{close[0]}'?" if close else "; try a more frequent one"
        raise UsageError(f"'{word}' is not among the {len(known):,} words of the vocabulary{mean}")
