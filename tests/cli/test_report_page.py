"""`cisdl report`: one file that a browser shows without anything else."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from cisdl import errors

from tests.cli.conftest import Command

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Page(HTMLParser):
    """The tags, what they point to, and the text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [
            value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "data")
        ]
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open, tag
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture
def runs(cisdl: Command, tmp_path: Path) -> Path:
    for name, lr in (("one", "0.001"), ("two", "0.003")):
        arguments = ["--limit", "60", "--epochs", "3", "--threads", "1", "--lr", lr, "--out", name]
        assert cisdl("train", "mlp", *arguments).code == errors.OK
    return tmp_path / "runs"


def test_a_page_has_everything_in_it(runs: Path, cisdl: Command) -> None:
    result = cisdl("report", "one")
    assert result.code == errors.OK, result.err
    path = Path(result.out.strip())
    assert path == Path("runs/one/report.html")
    page = Page(path)
    text = " ".join(page.text)
    scored = json.loads((runs / "one" / "result.json").read_text())["test"]
    assert f"test {scored['words']}" in text
    assert page.tags.count("img") == len(list((runs / "one" / "plots").iterdir()))
    assert "17,226" in text
    assert "hidden.0" in text
    assert "Intel" in text or "AMD" in text or "cpu" in text
    assert "script" not in page.tags
    assert all(address.startswith(("data:", "#")) for address in page.addresses), page.addresses
    assert not re.search(r"url\((?!data:|#)", path.read_text()), "the style loads something"


def test_several_runs_are_compared(runs: Path, cisdl: Command) -> None:
    result = cisdl("report", "one", "runs/two", "--out", "both.html")
    assert result.out.strip() == "both.html"
    page = Page(Path("both.html"))
    text = " ".join(page.text)
    assert "2 runs" in text
    head = text[text.index("Results") : text.index("Curves")]
    assert "lr" in head
    assert "batch_size" not in head, "a setting that does not differ"
    assert "0.001" in head
    assert "0.003" in head
    assert "svg" in page.tags
    assert all(address.startswith(("data:", "#")) for address in page.addresses)


def test_a_run_that_has_hardly_begun(tmp_path: Path, cisdl: Command) -> None:
    """And whose name wants to be markup."""
    folder = tmp_path / "runs" / "<b>bold"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model": "mlp", "options": {"hidden": [4]}}')
    assert cisdl("report", "<b>bold").code == errors.OK
    page = Page(folder / "report.html")
    assert "b" not in page.tags
    assert "<b>bold" in " ".join(page.text)
    assert "unfinished" in " ".join(page.text)


def test_unknown_runs_are_refused(cisdl: Command) -> None:
    result = cisdl("report", "nobody")
    assert result.code == errors.USAGE
    assert "'nobody' is not a run" in result.sentence()


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_chromium_shows_it_without_complaint(runs: Path, cisdl: Command, tmp_path: Path) -> None:
    assert cisdl("report", "one", "two", "--out", "page.html").code == errors.OK
    picture = tmp_path / "page.png"
    assert CHROMIUM is not None
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
        f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1200,1600", f"--screenshot={picture}",
        (tmp_path / "page.html").as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in done.stderr, done.stderr
    from matplotlib.image import imread

    pixels = imread(picture)
    assert pixels.shape[:2] == (1600, 1200)
    assert pixels[:, :, :3].std() > 0.05, "the page is blank"
