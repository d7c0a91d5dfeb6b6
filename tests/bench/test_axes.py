"""Cases of other sizes: their shapes, what is refused, and what `cisdl bench --axis` makes of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from cisdl import errors
from cisdl.bench import models, ops
from cisdl.bench.axes import parse, vary
from cisdl.bench.verify import require_agreement

from cisdl_ops.cases import CASES, LAYERS, OPS, WORD_VECTORS, Case, select
from cisdl_ops.cases.axes import DIMENSIONS, NoSuchAxis, axes_of, names, varied
from tests.cli.conftest import Command


def case_of(identifier: str) -> Case:
    return next(case for case in CASES if case.id == identifier)


def test_every_op_has_axes() -> None:
    assert set(DIMENSIONS) == {*OPS, *LAYERS, *WORD_VECTORS}
    for op in (*OPS.values(), *LAYERS.values()):
        assert set(DIMENSIONS[op.name]) - {"cx"} <= set(op.tensors)
        assert "batch" in names(op.name)


@pytest.mark.parametrize("op", [*OPS, *LAYERS])
def test_the_names_of_an_op_describe_the_shapes_of_its_cases(op: str) -> None:
    """Another batch changes the batch and nothing else; a dimension set to what it is changes nothing."""
    for case in (one for one in select("bench") if one.op == op):
        changed = varied(case, {"batch": 3}).shapes
        for tensor, shape in case.shapes.items():
            dimensions = DIMENSIONS[op][tensor]
            expected = list(shape)
            if "batch" in dimensions:
                expected[dimensions.index("batch")] = 3
            assert changed[tensor] == tuple(expected)
            for name, size in zip(dimensions, shape, strict="..." not in dimensions):
                if name.isidentifier() and "..." not in dimensions:
                    assert varied(case, {name: size}).shapes == case.shapes


@pytest.mark.parametrize(
    ("identifier", "axes", "expected"),
    [
        ("linear/lenet_fc1_b64", {"n": 7, "outputs": 3}, {
            "input": (7, 400), "weight": (3, 400), "bias": (3,)
        }),
        ("linear/tokens_32x35_256_to_1024", {"batch": 2, "in_features": 9}, {
            "input": (2, 35, 9), "weight": (1024, 9), "bias": (1024,)
        }),
        ("conv2d/lenet_conv2_b64", {"channels": 8, "size": 9, "kernel_size": 3}, {
            "input": (64, 8, 9, 9), "weight": (8, 8, 3, 3), "bias": (8,)
        }),
        ("conv2d/depthwise_3x3_64_56_b8", {"channels": 10}, {
            "input": (8, 10, 56, 56), "weight": (10, 1, 3, 3), "bias": (10,)
        }),
        ("conv2d/grouped_3x3_128_28_g32_b8", {"groups": 16, "in_channels": 64}, {
            "input": (8, 64, 28, 28), "weight": (128, 4, 3, 3), "bias": (128,)
        }),
        ("max_pool2d/lenet_pool1_b64", {"channels": 3, "height": 8}, {"input": (64, 3, 8, 28)}),
        ("lstm_cell/h128_b32", {"hidden": 5, "inputs": 4, "batch": 2}, {
            "input": (2, 4), "hx": (2, 5), "cx": (2, 5), "w_ih": (20, 4), "w_hh": (20, 5), "b_ih": (20,),
            "b_hh": (20,),
        }),
        ("gru_layer/h128_b64_t32", {"steps": 3, "hidden_size": 5, "batch": 2}, {
            "input": (3, 2, 128), "hx": (1, 2, 5), "w_ih": (15, 128), "w_hh": (15, 5), "b_ih": (15,),
            "b_hh": (15,),
        }),
        ("word2vec/pairs_d100", {"words": 50, "dim": 8}, {
            "input_vectors": (50, 8), "output_vectors": (50, 8)
        }),
    ],
)  # fmt: skip
def test_shapes(identifier: str, axes: dict[str, int], expected: dict[str, tuple[int, ...]]) -> None:
    found = varied(case_of(identifier), axes)
    assert found.shapes == expected
    assert axes_of(found.id) == axes
    assert axes_of(identifier) == {}


def test_transposed_convolutions_change_both_sides() -> None:
    case = next(one for one in select("bench") if one.op == "conv_transpose2d")
    found = varied(case, {"out_channels": 6, "in_channels": 4, "groups": 2})
    assert found.shapes["input"][1] == 4
    assert found.shapes["weight"][:2] == (4, 3)
    assert found.shapes.get("bias", (6,)) == (6,)


def test_keywords_are_axes_too() -> None:
    found = varied(case_of("conv2d/lenet_conv2_b64"), {"stride": 3, "padding": 0})
    assert found.kwargs == {"stride": 3, "padding": 0}
    assert varied(case_of("max_pool2d/lenet_pool1_b64"), {"kernel_size": 4}).kwargs["kernel_size"] == 4
    assert (
        varied(case_of("adaptive_avg_pool2d/global_512_7_b8"), {"output_size": 2}).kwargs["output_size"] == 2
    )


@pytest.mark.parametrize(
    ("identifier", "axes", "why"),
    [
        ("linear/lenet_fc1_b64", {"channels": 8}, "linear has no axis 'channels'"),
        ("conv2d/lenet_conv2_b64", {"kernel_size": 99}, "torch refuses it"),
        ("conv2d/grouped_3x3_128_28_g32_b8", {"in_channels": 33}, "33 in_channels are not a multiple of 32"),
        ("max_pool2d/lenet_pool1_b64", {"padding": 9}, "torch refuses it"),
    ],
)
def test_sizes_that_cannot_be(identifier: str, axes: dict[str, int], why: str) -> None:
    with pytest.raises(NoSuchAxis, match=why):
        varied(case_of(identifier), axes)


@pytest.mark.parametrize(
    ("identifier", "axes"),
    [
        ("conv2d/depthwise_3x3_64_56_b8", {"channels": 18, "batch": 2, "size": 9}),
        ("conv2d/lenet_conv2_b64", {"channels": 5, "batch": 3, "kernel_size": 2}),
        ("lstm_layer/h128_b64_t32", {"hidden": 9, "inputs": 7, "steps": 3, "batch": 5}),
        ("gru_cell/h128_b32", {"hidden": 33}),
    ],
)
def test_kernels_are_right_there_too(identifier: str, axes: dict[str, int]) -> None:
    require_agreement(
        varied(case_of(identifier), axes), torch.float32, torch.device("cpu"), torch.contiguous_format
    )


def test_every_combination_and_a_word_about_the_rest() -> None:
    cases = [case_of("conv2d/lenet_conv2_b64"), case_of("linear/lenet_fc1_b64")]
    chosen = [models.BENCH_MODELS["mlp"]]
    found, batched, left_out = vary(cases, chosen, {"batch": [2, 4], "size": [3, 9]})
    assert [case.name for case in found] == [
        "lenet_conv2_b64@batch=2,size=9",
        "lenet_conv2_b64@batch=4,size=9",
    ]
    assert batched == []
    assert left_out[:2] == [
        "linear has no axis size: 1 left out",
        "a model's training step has no axis size: 1 left out",
    ]
    assert [words.split(":")[0] for words in left_out[2:]] == [
        f"conv2d/lenet_conv2_b64 with batch={n},size=3 is left out" for n in (2, 4)
    ]
    (one, two) = vary([], chosen, {"n": [2, 4]})[1]
    assert (one.name, one.batch, two.batch) == ("mlp@n=2", 2, 4)
    step = models.Trainer(one, "ours", "contiguous", ops.Settings(**SETTINGS))
    assert len(step.images) == len(step.labels) == 2


SETTINGS = {
    "device": torch.device("cpu"), "dtype": torch.float32, "layouts": ("contiguous",), "each_layout": False,
    "forward": True, "backward": True, "compiled": False, "effort": None, "clock": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("texts", "complaint"),
    [
        (["batch"], "got 'batch'"),
        (
            ["batch=1,x"],
            "expected NAME=V1,V2,... with numbers of 1 or more like batch=64,256, got 'batch=1,x'",
        ),
        (["batch=0"], "numbers of 1 or more"),
        (["batch=1", "batch=2"], "--axis batch: expected each axis once, got it twice"),
    ],
)
def test_what_is_no_axis(texts: list[str], complaint: str) -> None:
    with pytest.raises(errors.UsageError, match=complaint.replace(".", r"\.")):
        parse(texts)
    assert parse(["in-features=3,3,5", "padding=0"]) == {"in_features": [3, 5], "padding": [0]}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["conv2d/lenet*", "--axis", "chanels=3"], "did you mean 'channels'? (known: batch, in_channels,"),
        (["model/mlp", "--axis", "hidden=3"], "nothing chosen has an axis 'hidden'; known: batch, n"),
        (
            ["conv2d/lenet_conv2_b64", "--axis", "kernel_size=99"],
            "no chosen case is left (conv2d/lenet_conv2_b64",
        ),
    ],
)
def test_bench_refuses(arguments: list[str], complaint: str, cisdl: Command) -> None:
    refused = cisdl("bench", *arguments)
    assert refused.code == errors.USAGE
    assert complaint in refused.sentence()


def test_bench_of_axes(cisdl: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One row a case, size and pass; no layer of a network; the file says which axis and which cache."""
    monkeypatch.setattr("cisdl.bench.ceilings.SIZES", (1 << 18,))
    monkeypatch.setattr(ops, "interleave", lambda calls, clock, effort: [[0.001] * 9 for _ in calls])
    arguments = ["--axis", "batch=2,3", "--mode", "fwd_bwd", "--threads", "1", "-o", "out.json"]
    done = cisdl("bench", "linear/lenet_fc*", *arguments)
    assert done.code == errors.OK, done.err
    content = json.loads((tmp_path / "out.json").read_text())
    assert [(row["case"], row["axis"], row["part"], row["cache"]) for row in content["rows"]] == [
        (f"linear/lenet_fc{i}_b64@batch={n}", {"batch": n}, "training", "hot")
        for i in (1, 2, 3)
        for n in (2, 3)
    ]
    assert content["options"]["axis"] == {"batch": [2, 3]}
    assert content["options"]["mode"] == "fwd_bwd"
    assert content["networks"] == {}
    assert "lenet_fc1_b64@batch=2" in done.out


def test_a_wrong_kernel_is_not_timed_along_an_axis(cisdl: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    import cisdl_ops

    right = cisdl_ops.linear

    def wrong_for_three_rows(input: torch.Tensor, *others: object) -> torch.Tensor:
        result = right(input, *others)
        return result + 1e-3 if len(input) == 3 else result

    monkeypatch.setattr(cisdl_ops, "linear", wrong_for_three_rows)
    monkeypatch.setattr("cisdl.bench.ceilings.SIZES", (1 << 18,))
    monkeypatch.setattr(ops, "interleave", lambda calls, clock, effort: [[0.001] * 9 for _ in calls])
    arguments = ["--mode", "fwd", "--threads", "1"]
    assert cisdl("bench", "linear/lenet_fc3_b64", "--axis", "batch=2", *arguments).code == errors.OK
    refused = cisdl("bench", "linear/lenet_fc3_b64", "--axis", "batch=2,3", *arguments)
    assert refused.code == errors.KERNEL_DISAGREES
    assert "linear/lenet_fc3_b64@batch=3 is wrong and was not timed" in refused.err
