"""The emulator notices what it is there to notice: one kernel for each fault (faulty.cu)."""

from __future__ import annotations

import pytest
import torch

from .machine import ORDERS, EmulationError, Machine, Order

NUMBERS = torch.arange(512.0)
REVERSED = NUMBERS.view(2, 256).flip(1).flatten()


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: order.name)
def test_a_sound_kernel_runs(order: Order, machine: Machine) -> None:
    machine.configure(Order(order.name, order.code, order.seed))
    assert torch.equal(machine.run_faulty("none", NUMBERS), REVERSED)


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: order.name)
def test_missing_barrier(order: Order, machine: Machine) -> None:
    """Some threads read what has not been written yet: NaN, whatever the order."""
    machine.configure(Order(order.name, order.code, order.seed))
    result = machine.run_faulty("missing_barrier", NUMBERS)
    assert result.isnan().any()


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("early_exit", "barrier divergence: 250 threads wait at faulty.cu:.*, 6 have ended"),
        ("two_barriers", "barrier divergence: some threads wait at faulty.cu:.*, others at faulty.cu:"),
        ("shared_overrun", "shared variable 0 of 1024 bytes was written 0 bytes behind its end"),
        ("too_much_shared", "block 0, thread 0: a block wants 50176 bytes of shared memory"),
        ("zero_division", "integer division by zero"),
        ("write_before", "written 4 bytes before an allocation of 2048 bytes"),
        ("write_input", "write to a read-only allocation of 2048 bytes, at byte 0"),
    ],
)
def test_faults(fault: str, words: str, machine: Machine) -> None:
    machine.configure(ORDERS[0])
    with pytest.raises(EmulationError, match=words):
        machine.run_faulty(fault, NUMBERS)
    assert torch.equal(machine.run_faulty("none", NUMBERS), REVERSED), "the machine goes on after a fault"


def test_read_out_of_bounds(machine: Machine) -> None:
    """The first element behind the end, by the thread that touches it."""
    machine.configure(ORDERS[0])
    words = "block 1, thread 244: bad address: 0 bytes behind the end of an allocation of 2000 bytes"
    with pytest.raises(EmulationError, match=words):
        machine.run_faulty("none", NUMBERS[:500], claimed=501)
