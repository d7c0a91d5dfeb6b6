"""Every entry of every implementation list, forced; and what forcing says when it cannot."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

import cisdl_ops
from cisdl_ops import tolerance
from cisdl_ops.cases import OPS, Case
from tests.ops.running import DTYPES, TEST_CASES, case_named, expectation, layouts, name_of

ROOT = Path(__file__).resolve().parents[2]
LISTS = {
    "linear": ("linear", "linear_backward_input", "linear_backward_weight"),
    "conv2d": ("conv2d", "conv2d_backward_input", "conv2d_backward_weight"),
    "conv_transpose2d": (
        "conv_transpose2d",
        "conv_transpose2d_backward_input",
        "conv_transpose2d_backward_weight",
    ),
    "max_pool2d": ("max_pool2d", "max_pool2d_backward"),
    "avg_pool2d": ("avg_pool2d", "avg_pool2d_backward"),
    "adaptive_max_pool2d": ("adaptive_max_pool2d", "adaptive_max_pool2d_backward"),
    "adaptive_avg_pool2d": ("adaptive_avg_pool2d", "adaptive_avg_pool2d_backward"),
    "lstm_cell": ("lstm_cell", "lstm_cell_backward"),
    **{op: (op, f"{op}_backward") for op in ("gru_cell", "rnn_tanh_cell", "rnn_relu_cell")},
}
ENTRIES = [
    (op, entry, name)
    for op, entries in LISTS.items()
    for entry in entries
    for name in cisdl_ops.implementations(entry)
]


def attempt(
    op: str, entry: str, name: str, case: Case, tensors: dict[str, Tensor]
) -> tuple[tolerance.Outcome | None, str]:
    """The outcome, or None and why this implementation cannot take the case."""
    try:
        with cisdl_ops.force_implementation(entry, name):
            return tolerance.run(case, OPS[op].ours, tensors), ""
    except (RuntimeError, ValueError) as refusal:
        return None, str(refusal)


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize(("op", "entry", "name"), ENTRIES)
def test_forced(op: str, entry: str, name: str, dtype: torch.dtype) -> None:
    """On every case it takes, it gives the right result and is really what ran; the last takes every case."""
    ran = 0
    for case in (case for case in TEST_CASES if case.op == op):
        for layout in layouts(case):
            tensors = case.inputs(dtype, memory_format=layout, requires_grad=True)
            outcome, refusal = attempt(op, entry, name, case, tensors)
            if outcome is None:
                assert name in refusal, f"{case.id}: {refusal}"
                assert name != cisdl_ops.implementations(entry)[-1], (
                    f"the last of a list takes all: {refusal}"
                )
                continue
            expectation(case.id, dtype).check(outcome, f"by {entry}:{name}")
            ran += cisdl_ops.last_implementation(entry) == name
    # Made for float32 only: Winograd is an approximation, the others have twice the lanes to fill.
    float32_only = name.startswith("winograd") or name in ("space_to_depth", "lanes", "rows")
    if not float32_only or dtype != torch.float64:
        assert ran > 0, f"no case of the table reaches {entry}:{name}"


def test_conv2d_has_more_than_one() -> None:
    assert len(cisdl_ops.implementations("conv2d")) >= 2


def test_forcing_ends_with_the_block() -> None:
    case = case_named("conv2d/resnet_like")
    function, tensors = OPS["conv2d"].ours, case.inputs()
    case.call(function, tensors)
    usual = cisdl_ops.last_implementation("conv2d")
    last = cisdl_ops.implementations("conv2d")[-1]

    def forced_then_broken() -> None:
        with cisdl_ops.force_implementation("conv2d", last):
            case.call(function, tensors)
            assert cisdl_ops.last_implementation("conv2d") == last
            raise KeyError

    with pytest.raises(KeyError):
        forced_then_broken()
    case.call(function, tensors)
    assert cisdl_ops.last_implementation("conv2d") == usual


@pytest.mark.parametrize(("op", "name"), [("conv2d", "nonsense"), ("convolution", "plain")])
def test_forcing_an_unknown_name(op: str, name: str) -> None:
    wrong = "nonsense" if op == "conv2d" else op
    with pytest.raises(ValueError, match=wrong), cisdl_ops.force_implementation(op, name):
        pass


def test_forcing_a_name_of_a_gpu() -> None:
    """Only matrix products have several there, and a tensor on the CPU is refused in words."""
    case = case_named("conv2d/resnet_like")
    with (
        cisdl_ops.force_implementation("conv2d", "cuda_mma"),
        pytest.raises(ValueError, match="on a GPU only"),
    ):
        case.call(OPS["conv2d"].ours, case.inputs())
    with (
        pytest.raises(ValueError, match="expected one of"),
        cisdl_ops.force_implementation("max_pool2d", "cuda_mma"),
    ):
        pass


def in_subprocess(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


PASSES = ("conv2d", "conv2d_backward_input", "conv2d_backward_weight")
CONVOLVE = "import torch, cisdl_ops; cisdl_ops.conv2d(torch.randn(1, 1, 3, 3), torch.randn(1, 1, 3, 3)); "


def test_environment_forces_an_implementation() -> None:
    last = cisdl_ops.implementations("conv2d")[-1]
    done = in_subprocess(
        CONVOLVE + "print(cisdl_ops.last_implementation('conv2d'))", CISDL_IMPL=f"conv2d:{last}"
    )
    assert done.stdout.strip() == last, done.stderr


@pytest.mark.parametrize(
    ("strict", "forced", "winograd"), [("0", "", True), ("1", "", False), ("1", "winograd", True)]
)
def test_strict_mode_leaves_winograd_out_unless_it_is_forced(
    strict: str, forced: str, winograd: bool
) -> None:
    code = (
        "import torch, cisdl_ops;"
        "x, w = torch.randn(1, 64, 8, 8).requires_grad_(), torch.randn(64, 64, 3, 3).requires_grad_();"
        "cisdl_ops.conv2d(x, w, padding=1).sum().backward();"
        "ops = 'conv2d', 'conv2d_backward_input', 'conv2d_backward_weight';"
        "print(*(cisdl_ops.last_implementation(op) == 'winograd' for op in ops))"
    )
    force = {"CISDL_IMPL": ",".join(f"{op}:{forced}" for op in PASSES)} if forced else {}
    done = in_subprocess(code, CISDL_STRICT=strict, **force)
    assert done.stdout.split() == [str(winograd)] * 3, done.stderr


@pytest.mark.parametrize(
    ("variable", "value", "wrong"),
    [
        ("CISDL_IMPL", "conv2d:nonsense", "nonsense"),
        ("CISDL_IMPL", "convolution:plain", "convolution"),
        ("CISDL_ISA", "sse9", "sse9"),
        ("CISDL_STRICT", "yes", "yes"),
    ],
)
def test_environment_with_an_unknown_name_fails_loudly(variable: str, value: str, wrong: str) -> None:
    done = in_subprocess(CONVOLVE, **{variable: value})
    assert done.returncode != 0
    sentence = done.stderr.splitlines()[-1]
    assert wrong in sentence
    assert "expected" in sentence


OTHER_ISAS = [isa for isa in cisdl_ops.build_info()["isas_supported"] if isa != cisdl_ops.build_info()["isa"]]

CHECK_TABLE = """
import sys
import torch
import cisdl_ops
from cisdl_ops import tolerance
from cisdl_ops.cases import OPS
from tests.ops.running import DTYPES, TEST_CASES, layouts

