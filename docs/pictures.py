"""Makes the README's pictures of the command anew, from a run that it trains in a temporary folder.

    make pictures        # docs/images/train.svg, the terminal; docs/images/report.png, the report

The terminal's picture is what the command writes to a terminal, caught through a pseudo-terminal and drawn by
rich; the page's is a screenshot by a Chromium without a window (Debian: apt-get install chromium).
"""

from __future__ import annotations

import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from fcntl import ioctl
from pathlib import Path
from termios import TIOCSWINSZ

from PIL import Image
from rich.console import Console
from rich.text import Text

IMAGES = Path(__file__).resolve().parent / "images"
LINES, COLUMNS = 40, 112
COMMAND = "train lenet"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PAGE = (1100, 1330)  # pixels
COLOURS = 128  # of the screenshot: a fifth of the bytes, and no eye tells


def on_a_terminal(command: list[str], folder: Path) -> str:
    """What a command writes to a terminal of LINES x COLUMNS, escape sequences and all."""
    ours, theirs = pty.openpty()
    ioctl(theirs, TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color"}
    process = subprocess.Popen(
        command, cwd=folder, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, close_fds=True
    )
    os.close(theirs)
    written = b""
    try:
        while piece := os.read(ours, 65536):
            written += piece
    except OSError:  # Linux: nobody holds the other end any more
        pass
    os.close(ours)
    if process.wait() != 0:
        sys.exit(f"pictures: {' '.join(command)} ended with {process.returncode}: {written.decode()[-500:]}")
    return written.decode()


def left_on_screen(written: str) -> str:
    """Without what was erased again (the progress bar) and without moves of the cursor; colours stay."""
    lines: list[str] = []
    for line in written.replace("\r\n", "\n").split("\n"):
        for _ in range(min(line.count("\x1b[1A"), len(lines))):  # up, to write over what is there
            lines.pop()
        kept = re.split(r"\x1b\[2?K", line)[-1].split("\r")[-1]
        lines.append(re.sub(r"\x1b\[[0-9;?]*[A-HJKhl]", "", kept))
    return "\n".join(lines).rstrip("\n") + "\n"


def terminal_picture(commands: dict[str, str], path: Path) -> None:
    """Each command after a prompt, and what it left on the screen, as an SVG."""
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True)
        for command, screen in commands.items():
            console.print(Text.assemble(("$ ", "bold green"), (command, "bold")))
            console.print(Text.from_ansi(screen), soft_wrap=True, end="")
    path.write_text(console.export_svg(title="cisdl"), encoding="utf-8")


def page_picture(page: Path, path: Path, folder: Path) -> None:
    """The upper part of an HTML page, as a browser shows it."""
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        sys.exit(f"pictures: expected one of {', '.join(BROWSERS)}, found none; apt-get install chromium")
    shot = folder / "shot.png"
    size = f"--window-size={PAGE[0]},{PAGE[1]}"
    # A root user's Chromium needs to be without its sandbox; the page is our own.
    flags = ["--headless", "--no-sandbox", "--hide-scrollbars", "--disable-gpu", f"--screenshot={shot}", size]
    subprocess.run([browser, *flags, page.resolve().as_uri()], check=True, capture_output=True, timeout=120)
    Image.open(shot).convert("RGB").quantize(COLOURS).save(path, optimize=True)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cisdl = [sys.executable, "-m", "cisdl"]
        screen = left_on_screen(on_a_terminal([*cisdl, *COMMAND.split()], folder))
        terminal_picture({f"cisdl {COMMAND}": screen}, IMAGES / "train.svg")
        subprocess.run([*cisdl, "report", "lenet"], cwd=folder, check=True)
        page_picture(folder / "runs" / "lenet" / "report.html", IMAGES / "report.png", folder)
    for made in ("train.svg", "report.png"):
        print(f"{IMAGES / made}: {(IMAGES / made).stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
