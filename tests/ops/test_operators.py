"""torch.ops.cisdl.*: schemas, fake tensors, autograd registration and torch.compile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

import cisdl_ops
from cisdl_ops.cases import OPS, Case
from tests.ops.running import case_named
from tests.ops.samples import Sample, samples

COMPILED = [
    "linear/three_dims",
    "conv2d/same_even_kernel",
    "conv2d/everything",
    "conv_transpose2d/output_padding_pair",
    "max_pool2d/pairs",
    "max_pool2d/indices",
    "avg_pool2d/ceil_padding",
    "adaptive_max_pool2d/own_height",
    "adaptive_avg_pool2d/own_height",
    "lstm_cell/no_bias",
    "lstm_cell/hidden_9",
    "gru_cell/hidden_9",
    "rnn_tanh_cell/no_bias",
    "rnn_relu_cell/hidden_9",
]


def registered() -> set[str]:
    prefix = "cisdl::"
    return {
        schema.name.removeprefix(prefix)
        for schema in torch._C._jit_get_all_schemas()
        if schema.name.startswith(prefix)
    }


def numbered(all_samples: list[Sample]) -> list[Any]:
    return [pytest.param(sample, id=f"{sample.op}-{i}") for i, sample in enumerate(all_samples)]


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def test_samples_cover_every_operator() -> None:
    assert {sample.op for sample in samples()} == registered()


@pytest.mark.parametrize("sample", numbered(samples(grad=True)))
def test_opcheck(sample: Sample) -> None:
    torch.library.opcheck(sample.overload, tuple(sample.arguments.values()))


@pytest.mark.parametrize("sample", numbered(samples(torch.float64)))
def test_fake_results_have_the_same_strides(sample: Sample) -> None:
    """The Meta kernel predicts shape, dtype and strides of the real one."""
    real = sample.call()
    meta = {
        name: value.to("meta") if isinstance(value, Tensor) else value
        for name, value in sample.arguments.items()
    }
    predicted = sample.overload(*meta.values())
    pairs = [(real, predicted)] if isinstance(real, Tensor) else list(zip(real, predicted, strict=True))
    for ours, fake in pairs:
        assert (ours is None) == (fake is None)
        if ours is not None:
            assert (fake.shape, fake.dtype, fake.stride()) == (ours.shape, ours.dtype, ours.stride())


def loss_and_gradients(function: Callable[..., Any], tensors: dict[str, Tensor]) -> tuple[Tensor, ...]:
    loss = function(tensors)
    return (loss.detach(), *torch.autograd.grad(loss, list(tensors.values())))


def loss_of(case: Case) -> Callable[[dict[str, Tensor]], Tensor]:
    ours = OPS[case.op].ours

    def loss(tensors: dict[str, Tensor]) -> Tensor:
        outputs = case.call(ours, tensors)
        return torch.stack([output.square().sum() for output in outputs if output.is_floating_point()]).sum()

    return loss


@pytest.mark.parametrize("identifier", COMPILED)
def test_compiles_without_a_graph_break(identifier: str) -> None:
    case = case_named(identifier)
    compiled = torch.compile(loss_of(case), fullgraph=True, backend="aot_eager")
    expected = loss_and_gradients(loss_of(case), case.inputs(requires_grad=True))
    got = loss_and_gradients(compiled, case.inputs(requires_grad=True))
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_inductor_compiles_a_network() -> None:
    """Our ops between torch's pointwise ones, through the default backend, forward and backward."""

    def loss(tensors: dict[str, Tensor]) -> Tensor:
        y = cisdl_ops.conv2d(tensors["x"], tensors["kernel"], padding="same").relu()
        y = cisdl_ops.avg_pool2d(cisdl_ops.max_pool2d(y, 2), 3, stride=1)
        return cisdl_ops.linear(y.flatten(1), tensors["weight"]).tanh().sum()

    shapes = {"x": (3, 2, 12, 12), "kernel": (4, 2, 3, 3), "weight": (5, 64)}
    tensors = {name: torch.randn(shape, requires_grad=True) for name, shape in shapes.items()}
    compiled = torch.compile(loss, fullgraph=True)
    torch.testing.assert_close(
        loss_and_gradients(compiled, tensors), loss_and_gradients(loss, tensors), rtol=1e-4, atol=1e-5
    )


def test_dynamic_shapes_compile_once() -> None:
    """One graph serves every batch size and image size."""
    counter = CompileCounterWithBackend("aot_eager")

    def loss(tensors: dict[str, Tensor]) -> Tensor:
        y = cisdl_ops.max_pool2d(cisdl_ops.conv2d(tensors["x"], tensors["kernel"], stride=2), 2)
        return cisdl_ops.linear(y.mean(-1), tensors["weight"][:, : y.shape[2]]).square().sum()

    compiled = torch.compile(loss, fullgraph=True, dynamic=True, backend=counter)
    kernel, weight = torch.randn(4, 3, 3, 3, requires_grad=True), torch.randn(5, 16, requires_grad=True)
    for batch, height, width in ((2, 17, 19), (5, 17, 19), (3, 23, 30)):
        tensors = {
            "x": torch.randn(batch, 3, height, width, requires_grad=True),
            "kernel": kernel,
            "weight": weight,
        }
        torch.testing.assert_close(
            loss_and_gradients(compiled, tensors), loss_and_gradients(loss, tensors), rtol=1e-4, atol=1e-4
        )
    assert counter.frame_count == 1


def test_make_fx_shows_our_ops() -> None:
    """A traced forward and backward consists of cisdl operators, not of a decomposition."""
    from torch.fx.experimental.proxy_tensor import make_fx

    def step(x: Tensor, w: Tensor) -> tuple[Tensor, ...]:
        x, w = x.detach().requires_grad_(), w.detach().requires_grad_()
        return torch.autograd.grad(cisdl_ops.conv2d(x, w).sum(), (x, w))

    graph = make_fx(step, tracing_mode="fake")(torch.randn(1, 2, 5, 5), torch.randn(3, 2, 3, 3)).graph
    called = {str(node.target) for node in graph.nodes if node.op == "call_function"}
    assert {"cisdl.conv2d.default", "cisdl.conv2d_backward.default"} <= called
