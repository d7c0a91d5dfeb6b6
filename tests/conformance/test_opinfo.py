"""torch's own samples (OpInfo): what torch's test-suite asks of its functions, asked of ours."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

import cisdl_ops
from tests.conformance.agreement import FLOATING, Arguments, assert_agree, leaf, name_of, run

OPS = (
    "linear",
    "conv2d",
    "conv_transpose2d",
    "max_pool2d",
    "avg_pool2d",
    "adaptive_avg_pool2d",
    "adaptive_max_pool2d",
)
OPS_ON_IMAGES = OPS[1:]
# torch has 1,440 samples of max_pool2d, and checks their derivatives along one direction only, as we do.
MANY = 100

every_op = pytest.mark.parametrize("name", OPS)
every_dtype = pytest.mark.parametrize("dtype", FLOATING, ids=name_of)


@cache
def op_info(name: str) -> Any:
    """Imported when a test runs: the table takes some seconds to load."""
    from torch.testing._internal.common_methods_invocations import op_db

    # Its import forbids setting torch.backends flags for the rest of the process, other tests included.
    setattr(torch.backends, "__allow_nonbracketed_mutation_flag", True)
    return next(info for info in op_db if info.name == f"nn.functional.{name}")


def theirs(name: str) -> Callable[..., Any]:
    function: Callable[..., Any] = getattr(torch.nn.functional, name)
    return function


@cache
def samples(name: str, dtype: torch.dtype) -> list[Any]:
    return list(op_info(name).sample_inputs("cpu", dtype, requires_grad=True))


def arguments_of(sample: Any) -> Arguments:
    return Arguments((sample.input, *sample.args), dict(sample.kwargs))


def supported(name: str, dtype: torch.dtype) -> None:
    if dtype not in op_info(name).supported_dtypes("cpu"):
        pytest.skip(f"torch itself has no {name} in {name_of(dtype)} on the CPU")


@every_op
@every_dtype
def test_samples(subtests: pytest.Subtests, name: str, dtype: torch.dtype) -> None:
    """Outputs and gradients."""
    ours = getattr(cisdl_ops, name)
    supported(name, dtype)
    for i, sample in enumerate(samples(name, dtype)):
        with subtests.test(name, sample=i):
            assert_agree(ours, theirs(name), arguments_of(sample), dtype)


@every_op
def test_noncontiguous_samples(subtests: pytest.Subtests, name: str) -> None:
    """The same values between others in memory."""
    ours = getattr(cisdl_ops, name)
    for i, sample in enumerate(samples(name, torch.float32)):
        with subtests.test(name, sample=i):
            assert_agree(ours, theirs(name), arguments_of(sample.noncontiguous()), torch.float32)


@pytest.mark.parametrize("name", OPS_ON_IMAGES)
def test_channels_last_samples(subtests: pytest.Subtests, name: str) -> None:
    """The result keeps the layout, as torch's does."""
    ours = getattr(cisdl_ops, name)

    def to_channels_last(tensor: Tensor) -> Tensor:
        if tensor.dim() != 4:
            return leaf(tensor)
        moved = tensor.detach().contiguous(memory_format=torch.channels_last)
        return moved.requires_grad_(tensor.requires_grad)

    for i, sample in enumerate(samples(name, torch.float32)):
        if sample.input.dim() != 4:
            continue  # an image without a batch has no such layout
        arguments = arguments_of(sample).map(to_channels_last)
        with subtests.test(name, sample=i):
            assert_agree(ours, theirs(name), arguments, torch.float32)
            output, expected = (
                tree_flatten(function(*arguments.args, **arguments.kwargs))[0][0]
                for function in (ours, theirs(name))
            )
            assert output.stride() == expected.stride()


@every_op
def test_each_gradient_alone(subtests: pytest.Subtests, name: str) -> None:
    """A gradient does not depend on which others are wanted."""
    ours = getattr(cisdl_ops, name)
    for i, sample in enumerate(samples(name, torch.float32)):
        arguments = arguments_of(sample)
        count = len(arguments.tensors())
        if count == 1:
            continue
        together = run(ours, arguments.map(leaf))
        for alone in range(count):
            numbers = itertools.count()
            one = arguments.map(lambda t, n=numbers, k=alone: t.detach().requires_grad_(next(n) == k))
            with subtests.test(name, sample=i, gradient=alone):
                gradient = run(ours, one)["grad 0"]
                torch.testing.assert_close(gradient, together[f"grad {alone}"])


def differentiable_samples(name: str) -> Iterator[tuple[int, Callable[..., Any], list[Tensor]]]:
    """Each sample in float64 as a function of the tensors that have a derivative."""
    ours = getattr(cisdl_ops, name)
    for i, sample in enumerate(samples(name, torch.float64)):
        flat, spec = tree_flatten((arguments_of(sample).args, arguments_of(sample).kwargs))
        places = [place for place, value in enumerate(flat) if isinstance(value, Tensor)]

        def function(*tensors: Tensor, flat: Any = flat, spec: Any = spec, places: Any = places) -> Any:
            values = list(flat)
            for place, tensor in zip(places, tensors, strict=True):
                values[place] = tensor
            args, kwargs = tree_unflatten(values, spec)
            result = ours(*args, **kwargs)
            return result if isinstance(result, Tensor) else result[0]

        yield i, function, [leaf(flat[place]) for place in places]


@every_op
@pytest.mark.parametrize("order", ["first", "second"])
def test_derivatives(subtests: pytest.Subtests, name: str, order: str) -> None:
    """Against finite differences."""
    check = torch.autograd.gradcheck if order == "first" else torch.autograd.gradgradcheck
    fast = len(samples(name, torch.float64)) > MANY
    for i, function, tensors in differentiable_samples(name):
        with subtests.test(name, sample=i):
            check(function, tensors, fast_mode=fast, check_undefined_grad=not fast)


@every_op
def test_error_inputs(subtests: pytest.Subtests, name: str) -> None:
    """What torch refuses we refuse, in words that begin with the op's name."""
    ours = getattr(cisdl_ops, name)
    if op_info(name).error_inputs_func is None:
        pytest.skip(f"torch has no error inputs for {name}")
    for i, error in enumerate(op_info(name).error_inputs("cpu")):
        arguments = arguments_of(error.sample_input)
        with subtests.test(name, error=i):
            with pytest.raises((RuntimeError, ValueError, TypeError)) as caught:
                ours(*arguments.args, **arguments.kwargs)
            assert str(caught.value).startswith(name), str(caught.value)


@every_op
def test_other_dtypes_are_refused(subtests: pytest.Subtests, name: str) -> None:
    """Integers and complex numbers, which some of torch's kernels take, are refused by name."""
    ours = getattr(cisdl_ops, name)
    others = sorted(op_info(name).supported_dtypes("cpu") - set(FLOATING), key=str)
    if not others:
        pytest.skip(f"torch's {name} takes floating-point tensors only, as ours")
    for dtype in others:
        arguments = arguments_of(next(iter(op_info(name).sample_inputs("cpu", dtype))))
        with (
            subtests.test(name, dtype=name_of(dtype)),
            pytest.raises(RuntimeError, match=f"dtype.*{name_of(dtype)}"),
        ):
            ours(*arguments.args, **arguments.kwargs)
