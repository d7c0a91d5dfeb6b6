"""`cisdl bench --axis NAME=V1,V2`: the chosen cases and models with every combination of those sizes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product

from cisdl.bench.models import Model
from cisdl.errors import UsageError, did_you_mean
from cisdl_ops.cases import Case
from cisdl_ops.cases import axes as table

AXES_OF_MODELS = ("batch", "n")
MAY_BE_ZERO = ("padding",)
Axes = Mapping[str, Sequence[int]]


def parse(texts: Sequence[str]) -> dict[str, list[int]]:
    """NAME=V1,V2 and the like, by name; a `UsageError` for what is not so."""
    found: dict[str, list[int]] = {}
    for text in texts:
        name, _, values = text.replace("-", "_").partition("=")
        least = 0 if name in MAY_BE_ZERO else 1
        numbers = [int(value) if value.strip().isdecimal() else -1 for value in values.split(",")]
        if not name or min(numbers) < least:
            raise UsageError(
                f"--axis: expected NAME=V1,V2,... with numbers of {least} or more like batch=64,256, "
                f"got '{text}'"
            )
        if name in found:
            raise UsageError(f"--axis {name}: expected each axis once, got it twice; join its values")
        found[name] = list(dict.fromkeys(numbers))
    return found


def vary(
    cases: Sequence[Case], models: Sequence[Model], axes: Axes
) -> tuple[list[Case], list[Model], list[str]]:
    """Every case and model with every combination of sizes, and in words what was left out and why.

    Raises:
        UsageError: an axis that none of them has, or sizes that fit none.
    """
    known = [name for op in dict.fromkeys(case.op for case in cases) for name in table.names(op)]
    known = list(dict.fromkeys([*known, *(AXES_OF_MODELS if models else ())]))
    for name in axes:
        if name not in known:
            raise UsageError(f"--axis: nothing chosen has an axis '{name}'; {did_you_mean(name, known)}")

    lacking: Counter[str] = Counter()
    refused = []
    varied_cases, varied_models = [], []
    sizes = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
    for case in cases:
        if missing := [name for name in axes if name not in table.names(case.op)]:
            lacking[f"{case.op} has no axis {' or '.join(missing)}"] += 1
            continue
        for wanted in sizes:
            try:
                varied_cases.append(table.varied(case, wanted))
            except table.NoSuchAxis as error:  # noqa: PERF203  (each may be refused for a reason of its own)
                refused.append(f"{case.id} with {in_words(wanted)} is left out: {error}")
    for model in models:
        if missing := [name for name in axes if name not in AXES_OF_MODELS]:
            lacking[f"a model's training step has no axis {' or '.join(missing)}"] += 1
            continue
        varied_models += [with_batch(model, wanted) for wanted in sizes]
    words = [f"{what}: {number} left out" for what, number in lacking.items()] + refused
    if not varied_cases and not varied_models:
        raise UsageError(
            f"--axis: no chosen case is left ({words[0]}); choose others by GLOB, or other sizes"
        )
    return varied_cases, varied_models, words


def with_batch(model: Model, wanted: Mapping[str, int]) -> Model:
    batch = list(wanted.values())[-1]
    return replace(model, name=f"{model.name}{table.MARK}{in_words(wanted)}", batch=batch)


def in_words(wanted: Mapping[str, int]) -> str:
    return ",".join(f"{name}={value}" for name, value in wanted.items())
