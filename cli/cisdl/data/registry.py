"""The data sets known by name, and where they are looked for. Imports nothing heavy until one is loaded."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cisdl.errors import DataError, did_you_mean

if TYPE_CHECKING:
    from cisdl.data.images import ImageData

SCALES = ("raw", "unit", "standard")


@dataclass(frozen=True)
class DataEntry:
    name: str
    title: str
    bundled: bool = False
    scale: str = "standard"
    """How pixels are scaled by default."""


DATA: dict[str, DataEntry] = {
    entry.name: entry
    for entry in (
        DataEntry("digits", "1797 handwritten digits, 8 x 8 grey levels 0-16", bundled=True, scale="raw"),
        DataEntry("mnist", "70,000 handwritten digits, 28 x 28"),
        DataEntry("fashion-mnist", "70,000 photos of clothing, 28 x 28"),
    )
}


def data_folder(chosen: str | None = None) -> Path:
    """The folder that holds named data sets: `chosen` (--data-dir), else $CISDL_DATA, else ./data."""
    return Path(chosen or os.environ.get("CISDL_DATA") or "data")


def load(data: str, data_dir: str | None, seed: int) -> ImageData:
    """The data set with that name or in that folder.

    A name always means the named set; a folder of the same name in the current directory is `./name`.
    """
    if data == "digits":
        from cisdl.data import digits

        return digits.load()

    from cisdl.data import idx

    if data in DATA:
        folder = data_folder(data_dir) / data
        if not folder.is_dir():
            raise DataError(
                f"data set '{data}': expected the folder {folder.absolute()}, got no such folder; put its "
                "IDX files there, or name the folder above it with --data-dir or CISDL_DATA"
            )
        return idx.load(folder, seed)

    folder = Path(data).expanduser()
    if folder.is_dir():
        return idx.load(folder, seed)
    if folder.exists():
        raise DataError(f"{data}: expected a folder of IDX files, got a file")
    if len(folder.parts) == 1 and not data.startswith("."):
        raise DataError(f"'{data}' is neither a folder here nor a data set; {did_you_mean(data, DATA)}")
    raise DataError(f"{data}: expected a folder of IDX files, got no such folder")
