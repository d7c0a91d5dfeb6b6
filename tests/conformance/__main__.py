"""``make conformance``: runs the suites, prints a table of their samples and why some were skipped."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest

# Name in the table, and what pytest runs for it.
SUITES = {
    "OpInfo (torch)": "tests/conformance/test_opinfo.py",
    "ModuleInfo (torch)": "tests/conformance/test_moduleinfo.py",
    "opcheck (torch)": "tests/ops/test_operators.py::test_opcheck",
    "ONNX node tests": "tests/conformance/test_onnx.py",
    "fuzz (hypothesis)": "tests/conformance/test_fuzz.py",
    "ecosystem": "tests/ecosystem",
    "zoo": "tests/zoo",
}


class Tally:
    """A pytest plugin that counts samples: a test's subtests, or what it recorded as "samples", or one."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()  # by suite and outcome
        self.reasons: Counter[tuple[str, str]] = Counter()  # by suite and reason of a skip
        self.trained: list[dict[str, Any]] = []  # what the models of the zoo did
        self._with_subtests: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        suite = next((name for name, target in SUITES.items() if report.nodeid.startswith(target)), "?")
        if isinstance(report, pytest.SubtestReport):
            self._with_subtests.add(report.nodeid)
        elif report.nodeid in self._with_subtests:
            if report.passed or "failed subtest" in str(report.longrepr):
                return  # its subtests have been counted
        elif report.when != "call" and report.passed:
            return
        properties = dict(report.user_properties)
        self.counts[suite, report.outcome] += properties.get("samples", 1)
        if "zoo" in properties:
            self.trained.append(properties["zoo"])
        if report.skipped:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            self.reasons[suite, reason.removeprefix("Skipped: ")] += 1

    def lines(self) -> Iterable[str]:
        yield f"{'suite':<20}{'passed':>9}{'skipped':>9}{'failed':>9}"
        for suite in SUITES:
            counts = (self.counts[suite, outcome] for outcome in ("passed", "skipped", "failed"))
            yield f"{suite:<20}" + "".join(f"{count:>9,}" for count in counts)
        if self.reasons:
            yield "\nskipped:"
        for (suite, reason), count in sorted(self.reasons.items()):
            yield f"{count:>6}  {suite}: {reason}"
        if self.trained:
            yield "\nzoo: losses on torch's modules over 20 steps, and how far ours are from them at most"
            yield f"{'model':<14}{'parameters':>10}{'first':>10}{'last':>10}{'difference':>12}"
        for one in self.trained:
            losses = f"{one['first']:>10.4f}{one['last']:>10.4f}{one['difference']:>12.1e}"
            yield f"{one['model']:<14}{one['parameters']:>10,}{losses}"


if __name__ == "__main__":
    tally = Tally()
    status = pytest.main([*SUITES.values(), *sys.argv[1:]], plugins=[tally])
    print("\n" + "\n".join(tally.lines()))
    sys.exit(status)
