"""What word2vec and GloVe share: a vocabulary, word vectors as files, neighbours, analogies, and scores."""

from __future__ import annotations

import gzip
import lzma
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from cisdl_ops._load import _C
from cisdl_ops.functional.linear import linear

Line = str | Sequence[str]
_OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".xz": lzma.open}
_BLOCK = 1 << 20


def read_lines(paths: str | Path | Iterable[str | Path]) -> Iterator[str]:
    """The lines of text files, one at a time; ``.gz`` and ``.xz`` are unpacked on the way.

    A line of more than a million characters comes in pieces, cut between words: text8 is one line.
    """
    for path in [paths] if isinstance(paths, str | Path) else paths:
        with _OPENERS.get(Path(path).suffix, open)(path, "rt", encoding="utf-8") as file:
            rest = ""
            while block := file.readline(_BLOCK):
                rest += block
                if rest.endswith("\n"):
                    yield rest
                    rest = ""
                elif len(rest) >= _BLOCK and (cut := rest.rfind(" ")) > 0:
                    yield rest[:cut]
                    rest = rest[cut:]
            if rest:
                yield rest


def _words(line: Line) -> Sequence[str]:
    return line.split() if isinstance(line, str) else line


class Vocabulary:
    """Words by number, the most frequent first, with their counts."""

    def __init__(self, words: Sequence[str], counts: Sequence[int]) -> None:
        if len(words) != len(counts):
            raise ValueError(f"counts: expected {len(words)} as there are words, got {len(counts)}")
        if not words:
            raise ValueError("words: expected at least one word, got none (is min_count too high?)")
        self.words = list(words)
        self.counts = torch.tensor(counts, dtype=torch.int64)
        self.numbers = {word: i for i, word in enumerate(self.words)}
        if len(self.numbers) != len(self.words):
            raise ValueError("words: expected every word once")
        if int(self.counts.min()) < 1:
            raise ValueError(f"counts: expected at least 1 each, got {int(self.counts.min())}")

    @classmethod
    def build(
        cls,
        lines: Iterable[Line],
        min_count: int = 5,
        max_size: int | None = None,
        max_counted: int = 20_000_000,
    ) -> Vocabulary:
        """Counts the words of ``lines`` (strings, split at white space, or sequences of words).

        Args:
            lines: read once, one at a time.
            min_count: rarer words are left out.
            max_size: at most so many words, the most frequent.
            max_counted: if more words than this are being counted, the rare ones are forgotten, at first
                those seen once, then twice ...: memory is bounded, words near ``min_count`` may be missed.
        """
        counter: Counter[str] = Counter()
        threshold = 0
        for line in lines:
            counter.update(_words(line))
            while len(counter) > max_counted:
                threshold += 1
                counter = Counter({word: n for word, n in counter.items() if n > threshold})
        kept = [(word, n) for word, n in counter.items() if n >= min_count]
        kept.sort(key=lambda pair: (-pair[1], pair[0]))
        kept = kept[:max_size]
        return cls([word for word, _ in kept], [n for _, n in kept])

    def __len__(self) -> int:
        return len(self.words)

    def __contains__(self, word: object) -> bool:
        return word in self.numbers

    def encode(self, lines: Iterable[Line], path: str | Path | None = None) -> Tensor:
        """The text as numbers: int32, unknown words left out, -1 after every line.

        Args:
            path: the numbers are written there and the tensor is a view of that file, read as it is needed:
                for texts larger than memory.
        """
        get = self.numbers.get
        if path is None:
            numbers = array("i")
            for line in lines:
                numbers.extend([n for n in map(get, _words(line)) if n is not None])
                numbers.append(-1)
            return (
                torch.frombuffer(numbers, dtype=torch.int32) if numbers else torch.empty(0, dtype=torch.int32)
            )
        size = 0
        with Path(path).open("wb") as file:
            for line in lines:
                numbers = array("i", [n for n in map(get, _words(line)) if n is not None])
                numbers.append(-1)
                numbers.tofile(file)
                size += len(numbers)
        return torch.from_file(str(path), shared=False, size=size, dtype=torch.int32)


def cuts(tokens: Tensor, stretch: int) -> list[int]:
    """0, the size, and between them about every ``stretch`` tokens the place behind the end of a sentence."""
    if stretch < 1:
        raise ValueError(f"stretch: expected at least 1, got {stretch}")
    numbers, size = tokens.numpy(), len(tokens)
    found = [0]
    while found[-1] < size:
        at = min(found[-1] + stretch, size)
        while at < size and numbers[at - 1] >= 0:
            at += 1
        found.append(at)
    return found


