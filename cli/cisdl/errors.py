"""Exit codes, and the exceptions that carry them.

Whatever goes wrong reaches the user as one sentence on stderr and one of these codes; `__main__` does the
printing. Library code raises the class that names the cause and never prints or exits itself.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

OK = 0
RUNTIME = 1
USAGE = 2
DIVERGED = 3
GOAL_MISSED = 4
KERNEL_DISAGREES = 5
BUILD_OR_DEVICE = 6
DATA = 7
INTERRUPTED = 130


class CisdlError(Exception):
    """Something failed while running; the message is one clear sentence."""

    exit_code = RUNTIME


class UsageError(CisdlError):
    """The command line asks for something that does not exist or does not fit together."""

    exit_code = USAGE


class DivergedError(CisdlError):
    """Training left the numbers: the loss is not finite, or far above where it began."""

    exit_code = DIVERGED


class GoalMissedError(CisdlError):
    """A figure that was to be reached was not, or a benchmark got slower."""

    exit_code = GOAL_MISSED


class KernelDisagreesError(CisdlError):
    """A kernel and its reference give different results."""

    exit_code = KERNEL_DISAGREES


class BuildError(CisdlError):
    """The compiled kernels are missing, or were built for another torch."""

    exit_code = BUILD_OR_DEVICE


class DeviceError(CisdlError):
    """The device asked for is not there."""

    exit_code = BUILD_OR_DEVICE


class DataError(CisdlError):
    """A data set is missing, truncated or not what its name says."""

    exit_code = DATA


class Interrupted(CisdlError):
    """Ctrl-C; the message says what was saved and where."""

    exit_code = INTERRUPTED


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of an "unknown name" sentence: the nearest known name if there is one, then all of them.

    >>> did_you_mean("lenett", ["mlp", "lenet"])
    "did you mean 'lenet'? (known: mlp, lenet)"
    """
    names = list(known)
    close = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.55)
    listed = ", ".join(names)
    return f"did you mean '{close[0]}'? (known: {listed})" if close else f"known: {listed}"
