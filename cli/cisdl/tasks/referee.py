"""An independent judge of made images: a LeNet trained on the real ones.

It says which class an image looks like, and its last hidden layer is the space in which two sets of images
are compared by the Fréchet distance of the normal distributions that fit their features,

    d^2 = |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^1/2)          m: means, C: covariances of the features

That is the formula of Heusel et al. (NIPS 2017), there on the features of an Inception network trained on
ImageNet and called FID. Other features give other numbers: those here compare with each other only, for one
data set.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cisdl.backend import Backend
from cisdl.data.batches import batches
from cisdl.data.images import Part
from cisdl.models.lenet import LeNet

SIZE = 28
STEPS = 1200
BATCH = 64
LR = 1e-3
EVALUATION_BATCH = 1000


class Referee(nn.Module):
    """A LeNet whose weights are buffers: saved with the model that it judges, and no part of its training."""

    def __init__(self, ops: Backend, channels: int, classes: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):  # the judged model's weights do not depend on the judge
            torch.manual_seed(0)
            self.network = LeNet(ops, channels, classes, "relu", "max")
        for module in self.network.modules():
            for name, weight in list(module.named_parameters(recurse=False)):
                delattr(module, name)
                module.register_buffer(name, weight.detach().clone())

    def fit(self, part: Part, ops: Backend) -> None:
        """Train on real images; equal images give an equal referee."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            channels, classes = part.images.shape[1], self.network.output.out_features
            student = LeNet(ops, channels, classes, "relu", "max").to(part.images.device)
        optimizer = torch.optim.Adam(student.parameters(), lr=LR)
        step = epoch = 0
        while step < STEPS:
            epoch += 1
            for images, labels in batches(part, BATCH, 0, epoch):
                for group in optimizer.param_groups:
                    group["lr"] = LR * (1 - step / STEPS)
                optimizer.zero_grad(set_to_none=True)
                F.cross_entropy(student(resized(images)), labels).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                step += 1
                if step == STEPS:
                    break
        self.network.load_state_dict(student.state_dict())

    @torch.no_grad()
    def judge(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features (count, 84) and scores (count, classes) of images with pixels in [0, 1]."""
        pieces = [self.network.features(resized(some)) for some in torch.split(images, EVALUATION_BATCH)]
        features = torch.cat(pieces)
        return features, self.network.output(features)


def resized(images: Tensor) -> Tensor:
    """As LeNet takes them."""
    if images.shape[2:] == (SIZE, SIZE):
        return images
    return F.interpolate(images, (SIZE, SIZE), mode="bilinear", align_corners=False, antialias=True)


def frechet(a: Tensor, b: Tensor) -> float:
    """The squared Fréchet distance between two sets of features (count, width), in double precision."""
    a, b = a.double(), b.double()
    means = (a.mean(0) - b.mean(0)).square().sum()
    one, other = torch.cov(a.T), torch.cov(b.T)
    # tr (C1 C2)^1/2 = tr (R C2 R)^1/2 with R = C1^1/2, and that matrix is symmetric.
    values, vectors = torch.linalg.eigh(one)
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T
    middle = torch.linalg.eigvalsh(root @ other @ root).clamp_min(0).sqrt().sum()
    return max(0.0, float(means + one.trace() + other.trace() - 2 * middle))