isa, path = sys.argv[1:]
assert cisdl_ops.build_info()["isa"] == isa
expected = torch.load(path, weights_only=False)
for case in TEST_CASES:
    for dtype in DTYPES:
        for layout in layouts(case):
            tensors = case.inputs(dtype, memory_format=layout, requires_grad=True)
            outcome = tolerance.run(case, OPS[case.op].ours, tensors)
            for one in tolerance.compare(outcome, *expected[case.id, dtype]):
                if one.complaint:
                    sys.exit(f"{case.id} {dtype} {layout}: {one.complaint}")
"""


@pytest.fixture(scope="module")
def expected_results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The expectations of the whole table in a file, so that a subprocess need not compute them again."""
    path = tmp_path_factory.mktemp("expected") / "results.pt"
    found = {(case.id, dtype): expectation(case.id, dtype) for case in TEST_CASES for dtype in DTYPES}
    torch.save({key: (one.by_torch, one.exact) for key, one in found.items()}, path)
    return path


@pytest.mark.parametrize("isa", OTHER_ISAS)
def test_other_instruction_sets(isa: str, expected_results: Path) -> None:
    """The whole table, forward and backward, with the kernels of another instruction set."""
    done = in_subprocess(CHECK_TABLE, isa, str(expected_results), CISDL_ISA=isa, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr[-2000:]
