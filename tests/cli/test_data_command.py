"""`cisdl data get` and `verify`, against a server on this machine that answers in every wrong way."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cisdl import errors
from cisdl.data import downloads, fetch
from cisdl.data.downloads import DOWNLOADS, Download, RemoteFile

from tests.cli.conftest import Command

CONTENT = ("To be, or not to be, that is the question.\n" * 2000).encode()
SHA256 = hashlib.sha256(CONTENT).hexdigest()
NAME = "tinyshakespeare"
COUNTS = {"train": 68800, "validation": 8600, "test": 8600}


class Handler(BaseHTTPRequestHandler):
    """/MODE/NAME gives `content` as MODE says."""

    content = CONTENT
    asked: list[tuple[str, str | None]]

    def do_GET(self) -> None:
        mode = self.path.split("/")[1]
        wanted = self.headers.get("Range")
        self.asked.append((mode, wanted))
        body, begin = self.content, 0
        if mode == "missing":
            self.send_error(404)
            return
        if mode == "corrupt":
            body = body[:100] + b"?" + body[101:]
        if mode == "long":
            body += b"more"
        if mode == "short":  # another, shorter file
            body = body[:200]
        if wanted and mode != "rangeless":
            begin = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if begin >= len(body):
                self.send_error(416)
                return
            self.send_response(206)
            first = begin + (mode == "shifted")
            self.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(body) - begin))
        self.end_headers()
        if mode == "stuck":
            self.wfile.write(body[begin : begin + 10])
            self.wfile.flush()
            time.sleep(1.5)
            return
        piece = len(body) // 3 + 1 if mode == "cut" else len(body)  # hangs up after a third
        self.wfile.write(body[begin : begin + piece])

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "*")
    Handler.asked, Handler.content = [], CONTENT
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{served.server_port}"
        served.shutdown()


def offer(monkeypatch: pytest.MonkeyPatch, *urls: str, **changed: Any) -> RemoteFile:
    """The set's one file, at these addresses."""
    facts: dict[str, Any] = {"name": "input.txt", "size": len(CONTENT), "sha256": SHA256, "urls": urls}
    file = RemoteFile(**facts | changed)
    monkeypatch.setitem(DOWNLOADS, NAME, Download(NAME, "a text", (file,), COUNTS))
    return file


def folder(tmp_path: Path) -> Path:
    return tmp_path / "data" / NAME


def test_a_set_is_brought_counted_and_then_known(
    cisdl: Command, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, f"{server}/good/input.txt")
    assert "`cisdl data get tinyshakespeare` brings it" in cisdl("ls", "data", "--json").out
    missing = cisdl("data", "verify", NAME)
    assert missing.code == errors.DATA
    assert f"`cisdl data get {NAME}` brings it" in missing.sentence()
    result = cisdl("data", "get", NAME)
    assert result.code == errors.OK, result.err
    assert result.out.strip() == f"data/{NAME}: 68,800 train, 8,600 validation, 8,600 test"
    assert (folder(tmp_path) / "input.txt").read_bytes() == CONTENT
    assert [path.name for path in folder(tmp_path).iterdir()] == ["input.txt"]
    again = cisdl("data", "get", NAME)
    assert "already there" in again.err
    assert len(Handler.asked) == 1
    assert "input.txt: SHA-256 as expected" in cisdl("data", "verify", NAME).out


@pytest.mark.parametrize("bad", ["missing", "corrupt", "long", "short", "stuck", "shifted"])
def test_the_next_address_is_asked(
    bad: str, cisdl: Command, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "TIMEOUT", 0.3)
    offer(monkeypatch, f"{server}/{bad}/input.txt", f"{server}/good/input.txt")
    assert cisdl("data", "get", NAME).code == errors.OK
    assert (folder(tmp_path) / "input.txt").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ("missing", "HTTP 404 Not Found"),
        ("corrupt", f"expected SHA-256 {SHA256}, got "),
        ("long", "expected 86,000 bytes, got more"),
        ("short", "ended after 200 of 86,000 bytes"),
        ("stuck", "timed out after 30 of 86,000 bytes"),
    ],
)
def test_no_right_address_is_code_7_and_no_file(
    bad: str, said: str, cisdl: Command, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "TIMEOUT", 0.3)
    offer(monkeypatch, f"{server}/{bad}/input.txt")
    result = cisdl("data", "get", NAME)
    assert result.code == errors.DATA
    assert said in result.sentence()
    assert f"{server}/{bad}/input.txt" in result.sentence()
    assert not (folder(tmp_path) / "input.txt").exists()


