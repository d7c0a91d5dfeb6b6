"""Two benchmark files: what got faster, what got slower."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

MACHINE = ("processor", "isa", "threads", "torch", "device")


@dataclass(frozen=True)
class Change:
    """One row in both files. ``factor`` is the new speed-up over torch by the old one: below 1 is slower."""

    id: str
    before: float
    after: float
    apart: bool  # the two bootstrap intervals do not overlap

    @property
    def factor(self) -> float:
        return self.after / self.before

    def regressed(self, threshold: float) -> bool:
        """Slower by more than the threshold, and not by noise."""
        return self.factor < 1 - threshold and self.apart


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[Change]:
    """Rows that both files have, in the order of the second.

    Speed-ups over torch are compared, not times: torch ran beside ours in both files, so a machine that is
    slower today is no regression.
    """
    old = {key(row): row["speedup"] for row in before["rows"]}
    found = []
    for row in after["rows"]:
        if key(row) in old:
            a, b = old[key(row)], row["speedup"]
            apart = b["high"] < a["low"] or b["low"] > a["high"]
            found.append(Change(name(row), a["value"], b["value"], apart))
    return found


def key(row: dict[str, Any]) -> tuple[str, ...]:
    return row["case"], row["part"], row["dtype"], row["layout"], row.get("cache", "hot")


def name(row: dict[str, Any]) -> str:
    layout = "" if row["layout"] == "best" else f" {row['layout']}"
    cold = " cold" if row.get("cache") == "cold" else ""
    return f"{row['case']}:{row['part']}{cold}{layout}"


def missing(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Rows of the first file that the second does not have."""
    new = {key(row) for row in after["rows"]}
    return [name(row) for row in before["rows"] if key(row) not in new]


def different_machine(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Facts that differ and make a comparison doubtful, as "threads 1 -> 2"."""
    old, new = before["environment"], after["environment"]
    return [
        f"{name} {old.get(name)} -> {new.get(name)}" for name in MACHINE if old.get(name) != new.get(name)
    ]
