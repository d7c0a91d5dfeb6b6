"""lstm_layer, gru_layer and rnn_layer: one layer in one direction, against the reference cell in a loop."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

import cisdl_ops
from cisdl_ops import reference
from tests.ops.running import poisoned_memory
from tests.ops.samples import Sample, samples

GATES = {"lstm_layer": 4, "gru_layer": 3, "rnn_layer": 1}
INPUTS, HIDDEN, PROJECTED = 3, 2, 1
BATCH = 5  # enough rows for the kernels that take a whole layer
LENGTHS = [5, 3, 3]  # rows of each step of a packed batch

# op, its options, packed, reverse
SITUATIONS = [
    pytest.param(op, options, packed, reverse, id="-".join([op, *options, *marks]))
    for op, options in (
        ("lstm_layer", {}),
        ("lstm_layer", {"w_hr": True}),
        ("gru_layer", {}),
        ("rnn_layer", {}),
        ("rnn_layer", {"relu": True}),
    )
    for packed, reverse, marks in (
        (False, False, []),
        (False, True, ["reverse"]),
        (True, False, ["packed"]),
        (True, True, ["packed", "reverse"]),
    )
]
each_situation = pytest.mark.parametrize(("op", "options", "packed", "reverse"), SITUATIONS)

Function = Callable[..., tuple[Tensor, ...]]


def arguments(
    op: str, options: dict[str, Any], packed: bool, hidden: int = HIDDEN, batch: int = BATCH, steps: int = 2
) -> dict[str, Tensor]:
    """Float64 tensors of a call by name, in the order of the schema."""
    state = PROJECTED if "w_hr" in options else hidden
    rows = GATES[op] * hidden
    shapes = {
        "input": (sum(LENGTHS), INPUTS) if packed else (steps, batch, INPUTS),
        "hx": (batch, state),
        "cx": (batch, hidden),
        "w_ih": (rows, INPUTS),
        "w_hh": (rows, state),
        "b_ih": (rows,),
        "b_hh": (rows,),
        "w_hr": (PROJECTED, hidden),
    }
    if op != "lstm_layer":
        del shapes["cx"]
    if "w_hr" not in options:
        del shapes["w_hr"]
    generator = torch.Generator().manual_seed(7)
    return {name: torch.randn(s, generator=generator, dtype=torch.float64) for name, s in shapes.items()}


def operator(op: str, options: dict[str, Any], packed: bool, reverse: bool) -> Function:
    """The op as a function of its float tensors."""
    overload = getattr(torch.ops.cisdl, op)
    rest = {"batch_sizes": torch.tensor(LENGTHS) if packed else None, "reverse": reverse}
    rest |= {"relu": True} if "relu" in options else {}
    return lambda *tensors: tuple(overload(*tensors, **rest))


def looped(op: str, options: dict[str, Any], packed: bool, reverse: bool) -> Function:
    """The same by reference.*_cell, each row of the batch by itself until its last step."""
    cells: dict[str, Any] = {
        "lstm_layer": reference.lstm_cell,
        "gru_layer": reference.gru_cell,
        "rnn_layer": reference.rnn_relu_cell if "relu" in options else reference.rnn_tanh_cell,
    }

    def run(input: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        count = 2 if op == "lstm_layer" else 1
        states, weights, projection = others[:count], others[count : count + 4], others[count + 4 :]
        rows = LENGTHS if packed else [input.shape[1]] * input.shape[0]
        steps = input.split(rows) if packed else input.unbind()
        outputs: list[list[Tensor]] = [[] for _ in steps]
        ended = []
        for b in range(rows[0]):
            state = [one[b] for one in states]
            mine = [t for t in range(len(rows)) if b < rows[t]]
            for t in reversed(mine) if reverse else mine:
                result = cells[op](steps[t][b], state if count == 2 else state[0], *weights)
                state = list(result) if count == 2 else [result]
                if projection:
                    state[0] = reference.linear(state[0], projection[0])
                outputs[t].append(state[0])
            ended.append(state)
        joined = [torch.stack(each) for each in outputs]
        whole = torch.cat(joined) if packed else torch.stack(joined)
        return whole, *(torch.stack([state[k] for state in ended]) for k in range(count))

    return run


def loss(function: Function) -> Callable[..., Tensor]:
    """Every element of every result with a weight of its own."""

    def total(*tensors: Tensor) -> Tensor:
        parts = [
            (result * torch.linspace(-1, 1, result.numel(), dtype=torch.float64).view_as(result)).sum()
            for result in function(*tensors)
        ]
        return torch.stack(parts).sum()

    return total


@each_situation
def test_results_and_gradients(op: str, options: dict[str, Any], packed: bool, reverse: bool) -> None:
    """With and without a graph, gradients together and alone, memory holding NaN until it is written."""
    tensors = tuple(arguments(op, options, packed).values())
    ours, plain = (make(op, options, packed, reverse) for make in (operator, looped))
    leaves = [tensor.clone().requires_grad_() for tensor in tensors]
    expected = torch.autograd.grad(loss(plain)(*leaves), leaves)
    with poisoned_memory():
        torch.testing.assert_close(ours(*tensors), plain(*tensors))
        torch.testing.assert_close(ours(*leaves), plain(*leaves))
        torch.testing.assert_close(torch.autograd.grad(loss(ours)(*leaves), leaves), expected)
        for i, gradient in enumerate(expected):
            alone = list(tensors)
            alone[i] = leaves[i]
            torch.testing.assert_close(torch.autograd.grad(loss(ours)(*alone), leaves[i])[0], gradient)


@each_situation
def test_one_result_at_a_time(op: str, options: dict[str, Any], packed: bool, reverse: bool) -> None:
    """What is not used counts as zero."""
    leaves = [tensor.requires_grad_() for tensor in arguments(op, options, packed).values()]
    ours, plain = (make(op, options, packed, reverse)(*leaves) for make in (operator, looped))
    for a, b in zip(ours, plain, strict=True):
        with poisoned_memory():
            got = torch.autograd.grad(a.sum(), leaves, retain_graph=True)
        expected = torch.autograd.grad(b.sum(), leaves, retain_graph=True, allow_unused=True)
        for x, y in zip(got, expected, strict=True):
            torch.testing.assert_close(x, torch.zeros_like(x) if y is None else y)


@each_situation
def test_second_derivatives_and_tangents(
    op: str, options: dict[str, Any], packed: bool, reverse: bool
) -> None:
    leaves = tuple(tensor.requires_grad_() for tensor in arguments(op, options, packed).values())
    ours = operator(op, options, packed, reverse)
    assert torch.autograd.gradcheck(ours, leaves, check_forward_ad=True, fast_mode=True)
    assert torch.autograd.gradgradcheck(ours, leaves, fast_mode=True)


@each_situation
def test_torch_func(op: str, options: dict[str, Any], packed: bool, reverse: bool) -> None:
    """grad, jvp, jacrev, vmap and gradients per sample."""
    tensors = tuple(arguments(op, options, packed).values())
    batch = tuple(torch.stack([tensor, 0.5 * tensor, tensor.cos()]) for tensor in tensors)
    numbers = tuple(range(len(tensors)))
    outcomes = []
    for make in (operator, looped):
        function = make(op, options, packed, reverse)
        gradient = torch.func.grad(loss(function), argnums=numbers)
        in_dims = (0, *(None,) * (len(tensors) - 1))
        outcomes.append(
            [
                gradient(*tensors),
                torch.func.jvp(function, tensors, tuple(tensor.sin() for tensor in tensors)),
                torch.func.jacrev(lambda *t, f=function: f(*t)[0], argnums=numbers)(*tensors),
                torch.func.vmap(function)(*batch),
                torch.func.vmap(gradient, in_dims=in_dims)(batch[0], *tensors[1:]),
            ]
        )
    torch.testing.assert_close(*outcomes)


@pytest.mark.parametrize("op", GATES)
def test_views(op: str) -> None:
    """Transposed inputs and weights, and a transposed gradient."""
    tensors = arguments(op, {}, False, hidden=5)
    turned = {name: t.t().contiguous().t() if t.dim() == 2 else t for name, t in tensors.items()}
    turned["input"] = tensors["input"].permute(2, 1, 0).contiguous().permute(2, 1, 0)
    outcomes = []
    for each in (tensors, turned):
        leaves = [t.clone(memory_format=torch.preserve_format).requires_grad_() for t in each.values()]
        output = operator(op, {}, False, False)(*leaves)[0]
        gradient = torch.arange(output.numel(), dtype=torch.float64).view(output.shape[::-1]).permute(2, 1, 0)
        outcomes.append((output, torch.autograd.grad(output, leaves, gradient)))
    torch.testing.assert_close(*outcomes)


@pytest.mark.parametrize("op", GATES)
def test_every_implementation_of_the_steps(op: str) -> None:
    """And of whole layers: `steps` leaves a layer to the lists of the steps."""
    lists = {"lstm_layer": "lstm_step", "gru_layer": "gru_cell", "rnn_layer": "rnn_tanh_cell"}
    leaves = [t.requires_grad_() for t in arguments(op, {}, True, hidden=19).values()]
    plain = looped(op, {}, True, False)
    expected = torch.autograd.grad(loss(plain)(*leaves), leaves)
    for direction in ("", "_backward"):
        layer, step = op + direction, lists[op] + direction
        combinations = [(name, None) for name in cisdl_ops.implementations(layer)]
        combinations += [("steps", name) for name in cisdl_ops.implementations(step)]
        for whole, part in combinations:
            with ExitStack() as forced:
                forced.enter_context(cisdl_ops.force_implementation(layer, whole))
                if part is not None:
                    forced.enter_context(cisdl_ops.force_implementation(step, part))
                got = torch.autograd.grad(loss(operator(op, {}, True, False))(*leaves), leaves)
            torch.testing.assert_close(got, expected)
            assert cisdl_ops.last_implementation(layer) == whole
            assert part is None or cisdl_ops.last_implementation(step) == part


# batch, inputs, hidden: both sides of vectors and tiles; sums of one, two and three chains.
EDGES = [
    *((4, 3, hidden) for hidden in (1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 65)),
    *((batch, 17, 20) for batch in (6, 7, 13, 14, 15, 29)),
    *((4, inputs, 8) for inputs in (0, 1, 15, 16, 33, 505, 520, 1030)),
    (5, 16, 264),
]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("op", GATES)
def test_whole_layers_at_the_edges(op: str, reverse: bool) -> None:
    """They give what the steps one by one give: in float64, with memory holding NaN until it is written."""
    for batch, inputs, hidden in EDGES:
        rows, generator = GATES[op] * hidden, torch.Generator().manual_seed(batch + inputs + hidden)
        shapes = {
            "input": (2 * batch + 1, inputs),
            "hx": (batch, hidden),
            "cx": (batch, hidden),
            "w_ih": (rows, inputs),
            "w_hh": (rows, hidden),
            "b_ih": (rows,),
            "b_hh": (rows,),
        }
        if op != "lstm_layer":
            del shapes["cx"]
        tensors = {
            name: torch.randn(shape, generator=generator, dtype=torch.float64) / (shape[-1] or 1) ** 0.5
            for name, shape in shapes.items()
        }
        lengths = torch.tensor([batch, batch - 1, 2])
        outcomes = []
        for name in ("packed", "steps"):
            leaves = [tensor.clone().requires_grad_() for tensor in tensors.values()]
            with (
                cisdl_ops.force_implementation(op, name),
                cisdl_ops.force_implementation(f"{op}_backward", name),
                poisoned_memory(),
            ):
                call = partial(getattr(torch.ops.cisdl, op), batch_sizes=lengths, reverse=reverse)
                outcomes.append(call(*[leaf.detach() for leaf in leaves]))
                results = call(*leaves)
                weights = [
                    torch.linspace(-1, 1, one.numel(), dtype=one.dtype).view_as(one) for one in results
                ]
                outcomes[-1] += (*results, *torch.autograd.grad(results, leaves, weights))
        torch.testing.assert_close(
            *outcomes, rtol=1e-10, atol=1e-12, msg=lambda m, s=(batch, inputs, hidden): f"{s}\n{m}"
        )


@pytest.mark.parametrize("op", GATES)
def test_changed_weights_are_noticed(op: str) -> None:
    """Weights are packed in every call: however they were changed, the next call uses the new ones."""
    weight = torch.nn.Parameter(arguments(op, {}, False)["w_hh"])
    others = arguments(op, {}, False)

    def output() -> Tensor:
        return operator(op, {}, False, False)(*(others | {"w_hh": weight}).values())[0]

    def expected() -> Tensor:
        return looped(op, {}, False, False)(*(others | {"w_hh": weight}).values())[0]

    changes: list[Callable[[], Any]] = [
        lambda: weight.data.mul_(2),
        lambda: weight.detach().numpy().fill(0.5),
        lambda: weight.data.set_(torch.randn_like(weight)),
        lambda: torch.nn.Module.load_state_dict(holder, {"weight": torch.randn_like(weight)}),
        lambda: weight.add_(1),
    ]
    holder = torch.nn.Module()
    holder.weight = weight
    for change in changes:
        for mode in (torch.no_grad, torch.inference_mode):
            with mode():
                output()
            with torch.no_grad():
                change()
            with mode():
                torch.testing.assert_close(output(), expected())


@pytest.mark.parametrize("op", GATES)
def test_same_bits_for_any_number_of_threads(op: str) -> None:
    tensors = [t.float() for t in arguments(op, {}, False, hidden=128, batch=33, steps=3).values()]
    outcomes = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        leaves = [t.clone().requires_grad_() for t in tensors]
        results = operator(op, {}, False, False)(*leaves)
        outcomes.append((results, torch.autograd.grad([r.sum() for r in results], leaves)))
    for other in outcomes[1:]:
        torch.testing.assert_close(other, outcomes[0], rtol=0, atol=0)


@pytest.mark.parametrize("op", GATES)
def test_changing_the_output_is_noticed(op: str) -> None:
    leaves = [t.requires_grad_() for t in arguments(op, {}, False).values()]
    output = operator(op, {}, False, False)(*leaves)[0]
    total = output.sum()
    with torch.no_grad():
        output.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        total.backward()


def packed_samples() -> list[Any]:
    wanted = [s for s in samples() if s.op in GATES and s.arguments["batch_sizes"] is not None]
    return [pytest.param(sample, id=sample.op) for sample in wanted]


@pytest.mark.parametrize("sample", packed_samples())
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"batch_sizes": torch.tensor([3, 2, 1])}, "input: expected 6 rows, the sum of batch_sizes, got 7"),
        ({"batch_sizes": torch.tensor([3, 1, 3])}, "batch_sizes: expected positive integers that never grow"),
        (
            {"batch_sizes": torch.tensor([3, 3, 1, 0])},
            "batch_sizes: expected positive integers that never grow",
        ),
        ({"batch_sizes": torch.tensor([4, 3])}, "hx: expected 4 rows as batch_sizes begins with, got 3"),
        ({"batch_sizes": torch.tensor([3, 2, 2.0])}, "batch_sizes: expected one dimension of int64"),
        ({"batch_sizes": torch.tensor(7)}, "batch_sizes: expected one dimension of int64"),
        ({"batch_sizes": torch.empty(0, dtype=torch.int64)}, "batch_sizes: expected at least one step"),
        ({"batch_sizes": None}, r"input: expected shape \[steps, batch, input_size\], got \[7, 4\]"),
        ({"input": torch.zeros(1, 7, 4)}, r"input: expected shape \[sum of batch_sizes, input_size\]"),
        ({"hx": torch.zeros(3)}, r"hx: expected shape \[batch, hidden_size\], got \[3\]"),
        ({"w_ih": torch.zeros(4, 4)}, r"w_ih: expected shape \[(20|15|5), 4\], got \[4, 4\]"),
        ({"w_hh": torch.zeros(4, 4)}, r"w_hh: expected shape .*, got \[4, 4\]"),
        ({"b_hh": torch.zeros(4)}, r"b_hh: expected shape .*, got \[4\]"),
        ({"b_ih": torch.zeros(20).double()}, "b_ih: expected dtype float32 as input, got float64"),
    ],
)
def test_bad_arguments(sample: Sample, change: dict[str, Any], words: str) -> None:
    with pytest.raises(RuntimeError, match=f"{sample.op}: {words}"):
        sample.call(**change)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cx": torch.zeros(2, 5)}, r"cx: expected shape \[3, hidden_size\], got \[2, 5\]"),
        ({"cx": torch.zeros(3, 6)}, r"w_hr: expected shape \[2, 6\], got \[2, 5\]"),
        ({"w_hr": None}, r"cx: expected shape \[3, 2\], got \[3, 5\]"),
        ({"w_hr": torch.zeros(2, 4)}, r"w_hr: expected shape \[2, 5\], got \[2, 4\]"),
    ],
)
def test_bad_cell_states_and_projections(change: dict[str, Any], words: str) -> None:
    (sample,) = (s for s in samples() if s.op == "lstm_layer" and s.arguments["batch_sizes"] is not None)
    with pytest.raises(RuntimeError, match=f"lstm_layer: {words}"):
        sample.call(**change)
