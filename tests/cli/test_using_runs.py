"""`cisdl eval`, `predict`, `sample`, `query`: a finished run needs nothing but its folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from cisdl import errors

from tests.cli.conftest import Command
from tests.models.idx_files import IMAGES, LABELS, idx, write_folder

SHORT = ("--threads", "1", "--epochs", "2")


@pytest.fixture
def run(cisdl: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A short run of the MLP on the digits, without pictures."""
    monkeypatch.setattr("cisdl.report.plots.draw", lambda *_: None)
    assert cisdl("train", "mlp", "--out", "short", *SHORT).code == errors.OK
    return tmp_path / "runs" / "short"


def result_of(run: Path) -> dict[str, float]:
    scored: dict[str, float] = json.loads((run / "result.json").read_text())["test"]
    return scored


@pytest.mark.parametrize("backend", ["cisdl", "torch"])
def test_eval_repeats_the_runs_result(run: Path, backend: str, cisdl: Command) -> None:
    scored = result_of(run)
    found = cisdl("eval", "short", "--json", "--backend", backend)
    assert found.code == errors.OK, found.err
    (again,) = json.loads(found.out)["results"].values()
    assert (again["correct"], again["total"]) == (scored["correct"], 360)
    assert again["loss"] == pytest.approx(scored["loss"], rel=1e-5)
    spoken = cisdl("eval", str(run), "--backend", backend).out
    assert f"digits test accuracy {100 * scored['correct'] / 360:.2f} % ({scored['correct']}/360)" in spoken


def test_eval_judges_a_folder_that_training_never_saw(run: Path, cisdl: Command, tmp_path: Path) -> None:
    """The digits' pixels as bytes: read by another reader, scaled as in training."""
    from cisdl.data import digits

    test = digits.load().test
    assert test is not None
    folder = tmp_path / "mine"
    write_folder(folder, train=3, test=2)
    for prefix in ("train", "t10k"):
        pixels = test.images.squeeze(1).to(torch.uint8).numpy()
        (folder / f"{prefix}-{IMAGES}").write_bytes(idx(pixels))
        (folder / f"{prefix}-{LABELS}").write_bytes(idx(test.labels.to(torch.uint8).numpy()))
    found = cisdl("eval", "short", "--data", "mine", "--json")
    assert found.code == errors.OK, found.err
    answer = json.loads(found.out)
    assert (answer["data"], answer["part"]) == ("mine", "test")
    assert answer["results"]["mlp"]["correct"] == result_of(run)["correct"]


def test_eval_refuses_what_does_not_fit(run: Path, cisdl: Command, tmp_path: Path) -> None:
    write_folder(tmp_path / "other", train=20, test=4)  # 28 x 28
    result = cisdl("eval", "short", "--data", "other")
    assert result.code == errors.DATA
    assert "other: expected images of 1 x 8 x 8 as in training, got 1 x 28 x 28" in result.sentence()

    folder = tmp_path / "more"
    write_folder(folder, train=3, test=2)
    for prefix in ("train", "t10k"):
        (folder / f"{prefix}-{IMAGES}").write_bytes(idx(np.zeros((12, 8, 8), np.uint8)))
        (folder / f"{prefix}-{LABELS}").write_bytes(idx(np.arange(12, dtype=np.uint8)))
    result = cisdl("eval", "short", "--data", "more")
    assert result.code == errors.DATA
    assert "more: expected labels up to 9 as in training, got 11" in result.sentence()


def test_the_last_checkpoint_on_request(run: Path, cisdl: Command) -> None:
    (run / "best.pt").unlink()
    assert "best.pt: expected a checkpoint, got no such file" in cisdl("eval", "short").sentence()
    assert cisdl("eval", "short", "--checkpoint", "last").code == errors.OK


def test_runs_that_cannot_be_used(run: Path, cisdl: Command) -> None:
    result = cisdl("eval", "shrot")
    assert result.code == errors.USAGE
    assert (
        "'shrot' is not a run, expected a folder of `cisdl train`; did you mean 'short'?" in result.sentence()
    )
    for command in (["sample", "short"], ["query", "short", "nn", "word"]):
        result = cisdl(*command)
        assert result.code == errors.USAGE
        assert "mlp " in result.sentence()
    (run / "best.pt").write_bytes((run / "best.pt").read_bytes()[:-200])
    result = cisdl("eval", "short")
    assert result.code == errors.DATA
    assert "best.pt: expected a checkpoint written by cisdl train" in result.sentence()


def test_a_run_of_another_shape_is_named(run: Path, cisdl: Command, tmp_path: Path) -> None:
    state = torch.load(run / "best.pt", weights_only=True)
    state["config"]["options"]["hidden"] = (7,)
    shutil.copytree(run, tmp_path / "runs" / "mixed")
    torch.save(state, tmp_path / "runs" / "mixed" / "best.pt")
    result = cisdl("eval", "mixed")
    assert result.code == errors.DATA
    assert "best.pt: expected the weights of mlp, got others" in result.sentence()


def test_predict_wants_something(cisdl: Command, tmp_path: Path) -> None:
    result = cisdl("predict", "short")
    assert result.code == errors.USAGE
    assert "expected something to predict, got nothing" in result.sentence()
    assert cisdl("predict", "short", "--file", "nowhere.txt").code == errors.DATA
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    result = cisdl("predict", "short", "--file", "latin.txt")
    assert result.code == errors.DATA
    assert "latin.txt: expected UTF-8, got the byte 0xe9 at 3" in result.sentence()


def test_query_counts_its_words(cisdl: Command) -> None:
    assert "analogy: expected 3 words, got 2" in cisdl("query", "x", "analogy", "a", "b").sentence()
    assert "nn: expected 1 word, got 2" in cisdl("query", "x", "nn", "a", "b").sentence()
