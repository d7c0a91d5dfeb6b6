"""What every test gets: an untouched random state, untouched torch settings, and our two source roots."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

_ROOT = Path(__file__).resolve().parent.parent
for _source in (_ROOT, _ROOT / "cli"):  # so that a checkout works without being installed
    if str(_source) not in sys.path:
        sys.path.insert(0, str(_source))


def pytest_configure(config: pytest.Config) -> None:
    # torch says this about its own convolution when a case of ours has such a kernel.
    config.addinivalue_line(
        "filterwarnings", "ignore:Using padding='same' with even kernel lengths:UserWarning"
    )
    # float32 is compared as float32 on a GPU, too; tests/ops/test_gpu.py has what TF32 changes.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False


@pytest.fixture(autouse=True)
def isolated_torch() -> Iterator[None]:
    """A test that draws numbers or sets threads changes nothing for the next one."""
    state = torch.random.get_rng_state()
    threads = torch.get_num_threads()
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)
    torch.random.set_rng_state(state)
