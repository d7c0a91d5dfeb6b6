"""Peak memory: what is counted, and that a process that fails is a sentence."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from cisdl import errors
from cisdl.__main__ import cli
from cisdl.bench import memory
from cisdl.errors import CisdlError

from cisdl_ops.cases import OPS
from tests.ops.running import case_named

pytestmark = pytest.mark.skipif(not memory.measurable(), reason="needs Linux's /proc/self/clear_refs")

CASE = case_named("conv2d/resnet18_layer2_conv2_b8")
WASTE = 64 << 20


def wasteful(*arguments: Any, **options: Any) -> Any:
    """torch's conv2d with 64 MiB more as long as it runs."""
    waste = torch.ones(WASTE // 4)
    output = OPS["conv2d"].torch(*arguments, **options)
    del waste
    return output


def test_a_temporary_tensor_is_counted() -> None:
    """Only the difference: a child of this process finds free pages, and touches code for the first time."""
    usual, more = (
        memory.in_a_child(CASE, function, "contiguous", torch.float32, 1)
        for function in (OPS["conv2d"].torch, wasteful)
    )
    assert 0.5 * WASTE < more - usual < 1.5 * WASTE


def test_a_child_that_dies_is_a_sentence() -> None:
    with pytest.raises(CisdlError, match="conv2d/resnet18_layer2_conv2_b8"):
        memory.in_a_child(CASE, lambda *_, **__: os._exit(1), "contiguous", torch.float32, 1)


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exited:
        cli.main(["bench", "memory", "conv2d/lenet_conv2*", "--threads", "1", "--save"], prog_name="cisdl")
    assert exited.value.code == errors.OK
    (written,) = (tmp_path / "benchmarks").glob("*-1-thread-memory-*.json")
    rows = json.loads(written.read_text())["rows"]
    assert {row["layout"] for row in rows} == {"contiguous", "channels_last"}
    assert all(min(row["ours_bytes"], row["torch_bytes"]) > 0 for row in rows)
    assert "lenet: largest layer" in capsys.readouterr().out


def test_models_have_no_layers_to_measure(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        cli.main(["bench", "memory", "model/lenet"], prog_name="cisdl")
    assert exited.value.code == errors.USAGE
    assert "model/lenet" in capsys.readouterr().err
