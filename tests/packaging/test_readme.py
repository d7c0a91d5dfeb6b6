"""The figures of the README and of docs/ are those of the files that they name."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

import cisdl_ops

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
SPEED = (ROOT / "docs" / "speed.md").read_text()
MODELS = (ROOT / "docs" / "models.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def script(name: str, folder: str = "benchmarks") -> ModuleType:
    """A script, as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def to_markdown() -> ModuleType:
    return script("to_markdown")


def test_benchmark_section_is_what_the_files_say(to_markdown: ModuleType) -> None:
    files = to_markdown.named_files(SPEED)
    assert to_markdown.section(files) in SPEED
    assert to_markdown.summary(files) in README


def test_table_of_models_is_what_the_runs_say() -> None:
    models = script("models_to_markdown")
    assert models.section() in MODELS
    assert {path.stem for path in models.KEPT.glob("*.json")} - {"rows"} <= {
        row["row"] for row in models.rows()
    }


def test_floors_of_cuda_kernels_are_what_the_table_says() -> None:
    assert script("cuda_floors").section() in (ROOT / "docs" / "cuda.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_exist(page: Path) -> None:
    """Files beside the page, and the headings in them that links name."""
    text = page.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not link.startswith("http")]
    for link in links:
        name, _, heading = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        headings = (
            re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE) if heading else []
        )
        known = [re.sub(r"[^\w\- ]", "", one).strip().lower().replace(" ", "-") for one in headings]
        assert not heading or heading in known, link


def test_the_readme_shows_pictures_and_stays_short() -> None:
    assert len(re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README)) >= 5
    assert len(README.splitlines()) < 250


def test_implementations_are_listed() -> None:
    """The table of ops names every implementation, in the order in which they are tried."""
    for op in (
        "linear",
        "conv2d",
        "max_pool2d",
        "avg_pool2d",
        "adaptive_max_pool2d",
        "adaptive_avg_pool2d",
        "lstm_cell",
        "gru_cell",
        "lstm_layer",
        "gru_layer",
        "rnn_layer",
    ):
        names = ", ".join(f"`{name}`" for name in cisdl_ops.implementations(op))
        assert re.search(rf"^\| `{op}` \|.*\| {re.escape(names)} \|$", SPEED, re.MULTILINE), op
    both = cisdl_ops.implementations("rnn_tanh_cell")
    assert both == cisdl_ops.implementations("rnn_relu_cell")
    assert f"| `rnn_tanh_cell`, `rnn_relu_cell` | `nn.RNNCell` | `{'`, `'.join(both)}` |" in SPEED
