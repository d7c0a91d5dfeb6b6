"""Linear codes, linear denoising and normal distributions of images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from sklearn.decomposition import PCA
from torch import Tensor

Restore = Callable[[Tensor], Tensor]
"""Images (count, channels, height, width) to images of the same shape, pixels in [0, 1]."""


def pca(train: Tensor, components: int) -> Restore:
    """Images coded by their first principal components, the best linear code of that size, and decoded again.

    Source: Pearson, "On lines and planes of closest fit to systems of points in space", 1901.
    """
    pixels = train.flatten(1).numpy()
    fitted = PCA(min(components, *pixels.shape), svd_solver="covariance_eigh").fit(pixels)

    def restore(images: Tensor) -> Tensor:
        decoded = fitted.inverse_transform(fitted.transform(images.flatten(1).numpy()))
        return torch.from_numpy(decoded.astype(np.float32)).view_as(images)

    return restore


def wiener(train: Tensor, noise: float) -> Restore:
    """The best linear estimate of images from images + Gaussian noise of deviation `noise`, cut to [0, 1].

        restored = mean + C (C + noise^2 I)^-1 (noisy - mean)        C: covariance of the pixels of `train`

    Source: Wiener, "Extrapolation, interpolation, and smoothing of stationary time series", 1949.
    """
    pixels = train.flatten(1).double()
    mean, covariance = pixels.mean(0), torch.cov(pixels.T)
    noisy = covariance + noise**2 * torch.eye(len(covariance), dtype=torch.float64)
    gain = torch.linalg.solve(noisy, covariance)  # both are symmetric: (C (C + s^2 I)^-1)^T

    def restore(images: Tensor) -> Tensor:
        restored = mean + (images.flatten(1).double() - mean) @ gain
        cut: Tensor = restored.clamp(0, 1).to(images.dtype).view_as(images)
        return cut

    return restore


def normal(train: Tensor, count: int, seed: int) -> Tensor:
    """`count` images from the normal distribution with mean and covariance of `train`, cut to [0, 1].

    The best that principal component analysis can do as a maker of images.
    """
    pixels = train.flatten(1).double()
    values, axes = torch.linalg.eigh(torch.cov(pixels.T))
    drawn = np.random.default_rng([seed, count]).standard_normal((count, len(values)))
    images = pixels.mean(0) + torch.from_numpy(drawn) * values.clamp_min(0).sqrt() @ axes.T
    cut: Tensor = images.clamp(0, 1).to(train.dtype).view(count, *train.shape[1:])
    return cut
