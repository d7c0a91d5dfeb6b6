"""Rounds, ceilings and the cells of the table."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cisdl import errors
from cisdl.bench import table, timing
from cisdl.bench.ceilings import Ceilings
from cisdl.bench.results import Results, Row
from cisdl.bench.statistics import Ratio
from cisdl.bench.timing import CpuClock, Effort, Timing, interleave


class ScriptedClock:
    """Says how long each function takes and writes down who was asked."""

    beside = 0.0

    def __init__(self, seconds: dict[Callable[[], object], float]) -> None:
        self.table = seconds
        self.asked: list[tuple[Callable[[], object], int]] = []

    def seconds(self, function: Callable[[], object], calls: int) -> float:
        assert not gc.isenabled()
        self.asked.append((function, calls))
        return self.table[function]


def slow() -> None: ...
def fast() -> None: ...


def test_competitors_take_turns() -> None:
    clock = ScriptedClock({slow: 0.01, fast: 0.001})
    effort = Effort(budget=1.0, sample=0.004, least_rounds=5, most_rounds=8)
    samples = interleave([slow, fast], clock, effort)
    assert samples == [[0.01] * 8, [0.001] * 8]
    rounds = clock.asked[6:]  # after three calls each to warm up and to see how long one takes
    assert [{function for function, _ in rounds[i : i + 2]} for i in range(0, 16, 2)] == [{slow, fast}] * 8
    assert {(slow, 1), (fast, 4)} == set(rounds)
    first = [rounds[i][0] for i in range(0, 16, 2)]
    assert first.count(slow) == first.count(fast)
    assert gc.isenabled()


def test_least_rounds_are_run_however_slow() -> None:
    clock = ScriptedClock({slow: 10.0, fast: 10.0})
    samples = interleave([slow, fast], clock, Effort(budget=0.1, sample=0.001, least_rounds=5, most_rounds=8))
    assert [len(one) for one in samples] == [5, 5]


def test_what_a_call_costs_besides_counts_for_the_budget() -> None:
    """A sweep of the caches takes longer than the call: one call a round, no more rounds than fit."""
    clock = ScriptedClock({slow: 0.01, fast: 0.0001})
    clock.beside = 0.1
    samples = interleave(
        [slow, fast], clock, Effort(budget=2.1, sample=0.004, least_rounds=5, most_rounds=60)
    )
    assert [len(one) for one in samples] == [10, 10]
    assert {calls for _, calls in clock.asked} == {1}


def test_cold_clock_sweeps_before_each_call_and_does_not_count_it(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    done = []

    def work(name: str, seconds: float) -> None:
        nonlocal now
        now += seconds
        done.append(name)

    monkeypatch.setattr(timing, "perf_counter", lambda: now)
    monkeypatch.setattr(timing, "swept_bytes", lambda: 8 << 10)
    monkeypatch.setattr(timing.ColdClock, "sweep", lambda self: work("sweep", 100.0))
    clock = timing.ColdClock()
    assert clock.beside == 100
    done.clear()
    assert clock.seconds(lambda: work("call", 2.0), 3) == 2
    assert done == ["sweep", "call"] * 3


def test_what_is_swept_is_larger_than_the_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of memory that was written: unwritten pages are all the same one, and stay in the cache."""
    monkeypatch.setattr(timing, "CACHES", tmp_path)
    assert timing.swept_bytes() == 3 * timing.USUAL_CACHE // 2
    for index, size in enumerate(("32K", "2048K", "90M")):
        (tmp_path / f"index{index}").mkdir()
        (tmp_path / f"index{index}" / "size").write_text(size + "\n")
    (tmp_path / "index9").mkdir()
    (tmp_path / "index9" / "size").write_text("\n")
    assert timing.swept_bytes() == 135 << 20
    monkeypatch.setattr(timing, "swept_bytes", lambda: 1 << 20)
    assert timing.ColdClock()._buffer.unique().tolist() == [1]


def test_too_little_memory_to_sweep_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "swept_bytes", lambda: 1 << 60)
    with pytest.raises(errors.DeviceError, match="of free memory to sweep the caches with"):
        timing.ColdClock()


def test_cpu_clock_counts_calls() -> None:
    calls = []
    assert CpuClock().seconds(lambda: calls.append(1), 7) > 0
    assert len(calls) == 7


CEILINGS = Ceilings(
    gflops=100.0, gflops_source="a test", gbytes={1 << 20: 200.0, 1 << 26: 20.0, 1 << 28: 25.0}
)


def test_bandwidth_of_a_working_set() -> None:
    """The best of any size not smaller; beyond the largest, the largest."""
    assert CEILINGS.gbytes_for(1000) == 200
    assert CEILINGS.gbytes_for(1 << 21) == 25
    assert CEILINGS.gbytes_for(1 << 30) == 25


def test_roofline() -> None:
    assert CEILINGS.bound(flops=10**9, moved=10**6) == "compute"
    assert CEILINGS.least_seconds(10**9, 10**6) == pytest.approx(0.01)
    assert CEILINGS.bound(flops=10**6, moved=10**9) == "memory"
    assert CEILINGS.least_seconds(10**6, 10**9) == pytest.approx(0.04)


