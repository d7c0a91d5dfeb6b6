"""What is wrong is refused: the error names op and argument, says expected and got; nothing is changed.

Each row starts from a valid call and changes it in one way. The same words come from real tensors and from
meta tensors, because torch.compile and FakeTensor see only the latter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import cisdl_ops
from tests.ops.samples import Sample, samples

VALID: dict[str, dict[str, Any]] = {
    "linear": {"input": torch.randn(4, 3), "weight": torch.randn(5, 3), "bias": torch.randn(5)},
    "conv2d": {"input": torch.randn(2, 4, 6, 7), "weight": torch.randn(6, 4, 3, 3), "bias": torch.randn(6)},
    "conv_transpose2d": {
        "input": torch.randn(2, 4, 6, 7),
        "weight": torch.randn(4, 5, 3, 3),
        "bias": torch.randn(5),
    },
    "max_pool2d": {"input": torch.randn(2, 3, 6, 7), "kernel_size": 2},
    "avg_pool2d": {"input": torch.randn(2, 3, 6, 7), "kernel_size": 2},
    "adaptive_max_pool2d": {"input": torch.randn(2, 3, 6, 7), "output_size": (4, 2)},
    "adaptive_avg_pool2d": {"input": torch.randn(2, 3, 6, 7), "output_size": (4, 2)},
    "lstm_cell": {
        "input": torch.randn(3, 4),
        "hx": (torch.randn(3, 5), torch.randn(3, 5)),
        "w_ih": torch.randn(20, 4),
        "w_hh": torch.randn(20, 5),
        "b_ih": torch.randn(20),
        "b_hh": torch.randn(20),
    },
    **{
        op: {
            "input": torch.randn(3, 4),
            "hx": torch.randn(3, 5),
            "w_ih": torch.randn(rows, 4),
            "w_hh": torch.randn(rows, 5),
            "b_ih": torch.randn(rows),
            "b_hh": torch.randn(rows),
        }
        for op, rows in (("gru_cell", 15), ("rnn_tanh_cell", 5), ("rnn_relu_cell", 5))
    },
}

# op, what is changed, the argument that the message has to name
BAD: list[tuple[str, dict[str, Any], str]] = [
    ("linear", {"input": torch.randn(4, 2)}, "weight|input"),
    ("linear", {"weight": torch.randn(5, 4)}, "weight"),
    ("linear", {"weight": torch.randn(2, 5, 3)}, "weight"),
    ("linear", {"input": torch.randn(())}, "input"),
    ("linear", {"bias": torch.randn(4)}, "bias"),
    ("linear", {"bias": torch.randn(1)}, "bias"),
    ("linear", {"bias": torch.randn(5, 1)}, "bias"),
    ("linear", {"input": torch.ones(4, 3, dtype=torch.int64)}, "input"),
    ("linear", {"input": torch.ones(4, 3, dtype=torch.complex64)}, "input"),
    ("linear", {"weight": torch.randn(5, 3).double()}, "weight"),
    ("linear", {"bias": torch.randn(5).double()}, "bias"),
    ("linear", {"weight": torch.randn(5, 3, device="meta")}, "weight"),
    ("linear", {"bias": torch.randn(5, device="meta")}, "bias"),
    ("conv2d", {"input": torch.randn(6, 7)}, "input"),
    ("conv2d", {"input": torch.randn(1, 2, 4, 6, 7)}, "input"),
    ("conv2d", {"input": torch.randn(2, 5, 6, 7)}, "weight|input"),
    ("conv2d", {"weight": torch.randn(6, 3, 3, 3)}, "weight"),
    ("conv2d", {"weight": torch.randn(6, 4, 3)}, "weight"),
    ("conv2d", {"weight": torch.randn(6, 4, 0, 3)}, "weight"),
    ("conv2d", {"bias": torch.randn(5)}, "bias"),
    ("conv2d", {"bias": torch.randn(1, 6)}, "bias"),
    ("conv2d", {"input": torch.ones(2, 4, 6, 7, dtype=torch.int32)}, "input"),
    ("conv2d", {"weight": torch.randn(6, 4, 3, 3).double()}, "weight"),
    ("conv2d", {"weight": torch.randn(6, 4, 3, 3, device="meta")}, "weight"),
    ("conv2d", {"stride": 0}, "stride"),
    ("conv2d", {"stride": (1, -1)}, "stride"),
    ("conv2d", {"stride": (1, 1, 1)}, "stride"),
    ("conv2d", {"padding": -1}, "padding"),
    ("conv2d", {"padding": (0, -2)}, "padding"),
    ("conv2d", {"padding": "full"}, "padding"),
    ("conv2d", {"padding": "same", "stride": 2}, "padding"),
    ("conv2d", {"dilation": 0}, "dilation"),
    ("conv2d", {"dilation": (1, -3)}, "dilation"),
    ("conv2d", {"groups": 0}, "groups"),
    ("conv2d", {"groups": -2}, "groups"),
    ("conv2d", {"groups": 3}, "groups|weight"),
    ("conv2d", {"groups": 4, "weight": torch.randn(6, 1, 3, 3), "bias": None}, "groups|weight"),
    ("conv2d", {"weight": torch.randn(6, 4, 7, 3)}, "kernel|weight|input"),
    ("conv2d", {"dilation": 4}, "kernel|weight|input"),
    ("conv2d", {"stride": 2**31}, "stride"),
    ("conv2d", {"padding": 2**62}, "padding"),
    ("conv2d", {"dilation": 2**62}, "dilation"),
    ("conv_transpose2d", {"input": torch.randn(6, 7)}, "input"),
    ("conv_transpose2d", {"input": torch.randn(2, 5, 6, 7)}, "input"),
    ("conv_transpose2d", {"input": torch.randn(2, 4, 0, 7)}, "input"),
    ("conv_transpose2d", {"input": torch.ones(2, 4, 6, 7, dtype=torch.int32)}, "input"),
    ("conv_transpose2d", {"weight": torch.randn(4, 5, 3)}, "weight"),
    ("conv_transpose2d", {"weight": torch.randn(4, 5, 0, 3)}, "weight"),
    ("conv_transpose2d", {"weight": torch.randn(4, 5, 3, 3).double()}, "weight"),
    ("conv_transpose2d", {"bias": torch.randn(4)}, "bias"),
    ("conv_transpose2d", {"groups": 3}, "weight"),
    ("conv_transpose2d", {"groups": 0}, "groups"),
    ("conv_transpose2d", {"stride": 0}, "stride"),
    ("conv_transpose2d", {"stride": 2**40}, "stride"),
    ("conv_transpose2d", {"padding": -1}, "padding"),
    ("conv_transpose2d", {"padding": 5}, "input"),
    ("conv_transpose2d", {"dilation": (0, 1)}, "dilation"),
    ("conv_transpose2d", {"output_padding": 1}, "output_padding"),
    ("conv_transpose2d", {"output_padding": -1}, "output_padding"),
    ("conv_transpose2d", {"output_padding": (1, 2), "stride": 2}, "output_padding"),
    *(
        (op, change, name)
        for op in ("max_pool2d", "avg_pool2d")
        for change, name in (
            ({"input": torch.randn(6, 7)}, "input"),
            ({"input": torch.randn(1, 2, 3, 6, 7)}, "input"),
            ({"input": torch.randn(2, 3, 0, 7)}, "input|kernel"),
            ({"input": torch.ones(2, 3, 6, 7, dtype=torch.int64)}, "input"),
            ({"input": torch.randn(2, 0, 6, 7)}, "input"),
            ({"input": torch.randn(2, 3, 6, 0), "kernel_size": 2, "padding": 1}, "input"),
            ({"kernel_size": 0}, "kernel_size"),
            ({"kernel_size": 2**31}, "kernel_size"),
            ({"stride": 2**40}, "stride"),
            ({"kernel_size": (2, -1)}, "kernel_size"),
            ({"kernel_size": (2, 2, 2)}, "kernel_size"),
            ({"kernel_size": 8}, "input|kernel"),
            ({"stride": 0}, "stride"),
            ({"stride": (1, -1)}, "stride"),
            ({"padding": -1}, "padding"),
            ({"padding": 2}, "padding"),
            ({"kernel_size": 3, "padding": (1, 2)}, "padding"),
        )
    ),
    ("max_pool2d", {"dilation": 0}, "dilation"),
    ("max_pool2d", {"dilation": (1, -1)}, "dilation"),
    ("max_pool2d", {"dilation": 9}, "input|kernel"),
    ("max_pool2d", {"activation": "sigmoid"}, "activation"),
    ("max_pool2d", {"activation": "relu", "return_indices": True}, "activation"),
    ("avg_pool2d", {"divisor_override": 0}, "divisor_override"),
    *(
        (op, change, name)
        for op in ("adaptive_max_pool2d", "adaptive_avg_pool2d")
        for change, name in (
            ({"input": torch.randn(6, 7)}, "input"),
            ({"input": torch.randn(6, 7), "output_size": 2}, "input"),
            ({"input": torch.randn(1, 2, 3, 6, 7)}, "input"),
            ({"input": torch.randn(2, 3, 0, 7)}, "input"),
            ({"input": torch.randn(2, 3, 0, 7), "output_size": (0, 2)}, "input"),
            ({"input": torch.ones(2, 3, 6, 7, dtype=torch.int64)}, "input"),
            ({"output_size": -1}, "output_size"),
            ({"output_size": (2, -1)}, "output_size"),
            ({"output_size": None}, "output_size"),
            ({"output_size": ()}, "output_size"),
            ({"output_size": (1, 2, 3)}, "output_size"),
        )
    ),
    ("adaptive_max_pool2d", {"input": torch.randn(2, 0, 6, 7)}, "input"),
    ("lstm_cell", {"input": torch.randn(3, 6)}, "w_ih|input"),
    ("lstm_cell", {"input": torch.randn(2, 3, 4)}, "input"),
    ("lstm_cell", {"hx": (torch.randn(2, 5), torch.randn(3, 5))}, "hx"),
    ("lstm_cell", {"hx": (torch.randn(3, 5), torch.randn(3, 6))}, "cx"),
    ("lstm_cell", {"hx": (torch.randn(3, 5), torch.randn(3, 5).double())}, "cx"),
    ("lstm_cell", {"w_ih": torch.randn(19, 4)}, "w_ih"),
    ("lstm_cell", {"w_hh": torch.randn(20, 4)}, "w_hh"),
    ("lstm_cell", {"w_hh": torch.randn(20, 5).double()}, "w_hh"),
    ("lstm_cell", {"b_ih": torch.randn(5)}, "b_ih"),
    ("lstm_cell", {"b_hh": torch.randn(20, 1)}, "b_hh"),
    ("lstm_cell", {"b_hh": torch.randn(20, device="meta")}, "b_hh"),
    *(
        (op, change, name)
        for op in ("gru_cell", "rnn_tanh_cell", "rnn_relu_cell")
        for change, name in (
            ({"input": torch.randn(3, 6)}, "w_ih"),
            ({"input": torch.randn(4)}, "input"),
            ({"input": torch.randn(2, 3, 4)}, "input"),
            ({"input": torch.ones(3, 4, dtype=torch.int64)}, "input"),
            ({"hx": torch.randn(2, 5)}, "hx"),
            ({"hx": torch.randn(5)}, "hx"),
            ({"hx": torch.randn(3, 5).double()}, "hx"),
            ({"w_ih": torch.randn(19, 4)}, "w_ih"),
            ({"w_hh": torch.randn(20, 5)}, "w_hh"),
            ({"w_hh": torch.randn(5)}, "w_hh"),
            ({"b_ih": torch.randn(4)}, "b_ih"),
            ({"b_hh": torch.randn(20, 1)}, "b_hh"),
            ({"b_hh": torch.randn(20, device="meta")}, "b_hh"),
        )
    ),
]


def tensors_of(arguments: dict[str, Any]) -> list[Tensor]:
    flat = [
        item for value in arguments.values() for item in (value if isinstance(value, tuple) else (value,))
    ]
    return [value for value in flat if isinstance(value, Tensor) and value.device.type == "cpu"]


def on_meta(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(on_meta, value))
    return value.to("meta") if isinstance(value, Tensor) else value


def with_gradient(value: Any) -> Any:
    floating = isinstance(value, Tensor) and value.is_floating_point()
    return value.clone().requires_grad_() if floating else value


def refusal(call: Callable[[], Any]) -> str:
    with pytest.raises((RuntimeError, ValueError, TypeError)) as caught:
        call()
    return str(caught.value).splitlines()[0]


def assert_says(message: str, op: str, name: str) -> None:
    assert message.startswith(op), f"the message does not begin with the op: {message}"
    assert any(one in message for one in name.split("|")), f"the message does not name {name}: {message}"
    for word in ("expect", "got"):
        assert word in message, f"the message does not say what was {word}: {message}"


@pytest.mark.parametrize(
    ("op", "change", "name"),
    BAD,
    ids=[f"{op}-{'-'.join(change)}-{i}" for i, (op, change, _) in enumerate(BAD)],
)
def test_bad_arguments(op: str, change: dict[str, Any], name: str) -> None:
    arguments = VALID[op] | change
    before = [tensor.clone() for tensor in tensors_of(arguments)]
    assert_says(refusal(lambda: getattr(cisdl_ops, op)(**arguments)), op, name)
    for tensor, copy in zip(tensors_of(arguments), before, strict=True):
        assert torch.equal(tensor, copy)

    wanting = {key: with_gradient(value) for key, value in arguments.items()}
    assert_says(refusal(lambda: getattr(cisdl_ops, op)(**wanting)), op, name)

    if not any(isinstance(value, Tensor) and value.is_meta for value in arguments.values()):
        meta = {key: on_meta(value) for key, value in arguments.items()}
        assert_says(refusal(lambda: getattr(cisdl_ops, op)(**meta)), op, name)


def test_the_calls_they_start_from_are_valid() -> None:
    for op, arguments in VALID.items():
        getattr(cisdl_ops, op)(**arguments)


SAMPLES = samples()
TENSOR_ARGUMENTS = [
    pytest.param(sample, name, id=f"{sample.op}-{i}-{name}")
    for i, sample in enumerate(SAMPLES)
    for name, value in sample.arguments.items()
    if isinstance(value, Tensor)
]


# Forward ops that take images of any size and number of channels.
ANY_SIZE = ("max_pool2d", "avg_pool2d", "adaptive_max_pool2d", "adaptive_avg_pool2d")
# Vectors of any length.
ANY_LENGTH = (
    ("word2vec_train", "tokens"),
    ("word2vec_train", "random_state"),
)


@pytest.mark.parametrize(("sample", "name"), TENSOR_ARGUMENTS)
def test_every_operator_checks_every_tensor(sample: Sample, name: str) -> None:
    """A dimension too many, an element too many, another dtype: refused by every forward and backward."""
    good = sample.arguments[name]
    bad: list[Tensor] = [good[None, None, None], good.to(torch.int16)]
    op = sample.op.removesuffix("_with_indices").removesuffix("_window")
    if op not in ANY_SIZE and (op, name) not in ANY_LENGTH:
        larger = list(good.shape)
        # The number of channels that input and weight must agree about; of any other tensor, the width.
        channels = {(op, name): 1 for op in ("conv2d", "conv2d_activation") for name in ("input", "weight")}
        channels |= {("conv_transpose2d", "input"): 1, ("conv_transpose2d", "weight"): 0}
        channels |= {("max_pool2d_gather", "input"): 1, ("adaptive_max_pool2d_gather", "input"): 1}
        channels |= {(f"adaptive_{kind}_pool2d_backward", "grad_output"): 1 for kind in ("avg", "max")}
        channels |= {("adaptive_max_pool2d_gather", "indices"): 1}
        larger[channels.get((sample.op, name), -1)] += 1
        bad.append(torch.zeros(larger, dtype=good.dtype))
    for tensor in bad:
        if (
            sample.op in ("linear", "linear_activation")
            and name == "input"
            and tensor.dtype == good.dtype
            and tensor.shape[-1] == good.shape[-1]
        ):
            continue  # linear takes any number of leading dimensions
        message = refusal(lambda tensor=tensor: sample.call(**{name: tensor}))
        assert "expected" in message
        assert "got" in message


def gradient_without(sample: Sample, place: tuple[int, ...]) -> Tensor:
    """The gradient if nothing flows through one element of the output."""
    incoming = sample.arguments["grad_output"].clone()
    incoming[place] = 0
    result: Tensor = sample.call(grad_output=incoming)
    return result


@pytest.mark.parametrize("index", [-1, 10**6, 2**40, -(2**40)])
def test_flat_indices_outside_the_plane_are_ignored(index: int) -> None:
    """Whoever calls the backward operator directly cannot make it write outside its gradient."""
    sample = next(one for one in SAMPLES if one.op == "max_pool2d_backward" and one.arguments["flat"])
    indices = sample.arguments["indices"].clone()
    indices[0, 1, 2, 3] = index
    torch.testing.assert_close(sample.call(indices=indices), gradient_without(sample, (0, 1, 2, 3)))


@pytest.mark.parametrize("kernel", [(3, 2), (2, 2)])
def test_window_positions_outside_the_image_are_ignored(kernel: tuple[int, int]) -> None:
    """Also in the kernels for overlapping and for separate windows, and in both layouts."""
    sample = next(one for one in SAMPLES if one.op == "max_pool2d_backward" and not one.arguments["flat"])
    for layout in (torch.contiguous_format, torch.channels_last):
        indices = torch.zeros(2, 3, 4, 4, dtype=torch.uint8) + 2
        indices = indices.contiguous(memory_format=layout)
        grad = sample.arguments["grad_output"].contiguous(memory_format=layout)
        changed = Sample(sample.op, sample.arguments | {"grad_output": grad, "kernel_size": list(kernel)})
        spoiled = indices.clone()
        spoiled[0, 1, 2, 3] = 255
        expected = gradient_without(Sample(sample.op, changed.arguments | {"indices": indices}), (0, 1, 2, 3))
        torch.testing.assert_close(changed.call(indices=spoiled), expected)


@pytest.mark.parametrize("make", [lambda t: t.to_sparse(), lambda t: t.to(torch.bool)])
def test_unsupported_kinds_of_tensor_are_refused(make: Callable[[Tensor], Tensor]) -> None:
    for op, arguments in VALID.items():
        refusal(
            lambda op=op, arguments=arguments: getattr(cisdl_ops, op)(
                **arguments | {"input": make(arguments["input"])}
            )
        )


def test_not_a_tensor_is_refused() -> None:
    for op, arguments in VALID.items():
        for wrong in (None, 3, [[1.0]], "x"):
            with pytest.raises((TypeError, RuntimeError, AttributeError)):
                getattr(cisdl_ops, op)(**arguments | {"input": wrong})
