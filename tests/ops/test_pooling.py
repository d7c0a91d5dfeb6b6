"""Pooling: the derivatives of every order with ties and overlaps, the gather behind them, extreme options."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx

import cisdl_ops
from cisdl_ops import reference
from cisdl_ops.cases import OPS, Case
from tests.ops.running import DTYPES, LAYOUTS, TEST_CASES, layouts, name_of
from tests.ops.samples import Sample, samples

LARGEST = 2**31 - 1
FLAT = torch.ops.cisdl.max_pool2d_with_indices
WINDOW = torch.ops.cisdl.max_pool2d_window
GATHER = torch.ops.cisdl.max_pool2d_gather

# op, keyword arguments: windows side by side, overlapping, with gaps, over the border
CALLS: list[tuple[str, dict[str, Any]]] = [
    ("max_pool2d", {"kernel_size": 2}),
    ("max_pool2d", {"kernel_size": 3, "stride": 1, "padding": 1}),
    ("max_pool2d", {"kernel_size": 2, "stride": 2, "dilation": 2, "padding": 1, "ceil_mode": True}),
    ("max_pool2d", {"kernel_size": 2, "stride": 3, "return_indices": True}),
    ("avg_pool2d", {"kernel_size": 3, "stride": 1, "padding": 1, "count_include_pad": False}),
    ("avg_pool2d", {"kernel_size": 3, "stride": 2, "ceil_mode": True}),
    ("avg_pool2d", {"kernel_size": 2, "stride": 3, "divisor_override": 3}),
    ("adaptive_max_pool2d", {"output_size": (3, 4)}),
    ("adaptive_max_pool2d", {"output_size": 2, "return_indices": True}),
    ("adaptive_avg_pool2d", {"output_size": (3, 4)}),
    ("adaptive_avg_pool2d", {"output_size": (2, None)}),
]
by_call = pytest.mark.parametrize(
    ("op", "options"), CALLS, ids=["-".join([op, *map(str, options.values())]) for op, options in CALLS]
)
by_layout = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)


def function_of(op: str, options: dict[str, Any], module: Any = cisdl_ops) -> Callable[[Tensor], Tensor]:
    """The op as a function with one output, then a power: a pooling op alone has no second derivative."""

    def call(x: Tensor) -> Tensor:
        result = getattr(module, op)(x, **options)
        return (result if isinstance(result, Tensor) else result[0]).pow(3)

    return call


def image(layout: torch.memory_format, values: str = "normal") -> Tensor:
    generator = torch.Generator().manual_seed(3)
    if values == "ties":
        x = torch.randint(1, 4, (2, 3, 6, 7), generator=generator).double()
    else:
        x = torch.randn(2, 3, 6, 7, dtype=torch.float64, generator=generator)
    return x.contiguous(memory_format=layout)


@by_layout
@by_call
def test_derivatives_against_finite_differences(
    op: str, options: dict[str, Any], layout: torch.memory_format
) -> None:
    """First and second, reverse, forward, and forward over reverse."""
    x = image(layout).requires_grad_()
    function = function_of(op, options)
    assert torch.autograd.gradcheck(function, x, check_forward_ad=True, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, x, check_fwd_over_rev=True, fast_mode=True)


@pytest.mark.parametrize("values", ["normal", "ties"])
@by_layout
@by_call
def test_transforms_agree_with_the_reference(
    op: str, options: dict[str, Any], layout: torch.memory_format, values: str
) -> None:
    """Of equal maxima the first has all of the gradient, in every mode and order."""
    x, dx = image(layout, values), image(layout).flip(-1)
    ours, theirs = function_of(op, options), function_of(op, options, reference)

    def results(function: Callable[[Tensor], Tensor]) -> list[Tensor]:
        gradient = torch.func.grad(lambda x: function(x).sum())
        curvature = torch.func.jvp(gradient, (x,), (dx,))[1]  # a Hessian times dx
        third = torch.func.grad(lambda x: torch.func.jvp(gradient, (x,), (dx,))[1].square().sum())
        return [gradient(x), torch.func.jvp(function, (x,), (dx,))[1], curvature, third(x)]

    for got, expected in zip(results(ours), results(theirs), strict=True):
        torch.testing.assert_close(got, expected)


@by_call
def test_hessian(op: str, options: dict[str, Any]) -> None:
    x = image(torch.contiguous_format)[:1, :1]

    def hessian(module: Any) -> Tensor:
        function = function_of(op, options, module)
        result: Tensor = torch.func.hessian(lambda x: function(x).sum())(x)
        return result

    assert hessian(cisdl_ops).any()
    torch.testing.assert_close(hessian(cisdl_ops), hessian(reference))


@by_call
def test_gradient_of_a_gradient_that_is_not_needed(op: str, options: dict[str, Any]) -> None:
    """create_graph records the backward op only where something asks for its derivative."""
    x = image(torch.contiguous_format).requires_grad_()
    function = getattr(cisdl_ops, op)
    output = function(x, **options)
    output = output if isinstance(output, Tensor) else output[0]
    (gradient,) = torch.autograd.grad(output, x, torch.ones_like(output), create_graph=True)
    assert not gradient.requires_grad
    incoming = torch.ones_like(output).requires_grad_()
    output = function(x, **options)
    output = output if isinstance(output, Tensor) else output[0]
    (gradient,) = torch.autograd.grad(output, x, incoming, create_graph=True)
    assert gradient.requires_grad


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("op", [op for op in OPS if op.endswith("max_pool2d")])
def test_indices_have_neither_gradient_nor_tangent(op: str, requires_grad: bool) -> None:
    x = image(torch.contiguous_format).requires_grad_(requires_grad)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, torch.ones_like(x))
        values, indices = getattr(cisdl_ops, op)(dual, 2, return_indices=True)
        assert forward_ad.unpack_dual(values).tangent is not None
        assert forward_ad.unpack_dual(indices).tangent is None
    assert values.requires_grad == requires_grad
    assert not indices.requires_grad


def test_a_changed_index_is_noticed() -> None:
    x = image(torch.contiguous_format).requires_grad_()
    values, indices = cisdl_ops.max_pool2d(x, 2, return_indices=True)
    indices.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        values.sum().backward()


# ------------------------------------------------------------------------------------------- the gather

WINDOWS = [case for case in TEST_CASES if case.op == "max_pool2d"]


def window_of(case: Case) -> list[Any]:
    """kernel_size, stride, padding, dilation and ceil_mode as the operators take them."""
    options = {"stride": None, "padding": 0, "dilation": 1, "ceil_mode": False} | dict(case.kwargs)
    options["stride"] = options["stride"] or options["kernel_size"]
    names = ("kernel_size", "stride", "padding", "dilation")
    pairs = [options[name] for name in names]
    return [*([one, one] if isinstance(one, int) else list(one) for one in pairs), options["ceil_mode"]]


@pytest.mark.parametrize("name", cisdl_ops.implementations("max_pool2d_gather"))
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("case", WINDOWS, ids=name_of)
def test_gather(case: Case, dtype: torch.dtype, name: str) -> None:
    """The input at the places of its maxima is what max_pool2d gives; any other input as torch gathers it."""
    *window, ceil_mode = window_of(case)
    for layout in layouts(case):
        x = case.inputs(dtype, memory_format=layout)["input"]
        other = case.inputs(dtype, memory_format=layout, seed=7)["input"].nan_to_num(2, 3, 4)
        flat = FLAT(x, *window, ceil_mode)[1]
        expected = other.flatten(-2).gather(-1, flat.flatten(-2)).view(flat.shape)
        for select in (FLAT, WINDOW):
            maxima, places = select(x, *window, ceil_mode)
            with cisdl_ops.force_implementation("max_pool2d_gather", name):
                same = GATHER(x, places, *window, select is FLAT)
                got = GATHER(other, places, *window, select is FLAT)
            torch.testing.assert_close(same, maxima, rtol=0, atol=0, equal_nan=True)
            assert same.stride() == maxima.stride()
            assert torch.equal(got, expected)


@pytest.mark.parametrize("name", cisdl_ops.implementations("max_pool2d_gather"))
@pytest.mark.parametrize("index", [-1, 42, 2**40, -(2**62), 2**62])
def test_gather_from_outside_the_plane_is_zero(index: int, name: str) -> None:
    """As the gradient sends nothing there: the two stay adjoint, and nothing outside is read."""
    for layout in LAYOUTS.values():
        x = image(layout)
        flat = FLAT(x, [2, 2], [2, 2], [0, 0], [1, 1], False)[1]
        flat[1, 2, 0, 1] = index
        with cisdl_ops.force_implementation("max_pool2d_gather", name):
            got = GATHER(x, flat, [2, 2], [2, 2], [0, 0], [1, 1], True)
        expected = x.amax()  # any value that is not zero
        assert got[1, 2, 0, 1] == 0 != expected
        assert (got == 0).sum() == 1


@pytest.mark.parametrize("index", [4, 200, 255])
def test_places_that_no_window_has_are_ignored(index: int) -> None:
    """A byte beyond the window's cells: nothing is read or written outside the plane."""
    window = ([2, 2], [2, 2], [0, 0], [1, 1], False)
    for layout in LAYOUTS.values():
        x = image(layout)
        maxima, places = WINDOW(x, *window)
        spoiled = places.clone()
        spoiled[1, 2, 2, 2] = index
        for name in cisdl_ops.implementations("max_pool2d_gather"):
            with cisdl_ops.force_implementation("max_pool2d_gather", name):
                got = GATHER(x, spoiled, *window)
            assert got[1, 2, 2, 2] == 0
            assert (got != maxima).sum() == 1
        weight = torch.ones_like(maxima)
        weight[1, 2, 2, 2] = 0
        for name in ("scatter", "plain"):
            with cisdl_ops.force_implementation("max_pool2d_backward", name):
                expected = torch.ops.cisdl.max_pool2d_backward(weight, places, x.shape, *window)
                got = torch.ops.cisdl.max_pool2d_backward(torch.ones_like(weight), spoiled, x.shape, *window)
            assert torch.equal(got, expected)


