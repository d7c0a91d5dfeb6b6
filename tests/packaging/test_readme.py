"""The README's figures are those of the files that it names."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

import cisdl_ops

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def script(name: str) -> ModuleType:
    """A script of benchmarks/, as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def to_markdown() -> ModuleType:
    return script("to_markdown")


def test_benchmark_section_is_what_the_files_say(to_markdown: ModuleType) -> None:
    assert to_markdown.section(to_markdown.named_files(README)) in README


def test_table_of_models_is_what_the_runs_say() -> None:
    models = script("models_to_markdown")
    assert models.section() in README
    assert {path.stem for path in models.KEPT.glob("*.json")} - {"rows"} <= {
        row["row"] for row in models.rows()
    }


def test_floors_of_cuda_kernels_are_what_the_table_says() -> None:
    assert script("cuda_floors").section() in (ROOT / "docs" / "cuda.md").read_text()


def test_pictures_exist() -> None:
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README)
    assert pictures
    assert [name for name in pictures if not (ROOT / name).is_file()] == []


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
        assert re.search(rf"^\| `{op}` \|.*\| {re.escape(names)} \|$", README, re.MULTILINE), op
    both = cisdl_ops.implementations("rnn_tanh_cell")
    assert both == cisdl_ops.implementations("rnn_relu_cell")
    assert f"| `rnn_tanh_cell`, `rnn_relu_cell` | `nn.RNNCell` | `{'`, `'.join(both)}` |" in README
