"""The data sets known by name, the readers of files, and where both look; imports nothing heavy itself.

To add a format: a module of this package with `load(path, seed, whole)` and a `Reader` here. `load` returns
data split into train, validation and, if the source has one, test. With `whole` nothing is split off: all of
the file, or the test part of a folder that has one, is the part `test`, and the others are empty: that is
what `cisdl eval` reads. To add a named set: a `DataEntry`, whose files lie in a folder of that name.
"""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cisdl.errors import DataError, UsageError, did_you_mean

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")
SCALES = ("raw", "unit", "standard")

KINDS = {
    "images": "labelled images",
    "sentences": "labelled texts",
    "text": "a text",
    "tags": "tagged sentences",
    "pairs": "pairs of sequences",
    "sequences": "generated sequences",
    "patterns": "random patterns",
}
"""What a data set holds, in the words of messages. A task trains on one of them (`tasks.TASKS`)."""


@dataclass(frozen=True)
class Reader:
    """A format of files that `--data PATH` takes."""

    module: str
    """`cisdl.data.<module>.load(path, seed, whole)`"""
    kind: str
    title: str
    matches: Callable[[Path], bool]
    """Whether a file or folder looks like it, by names alone."""


@dataclass(frozen=True)
class DataEntry:
    name: str
    title: str
    kind: str = "images"
    reader: str = "idx"
    """The module of this package that loads it."""
    bundled: str | None = None
    """Where it comes from if it needs no files: such a module has `load(seed, whole)`."""
    scale: str = "standard"
    """How pixels are scaled by default."""


def has_names(*stems: str) -> Callable[[Path], bool]:
    """Whether a folder holds a file whose name starts with one of the stems."""
    return lambda path: path.is_dir() and any(p.name.startswith(stems) for p in path.iterdir())


def ends_with(*endings: str) -> Callable[[Path], bool]:
    """Whether it is a file with such an ending, compressed or not."""
    every = tuple(ending + packed for ending in endings for packed in ("", ".gz", ".xz"))
    return lambda path: path.is_file() and path.name.endswith(every)


def files_of(*endings: str) -> Callable[[Path], bool]:
    """Whether it is a file with such an ending, or a folder with one, compressed or not."""
    fits = ends_with(*endings)
    return lambda path: fits(path) or (path.is_dir() and any(map(fits, path.iterdir())))


def holds_image_folders(path: Path) -> bool:
    """Whether a folder holds folders with images, at most two levels below."""
    if not path.is_dir():
        return False
    below = [p for p in path.iterdir() if p.is_dir() and not p.name.startswith(".")]
    below += [p for folder in below for p in folder.iterdir() if p.is_dir()]
    return any(file.suffix.lower() in IMAGE_ENDINGS for folder in below for file in folder.iterdir())


READERS: tuple[Reader, ...] = (
    Reader("idx", "images", "a folder of IDX files", has_names("train-images", "t10k-images")),
    Reader("cifar", "images", "a .bin file as CIFAR-10's or a folder of them", files_of(".bin")),
    Reader("image_folder", "images", "a folder of images for each class", holds_image_folders),
    # sentences, tags, pairs
    Reader("sentences", "sentences", "a .tsv file of text<TAB>label or a folder of them", files_of(".tsv")),
    Reader(
        "tags",
        "tags",
        "a .conll, .conllu or .txt file in columns or a folder of them",
        files_of(".conll", ".conllu", ".txt"),
    ),
    Reader(
        "pairs",
        "pairs",
        "a .tsv or .txt file of source<TAB>target, a .dict of phones, or a folder",
        files_of(".dict", ".tsv", ".txt"),
    ),
    # text
    Reader("text", "text", "a .txt file or a folder of them", files_of(".txt")),
)

