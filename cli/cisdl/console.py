"""Printing: results and tables on stdout, everything said along the way on stderr."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

PIPE_WIDTH = 160


def stdout() -> Console:
    """The console for tables; wide where there is no terminal, so that no cell is cut in a file."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)


def say(text: str) -> None:
    """One line of context, on stderr."""
    print(text, file=sys.stderr, flush=True)
