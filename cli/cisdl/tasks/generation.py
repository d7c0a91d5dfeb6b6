"""Make new images like those seen. Two networks play against each other, an independent referee judges.

The referee (`referee.py`) says how far the made images are from real ones, which classes they show and in
what shares. Class KL is the sum over classes of q log(q / p), q: shares among the made images by the referee,
p: shares among the training images; a class counts as covered from a tenth of its share on. The loss is the
discriminator's, halved: log 2 where it knows nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cisdl.backend import Backend
from cisdl.data.batches import batches
from cisdl.data.images import Part
from cisdl.errors import DataError, UsageError
from cisdl.models.gan import GAN
from cisdl.models.registry import ModelEntry
from cisdl.tasks.base import Curve, Evaluation, Pictures, SampleRequest, Samples, Step
from cisdl.tasks.images import ImageTask
from cisdl.tasks.referee import Referee, frechet
from cisdl.training import processes
from cisdl.training.config import TrainConfig
from cisdl.training.trainer import Trainer, make_optimizer

BETAS = (0.5, 0.999)
COVERED = 0.1
MOST = 10_000
"""Images made for an evaluation, at most."""
FIXED = 64
"""Images of the picture that follows the same z through the epochs."""


@dataclass(frozen=True)
class Generated(Evaluation):
    """`images` on the CPU; the referee's answers on the real images are right `referee_correct` times."""

    distance: float
    """Fréchet, between the referee's features of made and real images."""
    covered: int
    classes: int
    class_kl: float
    made: int
    real: int
    referee_correct: int
    d_real: float = math.nan
    """The mean of D(x) over the real images, and of D(G(z)); a baseline has neither."""
    d_made: float = math.nan
    images: Tensor = field(default_factory=lambda: torch.empty(0))

    @property
    def rank(self) -> tuple[float, ...]:
        return (-self.distance,)

    def as_dict(self) -> dict[str, float | int]:
        found: dict[str, float | int] = {
            "loss": self.loss,
            "distance": self.distance,
            "covered": self.covered,
            "classes": self.classes,
            "class_kl": self.class_kl,
            "d_real": self.d_real,
            "d_made": self.d_made,
            "made": self.made,
            "real": self.real,
            "referee_correct": self.referee_correct,
        }
        return {name: value for name, value in found.items() if not math.isnan(value)}

    def __str__(self) -> str:
        return (
            f"{self.distance:.2f} ({self.covered} of {self.classes} classes, class KL {self.class_kl:.3f}; "
            f"{self.made} made, {self.real} real)"
        )


