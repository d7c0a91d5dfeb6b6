"""Lines of the standard library's own source, cut into pieces, and what `tokenize` says they are part of.

A piece is a run of letters and digits, or one other character: "x = 'it is'" is x = ' it is '. Its tag is the
kind of the token that it begins (B-) or goes on with (I-), as chunks of words are tagged: B-NAME B-OP
B-STRING I-STRING I-STRING I-STRING. Which of the kinds a word belongs to is for what stands before it to say,
sometimes many words before, so a table of words does badly.

A sentence is one physical line. Lines inside a string of several lines are left out, and lines that occur
again. Modules to validate and to be judged on are others than those to train on. The text differs a little
between versions of Python.
"""

from __future__ import annotations

import io
import keyword
import platform
import sysconfig
import tokenize
from collections.abc import Iterator
from pathlib import Path

from cisdl.data.examples import Examples
from cisdl.data.tags import Tagged
from cisdl.data.tokens import pieces

TRAIN = (
    "abc.py", "argparse.py", "ast.py", "bisect.py", "calendar.py", "cmd.py", "copy.py", "csv.py",
    "dataclasses.py", "fractions.py", "functools.py", "glob.py", "heapq.py", "inspect.py", "json/decoder.py",
    "locale.py", "operator.py", "pprint.py", "random.py", "shutil.py", "statistics.py", "string.py",
)  # fmt: skip
VALIDATION = ("textwrap.py", "queue.py", "json/encoder.py", "tempfile.py")
TEST = ("types.py", "difflib.py", "json/tool.py", "shlex.py")
LONGEST = 40
"""Pieces of a line; longer ones are left out."""
IGNORED = {"ENCODING", "NEWLINE", "NL", "INDENT", "DEDENT", "ENDMARKER"}


def kind(token: tokenize.TokenInfo) -> str:
    """NAME, KEYWORD, NUMBER, STRING, OP or COMMENT; newer Pythons have strings in several tokens."""
    name = tokenize.tok_name[token.type]
    if name == "NAME" and keyword.iskeyword(token.string):
        return "KEYWORD"
    return "STRING" if name.startswith("FSTRING") else name


def sentences(source: str) -> Iterator[Tagged]:
    """The lines of a module."""
    starts: dict[int, list[tuple[int, int, str]]] = {}  # by row: first and end column, kind
    inside: set[int] = set()  # rows of tokens of several lines
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        (row, first), (last_row, end) = token.start, token.end
        name = kind(token)
        if name in IGNORED:
            continue
        if last_row > row:
            inside.update(range(row, last_row + 1))
        starts.setdefault(row, []).append((first, end, name))
    for row, line in enumerate(source.splitlines(), start=1):
        found = pieces(line)
        if row in inside or row not in starts or not 1 < len(found) <= LONGEST:
            continue
        tags = [tag(place, starts[row]) for place, _ in found]
        if all(tags):  # a line that goes on after a backslash has one outside its tokens
            yield Tagged(tuple(piece for _, piece in found), tuple(tags))


def tag(place: int, tokens: list[tuple[int, int, str]]) -> str:
    """Of the piece that starts there; "" if it is in none of the tokens."""
    for first, end, name in tokens:
        if first <= place < end:
            return ("B-" if place == first else "I-") + name
    return ""


def load(seed: int = 0, whole: bool = False) -> Examples[Tagged]:
    """Always the same lines in the same parts: `seed` changes nothing."""
    del seed
    library = Path(sysconfig.get_paths()["stdlib"])
    seen: set[tuple[str, ...]] = set()

    def part(modules: tuple[str, ...]) -> tuple[Tagged, ...]:
        found = []
        for module in modules:
            for sentence in sentences((library / module).read_text(encoding="utf-8")):
                if sentence.words not in seen:
                    seen.add(sentence.words)
                    found.append(sentence)
        return tuple(found)

    test, validation = part(TEST), part(VALIDATION)  # first: what they have, training has not
    data = Examples(
        name="python-source",
        source=f"the standard library of Python {platform.python_version()}",
        train=part(TRAIN),
        validation=validation,
        test=test,
        split=f"by module; test: {', '.join(TEST)}",
    )
    return data.whole() if whole else data
