"""Fuzzes an op in a process of its own: ``python -m tests.conformance.fuzz_worker OP LOG PROPERTY=COUNT ...``

Every call is written to LOG before it is made, so that the last line names the call that killed the process.
The process may use 1 GiB more than what it has after its imports: a larger output is an exception, as on a
machine that is too small.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import warnings
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any, TextIO

import torch
from hypothesis import HealthCheck, assume, given, settings
from torch import Tensor
from torch.utils._pytree import tree_flatten

import cisdl_ops
from tests.conformance import agreement, fuzz_arguments
from tests.conformance.fuzz_arguments import TensorSpec, make
from tests.conformance.fuzz_shapes import expected_shape

HEADROOM = 1 << 30  # bytes
SLOW = 1 << 20  # bytes of output; between this and HEADROOM a call is only slow
SECONDS = 20  # for one call; then the process is killed by SIGALRM, and the log names the call

REFUSALS = (RuntimeError, ValueError, TypeError, MemoryError)
OUT_OF_MEMORY = ("alloc", "memory", "overflow", "Storage size")


class Log:
    """The last call, on disk before it is made."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def __call__(self, who: str, op: str, arguments: dict[str, Any]) -> None:
        self._file.write(f"{who}: {op}({', '.join(f'{k}={v!r}' for k, v in arguments.items())})\n")
        self._file.flush()
        signal.alarm(SECONDS)


def attempt(function: Callable[..., Any], arguments: dict[str, Any]) -> tuple[Any, Exception | None]:
    """(result, None) or (None, the refusal). Any other exception is a failure."""
    try:
        return function(**arguments), None
    except REFUSALS as refusal:
        return None, refusal


def theirs(op: str) -> Callable[..., Any]:
    function: Callable[..., Any] = getattr(
        torch.nn.functional if op.endswith(("2d", "linear")) else torch, op
    )
    return function


def attempt_torch(op: str, arguments: dict[str, Any]) -> tuple[Any, Exception | None]:
    """torch's own messages are its own affair: any exception is a refusal."""
    try:
        return theirs(op)(**arguments), None
    except Exception as refusal:
        return None, refusal


def assert_clear(op: str, refusal: Exception) -> None:
    """The op's name is in it, or it is about memory."""
    words = str(refusal)
    assert op in words or any(word in words for word in OUT_OF_MEMORY), f"not a clear refusal: {refusal!r}"


def specs(arguments: dict[str, Any]) -> list[TensorSpec]:
    return [leaf for leaf in tree_flatten(arguments)[0] if isinstance(leaf, TensorSpec)]


def takes_less_than_torch(op: str, arguments: dict[str, Any], by_torch: Any) -> bool:
    """Documented: what torch takes and we refuse."""
    found = specs(arguments)
    if len({spec.dtype for spec in found}) > 1 or any(s.dtype not in agreement.FLOATING for s in found):
        return True
    if any(spec.view == "meta" for spec in found):
        return True  # some of them; torch does not always look
    if op == "linear" and len(getattr(arguments["weight"], "shape", ())) == 1:
        return True  # a vector for a weight of one row
    if op == "adaptive_avg_pool2d" and len(getattr(arguments["input"], "shape", ())) < 3:
        return True  # one window of a matrix: torch takes the mean, whatever its documentation says of shapes
    if op == "linear" or op.endswith("_cell"):
        biases = [value for name, value in arguments.items() if name.startswith("b") and value is not None]
        rows = getattr(arguments["weight" if op == "linear" else "w_ih"], "shape", ())[:1]
        if any(getattr(bias, "shape", ()) != rows for bias in biases):
            return True  # torch broadcasts a bias of another shape
    # torch's message says that an output without rows is too small, but not all its kernels do.
    return op == "conv_transpose2d" and isinstance(by_torch, Tensor) and by_torch.numel() == 0


def torch_is_no_judge(op: str, arguments: dict[str, Any], result: Any) -> bool:
    """Where torch refuses, gives a wrong shape or writes outside its memory: no reason for us to."""
    found = specs(arguments)
    if any(spec.view == "zero" for spec in found):
        return True  # torch tries to write to its ZeroTensors
    if op.endswith("2d") and any(0 in spec.shape for spec in found):
        return True  # of no channels torch's convolution makes no output channels
    if op.startswith("adaptive") and any(output.numel() == 0 for output in tree_flatten(result)[0]):
        return True  # torch pools into nothing, but has no gradient of that
    # The gradient of a maximum over no cell: torch's index of it lies outside the image.
    if op != "max_pool2d" or tree_flatten(result)[0][0].is_meta:
        return False
    return bool(torch.isneginf(tree_flatten(result)[0][0]).any())