def padded(rows: int, dim: int) -> Tensor:
    """Zeros [rows, dim rounded up to 16], each row on its own cache lines.

    The kernels keep columns of zeros zero, so ``storage[:, :dim]`` trains as if the others were not there.
    """
    return _C.zero_rows(rows, (dim + 15) // 16 * 16)


@dataclass(frozen=True)
class Score:
    """What an evaluation found, and on how much of it: words that have no vector are left out."""

    name: str
    value: float
    used: int
    total: int

    def __str__(self) -> str:
        return f"{self.name} {self.value:.4f} on {self.used} of {self.total} ({self.used / self.total:.0%})"


class WordVectors:
    """Vectors of words: neighbours, analogies, scores, and word2vec's files.

    ``vectors`` is a float32 tensor [words, dim], as ``torch.nn.Embedding.from_pretrained`` takes it.
    """

    def __init__(self, words: Sequence[str], vectors: Tensor) -> None:
        if vectors.dim() != 2 or len(vectors) != len(words):
            raise ValueError(f"vectors: expected shape [{len(words)}, dim], got {list(vectors.shape)}")
        self.words = list(words)
        self.vectors = vectors
        self.numbers = {word: i for i, word in enumerate(self.words)}
        self._unit: Tensor | None = None

    def __len__(self) -> int:
        return len(self.words)

    def __contains__(self, word: object) -> bool:
        return word in self.numbers

    def __getitem__(self, word: str) -> Tensor:
        return self.vectors[self.number(word)]

    def number(self, word: str) -> int:
        """Raises `KeyError` in a sentence if the word has no vector."""
        try:
            return self.numbers[word]
        except KeyError:
            raise KeyError(f"'{word}' is not among the {len(self)} words") from None

    def unit(self) -> Tensor:
        """The vectors divided by their lengths; made once, so change ``vectors`` before asking."""
        if self._unit is None:
            self._unit = torch.nn.functional.normalize(self.vectors.detach().contiguous(), dim=1)
        return self._unit

    def most_similar(
        self, positive: str | Sequence[str], negative: Sequence[str] = (), count: int = 10
    ) -> list[tuple[str, float]]:
        """The words whose cosine with the sum of unit vectors, ``negative`` ones subtracted, is largest."""
        wanted = [positive] if isinstance(positive, str) else list(positive)
        plus, minus = [self.number(word) for word in wanted], [self.number(word) for word in negative]
        unit = self.unit()
        query = torch.nn.functional.normalize(unit[plus].sum(0) - unit[minus].sum(0), dim=0)
        cosines = linear(query.unsqueeze(0), unit)[0]
        cosines[plus + minus] = -2.0
        best = cosines.topk(min(count, len(self) - len({*plus, *minus})))
        return [(self.words[i], v) for v, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)]

    def analogy(self, a: str, b: str, c: str, count: int = 1) -> list[tuple[str, float]]:
        """``a`` is to ``b`` as ``c`` is to what: the words nearest to b - a + c, these three left out."""
        return self.most_similar([b, c], [a], count)

    def similarity_score(self, pairs: str | Path, name: str = "similarity") -> Score:
        """Spearman's rank correlation of our cosines with people's scores.

        Args:
            pairs: a file of lines ``word<TAB>word<TAB>score``, such as WordSim-353; words are lower-cased.
        """
        lines = [line.lower().split() for line in Path(pairs).read_text(encoding="utf-8").splitlines()]
        lines = [line for line in lines if len(line) == 3 and not line[0].startswith("#")]
        known = [line for line in lines if line[0] in self and line[1] in self]
        if len(known) < 2:
            return Score(name, float("nan"), len(known), len(lines))
        unit = self.unit()
        left, right = (unit[[self.numbers[line[i]] for line in known]] for i in (0, 1))
        human = torch.tensor([float(line[2]) for line in known], dtype=torch.float64)
        return Score(name, spearman((left * right).sum(1).double(), human), len(known), len(lines))

    def analogy_score(self, questions: str | Path, batch: int = 256) -> dict[str, Score]:
        """The share of questions ``a b c d`` whose nearest word to b - a + c is d, by section and in "all".

        Args:
            questions: a file as word2vec's ``questions-words.txt``: sections begin with ``: name``.
        """
        sections: dict[str, list[list[str]]] = {}
        section = "all"
        for line in Path(questions).read_text(encoding="utf-8").lower().splitlines():
            words = line.split()
            if words and words[0] == ":":
                section = " ".join(words[1:])
            elif len(words) == 4:
                sections.setdefault(section, []).append(words)
        scores, right, used = {}, 0, 0
        for section, asked in sections.items():
            known = [[self.numbers[w] for w in words] for words in asked if all(w in self for w in words)]
            correct = sum(self._correct(known[i : i + batch]) for i in range(0, len(known), batch))
            scores[section] = Score(section, correct / max(1, len(known)), len(known), len(asked))
            right, used = right + correct, used + len(known)
        scores["all"] = Score("analogies", right / max(1, used), used, sum(map(len, sections.values())))
        return scores

    def _correct(self, questions: list[list[int]]) -> int:
        a, b, c, d = torch.tensor(questions).unbind(1)
        unit = self.unit()
        cosines = linear(unit[b] - unit[a] + unit[c], unit)
        rows = torch.arange(len(a))
        for word in (a, b, c):
            cosines[rows, word] = -4.0
        return int((cosines.argmax(1) == d).sum())

    def save(self, path: str | Path, binary: bool = False) -> None:
        """As word2vec's text format (``words dim``, then a line for each word), or its binary one."""
        rows = np.ascontiguousarray(self.vectors.detach().float().numpy(), dtype="<f4")
        with Path(path).open("wb") as file:
            file.write(f"{len(self)} {rows.shape[1]}\n".encode())
            for word, row in zip(self.words, rows, strict=True):
                if any(map(str.isspace, word)):
                    raise ValueError(f"words: expected no white space in a word of this format, got {word!r}")
                file.write(word.encode() + b" ")
                file.write(row.tobytes() if binary else " ".join(map(repr, row.tolist())).encode())
                file.write(b"\n")

    @classmethod
    def load(cls, path: str | Path, binary: bool = False, max_words: int | None = None) -> WordVectors:
        """A file that `save`, word2vec or gensim wrote; text without the first line (GloVe's) is taken, too.

        Raises:
            ValueError: the file is damaged; the sentence names the line.
        """
        with Path(path).open("rb") as file:
            return cls(*(_read_binary if binary else _read_text)(file, str(path), max_words))


