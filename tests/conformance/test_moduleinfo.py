"""torch's own samples (ModuleInfo) for the modules we have: same weights, same results, same gradients."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten

import cisdl_ops
from tests.conformance.agreement import FLOATING, Arguments, complaints, in_double, leaf, name_of, run

MODULES = (
    "Linear",
    "Conv2d",
    "ConvTranspose2d",
    "MaxPool2d",
    "AvgPool2d",
    "AdaptiveAvgPool2d",
    "AdaptiveMaxPool2d",
    "LSTMCell",
    "GRUCell",
    "RNNCell",
    "LSTM",
    "GRU",
    "RNN",
)

every_module = pytest.mark.parametrize("name", MODULES)
every_dtype = pytest.mark.parametrize("dtype", FLOATING, ids=name_of)
train_and_eval = pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])


@cache
def module_info(name: str) -> Any:
    """Imported when a test runs: the table takes some seconds to load."""
    from torch.testing._internal.common_modules import module_db

    # Its import forbids setting torch.backends flags for the rest of the process, other tests included.
    setattr(torch.backends, "__allow_nonbracketed_mutation_flag", True)
    return next(info for info in module_db if info.module_cls is getattr(torch.nn, name))


def module_inputs(name: str, dtype: torch.dtype, training: bool) -> list[Any]:
    info = module_info(name)
    return list(info.module_inputs_func(info, "cpu", dtype, requires_grad=True, training=training))


def build(cls: Any, sample: Any, dtype: torch.dtype, training: bool) -> torch.nn.Module:
    torch.manual_seed(0)
    module: torch.nn.Module = cls(*sample.constructor_input.args, **sample.constructor_input.kwargs)
    return module.to(dtype).train(training)


def pairs(
    name: str, dtype: torch.dtype, training: bool
) -> Iterator[tuple[int, Arguments, torch.nn.Module, torch.nn.Module]]:
    """(number, forward arguments, ours, torch's with the same weights) of every sample."""
    ours = getattr(cisdl_ops.nn, name)
    for i, sample in enumerate(module_inputs(name, dtype, training)):
        arguments = Arguments(tuple(sample.forward_input.args), dict(sample.forward_input.kwargs))
        theirs = build(getattr(torch.nn, name), sample, dtype, training)
        mine = build(ours, sample, dtype, training)
        mine.load_state_dict(theirs.state_dict())
        yield i, arguments, mine, theirs


def assert_modules_agree(
    ours: torch.nn.Module, theirs: torch.nn.Module, arguments: Arguments, dtype: torch.dtype
) -> None:
    """Outputs, gradients of the inputs and of the parameters."""
    exact = copy.deepcopy(theirs).double()
    wrong = complaints(
        run(ours, arguments.map(leaf), tuple(ours.parameters())),
        run(theirs, arguments.map(leaf), tuple(theirs.parameters())),
        run(exact, arguments.map(in_double), tuple(exact.parameters()), grad_dtype=dtype),
    )
    assert not wrong, f"{ours} {arguments}: " + "; ".join(wrong)


def bits_of(module: torch.nn.Module, arguments: Arguments) -> list[Tensor]:
    with torch.no_grad():
        return list(run(module, arguments.map(torch.Tensor.detach)).values())


@every_module
@every_dtype
@train_and_eval
@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
def test_samples(subtests: pytest.Subtests, name: str, dtype: torch.dtype, training: bool) -> None:
    for i, arguments, ours, theirs in pairs(name, dtype, training):
        with subtests.test(name, sample=i):
            assert_modules_agree(ours, theirs, arguments, dtype)


@every_module
def test_without_gradients(subtests: pytest.Subtests, name: str) -> None:
    """Inference may take other kernels than training."""
    for i, arguments, ours, theirs in pairs(name, torch.float32, training=False):
        with subtests.test(name, sample=i), torch.no_grad():
            for parameter in (*ours.parameters(), *theirs.parameters()):
                parameter.requires_grad_(False)
            assert_modules_agree(ours, theirs, arguments.map(torch.Tensor.detach), torch.float32)


def between_others(tensor: Tensor) -> Tensor:
    """The same values at every second place of a larger tensor's last dimension."""
    if tensor.dim() == 0:
        return leaf(tensor)
    wide = tensor.detach().repeat_interleave(2, dim=-1)
    return wide[..., ::2].requires_grad_(tensor.requires_grad)


@every_module
def test_noncontiguous_samples(subtests: pytest.Subtests, name: str) -> None:
    """Inputs and parameters between others in memory."""
    for i, arguments, ours, theirs in pairs(name, torch.float32, training=True):
        for parameter in ours.parameters():
            parameter.data = between_others(parameter.data)
        with subtests.test(name, sample=i):
            assert_modules_agree(ours, theirs, arguments.map(between_others), torch.float32)


@every_module
@pytest.mark.parametrize("way", ["pickle", "deepcopy", "state_dict"])
def test_survives_copying(subtests: pytest.Subtests, name: str, way: str) -> None:
    """The copy is of our class and gives the same bits."""
    for i, arguments, ours, theirs in pairs(name, torch.float32, training=False):
        with subtests.test(name, sample=i):
            if way == "pickle":
                copied = pickle.loads(pickle.dumps(ours))
            elif way == "deepcopy":
                copied = copy.deepcopy(ours)
            else:
                theirs.load_state_dict(ours.state_dict())
                copied = copy.deepcopy(ours)
                for parameter in copied.parameters():
                    torch.nn.init.zeros_(parameter)
                copied.load_state_dict(theirs.state_dict())
            assert type(copied) is type(ours)
            assert copied.training == ours.training
            for got, expected in zip(bits_of(copied, arguments), bits_of(ours, arguments), strict=True):
                assert torch.equal(got, expected)


@every_module
def test_error_inputs(subtests: pytest.Subtests, name: str) -> None:
    """Bad constructions are refused with torch's words, bad inputs with ours."""
    from torch.testing._internal.common_modules import ModuleErrorEnum

    ours, info = getattr(cisdl_ops.nn, name), module_info(name)
    if info.module_error_inputs_func is None:
        pytest.skip(f"torch has no error inputs for {name}")
    for i, error in enumerate(
        info.module_error_inputs_func(info, "cpu", torch.float32, requires_grad=False, training=True)
    ):
        sample = error.module_error_input
        constructor = (sample.constructor_input.args, sample.constructor_input.kwargs)
        with subtests.test(name, error=i):
            if error.error_on == ModuleErrorEnum.CONSTRUCTION_ERROR:
                with pytest.raises(error.error_type, match=error.error_regex):
                    ours(*constructor[0], **constructor[1])
            else:
                module = ours(*constructor[0], **constructor[1])
                with pytest.raises((RuntimeError, ValueError, TypeError)) as caught:
                    module(*sample.forward_input.args, **sample.forward_input.kwargs)
                message = str(caught.value)
                if "does not match weight dtype" in message:
                    continue  # what the layers inherit of torch.nn.RNNBase speaks as torch does
                assert "expected" in message.lower(), message
                assert "got" in message.lower(), message


@every_module
def test_is_torchs_class(name: str) -> None:
    """Code that asks isinstance(module, torch.nn.X) keeps working; of the three whose classes torch.compile
    refuses, the base class."""
    known = torch.nn.RNNBase if name in ("LSTM", "GRU", "RNN") else getattr(torch.nn, name)
    assert issubclass(getattr(cisdl_ops.nn, name), known)


def test_samples_have_tensors() -> None:
    """Were the samples' arguments not found, every comparison above would be of nothing."""
    for name in MODULES:
        for sample in module_inputs(name, torch.float32, training=True):
            arguments = (sample.forward_input.args, sample.forward_input.kwargs)
            assert any(isinstance(value, Tensor) for value in tree_flatten(arguments)[0])
