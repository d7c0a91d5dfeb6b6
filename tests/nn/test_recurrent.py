"""LSTM, GRU and RNN against torch's modules: every combination of options, results and gradients."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

import cisdl_ops
from cisdl_ops import nn, tolerance
from tests.ops.running import poisoned_memory

KINDS = {
    "lstm": ("LSTM", {}),
    "gru": ("GRU", {}),
    "rnn_tanh": ("RNN", {}),
    "rnn_relu": ("RNN", {"nonlinearity": "relu"}),
}
# How the sequences come: lengths of a packed batch of three, or None.
FORMS: dict[str, list[int] | None] = {
    "dense": None,
    "unbatched": None,
    "packed": [4, 2, 1],
    "packed_equal": [4, 4, 4],
    "packed_unsorted": [1, 4, 2],
}
STEPS, BATCH, INPUTS, HIDDEN = 4, 3, 3, 5


def pair(kind: str, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
    """Ours and torch's with the same weights."""
    name, fixed = KINDS[kind]
    modules = []
    for library in (nn, torch.nn):
        torch.manual_seed(0)
        modules.append(getattr(library, name)(*(args or (INPUTS, HIDDEN)), **fixed, **kwargs))
    return modules[0], modules[1]


def tensors_for(module: Any, form: str, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Input and initial states, with gradients: the same in every dtype but for the rounding."""
    torch.manual_seed(1)
    sizes = (BATCH, STEPS) if module.batch_first else (STEPS, BATCH)
    layers = module.num_layers * (2 if module.bidirectional else 1)
    tensors = {
        "input": torch.randn(*sizes, INPUTS).bfloat16(),
        "h": torch.randn(layers, BATCH, module.proj_size or HIDDEN).bfloat16(),
        "c": torch.randn(layers, BATCH, HIDDEN).bfloat16(),
    }
    if form == "unbatched":
        tensors["input"] = tensors["input"].select(0 if module.batch_first else 1, 0)
        tensors["h"], tensors["c"] = tensors["h"][:, 0], tensors["c"][:, 0]
    if module.mode != "LSTM":
        del tensors["c"]
    return {name: tensor.to(dtype, copy=True).requires_grad_() for name, tensor in tensors.items()}


def call(module: Any, tensors: dict[str, Tensor], form: str, with_states: bool) -> tuple[Any, list[Tensor]]:
    """The output, and all results as tensors."""
    sequences: Any = tensors["input"]
    lengths = FORMS[form]
    if lengths is not None:
        in_order = lengths == sorted(lengths, reverse=True)
        sequences = pack_padded_sequence(
            sequences, lengths, batch_first=module.batch_first, enforce_sorted=in_order
        )
    states: Any = None
    if with_states:
        states = (tensors["h"], tensors["c"]) if "c" in tensors else tensors["h"]
    torch.manual_seed(2)  # of dropout
    output, last = module(sequences, states)
    assert isinstance(last, tuple) == (module.mode == "LSTM")
    data = output.data if isinstance(output, PackedSequence) else output
    return output, [data, *(last if isinstance(last, tuple) else (last,))]


def results_and_gradients(module: Any, form: str, with_states: bool, dtype: torch.dtype) -> list[Tensor]:
    tensors = tensors_for(module, form, dtype)
    _, results = call(module, tensors, form, with_states)
    torch.manual_seed(3)
    total = sum((result * torch.randn(result.shape, dtype=torch.float64)).sum() for result in results)
    used = [t for name, t in tensors.items() if name == "input" or with_states]
    grads = torch.autograd.grad(total, [*used, *module.parameters()])  # type: ignore[arg-type]
    return [*(result.detach() for result in results), *grads]


@pytest.mark.parametrize("with_states", [False, True])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_combination(kind: str, form: str, with_states: bool) -> None:
    """In float64, with memory that holds NaN until it is written."""
    flags = (False, True)
    projections = (0, 2) if kind == "lstm" else (0,)
    for layers, bidirectional, batch_first, bias, proj_size in product(
        (1, 2), flags, flags, flags, projections
    ):
        options: dict[str, Any] = {
            "num_layers": layers,
            "bidirectional": bidirectional,
            "batch_first": batch_first,
            "bias": bias,
            "dropout": 0.3 if layers > 1 else 0.0,
        }
        options |= {"proj_size": proj_size} if proj_size else {}
        ours, theirs = pair(kind, dtype=torch.float64, **options)
        with poisoned_memory():
            got = results_and_gradients(ours, form, with_states, torch.float64)
        expected = results_and_gradients(theirs, form, with_states, torch.float64)
        torch.testing.assert_close(
            got, expected, rtol=1e-10, atol=1e-10, msg=lambda m, o=options: f"{o}\n{m}"
        )


@pytest.mark.parametrize("form", ["dense", "packed"])
@pytest.mark.parametrize("kind", KINDS)
def test_float32_is_as_exact_as_torchs(kind: str, form: str) -> None:
    """The rule of cisdl_ops.tolerance, with torch in float64 as the exact result."""
    ours, theirs = pair(kind, INPUTS, HIDDEN, num_layers=2, bidirectional=True)
    got = results_and_gradients(ours, form, True, torch.float32)
    by_torch = results_and_gradients(theirs, form, True, torch.float32)
    exact = results_and_gradients(theirs.double(), form, True, torch.float64)
    for i, triple in enumerate(zip(got, by_torch, exact, strict=True)):
        compared = tolerance.compare_tensor(f"{kind} {i}", *triple)
        assert compared.complaint is None, compared.complaint


def test_packed_output_can_be_padded_again() -> None:
    ours, theirs = pair("gru", batch_first=True, bidirectional=True, dtype=torch.float64)
    tensors = tensors_for(ours, "packed_unsorted")
    output, expected = (call(m, tensors, "packed_unsorted", False)[0] for m in (ours, theirs))
    assert isinstance(output, PackedSequence)
    padded, lengths = pad_packed_sequence(output, batch_first=True)
    padded_by_torch, _ = pad_packed_sequence(expected, batch_first=True)
    torch.testing.assert_close(padded, padded_by_torch)
    assert lengths.tolist() == FORMS["packed_unsorted"]


@pytest.mark.parametrize("kind", KINDS)
def test_dropout(kind: str) -> None:
    """Only in training, only between layers; the same numbers are drawn as torch draws."""
    ours, theirs = pair(kind, num_layers=3, dropout=0.5, dtype=torch.float64)
    tensors = tensors_for(ours, "dense")
    trained = call(ours, tensors, "dense", False)[1]
    drawn = torch.rand(1)
    call(theirs, tensors, "dense", False)
    assert torch.equal(drawn, torch.rand(1))
    ours.eval()
    theirs.eval()
    evaluated = call(ours, tensors, "dense", False)[1]
    torch.testing.assert_close(evaluated, call(theirs, tensors, "dense", False)[1])
    assert not torch.allclose(trained[0], evaluated[0])


@pytest.mark.parametrize("kind", KINDS)
def test_construction(kind: str) -> None:
    """The same parameters, names, repr and errors; device and dtype."""
    ours, theirs = pair(kind, num_layers=2, bidirectional=True, batch_first=True, bias=False)
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b)
    ours.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    elsewhere, _ = pair(kind, device="meta", dtype=torch.float64)
    output, _ = elsewhere(torch.empty(STEPS, BATCH, INPUTS, device="meta", dtype=torch.float64))
    assert (output.shape, output.dtype) == ((STEPS, BATCH, HIDDEN), torch.float64)
    name, _ = KINDS[kind]
    bad: list[dict[str, Any]] = [{"dropout": 2}, {"hidden_size": 0}, {"num_layers": 0}, {"bias": 1}]
    bad += [{"proj_size": 2 if name != "LSTM" else HIDDEN}, {"nonlinearity": "sin"}]
    for wrong in bad:
        assert refusal(
            lambda w=wrong: getattr(nn, name)(**({"input_size": 3, "hidden_size": 5} | w))
        ) == refusal(lambda w=wrong: getattr(torch.nn, name)(**({"input_size": 3, "hidden_size": 5} | w)))


def refusal(run: Callable[[], Any]) -> tuple[type[Exception], str]:
    with pytest.raises((RuntimeError, ValueError, TypeError)) as caught:
        run()
    return caught.type, str(caught.value).replace("RNNBase.", "")


def test_rnn_takes_its_nonlinearity_by_position() -> None:
    assert nn.RNN(3, 5, 1, "relu").mode == "RNN_RELU"
    assert nn.RNN(3, 5, 1, "relu", False).bias is False


def bad_calls(lstm: bool) -> dict[str, tuple[Tensor, Any]]:
    def states(*shape: int) -> Any:
        state = torch.zeros(shape)
        return (state, state) if lstm else state

    x = torch.zeros(STEPS, BATCH, INPUTS)
    return {
        "a batch of batches": (torch.zeros(1, STEPS, BATCH, INPUTS), None),
        "a vector": (torch.zeros(INPUTS), None),
        "other features": (torch.zeros(STEPS, BATCH, INPUTS + 1), None),
        "other dtype": (x.double(), None),
        "no steps": (x[:0], None),
        "another batch": (x, states(1, BATCH + 1, HIDDEN)),
        "another hidden size": (x, states(1, BATCH, HIDDEN + 1)),
        "too many layers": (x, states(2, BATCH, HIDDEN)),
        "unbatched states": (x, states(1, HIDDEN)),
        "batched states": (x[:, 0], states(1, BATCH, HIDDEN)),
    }


@pytest.mark.parametrize("what", bad_calls(False))
@pytest.mark.parametrize("kind", KINDS)
def test_errors_are_torchs(kind: str, what: str) -> None:
    input, states = bad_calls(kind == "lstm")[what]
    ours, theirs = pair(kind)
    got, expected = refusal(lambda: ours(input, states)), refusal(lambda: theirs(input, states))
    assert got[0] is expected[0]
    assert got[1] == expected[1].replace("D tensor instead", "D instead")


@pytest.mark.parametrize("kind", KINDS)
def test_empty_batch(kind: str) -> None:
    ours, theirs = pair(kind, num_layers=2, bidirectional=True)
    outcomes = []
    for module in (ours, theirs):
        x = torch.randn(STEPS, 0, INPUTS, requires_grad=True)
        output, _ = module(x)
        output.sum().backward()
        outcomes.append([output, x.grad, *(p.grad for p in module.parameters())])
    torch.testing.assert_close(*outcomes)


@pytest.mark.parametrize("kind", KINDS)
def test_life_of_a_module(kind: str) -> None:
    """Copied, pickled, flattened, replaced, functional, parametrised: the weights of the moment count."""
    ours, theirs = pair(kind, num_layers=2)
    x = torch.randn(STEPS, BATCH, INPUTS)
    expected = theirs(x)[0]
    for same in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        torch.testing.assert_close(same(x)[0], expected)
    ours.flatten_parameters()
    torch.testing.assert_close(ours(x)[0], expected)

    changed = {name: p.detach() * 0.5 for name, p in ours.named_parameters()}
    halved = torch.func.functional_call(theirs, changed, (x,))[0]
    torch.testing.assert_close(torch.func.functional_call(ours, changed, (x,))[0], halved)
    torch.testing.assert_close(ours(x)[0], expected)
    for name, value in changed.items():
        setattr(ours, name, torch.nn.Parameter(value))
    torch.testing.assert_close(ours(x)[0], halved)
    torch.testing.assert_close(ours.double()(x.double())[0].float(), halved)
    torch.nn.utils.parametrizations.weight_norm(ours, "weight_hh_l0")
    torch.testing.assert_close(ours(x.double())[0].float(), halved)


class Tagger(torch.nn.Module):
    """Two bidirectional layers over packed sequences, and a cell."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = torch.nn.LSTM(INPUTS, HIDDEN, 2, bidirectional=True, batch_first=True)
        self.gru = torch.nn.GRU(2 * HIDDEN, 4)
        self.cell = torch.nn.GRUCell(4, 4)

    def forward(self, x: Tensor, lengths: list[int]) -> Tensor:
        packed, _ = self.lstm(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))
        padded, _ = pad_packed_sequence(packed)
        _, h = self.gru(padded)
        result: Tensor = self.cell(h[0])
        return result


