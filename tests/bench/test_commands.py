"""`cisdl bench`, `cisdl bench compare` and `cisdl check`: what they refuse, write and exit with."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from cisdl import errors
from cisdl.__main__ import cli
from cisdl.bench import ceilings, models, ops, results, word_vectors
from cisdl.bench.ceilings import Ceilings
from cisdl.bench.timing import QUICK, CpuClock
from torch import Tensor

import cisdl_ops
from cisdl_ops.cases import CASES, LAYERS, select

CASE = "linear/lenet_fc3_b64"
LINEAR_PASSES = ("forward", "grad_input", "grad_weight")


def run(*arguments: str) -> int:
    """The exit code of ``cisdl`` with these arguments."""
    with pytest.raises(SystemExit) as exited:
        cli.main(list(arguments), prog_name="cisdl")
    return int(exited.value.code or 0)


@pytest.fixture(autouse=True)
def known_ceilings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measuring the machine takes seconds and is tested nowhere here."""
    known = Ceilings(100.0, "a test", {1 << 28: 10.0})
    monkeypatch.setattr(ceilings, "measure", lambda device, dtype: known)
    monkeypatch.setattr(ceilings, "measure_gflops", lambda device, dtype, clock: (90.0, "a test"))


@pytest.fixture
def no_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        pytest.fail("a wrong kernel was timed")

    monkeypatch.setattr(ops, "interleave", refuse)
    monkeypatch.setattr(models, "interleave", refuse)


