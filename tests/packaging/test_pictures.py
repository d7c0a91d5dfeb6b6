"""The README's pictures, and the script that makes those of the command."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image

from .test_readme import ROOT, script

IMAGES = ROOT / "docs" / "images"
LARGEST = 300_000  # bytes
BAR = (
    "import sys\n"
    "from rich.console import Console\n"
    "from rich.progress import Progress\n"
    "with Progress(console=Console(stderr=True), transient=True) as progress:\n"
    "    task = progress.add_task('at work', total=2)\n"
    "    for i in range(2):\n"
    "        progress.update(task, advance=1, refresh=True)\n"
    "        progress.console.print(f'[red]step {i}[/red]')\n"
    "print('done, on a terminal' if sys.stdout.isatty() else 'done')\n"
)


def test_pictures_are_small() -> None:
    sizes = {path.name: path.stat().st_size for path in IMAGES.iterdir()}
    assert {"train.svg", "report.png"} <= set(sizes)
    assert {name: size for name, size in sizes.items() if size > LARGEST} == {}


@pytest.mark.skipif(sys.platform == "win32", reason="needs pseudo-terminals")
def test_a_terminal_keeps_what_was_not_erased(tmp_path: Path) -> None:
    """A bar comes and goes, lines scroll by above it, colours stay."""
    pictures = script("pictures", "docs")
    written = pictures.on_a_terminal([sys.executable, "-c", BAR], tmp_path)
    assert "at work" in written
    screen = pictures.left_on_screen(written)
    assert "at work" not in screen
    assert " ".join(re.sub(r"\x1b\[[0-9;]*m", "", screen).split()) == "step 0 step 1 done, on a terminal"
    assert "\x1b[31mstep" in screen
    pictures.terminal_picture({"make nothing": screen}, tmp_path / "picture.svg")
    drawn = (tmp_path / "picture.svg").read_text().replace("&#160;", " ")
    assert drawn.startswith("<svg")
    assert "make nothing" in drawn
    assert "done, on a terminal" in drawn


def test_a_command_that_fails_is_no_picture(tmp_path: Path) -> None:
    pictures = script("pictures", "docs")
    with pytest.raises(SystemExit, match="ended with 3"):
        pictures.on_a_terminal([sys.executable, "-c", "import sys; sys.exit(3)"], tmp_path)


def test_a_page(tmp_path: Path) -> None:
    pictures = script("pictures", "docs")
    if not any(map(shutil.which, pictures.BROWSERS)):
        with pytest.raises(SystemExit, match="apt-get install chromium"):
            pictures.page_picture(tmp_path / "page.html", tmp_path / "page.png", tmp_path)
        pytest.skip("no Chromium here; that it is missing was said")
    (tmp_path / "page.html").write_text("<body style='background: rgb(10, 20, 30)'></body>")
    pictures.page_picture(tmp_path / "page.html", tmp_path / "page.png", tmp_path)
    with Image.open(tmp_path / "page.png") as image:
        assert image.size == pictures.PAGE
        assert image.convert("RGB").getpixel((5, 5)) == (10, 20, 30)
