"""Which character comes next? A text in streams, cross-entropy in nats, bits per character; new texts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cisdl.backend import Backend
from cisdl.baselines import ngram
from cisdl.data import registry
from cisdl.data.text import TextData
from cisdl.errors import DataError, UsageError
from cisdl.files import write_text
from cisdl.models.registry import ModelEntry
from cisdl.models.steps import State, detached
from cisdl.tasks.base import Curve, Evaluation, Pictures, SampleRequest, Samples, Step, Task
from cisdl.training import processes
from cisdl.training.config import TrainConfig
from cisdl.training.trainer import GradientTrainer

UNKNOWN = 0
"""The number of every character that the training text does not have; the others are counted from 1."""
LANES, STRETCH = 16, 250
"""A text is judged in so many streams, so many characters at a time."""
ORDER = 6
"""Of the n-gram beside it: up to 5 characters before the next."""
STREAM = 1
"""Along which dimension of a state (layers, streams, hidden) the streams are."""
LENGTH = 500
"""Characters of a sample."""


@dataclass(frozen=True)
class Foretold(Evaluation):
    """The loss is the mean of -ln p over `total` characters: all of the part but its first."""

    total: int
    unknown: int = 0
    """How many of them training never saw."""

    @property
    def bits(self) -> float:
        return self.loss / math.log(2)

    @property
    def rank(self) -> tuple[float, ...]:
        return (-self.loss,)

    def as_dict(self) -> dict[str, float | int]:
        facts = {"loss": self.loss, "bits_per_character": self.bits, "total": self.total}
        return facts | {"unknown": self.unknown}

    def __str__(self) -> str:
        unknown = f", {self.unknown} of them unknown" if self.unknown else ""
        return f"{self.bits:.4f} ({self.total} characters{unknown})"


@dataclass(frozen=True)
class Stretch:
    """What a step reads: the next characters of every stream, each of which is to be foretold from before."""

    inputs: Tensor
    targets: Tensor
    first: bool
    """Whether the streams start here."""


class StreamTrainer(GradientTrainer):
    """Goes on, at every stretch, with what the network remembers of the one before."""

    def __init__(
        self,
        config: TrainConfig,
        model: nn.Module,
        share: Callable[[Stretch], tuple[Stretch, bool]],
        streams: int,
    ) -> None:
        super().__init__(config, model, self.read_on, share)
        self.streams = streams
        self.state: State = None

    def read_on(self, model: nn.Module, stretch: Stretch) -> Step:
        scores, state = model(stretch.inputs, None if stretch.first else self.state)
        self.state = detached(state)
        loss = F.cross_entropy(scores.flatten(0, 1), stretch.targets.flatten())
        bits = loss.item() / math.log(2)
        return Step(loss, stretch.targets.numel(), values={"bits_per_character": bits})

    def state_dict(self) -> dict[str, Any]:
        state = each_part(self.state, lambda part: processes.rows_of_all(part, self.streams, STREAM))
        return {"optimizer": super().state_dict(), "state": state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state["optimizer"])
        self.state = each_part(state["state"], lambda part: processes.own_rows(part, STREAM))


def each_part(state: State, change: Callable[[Tensor], Tensor]) -> State:
    """The memory with every tensor of it changed."""
    if state is None:
        return None
    return change(state) if isinstance(state, Tensor) else tuple(change(part) for part in state)


class Characters(Task, Samples):
    """Trained on `Stretch`es, in the order of the text."""

    metric = "bits per character"
    loss_name = "nats per character"
    score = Curve("bits_per_character", "bits per character")

    text: TextData
    characters: str
    """Those of the training text, by number from 1."""

    def __init__(self, entry: ModelEntry, config: TrainConfig) -> None:
        super().__init__(entry, config)
        self.device = torch.device("cpu")

    # the data

    def read(self) -> None:
        config = self.config
        data: TextData = registry.load(config.data, config.data_dir, config.seed, "text")
        self.text = data.limited(config.limit)
        for name, part in self.text.parts().items():
            if len(part) < 2:
                raise DataError(f"{data.source}: expected 2 characters or more for {name}, got {len(part)}")
        self.characters = "".join(sorted(set(self.text.train)))
        self.encode()

    def facts(self) -> dict[str, Any]:
        return {"characters": self.characters}

    def restore(self, facts: Mapping[str, Any]) -> None:
        self.characters = facts["characters"]

    def open(self, data: str, data_dir: str | None) -> None:
        self.text = registry.load(data, data_dir, self.config.seed, "text", whole=True)
        if len(self.text.parts()["test"]) < 2:
            raise DataError(f"{data}: expected 2 characters or more, got 1")
        self.encode()

    def encode(self) -> None:
        self.numbers = {part: self.encoded(text) for part, text in self.text.parts().items()}

    def encoded(self, text: str) -> Tensor:
        numbers = {character: i for i, character in enumerate(self.characters, start=1)}
        return torch.tensor([numbers.get(character, UNKNOWN) for character in text], dtype=torch.int64)

    @property
    def vocabulary(self) -> int:
        return len(self.characters) + 1

    @property
    def data(self) -> TextData:
        return self.text

    def describe(self) -> dict[str, str]:
        return {"characters": f"{len(self.characters)} different characters"}

    def to(self, device: torch.device) -> None:
        self.device = device

    # the model

    def build(self, ops: Backend) -> nn.Module:
        return self.entry.build(ops, vocabulary=self.vocabulary, **self.option)

    def example(self) -> tuple[Tensor, ...]:
        return (torch.zeros(1, self.steps, dtype=torch.int64),)

    # training

    @property
    def steps(self) -> int:
        """Characters of a stretch."""
        return int(self.option["truncate"]) or 100

    @property
    def streams(self) -> int:
        """As many as a mini-batch has rows, fewer for a text that is too short for that."""
        return max(1, min(self.config.batch_size, (len(self.numbers["train"]) - 1) // self.steps))

    def batch_count(self) -> int:
        return -(-self.stream_length // self.steps)

    @property
    def stream_length(self) -> int:
        return (len(self.numbers["train"]) - 1) // self.streams

    def batches(self, epoch: int) -> Iterator[Stretch]:
        """The text from another place in every epoch, so that streams and stretches are cut elsewhere.

        Streams are neighbours in the text, and one begins where the one before ends.
        """
        text, long = self.numbers["train"], self.stream_length
        spare = len(text) - 1 - self.streams * long
        turned = text.roll(-int(np.random.default_rng([self.config.seed, epoch]).integers(len(text))))
        used = turned[: len(text) - spare]
        inputs, targets = used[:-1].view(self.streams, long), used[1:].view(self.streams, long)
        for start in range(0, long, self.steps):
            chosen = slice(start, start + self.steps)
            yield Stretch(
                inputs[:, chosen].to(self.device), targets[:, chosen].to(self.device), first=start == 0
            )

    def trainer(self, model: nn.Module) -> StreamTrainer:
        return StreamTrainer(self.config, model, self.share, self.streams)

    def share(self, batch: Stretch) -> tuple[Stretch, bool]:
        """Some of the streams, the same ones at every step."""
        chosen, counted = processes.rows(len(batch.inputs))
        own = Stretch(batch.inputs[chosen], batch.targets[chosen].contiguous(), batch.first)
        return own, counted

    @torch.no_grad()
    def evaluate(self, model: nn.Module, part: str) -> Foretold:
        """Every character but the first, in streams that each start without a memory of what came before."""
        text = self.numbers[part]
        training = model.training
        model.eval()
        total, loss = len(text) - 1, 0.0
        lanes = min(LANES, total)
        long = -(-total // lanes)
        padded = F.pad(text, (0, lanes * long - total))
        inputs, targets = padded[:-1].view(lanes, long), padded[1:].clone()
        targets[total:] = -100  # counted by no cross-entropy
        targets = targets.view(lanes, long)
        state: State = None
        for start in range(0, long, STRETCH):
            chosen = slice(start, start + STRETCH)
            scores, state = model(inputs[:, chosen].to(self.device), state)
            wanted = targets[:, chosen].to(self.device)
            loss += float(F.cross_entropy(scores.flatten(0, 1), wanted.flatten(), reduction="sum"))
        model.train(training)
        return Foretold(loss / total, total, int((text[1:] == UNKNOWN).sum()))

    def baselines(self, part: str) -> dict[str, Evaluation]:
        train, text = self.numbers["train"].numpy(), self.numbers[part].numpy()
        unknown = int((text[1:] == UNKNOWN).sum())
        found: dict[str, Evaluation] = {}
        most = min(ORDER, ngram.longest(self.vocabulary))
        for name, order in (("how often each character occurs", 1), (f"{most}-gram, Witten-Bell", most)):
            p = ngram.probabilities(train, text, self.vocabulary, order)[1:]
            found[name] = Foretold(-float(np.log(p).mean()), len(p), unknown)
        return found

    # what it makes

    @torch.no_grad()
    def sample(self, model: nn.Module, request: SampleRequest) -> list[str]:
        """Each text begins with `start`, by default a new line, and is `length` characters longer."""
        start = "\n" if request.start is None else request.start
        strange = sorted(set(start) - set(self.characters))
        if request.start == "" or (request.start and strange):
            got = repr(strange[0]) if strange else "none"
            raise UsageError(f"--start: expected characters of the training text, got {got}")
        length = LENGTH if request.length is None else request.length
        temperature = 1.0 if request.temperature is None else request.temperature
        given = self.encoded(start)
        device = next(model.parameters()).device
        training = model.training
        model.eval()
        texts = []
        for number in range(request.count):
            generator = np.random.default_rng([request.seed, number])
            text, state, read = start, None, given
            for _ in range(length):
                scores, state = model(read[None].to(device), state)
                chosen = draw_character(scores[0, -1].double().cpu().numpy(), temperature, generator)
                text += self.characters[chosen - 1]
                read = torch.tensor([chosen])
            texts.append(text if request.start is not None else text.removeprefix("\n"))
        model.train(training)
        return texts

    def draw(self, model: nn.Module, evaluation: Evaluation, pictures: Pictures) -> None:
        """What the hidden units and gates do over a line of text; three texts of its own into samples/."""
        from cisdl.report import memory

        shown = self.numbers[pictures.judged_on][: memory.SHOWN]
        layer, embedding = model.get_submodule("layer"), model.get_submodule("embedding")
        with torch.no_grad():
            vectors = embedding(shown[None])
            scores, _ = model.eval()(shown[None])
        p = scores[0, :-1].softmax(1).gather(1, shown[1:, None])[:, 0]
        rows = {"p(character)": torch.cat([torch.zeros(1), p])[None]}
        rows["hidden units"] = memory.hidden_states(layer, vectors)
        if isinstance(layer, nn.RNNBase) and layer.mode == "LSTM":
            name = "forget gate" if layer.num_layers == 1 else "forget gate,\nlayer 1"
            rows[name] = memory.gates(layer, vectors)["forget gate"]
        text = self.text.parts()[pictures.judged_on][: len(shown)]
        letters = [{"\n": "¶", " ": "␣"}.get(character, character) for character in text]
        memory.draw_states(pictures.folder / "states.png", f"{pictures.title}: over a text", rows, letters)

        folder = pictures.folder.parent / "samples"
        folder.mkdir(exist_ok=True)
        for temperature in (0.5, 0.8, 1.0):
            request = SampleRequest(1, self.config.seed, folder, temperature=temperature)
            (text,) = self.sample(model, request)
            write_text(folder / f"temperature-{temperature}.txt", text + "\n")


def draw_character(scores: np.ndarray, temperature: float, generator: np.random.Generator) -> int:
    """A character's number by softmax(scores / temperature); the likeliest for 0. Never the unknown one."""
    scores = scores.copy()
    scores[UNKNOWN] = -np.inf
    if temperature == 0:
        return int(scores.argmax())
    scores = (scores - scores.max()) / temperature
    cumulated = np.exp(scores).cumsum()
    return int(np.searchsorted(cumulated, generator.random() * cumulated[-1], side="right"))


def new(entry: ModelEntry, config: TrainConfig) -> Characters:
    return Characters(entry, config)