# -------------------------------------------------------------------------------------- extreme options


def run(function: Callable[..., Tensor], x: Tensor, options: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Values and gradient."""
    leaf = x.clone().requires_grad_()
    output = function(leaf, **options)
    return output.detach(), torch.autograd.grad(output.square().sum(), leaf)[0]


@by_layout
@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (8, 40, 3, 33)])
@pytest.mark.parametrize("op", ["max_pool2d", "avg_pool2d"])
@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 2, "stride": LARGEST},
        {"kernel_size": 2, "stride": (LARGEST, 1), "padding": 1, "ceil_mode": True},
    ],
)
def test_largest_strides(
    op: str, options: dict[str, Any], shape: tuple[int, ...], layout: torch.memory_format
) -> None:
    """No address or size grows with a stride that the image has no room for."""
    x = torch.randn(shape, dtype=torch.float64).contiguous(memory_format=layout)
    ours, theirs = (run(getattr(module, op), x, options) for module in (cisdl_ops, torch.nn.functional))
    torch.testing.assert_close(ours, theirs)


@by_layout
@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (8, 40, 3, 33)])
@pytest.mark.parametrize("op", ["max_pool2d", "avg_pool2d"])
@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": (LARGEST, LARGEST), "stride": (1, 1), "padding": (LARGEST // 2, LARGEST // 2)},
        {"kernel_size": (LARGEST, 2), "stride": (3, 1), "padding": (LARGEST // 2, 0)},
        {"kernel_size": (2, LARGEST), "stride": (1, 2), "padding": (0, LARGEST // 2), "ceil_mode": True},
    ],
)
def test_largest_windows(
    op: str, options: dict[str, Any], shape: tuple[int, ...], layout: torch.memory_format
) -> None:
    """No memory or loop grows with a window beyond the image. (Torch's do: it gets smaller ones.)"""
    x = torch.randn(shape, dtype=torch.float64).contiguous(memory_format=layout)
    smaller = {LARGEST: 81, LARGEST // 2: 40}
    like = {
        name: tuple(smaller.get(size, size) for size in value) if isinstance(value, tuple) else value
        for name, value in options.items()
    }
    only_inside = {"count_include_pad": False} if op == "avg_pool2d" else {}
    ours = run(getattr(cisdl_ops, op), x, options | only_inside)
    torch.testing.assert_close(ours, run(getattr(torch.nn.functional, op), x, like | only_inside))


def test_largest_dilation() -> None:
    """No second cell of a window uses it; where there is one, the image has no room."""
    x = torch.randn(2, 3, 5, 4)
    assert torch.equal(cisdl_ops.max_pool2d(x, 1, dilation=LARGEST), x)
    with pytest.raises(RuntimeError, match=f"padded height of at least {LARGEST + 1}"):
        cisdl_ops.max_pool2d(torch.randn(2, 3, 5, 4), 2, dilation=LARGEST)


@by_layout
@pytest.mark.parametrize("op", ["max_pool2d", "avg_pool2d"])
@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 7, "stride": 3, "ceil_mode": True},
        {"kernel_size": (6, 2), "stride": 4, "padding": (0, 1), "ceil_mode": True},
    ],
)
def test_a_window_larger_than_the_image(
    op: str, options: dict[str, Any], layout: torch.memory_format
) -> None:
    """In ceil mode there may be one; its gradient, and the gradient of that, are told by its shape."""
    x = torch.randn(2, 3, 5, 6, dtype=torch.float64).contiguous(memory_format=layout)
    ours, theirs = (run(getattr(module, op), x, options) for module in (cisdl_ops, torch.nn.functional))
    torch.testing.assert_close(ours, theirs)
    function = function_of(op, options)
    assert torch.autograd.gradgradcheck(function, x.requires_grad_(), check_fwd_over_rev=True)