DATA: dict[str, DataEntry] = {
    entry.name: entry
    for entry in (
        # images
        DataEntry(
            "digits", "1797 handwritten digits, 8 x 8 grey levels 0-16", reader="digits",
            bundled="bundled with scikit-learn", scale="raw",
        ),
        DataEntry("mnist", "70,000 handwritten digits, 28 x 28"),
        DataEntry("fashion-mnist", "70,000 photos of clothing, 28 x 28"),
        DataEntry(
            "cifar10-jpeg-subset", "12,000 small photos of ten kinds, 32 x 32 in colour", reader="cifar"
        ),
        DataEntry(
            "photos", "2,166 pieces of two photos, 32 x 32 in colour", reader="photos",
            bundled="bundled with scikit-learn", scale="unit",
        ),
        # patterns
        DataEntry(
            "patterns", "random patterns of 1000 numbers, +1 or -1", kind="patterns", reader="patterns",
            bundled="drawn by the run's seed",
        ),
        # sequences: the task makes them, by its options
        DataEntry(
            "adding", "two marked numbers of a sequence to add", kind="sequences", reader="sequences",
            bundled="generated",
        ),
        DataEntry(
            "copy", "ten symbols to repeat after a pause", kind="sequences", reader="sequences",
            bundled="generated",
        ),
        DataEntry(
            "echo", "bits to repeat some steps later", kind="sequences", reader="sequences",
            bundled="generated",
        ),
        # sentences
        DataEntry(
            "opinions", "3,000 sentences of a small grammar, positive or negative", kind="sentences",
            reader="opinions", bundled="made by a grammar of our own",
        ),
        DataEntry("sst2", "7,792 sentences of film reviews", kind="sentences", reader="sentences"),
        DataEntry("imdb", "25,000 film reviews", kind="sentences", reader="sentences"),
        DataEntry(
            "sentence-polarity", "8,778 snippets of film reviews", kind="sentences", reader="sentences"
        ),
        # tags
        DataEntry(
            "python-source", "lines of Python's library, tagged by tokenize", kind="tags",
            reader="python_source", bundled="bundled with Python",
        ),
        DataEntry("conll2000", "10,948 sentences with their chunks", kind="tags", reader="tags"),
        DataEntry(
            "ud-english-ewt", "14,545 sentences with parts of speech", kind="tags", reader="tags"
        ),
        # pairs
        DataEntry(
            "numbers", "5,000 numbers below a million and their English words", kind="pairs",
            reader="numbers", bundled="made by rule",
        ),
        DataEntry("cmudict", "126,046 English words and their phones", kind="pairs", reader="pairs"),
        DataEntry("tatoeba-eng-fra", "English sentences and French ones", kind="pairs", reader="pairs"),
        # text
        DataEntry(
            "manual", "370,000 characters of Python's own manual", kind="text", reader="manual",
            bundled="bundled with Python",
        ),
        DataEntry("tinyshakespeare", "1.1 million characters of Shakespeare", kind="text", reader="text"),
        DataEntry("ptb", "5.4 million characters of the Wall Street Journal", kind="text", reader="ptb"),
        DataEntry("text8", "17 million words of English Wikipedia, letters only", kind="text", reader="text"),
        DataEntry("wikipedia-en", "12 million words of English Wikipedia", kind="text", reader="text"),
    )
}  # fmt: skip


def data_folder(chosen: str | None = None) -> Path:
    """The folder that holds named data sets: `chosen` (--data-dir), else $CISDL_DATA, else ./data."""
    return Path(chosen or os.environ.get("CISDL_DATA") or "data")


def find(data: str, data_dir: str | None, kinds: Collection[str]) -> tuple[DataEntry | Reader, Path]:
    """Who loads `data`, a name or a path, and from where; its kind has to be one of `kinds`.

    A name always means the named set; a folder of the same name in the current directory is `./name`.
    """
    wanted = " or ".join(KINDS[kind] for kind in kinds)
    if data in DATA:
        entry = DATA[data]
        folder = data_folder(data_dir) / data
        if entry.kind not in kinds:
            raise UsageError(f"--data {data}: expected {wanted}, got {KINDS[entry.kind]}")
        if entry.bundled is None and not folder.is_dir():
            raise DataError(
                f"data set '{data}': expected the folder {folder.absolute()}, got no such folder; "
                f"{bringing(data)}, or name the folder above it with --data-dir or CISDL_DATA"
            )
        return entry, folder

    path = Path(data).expanduser()
    readers = [reader for reader in READERS if reader.kind in kinds]
    titles = " or ".join(dict.fromkeys(reader.title for reader in readers)) or f"the name of {wanted}"
    if not path.exists():
        if len(path.parts) == 1 and not data.startswith("."):
            raise DataError(
                f"'{data}' is neither a file or folder here nor a data set; {did_you_mean(data, DATA)}"
            )
        raise DataError(f"{data}: expected {titles}, got no such file or folder")
    for reader in readers:
        if reader.matches(path):
            return reader, path
    others = [reader.title for reader in READERS if reader.matches(path)]
    got = others[0] if others else "a folder without them" if path.is_dir() else "a file of another kind"
    raise DataError(f"{data}: expected {titles}, got {got}")


def bringing(data: str) -> str:
    """How the files of a set come to its folder."""
    from cisdl.data.downloads import DOWNLOADS

    return f"bring it with `cisdl data get {data}`" if data in DOWNLOADS else "put its files there"


def kind_of(data: str, data_dir: str | None, kinds: Collection[str]) -> str:
    """The first of `kinds` that `data` can be read as."""
    return find(data, data_dir, kinds)[0].kind


def load(data: str, data_dir: str | None, seed: int, kind: str, whole: bool = False, **wanted: Any) -> Any:
    """The data set with that name, or in that file or folder, as data of that kind.

    `wanted` (`size`, `channels`) is for readers that have such a parameter, the others leave it to the task.
    """
    found, path = find(data, data_dir, [kind])
    module = importlib.import_module(
        f"cisdl.data.{found.module if isinstance(found, Reader) else found.reader}"
    )
    if isinstance(found, DataEntry) and found.bundled is not None:
        return module.load(seed, whole)
    named = inspect.signature(module.load).parameters
    return module.load(path, seed, whole, **{name: value for name, value in wanted.items() if name in named})
