"""The Penn Treebank's text as Mikolov prepared it: a sentence a line, between spaces, without test part.

The spaces at both ends of a line are dropped, as in his version for characters: 5,017,482 characters to train
on, line ends included. The file of validation text is what is judged here, as the test part; published
figures are of the test file.

Source: Mikolov et al., "Subword language modeling with neural networks", 2012.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cisdl.data import text
from cisdl.data.text import TextData


def load(path: Path, seed: int, whole: bool = False) -> TextData:
    del seed
    data = text.read(path)

    def stripped(part: str) -> str:
        return "".join(line.strip() + "\n" for line in part.splitlines())

    test = None if data.test is None else stripped(data.test)
    data = replace(data, train=stripped(data.train), validation=stripped(data.validation), test=test)
    return data.whole() if whole else data
