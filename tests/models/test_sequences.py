"""Generated sequences, the networks that remember, and backpropagation through time."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from cisdl import backend, tasks
from cisdl.data import sequences
from cisdl.errors import DataError, UsageError
from cisdl.models import elman, jordan, registry
from cisdl.models.steps import Steps, set_memory
from cisdl.report import memory
from cisdl.tasks.sequences import Sequences, unrolled
from cisdl.training.config import configure
from torch import Tensor, nn

from tests.models.test_report import is_picture
from tests.models.training import trained

TORCH = backend.get("torch")
SMALL = {"hidden": (6,), "length": 12, "lag": 2, "truncate": 0}


def task_of(name: str, **given: object) -> Sequences:
    entry = registry.get(name)
    given = {"backend": "torch", "limit": 200} | given
    task = tasks.load(entry, configure(entry, **given))
    assert isinstance(task, Sequences)
    return task


def network(name: str, ops: str = "torch", inputs: int = 3, hidden: int = 5, outputs: int = 2) -> nn.Module:
    torch.manual_seed(0)
    return registry.get(name).build(backend.get(ops), inputs=inputs, outputs=outputs, hidden=(hidden,))


# the data


def test_adding_marks_one_number_in_each_half() -> None:
    inputs, targets = sequences.Adding(11).draw(np.random.default_rng(0), 500)
    values, marks = inputs.unbind(2)
    assert marks[:, :5].sum(1).eq(1).all()
    assert marks[:, 5:].sum(1).eq(1).all()
    assert torch.allclose((values * marks).sum(1, keepdim=True), targets)
    assert set(marks[:, -1].tolist()) == set(marks[:, 0].tolist()) == {0, 1}
    assert sequences.Adding(11).guess(targets).loss == pytest.approx(1 / 6, rel=0.15)


def test_copy_asks_for_the_symbols_after_the_start_sign() -> None:
    problem = sequences.Copy(4)
    inputs, targets = problem.draw(np.random.default_rng(0), 50)
    given = inputs.argmax(2)
    assert given.shape == targets.shape == (50, 24)
    assert torch.equal(given[:, :10], targets[:, -10:])
    assert given[:, 10:13].eq(0).all()
    assert given[:, 13].eq(9).all()
    assert given[:, 14:].eq(0).all()
    assert targets[:, :14].eq(0).all()
    assert set(given[:, :10].flatten().tolist()) == set(range(1, 9))
    assert problem.guess(targets).loss == pytest.approx(10 * math.log(8) / 24)


def test_echo_is_the_past_and_not_the_future() -> None:
    """A target shifted the other way would be the input of `lag` steps ahead, or of lag - 1 steps ago."""
    problem = sequences.Echo(20, 3)
    inputs, targets = problem.draw(np.random.default_rng(0), 50)
    bits = (inputs[:, :, 0] > 0).long()
    assert torch.equal(problem.asked(targets), bits[:, :-3])
    outputs = nn.functional.one_hot(bits, 2).float().roll(3, dims=1)
    assert problem.right(outputs, targets).all()
    for shift in (-3, 2, 4):
        outputs = nn.functional.one_hot(bits, 2).float().roll(shift, dims=1)
        assert problem.right(outputs, targets).float().mean() < 0.7


def test_every_epoch_has_new_sequences_and_no_seed_changes_what_is_judged() -> None:
    task = task_of("elman", options=SMALL)
    first = [x for x, _ in task.batches(1)]
    assert torch.equal(torch.cat(first), torch.cat([x for x, _ in task.batches(1)]))
    assert not torch.equal(torch.cat(first), torch.cat([x for x, _ in task.batches(2)]))
    assert sum(map(len, first)) == 200
    assert len(first) == task.batch_count() == 7
    other = task_of("elman", options=SMALL, seed=1)
    assert not torch.equal(torch.cat(first), torch.cat([x for x, _ in other.batches(1)]))
    for part in ("validation", "test"):
        assert torch.equal(task.data.held_out(part)[0], other.data.held_out(part)[0])
    assert not torch.equal(task.data.held_out("test")[0], task.data.held_out("validation")[0])


def test_what_cannot_be_asked_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--lag: expected less than --length 12, got 12"):
        task_of("elman", options=SMALL | {"lag": 12})
    with pytest.raises(UsageError, match="expected 2 steps or more to add two numbers, got 1"):
        task_of("elman", data="adding", options=SMALL | {"length": 1})
    with pytest.raises(DataError, match="--data copy: expected echo as in training"):
        task_of("elman", options=SMALL).open("copy", None)
    with pytest.raises(UsageError, match="expected generated sequences"):
        task_of("elman", options=SMALL).open("manual", None)
    with pytest.raises(UsageError, match="elman: --hidden takes one width, got 3,4"):
        task_of("elman", options=SMALL | {"hidden": (3, 4)}).build(TORCH)


# the networks


def test_elman_is_the_formula_in_its_docstring() -> None:
    model, x = network("elman"), torch.randn(2, 4, 3)
    w, u, b, c, v, d = (value for value in model.state_dict().values())
    h = torch.zeros(2, 5)
    for t in range(4):
        h = torch.tanh(x[:, t] @ w.T + h @ u.T + b + c)
        torch.testing.assert_close(model(x)[0][:, t], h @ v.T + d)
    torch.testing.assert_close(u @ u.T, torch.eye(5))


def test_jordan_is_the_formula_in_its_docstring() -> None:
    model, x = network("jordan"), torch.randn(2, 4, 3)
    w, b, u, v, d = (value for value in model.state_dict().values())
    y = torch.zeros(2, 2)
    for t in range(4):
        y = torch.tanh(x[:, t] @ w.T + y @ u.T + b) @ v.T + d
        torch.testing.assert_close(model(x)[0][:, t], y)


@pytest.mark.parametrize("name", ["elman", "jordan", "lstm", "gru"])
def test_both_backends_start_alike_and_ours_uses_our_layers(name: str) -> None:
    ours, theirs = network(name, "cisdl"), network(name)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for key, value in ours.state_dict().items():
        assert torch.equal(value, theirs.state_dict()[key])
    leaves = [module for module in ours.modules() if not list(module.children())]
    assert {type(module).__module__.split(".")[0] for module in leaves} == {"cisdl_ops"}
    x = torch.randn(3, 7, 3)
    torch.testing.assert_close(ours(x)[0], theirs(x)[0], rtol=1e-4, atol=1e-6)
    losses = []
    for model in (ours, theirs):
        loss = model(x)[0].square().mean()
        loss.backward()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("name", "parameters"), [("elman", 64 * 74 + 650), ("jordan", 64 * 19 + 650)])
def test_digits_are_read_row_by_row(name: str, parameters: int) -> None:
    model = registry.get(name).build(TORCH, shape=(1, 8, 8), classes=10, hidden=(64,))
    assert sum(p.numel() for p in model.parameters()) == parameters
    images = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(model(images), model.get_submodule("steps")(images[:, 0])[0][:, -1])


@pytest.mark.parametrize("name", ["elman", "jordan", "lstm", "gru"])
def test_sequences_of_a_batch_know_nothing_of_each_other(name: str) -> None:
    """Neither side by side, nor one batch of the next: a state kept by the module would show here."""
    model, x = network(name), torch.randn(4, 6, 3)
    together = model(x)[0]
    for i in range(4):
        torch.testing.assert_close(model(x[i : i + 1])[0][0], together[i])
    changed = x.clone()
    changed[0] += 1
    torch.testing.assert_close(model(changed)[0][1:], together[1:])


def test_training_leaves_no_trace_in_an_evaluation() -> None:
    task = task_of("elman", options=SMALL)
    model = task.build(TORCH)
    before = task.evaluate(model, "validation")
    for batch in task.batches(1):
        task.step(model, batch)
    assert task.evaluate(model, "validation") == before


# backpropagation through time


@pytest.mark.parametrize("name", ["elman", "jordan", "lstm", "gru"])
def test_the_gradient_is_cut_where_it_should_be_and_the_state_is_not(name: str) -> None:
    model, x = network(name), torch.randn(2, 10, 3, requires_grad=True)
    whole, cut = unrolled(model, x, 0), unrolled(model, x, 4)
    torch.testing.assert_close(whole, cut)  # the state goes on
    (gradient,) = torch.autograd.grad(cut[:, 7].sum(), x)
    assert gradient[:, 4:8].abs().sum(dim=(0, 2)).gt(0).all()
    assert gradient[:, :4].eq(0).all(), "the gradient reaches back over the cut"
    (gradient,) = torch.autograd.grad(whole[:, 7].sum(), x)
    assert gradient[:, :8].abs().sum(dim=(0, 2)).gt(0).all()
    assert gradient[:, 8:].eq(0).all(), "an answer depends on what comes later"


def test_truncated_gradients_learn_what_lies_within_a_stretch(tmp_path: Path) -> None:
    """An echo of one step ago with stretches of 1 step: the input to remember never gets a gradient."""
    accuracy = {}
    for truncate in (1, 4):
        options = SMALL | {"hidden": (16,), "lag": 1, "truncate": truncate}
        folder = tmp_path / str(truncate)
        folder.mkdir()
        outcome = trained("elman", folder, options=options, epochs=2, limit=2000, lr=1e-2)
        accuracy[truncate] = float(outcome.evaluation.as_dict()["accuracy"])
    assert accuracy[4] > 0.99 > accuracy[1] + 0.01


def test_memory_sets_the_gates() -> None:
    torch.manual_seed(0)
    lstm = set_memory(Steps(TORCH, "lstm", 3, 500, 2), 100)
    biases = [lstm.layer.get_parameter(f"bias_{name}_l0").detach() for name in ("ih", "hh")]
    i, f, g, o = (biases[0] + biases[1]).chunk(4)
    assert torch.equal(i, -f)
    assert g.eq(0).all()
    assert o.eq(0).all()
    lasting = f.exp()
    assert 1 <= float(lasting.min()) < 5
    assert 95 < float(lasting.max()) <= 99
    gru = set_memory(Steps(TORCH, "gru", 3, 500, 2), 100)
    x = torch.zeros(1, 30, 3)
    state = torch.ones(1, 1, 500)
    with torch.no_grad():
        kept = gru.layer(x, state)[1].mean()
        usual = Steps(TORCH, "gru", 3, 500, 2).layer(x, state)[1].mean()
    assert float(kept) > 0.3
    assert abs(float(usual)) < 0.05


# a run


@pytest.mark.parametrize(("name", "epochs"), [("elman", 1), ("jordan", 3)])
def test_defaults_learn_to_echo(name: str, epochs: int, tmp_path: Path) -> None:
    """In a tenth or a third of the epochs."""
    outcome = trained(name, tmp_path, epochs=epochs)
    found = outcome.evaluation.as_dict()
    assert found["sequences"] == 2000
    assert found["accuracy"] > 0.99
    assert outcome.baselines["always 1"].as_dict()["accuracy"] == pytest.approx(0.5, abs=0.01)


def test_a_restored_task_judges_without_training_data() -> None:
    task = task_of("elman", data="adding", options=SMALL)
    torch.manual_seed(0)
    model = task.build(TORCH)
    again = tasks.new(task.entry, task.config)
    again.restore(task.facts())
    assert isinstance(again, Sequences)
    again.open("adding", None)
    other = again.build(TORCH)
    other.load_state_dict(model.state_dict())
    assert again.parts == ["test"]
    assert again.evaluate(other, "test") == task.evaluate(model, "test")


def test_gradient_norms_are_of_the_last_step() -> None:
    """For a linear recurrence h = a h + x they are a^lag, times one number."""

    class Leak(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, None]:
            h = torch.zeros(len(x), 1)
            outputs = []
            for step in x.unbind(1):
                h = 0.5 * h + step
                outputs.append(h)
            return torch.stack(outputs, dim=1), None

    norms = memory.gradient_norms(Leak(), torch.rand(4, 6, 1), torch.full((4,), 9.0))
    assert norms[:-1] / norms[1:] == pytest.approx(np.full(5, 0.5), rel=1e-5)


def test_gates_are_those_of_the_layer() -> None:
    layer, x = nn.LSTM(3, 5, batch_first=True), torch.randn(1, 7, 3)
    found = memory.gates(layer, x)
    cell = nn.LSTMCell(3, 5)
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in layer.state_dict().items()})
    h = c = torch.zeros(1, 5)
    for t in range(7):
        before = c
        h, c = cell(x[:, t], (h, c))
        open_share = found["output gate"][:, t] * torch.tanh(c[0])
        torch.testing.assert_close(open_share, h[0])
        assert (
            (c[0] - found["forget gate"][:, t] * before[0]).abs().le(found["input gate"][:, t] + 1e-6).all()
        )


def test_pictures(tmp_path: Path) -> None:
    for name, data in (("elman", "copy"), ("jordan", "adding")):
        task = task_of(name, data=data, options=SMALL, limit=20)
        model = task.build(TORCH)
        from cisdl.tasks.base import Pictures

        task.draw(model, task.evaluate(model, "test"), Pictures(tmp_path, name, "test"))
        is_picture(tmp_path / "gradient_lag.png")
        is_picture(tmp_path / "states.png")


def test_modules_say_where_they_come_from() -> None:
    for module in (elman, jordan):
        assert "Source" in (module.__doc__ or "")
