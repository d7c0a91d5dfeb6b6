"""Reader for a folder of tests of word vectors, as they are published.

    similarity    word<TAB>word<TAB>score       people's scores, higher is more alike (WordSim-353, RG-65)
    analogies     a b c d                       a is to b as c is to d; a line ": name" heads each section

Which a file is says its first line. Other files than .txt are not looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cisdl.data.text import read_text
from cisdl.errors import DataError


@dataclass(frozen=True)
class WordEval:
    similarity: tuple[Path, ...]
    analogies: tuple[Path, ...]


def load(folder: Path) -> WordEval:
    """The files of the folder, each checked line by line; a `DataError` names the line at fault."""
    found = sorted(folder.glob("*.txt")) if folder.is_dir() else []
    if not found:
        got = "a folder without them" if folder.is_dir() else "no such folder"
        raise DataError(f"{folder}: expected a folder of .txt files with pairs or analogies, got {got}")
    similarity, analogies = [], []
    for path in found:
        lines = read_text(path).splitlines()
        if lines[0].startswith(":"):
            check_analogies(path, lines)
            analogies.append(path)
        else:
            check_pairs(path, lines)
            similarity.append(path)
    return WordEval(tuple(similarity), tuple(analogies))


def check_pairs(path: Path, lines: list[str]) -> None:
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        fields = line.split()
        try:
            if len(fields) != 3:
                raise ValueError
            float(fields[2])
        except ValueError:
            raise DataError(
                f"{path}: expected two words and a score in line {number}, got '{line}'"
            ) from None


def check_analogies(path: Path, lines: list[str]) -> None:
    for number, line in enumerate(lines, start=1):
        if line.strip() and not line.startswith(":") and len(line.split()) != 4:
            raise DataError(f"{path}: expected four words in line {number}, got '{line}'")
