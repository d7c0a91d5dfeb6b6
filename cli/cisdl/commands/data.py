"""`cisdl data get` and `cisdl data verify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cisdl.commands import candidates
from cisdl.commands.options import with_data_dir
from cisdl.errors import DataError, UsageError, did_you_mean

if TYPE_CHECKING:
    from cisdl.data.downloads import Download


@click.group()
def data() -> None:
    """Bring public data sets, and check the ones that are there; `cisdl ls data` lists them.

    \b
    Examples:
      cisdl data get mnist
      cisdl data verify mnist
    """


@data.command()
@click.argument("name", metavar="NAME", shell_complete=candidates.downloads)
@with_data_dir
@click.option(
    "--mirror", metavar="URL", help="Ask this address first: URL/NAME/FILE, such as a server of the course."
)
def get(name: str, data_dir: str | None, mirror: str | None) -> None:
    """Bring the public data set NAME into the data folder, with its checksums verified and examples counted.

    What is there already stays. What was interrupted goes on where it stopped. A file takes its name only
    when its bytes are right.

    \b
    Examples:
      cisdl data get mnist
      cisdl data get text8 --data-dir ~/data
    """
    from cisdl import console
    from cisdl.data.downloads import DOWNLOADS
    from cisdl.data.fetch import fetch, is_there
    from cisdl.data.registry import DATA, data_folder

    if name not in DOWNLOADS:
        if name in DATA:
            bundled = DATA[name].bundled
            why = (
                f"it is {bundled}, use it as it is"
                if bundled
                else "no public address is known, use files of yours"
            )
            raise UsageError(f"data set '{name}' cannot be brought: {why}")
        raise UsageError(f"unknown data set '{name}'; {did_you_mean(name, DOWNLOADS)}")
    chosen = DOWNLOADS[name] if mirror is None else with_mirror(DOWNLOADS[name], mirror)
    folder = data_folder(data_dir) / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"{folder.absolute()}: cannot be created ({error.strerror}); choose another --data-dir"
        ) from error
    for file in chosen.files:
        if is_there(folder, file):
            console.say(f"{file.name}: already there")
            continue
        with Bar(file.name, file.size) as bar:
            fetch(folder, file, bar.update)
        console.say(f"{file.name}: {file.size:,} bytes, SHA-256 as expected")
    print(f"{folder}: {counted(chosen, folder, data_dir)}")


@data.command()
@click.argument("what", metavar="NAME|PATH", shell_complete=candidates.data)
@with_data_dir
def verify(what: str, data_dir: str | None) -> None:
    """Check the data set NAME: its checksums, as far as they are known, and that all of it can be read.

    Or a file or folder PATH, which has no checksums: that some reader takes it, and what it holds.

    \b
    Examples:
      cisdl data verify mnist
      cisdl data verify my-digits/
    """
    from cisdl.data.downloads import DOWNLOADS
    from cisdl.data.registry import DATA, data_folder

    if what not in DATA and what not in DOWNLOADS:
        print(f"{what}: {read(what, data_dir)}")
        return
    folder = data_folder(data_dir) / what
    bundled = what in DATA and DATA[what].bundled
    if what in DOWNLOADS and not bundled:
        if not folder.is_dir():
            raise DataError(
                f"data set '{what}': expected the folder {folder.absolute()}, got no such folder; "
                f"`cisdl data get {what}` brings it"
            )
        for line in checked(DOWNLOADS[what], folder):
            print(line)
        print(f"{folder}: {counted(DOWNLOADS[what], folder, data_dir)}")
    else:
        print(f"{what}: {read(what, data_dir)}; no checksums are known")


def with_mirror(download: Download, mirror: str) -> Download:
    from dataclasses import replace

    base = f"{mirror.rstrip('/')}/{download.name}/"
    files = tuple(replace(file, urls=(base + file.name, *file.urls)) for file in download.files)
    return replace(download, files=files)


def checked(download: Download, folder: Path) -> list[str]:
    """A line for each file that is right; a `DataError` for the first that is not, or if none is there."""
    import hashlib

    from cisdl.data.fetch import is_there, sha256
    from cisdl.data.text import unpacked

    lines = []
    for file in download.files:
        if file.members:
            if not is_there(folder, file):
                names = ", ".join(file.members.values())
                raise DataError(
                    f"{folder}: expected {names} as `cisdl data get {download.name}` unpacks them, got others"
                )
            lines += [f"{name}: as it was unpacked" for name in file.members.values()]
            continue
        path = folder / file.name
        packed = [folder / f"{file.name}{ending}" for ending in (".xz", ".gz")]
        found = next((one for one in (path, *packed) if one.is_file()), None)
        if found is None:
            lines.append(f"{file.name}: not there")
            continue
        digest = sha256(found) if found == path else hashlib.sha256(unpacked(found)).hexdigest()
        if digest != file.sha256:
            raise DataError(
                f"{found}: expected SHA-256 {file.sha256}, got {digest}; remove it, and "
                f"`cisdl data get {download.name}` brings it again"
            )
        lines.append(f"{found.name}: SHA-256 as expected")
    if all(line.endswith("not there") for line in lines):
        raise DataError(f"{folder}: expected {', '.join(f.name for f in download.files)}, got none of them")
    return lines


def counted(download: Download, folder: Path, data_dir: str | None) -> str:
    """What a reader finds in the set; a `DataError` if it is not what it ought to be."""
    from cisdl.data.registry import DATA

    if download.name not in DATA:
        return f"{len(list(folder.iterdir()))} files"
    parts = counts_of(download.name, data_dir)
    complete = all((folder / file.name).exists() for file in download.files if not file.members)
    if download.counts and complete and parts != dict(download.counts):
        raise DataError(f"{folder}: expected {in_words(download.counts)}, got {in_words(parts)}")
    return in_words(parts)


def read(what: str, data_dir: str | None) -> str:
    """A set without checksums, or a path: what the first reader that can read it finds."""
    from cisdl.data.registry import DATA, KINDS, READERS

    if what in DATA:
        return in_words(counts_of(what, data_dir))
    path = Path(what).expanduser()
    failed: DataError | None = None
    for kind in dict.fromkeys(reader.kind for reader in READERS if path.exists() and reader.matches(path)):
        try:
            return f"{in_words(counts_of(what, data_dir, [kind]))}, as {KINDS[kind]}"
        except DataError as error:  # noqa: PERF203  (there are three readers at most)
            failed = error
    if failed is not None:
        raise failed
    return in_words(counts_of(what, data_dir))


def counts_of(what: str, data_dir: str | None, kinds: list[str] | None = None) -> dict[str, int]:
    from cisdl.data import registry

    kind = registry.kind_of(what, data_dir, kinds or list(registry.KINDS))
    loaded: Any = registry.load(what, data_dir, 0, kind)
    return dict(loaded.counts)


def in_words(counts: Any) -> str:
    return ", ".join(f"{count:,} {part}" for part, count in counts.items())


class Bar:
    """A bar on stderr while a file comes, if that is a terminal."""

    def __init__(self, name: str, size: int) -> None:
        import sys

        self.progress: Any = None
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

            self.progress = Progress(
                TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
                console=Console(stderr=True), transient=True,
            )  # fmt: skip
            self.task = self.progress.add_task(name, total=size)

    def __enter__(self) -> Bar:
        if self.progress:
            self.progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self.progress:
            self.progress.stop()

    def update(self, there: int) -> None:
        if self.progress:
            self.progress.update(self.task, completed=there)
