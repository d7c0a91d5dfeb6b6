"""The choice by measurement: what it remembers, where it is kept, and that results stay right."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import cisdl_ops
from cisdl_ops import _C, tolerance, tuning
from cisdl_ops.cases import OPS, Case
from tests.ops.running import TEST_CASES, case_named, expectation, name_of

ROOT = Path(__file__).resolve().parents[2]
CASE = case_named("conv2d/resnet_like")
# One case in seven: measuring runs every implementation.
CASES = [case for case in TEST_CASES if OPS[case.op].images or case.op == "linear"][::7]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Nothing remembered before a test or after it, and a folder of its own."""
    monkeypatch.setenv("CISDL_CACHE", str(tmp_path / "cache"))
    _C.forget_choices()
    tuning._read_once.cache_clear()
    yield tmp_path / "cache"
    _C.forget_choices()
    _C.enable_tuning(False)


def convolve() -> str:
    """The implementation that a forward of CASE runs."""
    CASE.call(cisdl_ops.conv2d, CASE.inputs())
    return cisdl_ops.last_implementation("conv2d")


def only_choice() -> tuple[str, str]:
    ((problem, name),) = cisdl_ops.tuned_choices().items()
    return problem, name


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_results_are_right(case: Case) -> None:
    tensors = case.inputs(requires_grad=OPS[case.op].differentiable)
    with cisdl_ops.tune(cache=False):
        for attempt in ("measured", "remembered"):
            outcome = tolerance.run(case, OPS[case.op].ours, tolerance.copies(tensors))
            expectation(case.id, torch.float32).check(outcome, attempt)


def test_a_choice_is_remembered_and_ends_with_the_block(own_cache: Path) -> None:
    usual = convolve()
    with cisdl_ops.tune():
        convolve()
        problem, name = only_choice()
        assert problem.startswith("conv2d/float32/nchw/")
        assert problem.endswith("/2,32,14,14,48,3,3,14,14,1,1,1,1,1,1,1")
        other = next(one for one in cisdl_ops.implementations("conv2d")[::-1] if one != name)
        _C.remember_choice(problem, other)
        assert convolve() == other
    assert convolve() == usual
    assert json.loads(tuning.cache_path().read_text())["choices"] == {problem: other}
    assert tuning.cache_path().parent == own_cache


def test_a_name_that_cannot_run_it_is_measured_again() -> None:
    with cisdl_ops.tune(cache=False):
        convolve()
        problem = only_choice()[0]
        _C.remember_choice(problem, "of another build")
        assert convolve() in cisdl_ops.implementations("conv2d")
        assert only_choice()[1] != "of another build"


def test_a_force_wins() -> None:
    with cisdl_ops.tune(cache=False), cisdl_ops.force_implementation("conv2d", "plain"):
        assert convolve() == "plain"
        assert cisdl_ops.tuned_choices() == {}


def test_it_can_be_turned_off_inside() -> None:
    with cisdl_ops.tune(cache=False):
        with cisdl_ops.tune(False):
            convolve()
        assert cisdl_ops.tuned_choices() == {}
        convolve()
        assert len(cisdl_ops.tuned_choices()) == 1


def test_a_new_process_reads_what_an_old_one_wrote() -> None:
    with cisdl_ops.tune(cache=False):
        convolve()
    problem, _ = only_choice()
    _C.remember_choice(problem, "plain")
    tuning.save()
    code = (
        "import torch, cisdl_ops; torch.set_num_threads(int(__import__('sys').argv[1]));"
        "x, w = torch.randn(2, 32, 14, 14), torch.randn(48, 32, 3, 3);"
        "cisdl_ops.conv2d(x, w, padding=1); print(cisdl_ops.last_implementation('conv2d'));"
        "cisdl_ops.conv2d(x[:1], w, padding=1)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(torch.get_num_threads())],
        cwd=ROOT,
        env={**os.environ, "CISDL_TUNE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "plain"
    kept = json.loads(tuning.cache_path().read_text())["choices"]
    assert kept[problem] == "plain"
    assert len(kept) == 2, "the new process adds its own"


@pytest.mark.parametrize("content", ["no json", "[]", '{"schema": 0, "choices": {}}', '{"schema": 1}'])
def test_a_spoilt_file_is_a_warning(content: str) -> None:
    tuning.cache_path().parent.mkdir(parents=True)
    tuning.cache_path().write_text(content)
    with pytest.warns(UserWarning, match="no file of choices"):
        tuning._read_once()
    assert cisdl_ops.tuned_choices() == {}


def test_a_folder_that_cannot_be_written_is_a_warning(own_cache: Path) -> None:
    own_cache.write_text("a file where the folder would be")
    _C.remember_choice("conv2d/...", "plain")
    with pytest.warns(UserWarning, match="could not be kept"):
        tuning.save()
