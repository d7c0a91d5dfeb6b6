"""One thread for small problems: on a busy machine a second one spends its time waiting at barriers.

``test_threads.py`` sets other numbers and asks for the same bits.
"""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread(isolated_torch: None) -> None:
    torch.set_num_threads(1)
