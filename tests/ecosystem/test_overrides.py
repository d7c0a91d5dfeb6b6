"""Our functions let others take over where torch's do: torch.fx, tensor subclasses, modes of both kinds."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.testing._internal.two_tensor import TwoTensor

import cisdl_ops
from cisdl_ops.cases import OPS, Case, select
from tests.ecosystem.recording import operators
from tests.zoo.tasks import TASKS

# Of each op, the case with the most tensors and, of those, with the most options.
WIDEST = [max(select("test", f"{op}/*"), key=lambda case: (len(case.shapes), len(case.kwargs))) for op in OPS]


class Watch(TorchFunctionMode):
    """Sees the calls of one function and lets them go on."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function
        self.calls = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += func is self.function
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("case", select("test"), ids=lambda case: case.id)
def test_a_mode_sees_the_call_with_all_its_arguments(case: Case) -> None:
    ours, tensors = OPS[case.op].ours, case.inputs()
    with Watch(ours) as watch:
        passed_on = case.call(ours, tensors)
    assert watch.calls == 1
    for a, b in zip(passed_on, case.call(ours, tensors), strict=True):
        assert torch.equal(a.nan_to_num(), b.nan_to_num())


class Taken:
    """Not a tensor at all, but it answers for torch functions."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func


@pytest.mark.parametrize("case", WIDEST, ids=lambda case: case.op)
def test_any_tensor_argument_may_take_over(case: Case) -> None:
    ours, tensors = OPS[case.op].ours, case.inputs()
    for name in tensors:
        assert case.bind(ours, {**tensors, name: Taken()})() is ours, name  # type: ignore[dict-item]


class Labelled(Tensor):
    """A subclass that leaves everything to torch: results are of its kind."""


@pytest.mark.parametrize("case", WIDEST, ids=lambda case: case.op)
def test_results_are_of_the_subclass(case: Case) -> None:
    tensors = case.inputs()
    labelled = {name: tensor.as_subclass(Labelled) for name, tensor in tensors.items()}
    got, theirs = (case.call(function, labelled) for function in (OPS[case.op].ours, OPS[case.op].torch))
    assert [type(result) for result in got] == [type(result) for result in theirs]
    for result, plain in zip(got, case.call(OPS[case.op].ours, tensors), strict=True):
        assert torch.equal(result.as_subclass(Tensor), plain)


@pytest.mark.parametrize("name", ["lenet", "resnet", "unet"])
def test_fx_traces_a_model(name: str) -> None:
    task = TASKS[name]
    model = cisdl_ops.accelerate(task.model()).eval()
    traced = torch.fx.symbolic_trace(model)
    functions = {node.target for node in traced.graph.nodes if node.op == "call_function"}
    assert cisdl_ops.conv2d in functions
    assert not {nn.functional.conv2d, nn.functional.linear, nn.functional.max_pool2d} & functions
    for size in (2, 3):
        x = task.batch(size)[0]
        assert torch.equal(traced(x), model(x))
    if name == "lenet":  # torch cannot pickle a trace of a forward whose annotations are strings
        assert torch.equal(pickle.loads(pickle.dumps(traced))(x), model(x))


@pytest.mark.parametrize("kind", ["LSTMCell", "GRUCell", "RNNCell", "LSTM", "GRU", "RNN"])
def test_fx_keeps_recurrent_modules_whole(kind: str) -> None:
    """As it keeps torch's: their forward asks for shapes, which a trace has not."""

    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = getattr(nn, kind)(3, 4)
            self.second = getattr(nn, kind)(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            first = self.first(x)
            if kind in ("LSTM", "GRU", "RNN"):
                return self.second(x, first[1])[0]
            if kind == "LSTMCell":
                h, c = self.second(x, first)
                return h + c
            return self.second(x, first)

    model = cisdl_ops.accelerate(Steps())
    traced = torch.fx.symbolic_trace(model)
    assert [n.target for n in traced.graph.nodes if n.op == "call_module"] == ["first", "second"]
    x = torch.randn(2, 3) if kind.endswith("Cell") else torch.randn(5, 2, 3)
    assert torch.equal(traced(x), model(x))


def test_default_device_is_for_new_tensors_only() -> None:
    model = cisdl_ops.accelerate(nn.Sequential(nn.Linear(3, 4)))
    cell = cisdl_ops.nn.LSTMCell(3, 4)
    x = torch.randn(2, 3)
    with torch.device("meta"):
        assert model(x).device.type == "cpu"
        assert cell(x)[0].device.type == "cpu"
        assert cisdl_ops.nn.Linear(3, 4)(torch.empty(2, 3)).device.type == "meta"
    torch.set_default_device("meta")
    try:
        assert cisdl_ops.linear(x, model[0].weight).device.type == "cpu"
    finally:
        torch.set_default_device(None)


@pytest.mark.parametrize("case", WIDEST, ids=lambda case: case.op)
def test_dispatch_modes_and_subclasses(case: Case) -> None:
    """A mode sees our operator; a subclass that wraps two tensors gets both results, and both gradients."""
    ours = OPS[case.op].ours
    assert any(name.startswith("cisdl::") for name in operators(lambda: case.call(ours, case.inputs())))
    pairs = {name: TwoTensor(t, 2 * t).requires_grad_() for name, t in case.inputs().items()}
    result = case.call(ours, pairs)[0]
    assert type(result) is TwoTensor
    result.sum().backward()
    for factor, part in ((1, "a"), (2, "b")):
        tensors = {n: (factor * t).requires_grad_() for n, t in case.inputs().items()}
        expected = case.call(ours, tensors)[0]
        assert torch.equal(getattr(result, part), expected)
        expected.sum().backward()
        for name, tensor in tensors.items():
            assert torch.equal(getattr(pairs[name].grad, part), tensor.grad), name  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["lenet", "alexnet", "unet"])
def test_fake_tensors(name: str) -> None:
    """A training step without any data: what torch.compile and memory estimators do."""
    task = TASKS[name]
    x = task.batch(2)[0]
    shape = cisdl_ops.accelerate(task.model())(x).shape
    with FakeTensorMode() as mode:
        model = cisdl_ops.accelerate(task.build())
        images = mode.from_tensor(x)
        assert model(images).shape == shape
        called = operators(lambda: model(images).sum().backward())
    assert {"cisdl::conv2d", "cisdl::conv2d_backward"} <= called
    assert all(p.grad is not None and p.grad.shape == p.shape for p in model.parameters())
