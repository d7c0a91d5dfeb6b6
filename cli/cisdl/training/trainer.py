"""Taking training steps: how a mini-batch changes a model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from cisdl.training import processes
from cisdl.training.config import TrainConfig

if TYPE_CHECKING:
    from cisdl.tasks.base import Step


class Trainer(ABC):
    """What the training loop asks to change the model, and saves with it."""

    @abstractmethod
    def step(self, batch: Any) -> Step:
        """Train on one mini-batch; the loss is that before the change.

        Of several processes all are given the whole mini-batch, train on a share each, and return its step.
        """

    @abstractmethod
    def set_lr(self, lr: float) -> None:
        """The learning rate from now on."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """All that decides the next step besides the model: plain types and tensors.

        Of several processes all have to ask for it, and get what one alone would have.
        """

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class GradientTrainer(Trainer):
    """One optimiser on the gradient of one loss, its norm clipped where the configuration says so.

    `share` gives one of several processes its part of a mini-batch: `Task.share`.
    """

    def __init__(
        self,
        config: TrainConfig,
        model: nn.Module,
        loss: Callable[[nn.Module, Any], Step],
        share: Callable[[Any], tuple[Any, bool]],
    ) -> None:
        self.model = model
        self.network = processes.parallel(model)
        self.loss = loss
        self.share = share
        self.clip_norm = config.clip_norm
        self.optimizer = make_optimizer(config, model)

    def step(self, batch: Any) -> Step:
        self.optimizer.zero_grad(set_to_none=True)
        if processes.alone():
            taken = self.loss(self.network, batch)
            loss = taken.loss
        else:
            own, counted = self.share(batch)
            loss, taken = processes.joined(self.loss(self.network, own), counted)
        loss.backward()  # type: ignore[no-untyped-call]
        if self.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_norm)
        self.optimizer.step()
        return replace(taken, loss=taken.loss.detach())

    def set_lr(self, lr: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = lr

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = self.optimizer.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state)


def make_optimizer(config: TrainConfig, model: nn.Module, **settings: Any) -> torch.optim.Optimizer:
    """Ours or torch's, as the layers: equal in what they compute and what they save."""
    optim: Any = torch.optim
    if config.backend == "cisdl":
        from cisdl_ops import optim
    optimizer: torch.optim.Optimizer
    if config.optimizer == "adam":
        optimizer = optim.Adam(model.parameters(), lr=config.lr, **settings)
    else:
        optimizer = optim.SGD(model.parameters(), lr=config.lr, momentum=config.momentum, **settings)
    return optimizer
