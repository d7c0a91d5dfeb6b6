"""Choosing the implementation of an op by measuring it here, as ``torch.backends.cudnn.benchmark`` does.

The lists of implementations carry a cost rule, written from measurements on a few processors. With
:class:`tune` on, the first call with a new problem (op, dtype, layout, sizes, threads) times every
implementation whose condition holds and remembers the fastest; every later call runs that one, for one
look-up more.

What was found is kept in a file per processor, instruction set and build, in ``$CISDL_CACHE``, or in
``cisdl`` in the user's cache folder (``$XDG_CACHE_HOME``, ``~/.cache``). Deleting it only costs the time to
measure again.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import platform
import re
import tempfile
import warnings
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

from cisdl_ops._load import _C

_SCHEMA = 1


class tune:
    """Turns the choice by measurement on or off, from now on or for a block.

    ::

        cisdl_ops.tune()           # from now on, as CISDL_TUNE=1 in the environment does
        with cisdl_ops.tune():     # in this block
            model(batch)
        cisdl_ops.tune(False)      # off again: the cost rule chooses

    It holds for all threads of the process, for the CPU, and for linear, convolution and pooling; recurrent
    cells and layers keep the cost rule. Another implementation adds in another order, so results of a tuned
    and an untuned run agree within the rule of ``docs/drop-in.md``, not bit for bit; two runs that read the
    same file do agree. :func:`cisdl_ops.force_implementation` and ``CISDL_IMPL`` win over it.

    Args:
        enabled: whether to measure and to use what was measured.
        cache: read the choices of earlier processes now, and keep new ones for later ones when the block or
            the process ends. A file that cannot be read or written is a warning, never an error.
    """

    def __init__(self, enabled: bool = True, *, cache: bool = True) -> None:
        self._before = bool(_C.tuning_enabled())
        self._cache = enabled and cache
        if self._cache:
            _read_once()
            atexit.unregister(save)
            atexit.register(save)
        _C.enable_tuning(enabled)

    def __enter__(self) -> tune:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _C.enable_tuning(self._before)
        if self._cache:
            save()


def tuned_choices() -> dict[str, str]:
    """What was measured or read so far: problem -> name of the fastest implementation."""
    return dict(_C.tuned_choices())


def cache_path() -> Path:
    """The file of this processor, instruction set and build."""
    folder = os.environ.get("CISDL_CACHE")
    if not folder:
        folder = str(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cisdl")
    name = re.sub(r"[^a-z0-9]+", "-", f"{_processor()} {_C.isa()}".lower()).strip("-")
    return Path(folder) / f"choices-{name}-{_build()}.json"


def save() -> None:
    """Writes the choices, together with those that other processes wrote meanwhile.

    Called when a block or a process ends.
    """
    path = cache_path()
    choices = {**_read(path), **tuned_choices()}
    if not choices:
        return
    content = json.dumps({"schema": _SCHEMA, "choices": choices}, indent=1, sort_keys=True)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
        try:
            with os.fdopen(handle, "w") as file:
                file.write(content + "\n")
            Path(temporary).replace(path)
        except BaseException:
            with suppress(OSError):
                Path(temporary).unlink()
            raise
    except OSError as error:
        warnings.warn(f"cisdl_ops.tune: the choices could not be kept in {path}: {error}", stacklevel=2)


def _read(path: Path) -> dict[str, str]:
    try:
        content: Any = json.loads(path.read_text())
        if content["schema"] == _SCHEMA:
            return {str(problem): str(name) for problem, name in content["choices"].items()}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        pass
    warnings.warn(f"cisdl_ops.tune: {path} is no file of choices; it is measured again", stacklevel=3)
    return {}


@cache
def _read_once() -> None:
    for problem, name in _read(cache_path()).items():
        _C.remember_choice(problem, name)


@cache
def _processor() -> str:
    with suppress(OSError):
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        if found:
            return found[1]
    return platform.processor() or platform.machine()


@cache
def _build() -> str:
    """A fingerprint of the compiled module: other kernels have other speeds."""
    return hashlib.blake2b(Path(_C.__file__).read_bytes(), digest_size=6).hexdigest()


if os.environ.get("CISDL_TUNE", "0") not in ("", "0"):
    tune()