def row(ours: float, theirs: float, flops: int = 10**9, **changes: str) -> Row:
    timings = [
        Timing("ours", "contiguous", [ours] * 9),
        Timing("ours", "channels_last", [3 * ours] * 9),
        Timing("torch", "contiguous", [2 * theirs] * 9),
        Timing("torch", "channels_last", [theirs] * 9),
    ]
    fields = {"case": "conv2d/x", "part": "forward", "dtype": "float32", "implementation": "plain"} | changes
    return Row(timings=timings, flops=flops, bytes=10**6 if flops else 0, **fields)


def test_best_layout_against_best_layout() -> None:
    one = row(ours=0.02, theirs=0.03)
    assert (one.best("ours").layout, one.best("torch").layout) == ("contiguous", "channels_last")
    assert one.ratio.value == pytest.approx(1.5)


def test_above_the_ceiling_is_flagged() -> None:
    assert table.rate_cell(row(ours=0.02, theirs=1), CEILINGS) == ("50 GF/s", "50%")
    assert table.rate_cell(row(ours=0.005, theirs=1), CEILINGS) == ("200 GF/s", "200% !")
    assert table.rate_cell(row(ours=0.02, theirs=1, flops=0), CEILINGS) == ("", "")


def test_an_interval_around_one_is_not_a_speedup() -> None:
    assert "x" not in table.ratio_cell(Ratio(1.4, 0.99, 2.0)).split("[dim]\\")[0]
    assert "even" in table.ratio_cell(Ratio(1.4, 0.99, 2.0))
    assert "1.40x" in table.ratio_cell(Ratio(1.4, 1.01, 2.0))
    assert "0.50x" in table.ratio_cell(Ratio(0.5, 0.4, 0.6))


def test_losses_are_listed_worst_first() -> None:
    rows = [row(1, 0.9, case="conv2d/a"), row(1, 2, case="conv2d/b"), row(1, 0.5, case="conv2d/c")]
    results = Results({}, {}, CEILINGS, rows)
    assert [one.case for one in results.losses()] == ["conv2d/c", "conv2d/a"]
    assert "losses: 2 of 3" in table.losses_text(results)
    assert results.means() == {"conv2d:forward": pytest.approx((0.9 * 2 * 0.5) ** (1 / 3))}
    assert table.losses_text(Results({}, {}, CEILINGS, rows[1:2])) == "losses: none"


@pytest.mark.parametrize(
    ("seconds", "text"), [(1.234e-6, "1.23 us"), (0.0123, "12.3 ms"), (0.9996, "1 s"), (2.5, "2.5 s")]
)
def test_duration(seconds: float, text: str) -> None:
    assert table.duration(seconds) == text


def timed(case: str, part: str, ours: float, by_torch: float) -> Row:
    timings = [Timing("ours", "contiguous", [ours] * 9), Timing("torch", "contiguous", [by_torch] * 9)]
    return Row(case, part, "float32", timings, "plain")


def test_a_layer_is_the_sum_of_its_passes() -> None:
    rows = [
        timed("conv2d/lenet_conv2_b64", "forward", 1.0, 4.0),
        timed("conv2d/lenet_conv2_b64", "grad_weight", 3.0, 4.0),
        timed("linear/square_512_b1", "forward", 1.0, 1.0),
        timed("model/lenet", "step", 1.0, 3.0),
    ]
    found = Results({}, {}, CEILINGS, rows)
    assert [(layer.case, layer.speedup) for layer in found.layers()] == [
        ("conv2d/lenet_conv2_b64", 2.0),
        ("linear/square_512_b1", 1.0),
    ]
    assert list(found.networks()) == ["lenet"]
    assert found.as_json()["networks"] == {
        "lenet": {"geometric_mean": pytest.approx(2.0), "layers": {"conv2d/lenet_conv2_b64": 2.0}}
    }


def test_cold_rows_have_means_of_their_own_and_are_no_layers() -> None:
    hot = timed("conv2d/lenet_conv2_b64", "forward", 1.0, 4.0)
    cold = replace(hot, cache="cold", timings=timed("", "", 2.0, 2.0).timings)
    varied = replace(hot, case="conv2d/lenet_conv2_b64@batch=1")
    found = Results({}, {}, CEILINGS, [hot, cold, varied])
    assert found.means() == {"conv2d:forward": pytest.approx(4.0), "conv2d:forward, cold": 1.0}
    assert [layer.case for layer in found.layers()] == [hot.case, varied.case]
    assert [layer.case for layer in found.networks()["lenet"]] == [hot.case]
    assert table.rows_table([hot, cold], CEILINGS, "").columns[1]._cells == ["forward", "forward, cold"]
    assert "cold: the caches are swept" in table.notes(found)


def test_each_layout_is_a_layer_of_its_own() -> None:
    row = timed("conv2d/lenet_conv2_b64", "forward", 1.0, 4.0)
    last = [Timing(one.provider, "channels_last", one.seconds) for one in row.timings]
    rows = [replace(row, layout="each"), replace(row, layout="each", timings=last)]
    assert len(Results({}, {}, CEILINGS, rows).layers()) == 2