class AdversarialTrainer(Trainer):
    """A step of the discriminator, then one of the generator, on the same made images.

    Of several processes each has some of the real images and some of the made ones; batch normalisation is
    over all of them.
    """

    def __init__(self, config: TrainConfig, model: GAN) -> None:
        self.model = model
        self.generate = processes.parallel(model.generator)
        self.discriminate = processes.parallel(model.discriminator)
        self.generator = make_optimizer(config, model.generator, betas=BETAS)
        self.discriminator = make_optimizer(config, model.discriminator, betas=BETAS)

    def step(self, batch: tuple[Tensor, Tensor]) -> Step:
        real, z = (each[processes.own()].contiguous() for each in batch)
        mean_of_real, mean_of_made = (processes.mean_over(len(each)) for each in batch)

        made = self.generate(z)
        self.discriminator.zero_grad(set_to_none=True)
        on_real = self.discriminate(real)
        on_made = self.discriminate(made.detach())  # no gradient for the generator
        # softplus(-s) = -log D
        loss = (mean_of_real(F.softplus(-on_real)) + mean_of_made(F.softplus(on_made))) / 2
        loss.backward()  # type: ignore[no-untyped-call]
        self.discriminator.step()

        self.generator.zero_grad(set_to_none=True)
        # Not `self.discriminate`: nobody needs the discriminator's gradient of this loss.
        generator_loss = mean_of_made(F.softplus(-self.model.discriminator(made)))
        generator_loss.backward()  # type: ignore[no-untyped-call]
        self.generator.step()

        values = {
            "generator_loss": generator_loss.item(),
            "d_real": mean_of_real(on_real.detach().sigmoid()).item(),
            "d_made": mean_of_made(on_made.detach().sigmoid()).item(),
        }
        return processes.averaged(Step(loss.detach(), len(batch[0]), values=values))

    def set_lr(self, lr: float) -> None:
        for optimizer in (self.generator, self.discriminator):
            for group in optimizer.param_groups:
                group["lr"] = lr

    def state_dict(self) -> dict[str, Any]:
        return {
            "generator": self.generator.state_dict(),
            "discriminator": self.discriminator.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generator.load_state_dict(state["generator"])
        self.discriminator.load_state_dict(state["discriminator"])


class Generation(ImageTask, Samples):
    """Trained on (real images, z)."""

    metric = "Fréchet distance"
    loss_name = "discriminator's cross-entropy"
    score = Curve("distance", "Fréchet distance on the referee's features")

    def __init__(self, entry: ModelEntry, config: TrainConfig) -> None:
        if config.scale != "unit":
            raise UsageError(
                f"--scale: {entry.name} makes pixels in [0, 1], expected unit, got {config.scale}"
            )
        super().__init__(entry, config)
        self.latent: int = config.options["latent"]
        self.shares: list[float] = []
        """Of each class among the training images."""
        self.referee: Referee
        """After `build`; it learns when training begins."""
        self.history: list[Tensor] = []
        """What the fixed z became after each epoch."""

    def read(self) -> None:
        super().read()
        for name, part in self.images.parts().items():
            if len(part) < 2:
                raise DataError(
                    f"{self.data.name}: expected at least 2 {name} images (one has no covariance), "
                    f"got {len(part)}"
                )
        counts = torch.bincount(self.images.train.labels, minlength=len(self.class_names))
        self.shares = (counts / counts.sum()).tolist()

    def facts(self) -> dict[str, Any]:
        return super().facts() | {"class_shares": self.shares}

    def restore(self, facts: Mapping[str, Any]) -> None:
        super().restore(facts)
        self.shares = list(facts["class_shares"])

    def build(self, ops: Backend) -> GAN:
        self.ops = ops
        model = self.entry.build(ops, shape=self.shape, **self.option)
        assert isinstance(model, GAN)
        self.referee = Referee(ops, self.shape[0], len(self.class_names))
        model.referee = self.referee  # so that it is saved with the model
        return model

    def example(self) -> tuple[Tensor, ...]:
        return (torch.zeros(1, self.latent),)

    def trainer(self, model: nn.Module) -> AdversarialTrainer:
        assert isinstance(model, GAN)
        self.referee.fit(self.images.train, self.ops)
        return AdversarialTrainer(self.config, model)

    def noise(self, count: int, *seed: int) -> Tensor:
        """z (count, latent), decided by the seed alone."""
        generator = np.random.default_rng(seed)
        return torch.from_numpy(generator.standard_normal((count, self.latent), dtype=np.float32))

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        train, seed = self.images.train, self.config.seed
        for number, (images, _) in enumerate(batches(train, self.config.batch_size, seed, epoch)):
            made = max(2, len(images))  # batch normalisation has no deviation of one
            yield images, self.noise(made, seed, epoch, number).to(images.device)

    @torch.no_grad()
    def evaluate(self, model: nn.Module, part: str) -> Generated:
        assert isinstance(model, GAN)
        training = model.training
        model.eval()
        real = self.images.parts()[part]
        z = self.noise(min(len(real), MOST), self.config.seed, 0).to(real.images.device)
        made = torch.cat([model.generator(some) for some in z.split(1000)])  # type: ignore[no-untyped-call]
        scores = [
            torch.cat([model.discriminator(some) for some in torch.split(images, 1000)])
            for images in (real.images, made)
        ]
        if part == "validation":
            fixed = self.noise(FIXED, self.config.seed, 0).to(real.images.device)
            self.history.append(model.generator(fixed).cpu())
        model.train(training)
        loss = float((F.softplus(-scores[0]).mean() + F.softplus(scores[1]).mean()) / 2)
        d_real, d_made = (float(one.sigmoid().mean()) for one in scores)
        return self.judged(made, real, loss, d_real, d_made)

    def judged(
        self, made: Tensor, real: Part, loss: float = 0.0, d_real: float = math.nan, d_made: float = math.nan
    ) -> Generated:
        """What the referee says of the made images."""
        features, scores = self.referee.judge(made)
        real_features, real_scores = self.referee.judge(real.images)
        classes = len(self.class_names)
        q = (torch.bincount(scores.argmax(1).cpu(), minlength=classes) / len(made)).double()
        p = torch.tensor(self.shares, dtype=torch.float64).clamp_min(1e-6)
        return Generated(
            loss,
            frechet(features, real_features),
            int((q >= COVERED * p).sum()),
            classes,
            float(torch.special.xlogy(q, q / p).sum()),
            len(made),
            len(real),
            int((real_scores.argmax(1) == real.labels).sum()),
            d_real,
            d_made,
            made.cpu(),
        )

    def baselines(self, part: str) -> dict[str, Generated]:
        """Other training images in place of made ones, the best there is; a normal distribution of pixels."""
        from cisdl.baselines.images import normal

        real, train = self.images.parts()[part], self.images.train.images
        if not len(train):
            return {}
        count = min(len(real), MOST)
        drawn = normal(train.cpu(), count, seed=self.config.seed).to(train.device)
        return {
            "training images": self.judged(train[:count], real),
            "normal distribution of pixels": self.judged(drawn, real),
        }

    def draw(self, model: nn.Module, evaluation: Evaluation, pictures: Pictures) -> None:
        from cisdl.report import samples

        assert isinstance(evaluation, Generated)
        assert isinstance(model, GAN)
        plots, title = pictures.folder, pictures.title
        samples.draw_nearest(
            plots / "nearest.png",
            f"{title}: made images above the nearest training images",
            evaluation.images,
            self.images.train.images,
        )
        if self.history:
            samples.draw_epochs(plots / "epochs.png", f"{title}: the same z after each epoch", self.history)
            samples.write_gif(plots / "epochs.gif", self.history)
        samples.write_grid(plots / "samples.png", evaluation.images[:FIXED])
        if pictures.metrics:
            samples.draw_game(plots / "game.png", f"{title}: the discriminator's answers", pictures.metrics)

    @torch.no_grad()
    def sample(self, model: nn.Module, request: SampleRequest) -> list[str]:
        """A grid of `count` images, as one PNG."""
        from cisdl.report import samples

        for name in ("length", "temperature", "start"):
            if getattr(request, name) is not None:
                raise UsageError(f"--{name}: expected with a model of text, got with {self.entry.name}")
        assert isinstance(model, GAN)
        device = next(model.parameters()).device
        z = self.noise(request.count, request.seed).to(device)
        made = torch.cat([model.eval().generator(some) for some in z.split(1000)])  # type: ignore[no-untyped-call]
        path = request.folder / f"samples-{request.count}-seed{request.seed}.png"
        request.folder.mkdir(exist_ok=True)
        samples.write_grid(path, made.cpu())
        return [str(path)]


def new(entry: ModelEntry, config: TrainConfig) -> Generation:
    return Generation(entry, config)
