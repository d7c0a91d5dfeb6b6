"""The text of Python's own manual that every Python carries for `help()`: some 370,000 characters of English.

`pydoc_data.topics` holds chapters of the language reference by topic, and a topic often repeats paragraphs of
another. A paragraph that was there before is left out: else a fifth of the text would be there twice, and
much of what a model is judged on would be known by heart from training.

The text differs a little between versions of Python, so its hash goes where its name goes.

Source: docs.python.org/3/reference (PSF licence), as shipped with the interpreter.
"""

from __future__ import annotations

import hashlib
import platform
from pydoc_data.topics import topics

from cisdl.data.text import TextData, of_one


def whole_text() -> str:
    """All topics in alphabetical order, with what they repeat."""
    return "".join(topics[name].strip("\n") + "\n\n" for name in sorted(topics))


def text() -> str:
    """Every paragraph once."""
    paragraphs = whole_text().strip("\n").split("\n\n")
    return "\n\n".join(dict.fromkeys(paragraph.strip("\n") for paragraph in paragraphs)) + "\n"


def load(seed: int = 0, whole: bool = False) -> TextData:
    """The split is always the same: `seed` changes nothing."""
    del seed
    found = text()
    digest = hashlib.sha256(found.encode()).hexdigest()
    source = f"the manual of Python {platform.python_version()} (pydoc_data.topics), sha256 {digest}"
    data = of_one("manual", source, found)
    return data.whole() if whole else data