def test_a_closed_port_is_no_traceback(cisdl: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    offer(monkeypatch, "http://127.0.0.1:9/input.txt")
    result = cisdl("data", "get", NAME)
    assert result.code == errors.DATA
    assert "refused" in result.sentence()


def test_a_server_that_hangs_up_is_asked_for_the_rest(
    cisdl: Command, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, f"{server}/cut/input.txt")
    assert cisdl("data", "get", NAME).code == errors.OK
    assert (folder(tmp_path) / "input.txt").read_bytes() == CONTENT
    third = len(CONTENT) // 3 + 1
    assert Handler.asked == [("cut", None), ("cut", f"bytes={third}-"), ("cut", f"bytes={2 * third}-")]


@pytest.mark.parametrize("mode", ["good", "rangeless", "shifted"])
def test_an_interrupted_download_goes_on(
    mode: str, cisdl: Command, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, f"{server}/{mode}/input.txt", f"{server}/good/input.txt")

    def interrupt(there: int) -> None:
        raise KeyboardInterrupt

    real = fetch.receive
    monkeypatch.setattr(fetch, "receive", lambda url, part, size, _: real(url, part, size, interrupt))
    assert cisdl("data", "get", NAME).code == errors.INTERRUPTED
    part = folder(tmp_path) / ".input.txt.part"
    there = part.stat().st_size
    assert there > 0
    assert not (folder(tmp_path) / "input.txt").exists()
    part.write_bytes(CONTENT[:1000])
    monkeypatch.setattr(fetch, "receive", real)
    Handler.asked.clear()
    assert cisdl("data", "get", NAME).code == errors.OK
    expected = [(mode, "bytes=1000-")] + [("good", "bytes=1000-")] * (mode == "shifted")
    assert Handler.asked == expected
    assert (folder(tmp_path) / "input.txt").read_bytes() == CONTENT
    assert not part.exists()


@pytest.mark.parametrize(
    "stale", [b"other" * 10, CONTENT[:50] + b"!", CONTENT + b"longer", b"x" * len(CONTENT)]
)
def test_a_wrong_part_is_dropped(
    stale: bytes, cisdl: Command, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, f"{server}/good/input.txt")
    folder(tmp_path).mkdir(parents=True)
    (folder(tmp_path) / ".input.txt.part").write_bytes(stale)
    assert cisdl("data", "get", NAME).code == errors.OK
    assert (folder(tmp_path) / "input.txt").read_bytes() == CONTENT


def test_a_mirror_is_asked_first(cisdl: Command, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, f"{server}/missing/input.txt")
    assert cisdl("data", "get", NAME, "--mirror", f"{server}/good/").code == errors.OK
    assert Handler.asked == [("good", None)]


def archive(kind: str) -> bytes:
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w") as zipped:
            zipped.writestr("text8", CONTENT)
            zipped.writestr("../evil", b"")
    else:
        with tarfile.open(fileobj=buffer, mode="w:gz") as packed:
            for name, content in (("text8", CONTENT), ("../evil", b"")):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                packed.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_an_archive_is_unpacked(
    kind: str, cisdl: Command, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Handler.content = archive(kind)
    facts = {"size": len(Handler.content), "sha256": hashlib.sha256(Handler.content).hexdigest()}
    facts |= {"name": f"packed.{kind}", "members": {"text8": "text8.txt"}}
    offer(monkeypatch, f"{server}/good/packed", **facts)
    result = cisdl("data", "get", NAME)
    assert result.code == errors.OK, result.err
    assert {path.name for path in folder(tmp_path).iterdir()} == {"text8.txt", "SHA256SUMS"}
    assert (folder(tmp_path) / "text8.txt").read_bytes() == CONTENT
    assert (folder(tmp_path) / "SHA256SUMS").read_text() == f"{SHA256}  text8.txt\n"
    assert "already there" in cisdl("data", "get", NAME).err
    assert cisdl("data", "verify", NAME).code == errors.OK
    (folder(tmp_path) / "text8.txt").write_text("changed")
    assert cisdl("data", "verify", NAME).code == errors.DATA


def test_an_archive_without_its_member_is_named(
    cisdl: Command, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Handler.content = archive("zip")
    facts = {"size": len(Handler.content), "sha256": hashlib.sha256(Handler.content).hexdigest()}
    offer(monkeypatch, f"{server}/good/packed", **facts, name="p.zip", members={"text9": "text9.txt"})
    result = cisdl("data", "get", NAME)
    assert result.code == errors.DATA
    assert "expected an archive with text9" in result.sentence()


def test_a_wrong_count_is_code_7(cisdl: Command, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = offer(monkeypatch, f"{server}/good/input.txt")
    monkeypatch.setitem(DOWNLOADS, NAME, Download(NAME, "a text", (file,), COUNTS | {"test": 9}))
    result = cisdl("data", "get", NAME)
    assert result.code == errors.DATA
    assert "expected 68,800 train, 8,600 validation, 9 test, got 68,800 train" in result.err.splitlines()[-1]


def test_verify_finds_a_changed_byte_and_looks_into_packed_files(
    cisdl: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, "http://127.0.0.1:9/none")
    folder(tmp_path).mkdir(parents=True)
    packed = folder(tmp_path) / "input.txt.gz"
    packed.write_bytes(gzip.compress(CONTENT))
    result = cisdl("data", "verify", NAME)
    assert result.code == errors.OK, result.err
    assert "input.txt.gz: SHA-256 as expected" in result.out
    packed.write_bytes(gzip.compress(CONTENT[1:]))
    result = cisdl("data", "verify", NAME)
    assert result.code == errors.DATA
    assert f"input.txt.gz: expected SHA-256 {SHA256}, got " in result.sentence()


def test_verify_a_path_and_what_is_bundled(cisdl: Command, tmp_path: Path) -> None:
    (tmp_path / "some.txt").write_bytes(CONTENT)
    said = "some.txt: 68,800 train, 8,600 validation, 8,600 test, as a text\n"
    assert cisdl("data", "verify", "some.txt").out == said
    assert cisdl("data", "verify", "digits").out.startswith("digits: 1,077 train, 360 validation, 360 test")
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe")
    assert cisdl("data", "verify", "bad.txt").code == errors.DATA
    assert cisdl("data", "verify", "no/such").code == errors.DATA


def test_what_cannot_be_brought(cisdl: Command) -> None:
    result = cisdl("data", "get", "digits")
    assert result.code == errors.USAGE
    assert "it is bundled with scikit-learn" in result.sentence()
    assert "no public address" in cisdl("data", "get", "imdb").sentence()
    assert "did you mean 'mnist'?" in cisdl("data", "get", "minst").sentence()


def test_the_table_is_sound() -> None:
    for name, download in downloads.DOWNLOADS.items():
        assert name == download.name
        for file in download.files:
            assert file.size > 0
            assert len(file.sha256) == 64
            assert file.urls
        assert set(download.counts) <= {"train", "validation", "test"}
