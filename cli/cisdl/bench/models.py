"""A whole training step of each model: forward, loss, backward, Adam; ours against torch, batch 64.

Models are those of the command where it has them, AlexNet without dropout. Ours is the model built from our
layers (activations inside the linear ones) with our loss and our Adam. In the rows
named ``..._accelerated`` it is torch's model after ``accelerate``, with torch's Adam: what one line of code
gains. torch's side is always torch's model with its fused Adam.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

import cisdl_ops
from cisdl import backend
from cisdl.backend import Backend
from cisdl.bench.ops import LAYOUTS, Settings
from cisdl.bench.results import Row
from cisdl.bench.timing import Timing, interleave
from cisdl.errors import KernelDisagreesError
from cisdl.models.registry import MODELS

BATCH = 64
CLASSES = 10
STEPS_COMPARED = 3
# Training goes step after step: each sample is a run of them, so that a step finds in the caches what the one
# before it left there, and not what the competitor did.
SAMPLE_SECONDS = 0.02
LOSS_TOLERANCE = 1e-4


class SequenceClassifier(nn.Module):
    """An image row by row through a recurrent layer of 128 units; its last output is classified."""

    def __init__(self, ops: Backend, kind: type[nn.LSTM] | type[nn.GRU]) -> None:
        super().__init__()
        self.rows = kind(28, 128, batch_first=True)  # the Trainer makes ours of it
        self.output = ops.Linear(128, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        outputs, _ = self.rows(images.squeeze(1))  # (batch, rows, 128)
        scores: Tensor = self.output(outputs[:, -1])
        return scores


def sequential_lenet(ops: Backend) -> nn.Module:
    """The LeNet of :mod:`cisdl.models.lenet`, written as most are: torch's modules in a row."""
    return nn.Sequential(
        *(ops.Conv2d(1, 6, 5, padding=2), nn.ReLU(), ops.MaxPool2d(2)),  # 6 x 14 x 14
        *(ops.Conv2d(6, 16, 5), nn.ReLU(), ops.MaxPool2d(2)),  # 16 x 5 x 5
        *(nn.Flatten(), ops.Linear(400, 120), nn.ReLU(), ops.Linear(120, 84), nn.ReLU()),
        ops.Linear(84, CLASSES),
    )


def sequential_mlp(ops: Backend) -> nn.Module:
    """The MLP of :mod:`cisdl.models.mlp`, likewise."""
    return nn.Sequential(
        *(nn.Flatten(), ops.Linear(784, 300), nn.ReLU(), ops.Linear(300, 100), nn.ReLU()),
        ops.Linear(100, CLASSES),
    )


@dataclass(frozen=True)
class Model:
    """What is trained: a model of the registry, or one that is there for the bench alone."""

    name: str
    build: Callable[[Backend], nn.Module]
    image: tuple[int, int, int] = (1, 28, 28)
    convolves: bool = False
    accelerated: bool = False
    batch: int = BATCH


_GREY, _COLOUR = (1, 28, 28), (3, 64, 64)


def _registered(
    name: str, shape: tuple[int, int, int] = _GREY, **options: object
) -> Callable[[Backend], nn.Module]:
    return lambda ops: MODELS[name].build(ops, shape=shape, classes=CLASSES, **options)


_MLP = _registered("mlp", hidden=(300, 100))
_ALEXNET = _registered("alexnet", _COLOUR, dropout=0.0)
BENCH_MODELS: dict[str, Model] = {
    model.name: model
    for model in (
        Model("mlp", _MLP),
        Model("mlp_accelerated", sequential_mlp, accelerated=True),
        Model("lenet", _registered("lenet"), convolves=True),
        Model("lenet_accelerated", sequential_lenet, convolves=True, accelerated=True),
        Model("alexnet64", _ALEXNET, _COLOUR, convolves=True),
        Model("alexnet64_accelerated", _ALEXNET, _COLOUR, convolves=True, accelerated=True),
        Model("lstm", _registered("lstm")),
        Model("lstm_layer", lambda ops: SequenceClassifier(ops, nn.LSTM)),
        Model("gru_layer", lambda ops: SequenceClassifier(ops, nn.GRU)),
    )
}


class Trainer:
    """A model with its own batch and optimiser; calling it does one step and returns the loss."""

    def __init__(self, entry: Model, provider: str, layout: str, settings: Settings) -> None:
        torch.manual_seed(0)
        fused = provider == "ours" and not entry.accelerated
        ops = backend.get("cisdl" if fused else "torch")
        model = entry.build(ops)
        self.loss = ops.CrossEntropyLoss()
        if provider == "ours":
            cisdl_ops.accelerate(model)
        self.model = model.to(settings.device, settings.dtype)
        for parameter in self.model.parameters():
            if parameter.dim() == 4:
                parameter.data = parameter.data.contiguous(memory_format=LAYOUTS[layout])
        self.forward: Callable[[Tensor], Tensor] = (
            torch.compile(self.model) if provider == "compiled" else self.model
        )
        images = torch.randn(entry.batch, *entry.image).to(settings.device, settings.dtype)
        self.images = images.contiguous(memory_format=LAYOUTS[layout])
        self.labels = torch.randint(0, CLASSES, (entry.batch,)).to(settings.device)
        adam = cisdl_ops.optim.Adam if fused else torch.optim.Adam
        self.optimizer: torch.optim.Optimizer = adam(self.model.parameters(), lr=1e-3, fused=True)

    def __call__(self) -> Tensor:
        self.optimizer.zero_grad()
        loss: Tensor = self.loss(self.forward(self.images), self.labels)
        torch.autograd.backward(loss)
        self.optimizer.step()
        return loss


def require_equal_training(entry: Model, layout: str, settings: Settings) -> None:
    """The first steps of ours and torch's from the same weights have the same losses."""
    ours, theirs = (Trainer(entry, provider, layout, settings) for provider in ("ours", "torch"))
    for step in range(STEPS_COMPARED):
        got, expected = ours().item(), theirs().item()
        if not abs(got - expected) <= LOSS_TOLERANCE * abs(expected):
            raise KernelDisagreesError(
                f"model/{entry.name} is wrong and was not timed: the loss of step {step + 1} is {got:.7g}, "
                f"torch's is {expected:.7g}; `cisdl check` finds the kernel"
            )


def bench_model(entry: Model, settings: Settings) -> Iterator[Row]:
    """The training step of one model, in every wanted layout if the model has images inside."""
    layouts = settings.layouts if entry.convolves else ("contiguous",)
    for group in [(layout,) for layout in layouts] if settings.each_layout else [layouts]:
        yield time_step(entry, group, settings)


def time_step(entry: Model, layouts: tuple[str, ...], settings: Settings) -> Row:
    """Verified, then timed: one row."""
    providers = ("ours", "torch", "compiled") if settings.compiled else ("ours", "torch")
    names = [(provider, layout) for layout in layouts for provider in providers]
    for layout in layouts:
        require_equal_training(entry, layout, settings)
    trainers = [Trainer(entry, provider, layout, settings) for provider, layout in names]
    effort = replace(settings.effort, sample=max(SAMPLE_SECONDS, settings.effort.sample))
    samples = interleave(trainers, settings.clock, effort)
    timings = [Timing(*one, seconds) for one, seconds in zip(names, samples, strict=True)]
    dtype = str(settings.dtype).removeprefix("torch.")
    layout = "each" if settings.each_layout else "best"
    return Row(f"model/{entry.name}", "step", dtype, timings, f"batch {entry.batch}", layout)
