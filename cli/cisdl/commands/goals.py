"""`--assert 'test_accuracy>=0.95'`: what a figure of the result has to be."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from cisdl.errors import GoalMissedError, UsageError, did_you_mean

if TYPE_CHECKING:
    from cisdl.training.loop import Outcome

RELATIONS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


class Goal(NamedTuple):
    figure: str
    relation: str
    value: float


def parse_goal(text: str) -> Goal:
    matched = re.fullmatch(r"\s*(\w+)\s*(>=|<=|>|<)\s*([-+.\deE]+)\s*", text)
    try:
        if matched is not None:
            return Goal(matched[1], matched[2], float(matched[3]))
    except ValueError:
        pass
    raise UsageError(f"--assert: expected a figure and a bound like 'test_accuracy>=0.95', got '{text}'")


def check_goals(goals: Sequence[Goal], outcome: Outcome) -> None:
    """A `GoalMissedError` names the goals that the result misses; an unknown figure is a `UsageError`."""
    figures = {f"{outcome.judged_on}_{key}": value for key, value in outcome.evaluation.as_dict().items()}
    missed = []
    for figure, relation, value in goals:
        if figure not in figures:
            raise UsageError(f"--assert: the result has no {figure}; {did_you_mean(figure, figures)}")
        if not RELATIONS[relation](figures[figure], value):
            missed.append(f"{figure} {relation} {value:g}, got {figures[figure]:.6g}")
    if missed:
        raise GoalMissedError(
            f"goal missed: expected {'; '.join(missed)}; try other settings or more --epochs"
        )
