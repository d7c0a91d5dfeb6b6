"""The picture of three optimisers on one surface."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from cisdl.report import optimizer_paths

import cisdl_ops.optim
from tests.models.test_report import is_picture


@pytest.mark.parametrize("name", optimizer_paths.OPTIMIZERS)
def test_both_libraries_walk_the_same_way(name: str) -> None:
    kind, settings, _ = optimizer_paths.OPTIMIZERS[name]
    ours, theirs = (optimizer_paths.path_of(o, kind, settings) for o in (cisdl_ops.optim, torch.optim))
    assert ours.shape == (optimizer_paths.STEPS + 1, 2)
    np.testing.assert_allclose(ours[:50], theirs[:50], rtol=1e-3, atol=1e-4)
    heights = optimizer_paths.height(*ours.T)
    assert heights[-1] < 0.5 * heights[0]


def test_it_is_drawn(tmp_path: Path) -> None:
    optimizer_paths.draw(tmp_path / "paths.png", torch.optim)
    is_picture(tmp_path / "paths.png")