WINDOW_ARGUMENTS = [
    (sample, name)
    for sample in samples()
    for name in ("kernel_size", "stride", "padding", "dilation")
    if "pool2d" in sample.op and name in sample.arguments
]


@pytest.mark.parametrize(
    ("sample", "name"), WINDOW_ARGUMENTS, ids=[f"{one.op}-{name}" for one, name in WINDOW_ARGUMENTS]
)
def test_every_operator_checks_its_window(sample: Sample, name: str) -> None:
    """Called directly, with lists of any length."""
    for wrong in ([], [1, 1, 1], [-1, 1]):
        with pytest.raises(
            RuntimeError, match=f"{sample.op.split('_with')[0].split('_window')[0]}.*: {name}: "
        ):
            sample.call(**{name: wrong})


@pytest.mark.parametrize("empty", [[], None, ()])
def test_no_stride_is_the_kernels_size(empty: Any) -> None:
    x = torch.randn(2, 3, 9, 8)
    for op in ("max_pool2d", "avg_pool2d"):
        ours, theirs = (getattr(module, op) for module in (cisdl_ops, torch.nn.functional))
        torch.testing.assert_close(ours(x, (2, 3), empty), theirs(x, (2, 3), empty))


@pytest.mark.parametrize("size", [0, (0, 3), (2, 0)])
@pytest.mark.parametrize("op", ["adaptive_max_pool2d", "adaptive_avg_pool2d"])
def test_no_windows(op: str, size: Any) -> None:
    """As many as asked for may be none: an empty result and a gradient of zeros (which torch refuses)."""
    for layout in LAYOUTS.values():
        x = torch.randn(2, 3, 6, 7).contiguous(memory_format=layout).requires_grad_()
        output = getattr(cisdl_ops, op)(x, size)
        assert output.shape == getattr(torch.nn.functional, op)(x, size).shape
        (gradient,) = torch.autograd.grad(output.sum(), x)
        assert torch.equal(gradient, torch.zeros_like(x))


