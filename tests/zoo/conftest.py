"""One thread: with models as small as these, more would mostly wait for each other."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread(isolated_torch: None) -> None:
    torch.set_num_threads(1)
