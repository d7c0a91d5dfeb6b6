"""The loss of classifiers."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_variadic

from cisdl_ops._load import _C
from cisdl_ops.functional.arguments import integer

_REDUCTIONS = {"none": 0, "mean": 1, "sum": 2}


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Softmax cross-entropy of scores against classes; see ``torch.nn.functional.cross_entropy``.

    ``loss[n] = (1 - s) w[y] (L - x[y]) + s/C sum_c w[c] (L - x[c])`` with ``L = log sum_c exp x[c]``, the
    scores ``x`` and class ``y`` of row ``n`` and the smoothing ``s``. Of torch's function it is the case of a
    classifier: one class for each row of scores. :class:`cisdl_ops.nn.CrossEntropyLoss` leaves the others to
    torch. A class that there is not is refused on the CPU; on a GPU, which nobody waits for, the loss is NaN.

    Args:
        input: scores ``[N, C]``, float32 or float64; under autocast of any type, as in torch.
        target: classes ``[N]``, int64.
        weight: ``w``, ``[C]``, or None for 1.
        size_average, reduce: torch's deprecated arguments; None.
        ignore_index: the class of rows that do not count.
        reduction: ``"none"``, ``"sum"``, or ``"mean"``, which divides the sum by that of ``w[y]``.
        label_smoothing: ``s``, from 0 to 1.

    Returns:
        A scalar, or ``[N]`` without a reduction.
    """
    if has_torch_function_variadic(input, target, weight):
        overridden: Tensor = handle_torch_function(
            cross_entropy,
            (input, target, weight),
            input,
            target,
            weight,
            size_average,
            ignore_index,
            reduce,
            reduction,
            label_smoothing,
        )
        return overridden
    if size_average is not None or reduce is not None:
        raise ValueError("cross_entropy: size_average, reduce: expected None; say reduction instead")
    if reduction not in _REDUCTIONS:
        raise ValueError(f"cross_entropy: reduction: expected none, mean or sum, got {reduction!r}")
    if torch.is_autocast_enabled(input.device.type):
        input = input.float()
    options = (
        _REDUCTIONS[reduction],
        integer("cross_entropy", "ignore_index", ignore_index),
        label_smoothing,
    )
    if torch.compiler.is_compiling():
        result: Tensor = torch.ops.cisdl.cross_entropy(input, target, weight, *options)
        return result
    return _C.cross_entropy(input, target, weight, *options)
