"""Bringing a file from the first address that gives the right bytes.

What has come so far lies in `.NAME.part` beside the file's place: an interrupted download goes on from there
(HTTP Range, RFC 9110), at the same address or another, for the checksum is the judge. A server that answers
with the whole file, or that has another one, only costs time. The file gets its name when all is right.

urllib, not pooch: pooch does not continue what was interrupted, and would be one more dependency.
"""

from __future__ import annotations

import hashlib
import http.client
import re
import tarfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO

from cisdl import __version__
from cisdl.data.downloads import RemoteFile
from cisdl.errors import DataError
from cisdl.files import write_atomically, write_text

TIMEOUT = 30.0
"""Seconds without a byte after which an address is given up."""
TRIES = 3
"""At one address, as long as each try brings something."""
BLOCK = 1 << 16
SUMS = "SHA256SUMS"
"""Of what was unpacked, as `sha256sum --check` reads it."""

Progress = Callable[[int], object]
"""Told how many bytes are there."""


class Failure(Exception):
    """One address did not give the file; the words say why."""


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def part_of(folder: Path, file: RemoteFile) -> Path:
    return folder / f".{file.name}.part"


def is_there(folder: Path, file: RemoteFile) -> bool:
    """Whether the file, or everything wanted of the archive, lies in the folder with the right bytes."""
    if file.members:
        sums = read_sums(folder)
        return all(
            name in sums and (folder / name).is_file() and sha256(folder / name) == sums[name]
            for name in file.members.values()
        )
    path = folder / file.name
    return path.is_file() and path.stat().st_size == file.size and sha256(path) == file.sha256


def fetch(folder: Path, file: RemoteFile, progress: Progress = lambda there: None) -> None:
    """Bring one file into the folder and unpack it if it is an archive.

    A `DataError` says of every address what went wrong there. Ctrl-C leaves the part for the next time.
    """
    part = part_of(folder, file)
    reasons = []
    for url in file.urls:
        try:
            download(url, part, file, progress)
            break
        except Failure as failure:
            reasons.append(f"{url}: {failure}")
    else:
        raise DataError(
            f"{file.name}: no address gave the file ({'; '.join(reasons)}); "
            "try again later or with --mirror URL"
        )
    try:
        if file.members:
            unpack(part, folder, file)
            part.unlink()
        else:
            part.replace(folder / file.name)
    except OSError as error:
        raise DataError(
            f"{folder / file.name}: cannot be written ({error.strerror}); choose another --data-dir"
        ) from error


def download(url: str, part: Path, file: RemoteFile, progress: Progress) -> None:
    """`part` holds the right bytes after this, or a `Failure` is raised."""
    began = part.stat().st_size if part.is_file() else 0
    attempt, there = 1, began
    while there < file.size:
        try:
            receive(url, part, file.size, progress)
        except Failure:
            raise
        except urllib.error.HTTPError as error:
            error.close()
            raise Failure(f"HTTP {error.code} {error.reason}") from error
        except (OSError, http.client.HTTPException) as error:  # of the network, or a server that hangs up
            reason = getattr(error, "reason", None) or str(error) or type(error).__name__
            came = part.stat().st_size if part.is_file() else 0
            if attempt == TRIES or came <= there:
                raise Failure(f"{reason} after {came:,} of {file.size:,} bytes") from error
            attempt, there = attempt + 1, came
            continue
        there = part.stat().st_size
        if there < file.size:
            if attempt == TRIES:
                raise Failure(f"ended after {there:,} of {file.size:,} bytes")
            attempt += 1
    found = sha256(part)
    if part.stat().st_size == file.size and found == file.sha256:
        return
    part.unlink()
    if began:  # perhaps only its beginning, which came from elsewhere, was wrong
        download(url, part, file, progress)
        return
    raise Failure(f"expected SHA-256 {file.sha256}, got {found}")


def receive(url: str, part: Path, size: int, progress: Progress) -> None:
    """One request: from where `part` ends if the server can, else from the beginning."""
    there = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"User-Agent": f"cisdl/{__version__}"})
    if there:
        request.add_header("Range", f"bytes={there}-")
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE or not there:
            raise
        error.close()
        part.unlink()  # its file ends before ours does: begin again
        receive(url, part, size, progress)
        return
    with answer:
        goes_on = answer.status == http.client.PARTIAL_CONTENT and begins_at(answer, there)
        if answer.status == http.client.PARTIAL_CONTENT and not goes_on:
            raise Failure(f"answered with {answer.headers.get('Content-Range')}, not from byte {there}")
        with part.open("ab" if goes_on else "wb") as file:
            for block in blocks(answer):
                file.write(block)
                if file.tell() > size:
                    raise too_long(part, size)
                progress(file.tell())


def too_long(part: Path, size: int) -> Failure:
    part.unlink()
    return Failure(f"expected {size:,} bytes, got more")


def blocks(answer: IO[bytes]) -> Iterator[bytes]:
    """What comes, as it comes; a server that hangs up early is an `IncompleteRead` after all it sent."""
    while block := answer.read1(BLOCK):  # type: ignore[attr-defined]
        yield block


def begins_at(answer: http.client.HTTPResponse, place: int) -> bool:
    found = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
    return found is not None and int(found[1]) == place


def unpack(archive: Path, folder: Path, file: RemoteFile) -> None:
    """The wanted members under their own names, and their checksums; nothing else leaves the archive."""
    try:
        for member, name in file.members.items():
            write_atomically(folder / name, partial(extract, archive, member))
    except (KeyError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{file.name}: expected an archive with {', '.join(file.members)}, got others"
        ) from error
    sums = read_sums(folder) | {name: sha256(folder / name) for name in file.members.values()}
    write_text(folder / SUMS, "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items())))


def extract(archive: Path, member: str, target: Path) -> None:
    def copy(source: IO[bytes]) -> None:
        with target.open("wb") as file:
            while block := source.read(1 << 20):
                file.write(block)

    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped, zipped.open(member) as source:
            copy(source)
        return
    with tarfile.open(archive) as packed:
        inside = packed.extractfile(member)
        if inside is None:
            raise KeyError(member)
        with inside:
            copy(inside)


def read_sums(folder: Path) -> dict[str, str]:
    """Checksums by name from the folder's SHA256SUMS; empty where there is none."""
    path = folder / SUMS
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines()
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