def test_accelerate() -> None:
    torch.manual_seed(0)
    model = Tagger()
    plain = copy.deepcopy(model)
    cisdl_ops.accelerate(model)
    assert {type(m).__module__.split(".")[0] for m in model.children()} == {"cisdl_ops"}
    x, lengths = torch.randn(BATCH, STEPS, INPUTS), [2, 4, 1]
    outcomes = [m(x, lengths) for m in (model, plain)]
    for output in outcomes:
        output.square().sum().backward()
    torch.testing.assert_close(*outcomes)
    for a, b in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", KINDS)
def test_reduced_precision(kind: str, dtype: torch.dtype) -> None:
    """Close to float32, of the type that was asked for."""
    ours, _ = pair(kind, num_layers=2, bidirectional=True)
    expected = results_and_gradients(ours, "dense", True, torch.float32)
    got = results_and_gradients(ours.to(dtype), "dense", True, dtype)
    for a, b in zip(got, expected, strict=True):
        assert a.dtype == dtype
        torch.testing.assert_close(a.float(), b, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("kind", KINDS)
def test_autocast_gives_torchs_types(kind: str) -> None:
    ours, theirs = pair(kind)
    for given in (torch.float32, torch.bfloat16):
        x = torch.randn(STEPS, BATCH, INPUTS, dtype=given)
        with torch.autocast("cpu", torch.bfloat16):
            got, expected = ours(x), theirs(x)
        assert got[0].dtype == expected[0].dtype
        torch.testing.assert_close(got, expected, rtol=0.02, atol=0.02)


# ---------------------------------------------------------------------------------------- torch.compile


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("kind", KINDS)
def test_compiles_once_for_every_length_and_batch(kind: str, fresh_compiler: None) -> None:
    """No graph break, nothing compiled again for other sizes, the same results and gradients."""
    ours, _ = pair(kind, num_layers=2, bidirectional=True, batch_first=True)
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(ours, fullgraph=True, dynamic=True, backend=counter)
    compiled_once = 0
    for batch, steps in ((4, 7), (9, 7), (4, 13), (8, 2)):
        x = torch.randn(batch, steps, INPUTS)
        outcomes = []
        for module in (compiled, ours):
            leaf = x.clone().requires_grad_()
            output = module(leaf)[0]
            outcomes.append([output, *torch.autograd.grad(output.square().sum(), [leaf, *ours.parameters()])])
        torch.testing.assert_close(*outcomes, rtol=1e-5, atol=1e-5)
        compiled_once = compiled_once or counter.frame_count
        assert counter.frame_count == compiled_once


def test_compiled_graph_has_our_ops(fresh_compiler: None) -> None:
    """A layer is one operator in the graph, whatever its length."""
    seen: list[str] = []

    def look(graph: torch.fx.GraphModule, _: Any) -> Any:
        seen.extend(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
        return graph

    ours, _ = pair("lstm", num_layers=2)
    torch.compile(ours, fullgraph=True, backend=look)(torch.randn(50, BATCH, INPUTS))
    assert sum("cisdl" in name for name in seen) == 2
