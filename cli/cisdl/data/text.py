"""Plain text: what it is in memory, and a reader for files and folders of it, UTF-8, plain or .gz or .xz.

One text is cut into three stretches, 80/10/10, in the order in which it is written: neighbouring sentences
are alike, so a split at random would let the model look at what it is judged on. In a folder the names
decide: `*train*` is to train on, `*test*` to be judged on, `*valid*` or `*dev*` to validate on, or to be
judged on where no file is called test; what has no file of its own is the end of the training text.
"""

from __future__ import annotations

import gzip
import lzma
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

from cisdl.errors import DataError

SHARE = 0.1
"""Of a text to validate on, and of it to be judged on."""
ENDINGS = (".txt", ".txt.gz", ".txt.xz")


@dataclass(frozen=True)
class TextData:
    """A text in parts. `test` is None where the source is too short or has none."""

    name: str
    source: str
    train: str
    validation: str
    test: str | None
    split: str

    @property
    def counts(self) -> dict[str, int]:
        """Characters."""
        return {name: len(part) for name, part in self.parts().items() if part}

    def parts(self) -> dict[str, str]:
        parts = {"train": self.train, "validation": self.validation}
        return parts if self.test is None else {**parts, "test": self.test}

    def limited(self, limit: int | None) -> TextData:
        """At most the first `limit` characters of each part."""
        test = None if self.test is None else self.test[:limit]
        return replace(self, train=self.train[:limit], validation=self.validation[:limit], test=test)

    def whole(self) -> TextData:
        """Only what is to be judged: the test part, or all of it where there is none."""
        test = self.test or self.train + self.validation
        return replace(self, train="", validation="", test=test, split="all of it is judged")


def unpacked(path: Path) -> bytes:
    """The bytes of a file that may be compressed; a `DataError` names it if it cannot be read."""
    try:
        if path.suffix == ".xz":
            return lzma.decompress(path.read_bytes())
        if path.suffix == ".gz":
            return gzip.decompress(path.read_bytes())
        return path.read_bytes()
    except (lzma.LZMAError, zlib.error, gzip.BadGzipFile, EOFError) as error:
        raise DataError(
            f"{path}: damaged, expected {path.suffix[1:]} data, got bytes that fail with {error}"
        ) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}), expected a file that may be") from error


def read_text(path: Path) -> str:
    """The file's characters; a line end is always one "\\n"."""
    content = unpacked(path)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}: expected text in UTF-8, got byte 0x{content[error.start]:02x} in line {line}"
        ) from error
    if not text.strip():
        raise DataError(f"{path}: expected text, got {'white space only' if text else 'an empty file'}")
    return text.replace("\r\n", "\n")


def cut(text: str, parts: int) -> list[str]:
    """The text, and `parts` stretches of a tenth that are cut off its end."""
    held_out = max(1, round(len(text) * SHARE))
    if len(text) <= parts * held_out:
        raise DataError(f"expected at least {parts + 1} characters, one for each part, got {len(text)}")
    ends = [len(text) - held_out * (parts - i) for i in range(parts + 1)]
    return [text[a:b] for a, b in zip([0, *ends], ends, strict=False)]


def of_one(name: str, source: str, text: str) -> TextData:
    """A text that has no parts of its own."""
    try:
        train, validation, test = cut(text, 2)
    except DataError as error:
        raise DataError(f"{source}: {error}") from error
    return TextData(name, source, train, validation, test, "80/10/10, in the order of the text")


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and path.name.endswith(ENDINGS))


def load(path: Path, seed: int, whole: bool = False) -> TextData:
    """The text of a file, or of the files of a folder, joined by name. `seed` changes nothing.

    `whole`: all of a file, but of a folder the test part, which a run on that folder has not seen.
    """
    del seed
    if whole and path.is_file():
        name = path.name.split(".")[0]
        return TextData(name, str(path), "", "", read_text(path), "all of it is judged")
    data = read(path)
    return data.whole() if whole else data


def read(path: Path) -> TextData:
    if path.is_file():
        return of_one(path.name.split(".")[0], str(path), read_text(path))
    found = files(path)
    if not found:
        raise DataError(f"{path}: expected .txt files, plain or .gz or .xz, got none")

    def joined(*stems: str) -> str | None:
        chosen = [read_text(file) for file in found if any(stem in file.name for stem in stems)]
        return "".join(chosen) or None

    name, source = path.resolve().name, str(path)
    train, validation, test = joined("train"), joined("valid", "dev"), joined("test")
    if train is None:
        return of_one(name, source, "".join(map(read_text, found)))
    if test is None:
        validation, test = None, validation
    split = "train: the train files; "
    if validation is None:
        try:
            train, validation = cut(train, 1)
        except DataError as error:
            raise DataError(f"{source}: {error}") from error
        split = "validation: the last tenth of the train files; "
    split += "no test file, so no test part" if test is None else "test: its own file"
    return TextData(name, source, train, validation, test, split)