def _header(line: bytes, path: str) -> tuple[int, int]:
    try:
        count, dim = map(int, line.split())
    except ValueError:
        raise ValueError(f"{path}: expected a first line 'words dim', got {line[:60]!r}") from None
    if count < 0 or dim < 1:
        raise ValueError(f"{path}: expected a first line 'words dim', got {line[:60]!r}")
    return count, dim


def _read_text(file: IO[bytes], path: str, max_words: int | None) -> tuple[list[str], Tensor]:
    first = file.readline()
    words: list[str] = []
    numbers = array("f")
    count: int | None = None
    if len(first.split()) == 2:
        count, dim = _header(first, path)
    else:
        dim = len(first.split()) - 1
        file.seek(0)
    for i, line in enumerate(file):
        if max_words is not None and len(words) == max_words:
            break
        fields = line.decode("utf-8").rstrip().rsplit(" ", dim)
        try:
            if len(fields) != dim + 1:
                raise ValueError
            numbers.extend(map(float, fields[1:]))
        except ValueError:
            where = i + 1 + (count is not None)
            raise ValueError(f"{path}: line {where}: expected a word and {dim} numbers") from None
        words.append(fields[0])
    _require_words(path, len(words), count, max_words)
    return words, torch.tensor(numbers, dtype=torch.float32).view(-1, dim)


def _read_binary(file: IO[bytes], path: str, max_words: int | None) -> tuple[list[str], Tensor]:
    count, dim = _header(file.readline(), path)
    words: list[str] = []
    data = bytearray()
    for _ in range(count if max_words is None else min(count, max_words)):
        word = bytearray()
        while (byte := file.read(1)) not in (b" ", b""):
            word += byte
        row = file.read(4 * dim)
        if len(row) != 4 * dim:
            break
        words.append(word.decode("utf-8").lstrip("\n"))
        data += row
    _require_words(path, len(words), count, max_words)
    return words, torch.from_numpy(np.frombuffer(data, dtype="<f4").astype(np.float32)).view(-1, dim)


def _require_words(path: str, found: int, count: int | None, max_words: int | None) -> None:
    expected = found if count is None else count if max_words is None else min(count, max_words)
    if found != expected:
        raise ValueError(f"{path}: expected {expected} words, got {found}: the file is cut off or damaged")


def spearman(a: Tensor, b: Tensor) -> float:
    """The rank correlation of two vectors; ties share the mean of their ranks."""
    ranks = []
    for values in (a, b):
        _, group, size = torch.unique(values, return_inverse=True, return_counts=True)
        last = size.cumsum(0).double()
        ranks.append((last - (size - 1) / 2)[group])
    return float(torch.corrcoef(torch.stack(ranks))[0, 1])
