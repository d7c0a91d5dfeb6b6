"""A whole training step of each model: forward, loss, backward, Adam; ours against torch, batch 64."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from cisdl import backend
from cisdl.bench.ops import LAYOUTS, Settings
from cisdl.bench.results import Row
from cisdl.bench.timing import Timing, interleave
from cisdl.errors import KernelDisagreesError
from cisdl.models.registry import MODELS, ModelEntry

BATCH = 64
CLASSES = 10
SIZE = 28
STEPS_COMPARED = 3
LOSS_TOLERANCE = 1e-4


class Trainer:
    """A model with its own batch and optimiser; calling it does one step and returns the loss."""

    def __init__(self, entry: ModelEntry, provider: str, layout: str, settings: Settings) -> None:
        torch.manual_seed(0)
        ops = backend.get("cisdl" if provider == "ours" else "torch")
        model: nn.Module = entry.build(ops, (1, SIZE, SIZE), CLASSES)
        self.model = model.to(settings.device, settings.dtype)
        for parameter in self.model.parameters():
            if parameter.dim() == 4:
                parameter.data = parameter.data.contiguous(memory_format=LAYOUTS[layout])
        self.forward: Callable[[Tensor], Tensor] = (
            torch.compile(self.model) if provider == "compiled" else self.model
        )
        images = torch.randn(BATCH, 1, SIZE, SIZE).to(settings.device, settings.dtype)
        self.images = images.contiguous(memory_format=LAYOUTS[layout])
        self.labels = torch.randint(0, CLASSES, (BATCH,)).to(settings.device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3, fused=True)

    def __call__(self) -> Tensor:
        self.optimizer.zero_grad()
        loss = nn.functional.cross_entropy(self.forward(self.images), self.labels)
        torch.autograd.backward(loss)
        self.optimizer.step()
        return loss


def require_equal_training(entry: ModelEntry, layout: str, settings: Settings) -> None:
    """The first steps of ours and torch's from the same weights have the same losses."""
    ours, theirs = (Trainer(entry, provider, layout, settings) for provider in ("ours", "torch"))
    for step in range(STEPS_COMPARED):
        got, expected = ours().item(), theirs().item()
        if not abs(got - expected) <= LOSS_TOLERANCE * abs(expected):
            raise KernelDisagreesError(
                f"model/{entry.name} is wrong and was not timed: the loss of step {step + 1} is {got:.7g}, "
                f"torch's is {expected:.7g}"
            )


def bench_model(name: str, settings: Settings) -> Iterator[Row]:
    """The training step of one model, in every wanted layout if the model has images inside."""
    layouts = settings.layouts if name == "lenet" else ("contiguous",)
    for group in [(layout,) for layout in layouts] if settings.each_layout else [layouts]:
        yield time_step(MODELS[name], group, settings)


def time_step(entry: ModelEntry, layouts: tuple[str, ...], settings: Settings) -> Row:
    """Verified, then timed: one row."""
    providers = ("ours", "torch", "compiled") if settings.compiled else ("ours", "torch")
    names = [(provider, layout) for layout in layouts for provider in providers]
    for layout in layouts:
        require_equal_training(entry, layout, settings)
    trainers = [Trainer(entry, provider, layout, settings) for provider, layout in names]
    samples = interleave(trainers, settings.clock, settings.effort)
    timings = [Timing(*one, seconds) for one, seconds in zip(names, samples, strict=True)]
    dtype = str(settings.dtype).removeprefix("torch.")
    layout = "each" if settings.each_layout else "best"
    return Row(f"model/{entry.name}", "step", dtype, timings, f"batch {BATCH}", layout)