def fuzz_values(op: str, log: Log, arguments: dict[str, Any]) -> None:
    """torch takes it: the same values and gradients. torch refuses it: refused."""
    tensors = make(arguments)
    log("ours", op, arguments)
    result, refusal = attempt(getattr(cisdl_ops, op), tensors)
    signal.alarm(0)
    if any(isinstance(leaf, Tensor) and leaf.layout != torch.strided for leaf in tree_flatten(tensors)[0]):
        assert refusal is not None, "accepted, although it is no plain tensor"
        return  # torch is not asked: its own linear divides by zero for some of them
    log("torch", op, arguments)
    by_torch, torch_refusal = attempt_torch(op, tensors)
    signal.alarm(0)
    if refusal is not None:
        assert_clear(op, refusal)
        if torch_refusal is None and not takes_less_than_torch(op, arguments, by_torch):
            assert torch_is_no_judge(op, arguments, by_torch), f"torch takes it, ours does not: {refusal}"
        return
    if torch_is_no_judge(op, arguments, result):
        assert not any(output.isnan().any() for output in tree_flatten(result)[0])
        return
    assert torch_refusal is None, f"ours takes it, torch does not: {torch_refusal}"
    if any(spec.view == "meta" for spec in specs(arguments)):
        assert_same_shapes(result, by_torch)
        return
    log("ours or torch, with gradients", op, arguments)
    dtype = specs(arguments)[0].dtype
    agreement.assert_agree(getattr(cisdl_ops, op), theirs(op), agreement.Arguments((), tensors), dtype)
    signal.alarm(0)


def assert_same_shapes(ours: Any, by_torch: Any) -> None:
    got, expected = ([(t.shape, t.dtype) for t in tree_flatten(one)[0]] for one in (ours, by_torch))
    assert got == expected, f"expected {expected}, got {got}"


def fuzz_numbers(op: str, log: Log, arguments: dict[str, Any]) -> None:
    """Integers beyond 32 and 64 bits: refused, or a result of the right shape without garbage."""
    shape = expected_shape(op, arguments)
    size = 0 if shape is None else prod(shape) * 8
    assume(size < SLOW or size > HEADROOM)
    tensors = make(arguments)
    log("ours", op, arguments)
    result, refusal = attempt(getattr(cisdl_ops, op), tensors)
    signal.alarm(0)
    if refusal is not None:
        assert_clear(op, refusal)
        return
    output = tree_flatten(result)[0][0]
    assert shape is not None, f"accepted, although there is no result; got {tuple(output.shape)}"
    assert output.shape == shape, f"expected shape {shape}, got {tuple(output.shape)}"
    inside = output[output.isfinite()].abs()  # a window without a cell has no maximum: -inf
    if "pool" in op and inside.numel() and arguments.get("divisor_override") is None:
        largest = tensors["input"].abs().max()
        assert inside.max() <= largest * 1.001, "a mean or maximum is larger than every input"
    assert not output.isnan().any()
    if output.requires_grad:
        log("ours, backward", op, arguments)
        output.sum().backward()
        signal.alarm(0)


def fuzz_operator(op: str, log: Log, arguments: dict[str, Any]) -> None:
    """A registered operator called directly: a result or an exception that says something."""
    name = arguments.pop("operator")
    tensors = make(arguments)
    log("ours", f"torch.ops.cisdl.{name}", arguments)
    overload = getattr(torch.ops.cisdl, name).default
    _, refusal = attempt(lambda **named: overload(*named.values()), tensors)
    signal.alarm(0)
    assert refusal is None or str(refusal)


def crash(op: str, log: Log, arguments: dict[str, Any]) -> None:
    """What the test of this harness runs."""
    log("ours", op, arguments)
    os.kill(os.getpid(), signal.SIGSEGV)


PROPERTIES: dict[str, tuple[Callable[[str, Log, dict[str, Any]], None], Callable[[str], Any]]] = {
    "good": (fuzz_values, fuzz_arguments.good),
    "spoiled": (fuzz_values, fuzz_arguments.spoiled),
    "absurd": (fuzz_numbers, fuzz_arguments.absurd),
    "operator": (fuzz_operator, fuzz_arguments.operator),
    "crash": (crash, fuzz_arguments.good),
}


def limit_memory() -> None:
    """No more address space than now and HEADROOM; where the system cannot say, no limit."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (ImportError, OSError):
        return
    limit = pages * resource.getpagesize() + HEADROOM
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def fuzz(op: str, name: str, examples: int, log: Log) -> None:
    """Hypothesis' own report of a failed example goes to standard error."""
    check, strategy = PROPERTIES[name]

    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy(op))
    def run(arguments: dict[str, Any]) -> None:
        check(op, log, arguments)

    run()


def warm_up() -> None:
    """torch loads parts of itself at the first call."""
    x = torch.randn(2, 2, requires_grad=True)
    torch.nn.functional.linear(x, x).sum().backward()
    torch.nn.functional.conv2d(x[None, None], x[None, None]).sum().backward()


def main(op: str, path: str, *properties: str) -> None:
    faulthandler.enable()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    warm_up()
    limit_memory()
    with Path(path).open("w") as file:
        for one in properties:
            name, examples = one.split("=")
            fuzz(op, name, int(examples), Log(file))


if __name__ == "__main__":
    main(*sys.argv[1:])