def test_an_average_of_no_channels() -> None:
    """Torch allows it here and nowhere else."""
    x = torch.randn(2, 0, 6, 7, requires_grad=True)
    output = cisdl_ops.adaptive_avg_pool2d(x, (2, 3))
    assert output.shape == (2, 0, 2, 3)
    (gradient,) = torch.autograd.grad(output.sum(), x)
    assert gradient.shape == x.shape


@pytest.mark.parametrize("op", ["adaptive_max_pool2d", "adaptive_avg_pool2d"])
def test_an_own_size_stays_symbolic(op: str) -> None:
    """One graph serves every height where output_size leaves it to the input."""
    counter = CompileCounterWithBackend("aot_eager")

    def gradient(x: Tensor) -> Tensor:
        return torch.autograd.grad(getattr(cisdl_ops, op)(x, (None, 3)).square().sum(), x)[0]

    torch._dynamo.reset()
    compiled = torch.compile(
        lambda x: getattr(cisdl_ops, op)(x, (None, 3)), fullgraph=True, dynamic=True, backend=counter
    )
    for height in (6, 9, 5):
        x = torch.randn(2, 3, height, 8, requires_grad=True)
        output = compiled(x)
        assert output.shape == (2, 3, height, 3)
        torch.testing.assert_close(torch.autograd.grad(output.square().sum(), x)[0], gradient(x))
    assert counter.frame_count == 1
    traced = make_fx(lambda x: getattr(cisdl_ops, op)(x, (None, 3)), tracing_mode="symbolic")(x.detach())
    assert traced(torch.randn(4, 3, 11, 7)).shape == (4, 3, 11, 3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=name_of)
@pytest.mark.parametrize("op", ["max_pool2d", "adaptive_max_pool2d"])
def test_maxima_of_reduced_precision_are_exact(op: str, dtype: torch.dtype) -> None:
    """Values, places and NaN: nothing is rounded."""
    x = image(torch.contiguous_format).to(dtype)
    x[0, 0, 1, 1] = torch.nan
    x[0, 1, 0] = -torch.inf
    ours = getattr(cisdl_ops, op)(x, 3, return_indices=True)
    theirs = getattr(torch.nn.functional, op)(x, 3, return_indices=True)
    for got, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=0, equal_nan=True)
