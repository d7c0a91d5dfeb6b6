"""Every sentence of refusal in the source: one line that says what to do instead."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from cisdl import errors

from tests.cli.conftest import ROOT

KINDS = {
    name
    for name, kind in vars(errors).items()
    if inspect.isclass(kind) and issubclass(kind, errors.CisdlError)
}
ADVICE = re.compile(
    r"expected|expects|takes one|try |use |choose|leave|look |remove|known|is trained by"
    r"|bench those|run it in"  # said in words,
    r"|did you mean|did_you_mean|see `|`cisdl|`CISDL|CISDL_IMPL=|`make|--\w"  # by name, by command
)
PASSED_ON = re.compile(r"one_line\(error\)|\{error\}|\{error\.message|\{why\}|\{message\}")
"""Words of another error, which is looked at where it is raised, or of what was typed."""


def raised(source: Path) -> Iterator[tuple[int, str]]:
    """The line and the text of each error of ours that a file raises or makes."""
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and node.args:
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if name in KINDS:
                yield node.lineno, ast.unparse(node.args[0])


FOUND = [
    (f"{path.relative_to(ROOT / 'cli' / 'cisdl')}:{line}", text)
    for path in sorted((ROOT / "cli" / "cisdl").rglob("*.py"))
    for line, text in raised(path)
]


def test_they_are_found() -> None:
    assert len(FOUND) > 150
    assert {place.split("/")[0] for place, _ in FOUND} >= {"bench", "commands", "data", "models", "training"}


@pytest.mark.parametrize(("place", "text"), FOUND, ids=[place for place, _ in FOUND])
def test_a_refusal_says_what_to_do(place: str, text: str) -> None:
    assert ADVICE.search(text) or PASSED_ON.search(text), f"{place} does not say what to do: {text}"
    assert "\\n" not in text, f"{place}: expected one line"
    assert not text.rstrip("'\"").endswith("."), f"{place}: expected no full stop"
