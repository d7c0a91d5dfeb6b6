"""Examples of any kind in parts, and how files of them are found and split.

A folder's parts are found by name: `*train*` is to train on; `*test*` is to be judged on, and `*dev*` or
`*valid*` to validate on, or to be judged on where no file is called test. What has no file of its own is
drawn from the training examples by the seed, a tenth each. Examples of equal `key` (the same sentence, the
same word) are drawn together: what a model is judged on was never trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from cisdl.data.text import read_text
from cisdl.errors import DataError

T = TypeVar("T")
SHARE = 0.1
"""Of the examples to validate on, and of them to be judged on."""


@dataclass(frozen=True)
class Examples(Generic[T]):
    """`test` is None where there is none."""

    name: str
    source: str
    train: tuple[T, ...]
    validation: tuple[T, ...]
    test: tuple[T, ...] | None
    split: str

    @property
    def counts(self) -> dict[str, int]:
        return {name: len(part) for name, part in self.parts().items() if part}

    def parts(self) -> dict[str, tuple[T, ...]]:
        parts = {"train": self.train, "validation": self.validation}
        return parts if self.test is None else {**parts, "test": self.test}

    def limited(self, limit: int | None) -> Examples[T]:
        """At most `limit` examples in each part."""
        test = None if self.test is None else self.test[:limit]
        return replace(self, train=self.train[:limit], validation=self.validation[:limit], test=test)

    def whole(self) -> Examples[T]:
        """Only what is to be judged: the test part, or all of it where there is none."""
        test = self.test or (*self.train, *self.validation)
        return replace(self, train=(), validation=(), test=test, split="all of it is judged")


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 file, plain or compressed, without their ends; an empty file is refused."""
    return read_text(path).removesuffix("\n").split("\n")


def drawn(
    examples: Sequence[T], key: Callable[[T], Hashable], seed: int, parts: int
) -> tuple[tuple[T, ...], ...]:
    """The examples, less `parts` parts of a tenth each drawn by `seed`, and those parts."""
    keys = list(dict.fromkeys(map(key, examples)))
    if len(keys) <= parts:
        raise DataError(f"expected at least {parts + 1} different examples, got {len(keys)}")
    order = np.random.default_rng(seed).permutation(len(keys)).tolist()
    held_out = max(1, min(round(len(keys) * SHARE), len(keys) // (parts + 1)))
    place = {keys[number]: min(rank // held_out, parts) for rank, number in enumerate(order)}
    chosen: list[list[T]] = [[] for _ in range(parts + 1)]
    for example in examples:
        chosen[place[key(example)]].append(example)
    return (tuple(chosen[parts]), *map(tuple, chosen[:parts]))


def split(
    name: str, source: str, examples: Sequence[T], key: Callable[[T], Hashable], seed: int
) -> Examples[T]:
    """Examples that have no parts of their own: 80/10/10."""
    train, validation, test = drawn(examples, key, seed, 2)
    return Examples(name, source, train, validation, test, f"80/10/10, drawn by seed {seed}")


def load(
    path: Path,
    endings: Iterable[str],
    read: Callable[[Path], list[T]],
    key: Callable[[T], Hashable],
    seed: int,
    whole: bool,
) -> Examples[T]:
    """The examples that `read` finds in a file, or in the files of a folder with one of the endings."""
    try:
        if path.is_file():
            name = path.name.split(".")[0]
            if whole:
                return Examples(name, str(path), (), (), tuple(read(path)), "all of it is judged")
            return split(name, str(path), read(path), key, seed)
        data = of_folder(path, tuple(endings), read, key, seed)
    except DataError as error:
        message = str(error)
        raise error if message.startswith(str(path)) else DataError(f"{path}: {message}") from error
    return data.whole() if whole else data


def of_folder(
    path: Path,
    endings: tuple[str, ...],
    read: Callable[[Path], list[T]],
    key: Callable[[T], Hashable],
    seed: int,
) -> Examples[T]:
    packed = tuple(ending + packing for ending in endings for packing in ("", ".gz", ".xz"))
    found = sorted(file for file in path.iterdir() if file.is_file() and file.name.endswith(packed))
    if not found:
        raise DataError(f"expected files ending in {' or '.join(endings)}, plain or .gz or .xz, got none")

    def of(*stems: str) -> list[T] | None:
        chosen = [file for file in found if any(stem in file.name for stem in stems)]
        return [example for file in chosen for example in read(file)] or None

    name, source = path.resolve().name, str(path)
    train, validation, test = of("train"), of("dev", "valid"), of("test")
    if train is None:
        if len(found) > 1:
            raise DataError(f"expected a file called train among several, got {found[0].name} and others")
        return split(name, source, read(found[0]), key, seed)
    judged_on = "test: the test file"
    if test is None and validation is not None:
        test, validation, judged_on = validation, None, "test: the validation file"
    if validation is not None:
        assert test is not None
        how = "validation and test: their own files"
        return Examples(name, source, tuple(train), tuple(validation), tuple(test), how)
    if test is None:
        return split(name, source, train, key, seed)
    kept, held_out = drawn(train, key, seed, 1)
    how = f"validation: a tenth of the training examples, drawn by seed {seed}; {judged_on}"
    return Examples(name, source, kept, held_out, tuple(test), how)
