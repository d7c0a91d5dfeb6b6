"""torch.compile of whole accelerated models: one graph, forward and backward, for every batch size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

import cisdl_ops
from tests.zoo.generative import NOISE
from tests.zoo.tasks import TASKS

# The tagger is not among them: torch.compile does not enter pack_padded_sequence, whoever's LSTM follows.
COMPILED = [name for name in TASKS if name != "tagger"]
SIZES = (8, 5, 12)
# torch.compile hides this warning of its own doing, but not from a filter that makes it an error.
pytestmark = pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"
)


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def step(name: str, model: Any, size: int, parameters: list[Tensor]) -> tuple[Tensor, ...]:
    """A loss and all gradients."""
    task = TASKS[name]
    batch = task.batch(size)
    if name == "dcgan":  # as one model: the discriminator on what the generator makes
        loss = model(torch.randn(size, NOISE)).square().mean()
    else:
        loss = next(task.losses(model, batch))[1]
    return (loss.detach(), *torch.autograd.grad(loss, parameters))


def check(name: str, compiled: Any, model: Any, size: int) -> None:
    parameters = list(model.parameters())
    got, expected = (step(name, m, size, parameters) for m in (compiled, model))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", COMPILED)
def test_one_graph_for_every_batch_size(name: str) -> None:
    model = cisdl_ops.accelerate(TASKS[name].model()).eval()  # dropout's masks are drawn differently
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend=counter)
    check(name, compiled, model, SIZES[0])
    compilations = counter.frame_count
    for size in SIZES[1:]:
        check(name, compiled, model, size)
    assert counter.frame_count == compilations


def test_marked_dynamic() -> None:
    model = cisdl_ops.accelerate(TASKS["lenet"].model())
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, fullgraph=True, backend=counter)
    for size in SIZES:
        x = TASKS["lenet"].batch(size)[0]
        torch._dynamo.mark_dynamic(x, 0)
        torch.testing.assert_close(compiled(x), model(x))
    assert counter.frame_count == 1


def test_inductor() -> None:
    """The default backend; one model, for its C++ compiler takes its time."""
    model = cisdl_ops.accelerate(TASKS["lenet"].model())
    compiled = torch.compile(model, fullgraph=True, dynamic=True)
    for size in SIZES[:2]:
        check("lenet", compiled, model, size)


def test_without_fullgraph() -> None:
    """The sentences are packed between the graphs; the LSTM is in one, which torch's own never is."""
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, _: object) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    model = cisdl_ops.accelerate(TASKS["tagger"].model()).eval()
    check("tagger", torch.compile(model, backend=backend), model, 4)
    assert "cisdl.lstm_layer.default" in {str(node.target) for graph in graphs for node in graph.graph.nodes}


@pytest.mark.parametrize("in_place", [False, True], ids=["torch.compile", "Module.compile"])
def test_accelerated_after_it_was_compiled(in_place: bool) -> None:
    """A graph that was compiled for torch's modules is not used any more for ours."""
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, _: object) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    model: Any = TASKS["autoencoder"].model()
    if in_place:
        model.compile(backend=backend)
    else:
        model = torch.compile(model, backend=backend)
    x = torch.randn(2, 144)
    before = model(x)
    cisdl_ops.accelerate(model)
    torch.testing.assert_close(model(x), before)
    assert len(graphs) == 2
    assert "cisdl.linear" in {str(node.target) for node in graphs[1].graph.nodes}