def test_graphs_are_for_gpus(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("bench", CASE, "--graphs") == errors.UsageError.exit_code
    assert "--graphs: expected --device cuda, got cpu" in capsys.readouterr().err


def test_both_sides_in_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph stands in for the call that it was made of, on the same case and pass."""
    prepared = []

    def captured(prepare: Any, device: torch.device) -> Any:
        prepared.append(prepare)
        return prepare()

    monkeypatch.setattr(ops, "captured", captured)
    settings = ops.Settings(
        torch.device("cpu"),
        torch.float32,
        ("contiguous",),
        False,
        True,
        True,
        False,
        QUICK,
        CpuClock(),
        graphs=True,
    )
    [case] = [case for case in CASES if case.id == CASE]
    rows = list(ops.bench_case(case, settings))
    assert len(prepared) == 2 * len(LINEAR_PASSES)
    for row in rows:
        assert {one.provider for one in row.timings} == {
            "ours",
            "torch",
            "ours in a graph",
            "torch in a graph",
        }
        assert row.ratio_in_graphs is not None
        assert "speedup_in_graphs" in row.as_json(ceilings.measure(torch.device("cpu"), torch.float32))


class WrongGradient(torch.autograd.Function):
    """A linear layer whose forward is right and whose weight gradient is 0.1 % too large."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(input, weight)
        return torch.nn.functional.linear(input, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        input, weight = ctx.saved_tensors
        return grad @ weight, 1.001 * grad.t() @ input, grad.sum(0)


def slightly_wrong(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return torch.nn.functional.linear(input, weight, bias) + 1e-4


@pytest.mark.usefixtures("no_timing")
@pytest.mark.parametrize("wrong", [slightly_wrong, WrongGradient.apply])
def test_bench_refuses_to_time_a_wrong_kernel(
    wrong: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cisdl_ops, "linear", wrong)
    target = tmp_path / "out.json"
    assert run("bench", CASE, "--mode", "fwd", "-o", str(target)) == errors.KERNEL_DISAGREES
    assert not target.exists()
    last = capsys.readouterr().err.splitlines()[-1]
    assert CASE in last
    assert "was not timed" in last


@pytest.mark.usefixtures("no_timing")
def test_bench_refuses_to_time_a_wrong_model(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = cisdl_ops.nn.Linear.forward
    monkeypatch.setattr(cisdl_ops.nn.Linear, "forward", lambda self, x: 1.01 * right(self, x))
    assert run("bench", "model/mlp", "--quick") == errors.KERNEL_DISAGREES
    assert "loss of step 1" in capsys.readouterr().err


def test_check_finds_a_wrong_kernel(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cisdl_ops, "linear", slightly_wrong)
    assert run("check", "linear/grad*", "--dtype", "float32") == errors.KERNEL_DISAGREES
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    count = len(select(glob="linear/grad*"))
    assert f"{count} of {count} cases disagree" in captured.err
    assert "wrong" in captured.out


def test_check_passes_and_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check", "conv2d/grad", "--json") == errors.OK
    rows = json.loads(capsys.readouterr().out)
    assert {row["tensor"] for row in rows} == {"output 0", "grad input", "grad weight", "grad bias"}
    assert {row["dtype"] for row in rows} == {"float32", "float64"}
    assert {row["layout"] for row in rows} == {"contiguous", "channels_last"}
    assert all(row["complaint"] is None and row["error"] <= row["allowed"] for row in rows)


def test_bench_writes_what_it_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "deep" / "out.json"
    assert (
        run("bench", CASE, "--quick", "--threads", "1", "-o", str(target)) == errors.USAGE
    )  # not a quick case
    assert run("bench", CASE, "--threads", "1", "-o", str(target)) == errors.OK
    printed = capsys.readouterr().out
    content = results.read(target)
    assert {"processor", "isa", "threads", "torch", "device", "date"} <= set(content["environment"])
    assert content["environment"]["threads"] == 1
    assert content["ceilings"]["gflops"] == 100
    assert content["options"]["pattern"] == CASE
    assert [row["part"] for row in content["rows"]] == ["forward", "grad_input", "grad_weight"]
    for row in content["rows"]:
        assert row["case"] == CASE
        assert row["verdict"] in ("win", "even", "loss")
        assert row["speedup"]["low"] <= row["speedup"]["value"] <= row["speedup"]["high"]
        assert {timing["provider"] for timing in row["timings"]} == {"ours", "torch"}
        assert all(len(timing["round_seconds"]) >= 11 for timing in row["timings"])
        assert row["implementation"] in printed
        assert row["implementation"]
        assert row["gflops"] == pytest.approx(2 * 64 * 84 * 10 / row["ours_seconds"] / 1e9, rel=1e-4)
    assert set(content["geometric_means"]) == {"linear:forward", "linear:grad_input", "linear:grad_weight"}


def test_bench_of_a_model(tmp_path: Path) -> None:
    target = tmp_path / "out.json"
    assert run("bench", "model/mlp", "--quick", "--json", str(target)) == errors.OK
    (row,) = results.read(target)["rows"]
    assert (row["case"], row["part"], row["gflops"]) == ("model/mlp", "step", None)


@pytest.mark.parametrize("name", models.BENCH_MODELS)
def test_each_side_of_a_model_is_its_own(name: str) -> None:
    """Ours is our layers, loss and optimiser, or torch's model made faster; torch's is nothing of ours."""
    entry = models.BENCH_MODELS[name]
    ours, theirs = (
        models.Trainer(entry, side, "contiguous", settings_on("cpu")) for side in ("ours", "torch")
    )
    assert type(ours.loss) is (torch if entry.accelerated else cisdl_ops).nn.CrossEntropyLoss
    assert type(ours.optimizer) is (torch if entry.accelerated else cisdl_ops).optim.Adam
    assert any(type(one).__module__.startswith("cisdl_ops") for one in ours.model.modules())
    assert type(theirs.loss) is torch.nn.CrossEntropyLoss
    assert not any(type(one).__module__.startswith("cisdl_ops") for one in theirs.model.modules())
    shapes = [[tuple(p.shape) for p in side.model.parameters()] for side in (ours, theirs)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("arguments", [("bench", "conv3d"), ("check", "conv3d"), ("bench", "model/lenett")])
def test_unknown_pattern(arguments: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments) == errors.USAGE
    captured = capsys.readouterr().err
    assert arguments[1] in captured
    assert "did you mean" in captured


def file_with(path: Path, speedups: dict[str, tuple[float, float, float]], **environment: object) -> str:
    rows = [
        {
            "case": f"conv2d/{name}",
            "part": "forward",
            "dtype": "float32",
            "layout": "best",
            "speedup": dict(zip(("value", "low", "high"), ratio, strict=True)),
        }
        for name, ratio in speedups.items()
    ]
    path.write_text(
        json.dumps({"schema": results.SCHEMA, "environment": {"threads": 1, **environment}, "rows": rows})
    )
    return str(path)


def test_compare_exit_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = file_with(tmp_path / "a.json", {"x": (2.0, 1.9, 2.1), "y": (1.0, 0.9, 1.1), "gone": (1, 1, 1)})
    same = file_with(tmp_path / "b.json", {"x": (1.95, 1.9, 2.0), "y": (1.5, 1.4, 1.6)}, threads=2)
    noisy = file_with(tmp_path / "c.json", {"x": (1.5, 1.0, 2.0)})
    slower = file_with(tmp_path / "d.json", {"x": (1.5, 1.4, 1.6), "y": (1.0, 0.9, 1.1)})

    assert run("bench", "compare", before, same) == errors.OK
    said = capsys.readouterr().err
    assert "threads 1 -> 2" in said
    assert "conv2d/gone:forward" in said
    assert run("bench", "compare", before, noisy) == errors.OK  # the intervals overlap
    assert run("bench", "compare", before, slower) == errors.GOAL_MISSED
    assert "conv2d/x:forward from 2.00x to 1.50x" in capsys.readouterr().err
    assert run("bench", "compare", before, slower, "--threshold", "0.3") == errors.OK


def test_compare_refuses_what_is_not_a_benchmark(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = file_with(tmp_path / "a.json", {"x": (1, 1, 1)})
    other = file_with(tmp_path / "b.json", {"z": (1, 1, 1)})
    (tmp_path / "text").write_text("no json")
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "old.json").write_text('{"schema": 0}')
    assert run("bench", "compare", good, other) == errors.USAGE
    for name in ("absent", "text", "list.json", "old.json"):
        assert run("bench", "compare", good, str(tmp_path / name)) == errors.DATA
        assert name in capsys.readouterr().err.splitlines()[-1]


def test_default_path_names_the_processor_and_the_threads() -> None:
    environment = {"processor": "AMD EPYC(TM) 9B45 @ 2.6GHz", "isa": "avx2", "threads": 1, "device": "cpu"}
    path = results.default_path(environment)
    assert path.parent == Path("benchmarks")
    assert path.name.startswith("amd-epyc-tm-9b45-2-6ghz-avx2-1-thread-20")
    more = results.default_path({**environment, "threads": 2}, "memory")
    assert "-avx2-2-threads-memory-20" in more.name
    gpu = results.default_path({**environment, "processor": "NVIDIA H200", "device": "cuda"})
    assert gpu.name.startswith("nvidia-h200-20")


def test_a_file_keeps_the_numbers_of_a_timing_in_one_line(tmp_path: Path) -> None:
    content = {"rows": [{"round_seconds": [1e-06, 2.5], "quartile_seconds": [1.0, 2.0], "timings": [{}]}]}
    target = tmp_path / "a.json"
    results.write({**content, "means": {"a": 1.23456789}}, target)
    assert json.loads(target.read_text()) == {**content, "means": {"a": 1.23457}}
    assert '"round_seconds": [1e-06, 2.5],' in target.read_text()


@pytest.mark.parametrize(
    ("identifier", "each", "expected"),
    [
        ("conv2d/lenet_conv1_b64", False, [("forward", "best"), ("grad_weight", "best")]),
        ("linear/lenet_fc3_b64", True, [(part, "contiguous") for part in LINEAR_PASSES]),
        ("max_pool2d/lenet_pool2_b64", True, [
            (part, layout) for part in ("forward", "backward") for layout in ("contiguous", "channels_last")
        ]),
    ],
)  # fmt: skip
def test_rows_of_a_case(
    identifier: str, each: bool, expected: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The input's gradient of a first layer is not timed; --layout each gives a row for every layout."""
    monkeypatch.setattr(ops, "interleave", lambda calls, clock, effort: [[0.001] * 9 for _ in calls])
    settings = settings_on("cpu", each=each)
    case = next(case for case in CASES if case.id == identifier)
    rows = [row.as_json(Ceilings(100.0, "a test", {1 << 28: 10.0})) for row in ops.bench_case(case, settings)]
    assert [(row["part"], row["layout"]) for row in rows] == expected


def test_forward_and_backward_in_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs is both, of all tensors together; of a first layer without the input's gradient."""
    ran: list[tuple[Any, ...]] = []

    def once(calls: Any, clock: object, effort: object) -> list[list[float]]:
        ran.append(tuple(len(call()) for call in calls))
        return [[0.001] * 9 for _ in calls]

    monkeypatch.setattr(ops, "interleave", once)
    settings = replace(settings_on("cpu"), forward=False, backward=False, together=True)
    expected = {"linear/lenet_fc3_b64": 3, "conv2d/lenet_conv1_b64": 2, "max_pool2d/lenet_pool2_b64": 1,
                "lstm_cell/h128_b32": 7, "gru_layer/tiny": 6}  # fmt: skip
    for identifier, gradients in expected.items():
        case = next(case for case in CASES if case.id == identifier)
        (row,) = ops.bench_case(case, settings)
        assert row.part == "training"
        assert set(ran.pop()) == {gradients}
        work = {"conv2d/lenet_conv1_b64": 2, "max_pool2d/lenet_pool2_b64": 2}.get(identifier, 3)
        assert row.flops == work * case.flops()
        assert row.implementation


def test_hot_and_cold_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row is timed by its own clock; both is two rows, cold alone one; a GPU has a row of neither."""
    monkeypatch.setattr(ops, "interleave", lambda calls, clock, effort: [[clock.beside] * 9 for _ in calls])
    hot, cold = CpuClock(), CpuClock()
    hot.beside, cold.beside = 1.0, 2.0
    case = next(case for case in CASES if case.id == "linear/lenet_fc3_b64")
    settings = replace(settings_on("cpu"), backward=False, clock=hot)
    for given, expected in (
        ({}, [("hot", 1.0)]),
        ({"cold": cold}, [("hot", 1.0), ("cold", 2.0)]),
        ({"cold": cold, "hot": False}, [("cold", 2.0)]),
    ):
        rows = list(ops.bench_case(case, replace(settings, **given)))
        assert [(row.cache, row.best("ours").median) for row in rows] == expected
        assert [row.as_json(Ceilings(1.0, "", {1: 1.0}))["cache"] for row in rows] == [e for e, _ in expected]
    assert replace(settings_on("cuda"), clock=hot).clocks == {"overwritten": hot}


def test_models_have_no_cold_row(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("bench", "model/*", "--cache", "cold") == errors.USAGE
    assert "train step after step and have no row with cold caches" in capsys.readouterr().err


def test_compare_holds_cold_against_cold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = json.loads(Path(file_with(tmp_path / "a.json", {"x": (2.0, 1.9, 2.1)})).read_text())
    row = before["rows"][0]
    after = {**before, "rows": [{**row, "cache": "hot"}, {**row, "cache": "cold", "speedup": {"value": 1}}]}
    (tmp_path / "b.json").write_text(json.dumps(after))
    assert run("bench", "compare", str(tmp_path / "a.json"), str(tmp_path / "b.json")) == errors.OK
    assert capsys.readouterr().out.count("conv2d/x:forward") == 1
    assert run("bench", "compare", str(tmp_path / "b.json"), str(tmp_path / "a.json")) == errors.OK
    assert "conv2d/x:forward cold" in capsys.readouterr().err


def settings_on(device: str, dtype: torch.dtype = torch.float32, each: bool = False) -> ops.Settings:
    return ops.Settings(
        device=torch.device(device),
        dtype=dtype,
        layouts=("contiguous", "channels_last"),
        each_layout=each,
        forward=True,
        backward=True,
        compiled=False,
        effort=QUICK,
        clock=CpuClock(),
    )


@pytest.mark.parametrize("op", ["lstm_layer", "gru_layer", "rnn_layer"])
def test_rows_of_a_whole_layer(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward alone, and forward and backward together, of modules; a wrong module is refused."""
    monkeypatch.setattr(
        ops, "interleave", lambda calls, clock, effort: [[call() and 0.001] for call in calls]
    )
    case = next(case for case in CASES if case.id == f"{op}/tiny")
    rows = list(ops.bench_case(case, settings_on("cpu")))
    assert [(row.part, row.implementation) for row in rows] == [("forward", "steps"), ("training", "steps")]
    assert rows[1].flops == 3 * rows[0].flops

    class Wrong(getattr(torch.nn, LAYERS[op].module)):
        def forward(self, input: Tensor, hx: Any = None) -> Any:
            output, ended = super().forward(input, hx)
            return output + 1e-4, ended

    monkeypatch.setattr(cisdl_ops.nn, LAYERS[op].module, Wrong)
    with pytest.raises(errors.KernelDisagreesError, match="output 0"):
        list(ops.bench_case(case, settings_on("cpu")))


@pytest.mark.parametrize("name", ["word2vec/pairs", "word2vec/shared", "word2vec/cbow", "glove/"])
def test_rows_of_word_vectors(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both sides make as many updates; a wrong kernel is refused; other devices and dtypes have no row."""
    case = next(case for case in CASES if case.id.startswith(name) and case.id.endswith("d100"))
    case = replace(case, kwargs={**case.kwargs, "tokens": 400})
    calls: list[int] = []
    monkeypatch.setattr(word_vectors, "BATCHES", (16,))
    monkeypatch.setattr(
        word_vectors, "interleave", lambda sides, *_: [[calls.append(1) or side() or 0.001] for side in sides]
    )
    (row,) = word_vectors.bench_word_vectors(case, settings_on("cpu"))
    assert (row.part, len(calls), [one.provider for one in row.timings]) == ("pass", 2, ["ours", "torch"])
    assert int(row.implementation.split()[0]) > 200
    assert list(word_vectors.bench_word_vectors(case, settings_on("meta"))) == []
    assert list(word_vectors.bench_word_vectors(case, settings_on("cpu", torch.float64))) == []

    module = cisdl_ops.word2vec if case.op == "word2vec" else cisdl_ops.glove
    monkeypatch.setattr(module, "train", lambda *_, **__: torch.zeros(()))
    with pytest.raises(errors.KernelDisagreesError, match="was not timed"):
        list(word_vectors.bench_word_vectors(case, settings_on("cpu")))
