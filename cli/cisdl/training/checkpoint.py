"""best.pt and last.pt: plain types only, so that `torch.load(path, weights_only=True)` reads them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cisdl.errors import CisdlError, DataError
from cisdl.files import write_atomically
from cisdl.training.position import Position
from cisdl.training.trainer import Trainer

FORMAT = 2


def save(
    path: Path,
    model: nn.Module,
    trainer: Mapping[str, Any],
    config: Mapping[str, Any],
    facts: Mapping[str, Any],
    at: Position,
) -> None:
    """Write the state of a run. From `config` and `facts` (`Task.facts`) the model is built again.

    `trainer` is the state of a `Trainer`.
    """
    state = {
        "format": FORMAT,
        "config": dict(config),
        "facts": dict(facts),
        "position": at.as_dict(),
        "model": model.state_dict(),
        "trainer": dict(trainer),
        "rng": {
            "cpu": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        },
    }
    try:
        write_atomically(path, lambda temporary: torch.save(state, temporary))
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        raise CisdlError(f"{path}: cannot be written ({error}); make room and use --resume") from error


def restore(state: Mapping[str, Any], model: nn.Module, trainer: Trainer) -> Position:
    """Put model, trainer and torch's generators into a state that `load` returned."""
    model.load_state_dict(state["model"])
    trainer.load_state_dict(state["trainer"])
    torch.set_rng_state(state["rng"]["cpu"])
    if state["rng"]["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["rng"]["cuda"])
    return Position.of(state["position"])


def load(path: Path) -> dict[str, Any]:
    """The state in `path`, on the CPU."""
    if not path.is_file():
        raise DataError(f"{path}: expected a checkpoint, got no such file")
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen kinds for a damaged file
        raise DataError(
            f"{path}: expected a checkpoint written by cisdl train, got an unreadable file"
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        got = state.get("format") if isinstance(state, dict) else type(state).__name__
        raise DataError(f"{path}: expected a checkpoint of format {FORMAT}, got {got}")
    return state
