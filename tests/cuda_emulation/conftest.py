"""The emulated GPU, compiled once a session."""

from __future__ import annotations

import pytest
import torch

from .build import library
from .machine import Machine


@pytest.fixture(scope="session")
def machine() -> Machine:
    return Machine(library())


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """The tensors here are too small for torch to share out; tests/conftest.py restores the setting."""
    torch.set_num_threads(1)
