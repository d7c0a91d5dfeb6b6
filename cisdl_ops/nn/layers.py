"""Linear layers, convolutions and pooling."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cisdl_ops import functional
from cisdl_ops._load import facts

__all__ = [
    "AdaptiveAvgPool2d",
    "AdaptiveMaxPool2d",
    "AvgPool2d",
    "Conv2d",
    "ConvTranspose2d",
    "CrossEntropyLoss",
    "LazyConv2d",
    "LazyConvTranspose2d",
    "LazyLinear",
    "Linear",
    "MaxPool2d",
]


class Linear(torch.nn.Linear):
    """``y = f(x W^T + b)``; see ``torch.nn.Linear``, and :func:`cisdl_ops.linear` for ``f``."""

    activation: str | None = None  # of a module that `accelerate` found
    negative_slope: float = 0.01

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        activation: str | None = None,
        negative_slope: float = 0.01,
    ) -> None:
        super().__init__(in_features, out_features, bias, device, dtype)
        if activation is not None:
            functional.check_activation("Linear", activation)
            self.activation, self.negative_slope = activation, negative_slope

    def forward(self, input: Tensor) -> Tensor:
        if self.activation is None:
            return functional.linear(input, self.weight, self.bias)
        return functional.linear(
            input, self.weight, self.bias, activation=self.activation, negative_slope=self.negative_slope
        )

    def extra_repr(self) -> str:
        plain = super().extra_repr()
        return plain if self.activation is None else f"{plain}, activation={self.activation}"


class Conv2d(torch.nn.Conv2d):
    """2-D convolution; see ``torch.nn.Conv2d``, and :func:`cisdl_ops.conv2d` for ``activation``.

    Every ``padding_mode`` is supported.
    """

    activation: str | None = None  # of a module that `accelerate` found
    negative_slope: float = 0.01

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: Any = "zeros",
        device: Any = None,
        dtype: Any = None,
        *,
        activation: str | None = None,
        negative_slope: float = 0.01,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode,
            device, dtype,
        )  # fmt: skip
        if activation is not None:
            functional.check_activation("Conv2d", activation)
            self.activation, self.negative_slope = activation, negative_slope

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return self.convolve(input, weight, bias, self.activation)

    def convolve(self, input: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None) -> Tensor:
        """The convolution of this module, with any activation."""
        padding: Any = self.padding
        if self.padding_mode != "zeros":
            sides = self._reversed_padding_repeated_twice
            input = torch.nn.functional.pad(input, sides, mode=self.padding_mode)
            padding = 0
        geometry: Any = (self.stride, padding, self.dilation, self.groups)
        if activation is None:
            return functional.conv2d(input, weight, bias, *geometry)
        return functional.conv2d(
            input, weight, bias, *geometry, activation=activation, negative_slope=self.negative_slope
        )

    def extra_repr(self) -> str:
        plain: str = super().extra_repr()  # type: ignore[no-untyped-call]
        return plain if self.activation is None else f"{plain}, activation={self.activation}"


class ConvTranspose2d(torch.nn.ConvTranspose2d):
    """Transposed 2-D convolution; see ``torch.nn.ConvTranspose2d``, ``output_size`` included."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        output_padding = self._output_padding(
            input,
            output_size,
            self.stride,  # type: ignore[arg-type]
            self.padding,  # type: ignore[arg-type]
            self.kernel_size,  # type: ignore[arg-type]
            2,
            self.dilation,  # type: ignore[arg-type]
        )
        return functional.conv_transpose2d(
            input,
            self.weight,
            self.bias,
            self.stride,
            self.padding,  # type: ignore[arg-type]
            output_padding,
            self.groups,
            self.dilation,
        )


class MaxPool2d(torch.nn.MaxPool2d):
    """Maximum over windows; see ``torch.nn.MaxPool2d``; ``activation`` is that of ``max_pool2d``."""

    activation: str | None = None  # of a module that `accelerate` found

    def __init__(self, *args: Any, activation: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if activation is not None:
            self.activation = activation

    def forward(self, input: Tensor) -> Any:
        options = {} if self.activation is None else {"activation": self.activation}
        return functional.max_pool2d(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            self.ceil_mode,
            self.return_indices,
            **options,
        )

    def extra_repr(self) -> str:
        plain = super().extra_repr()
        return plain if self.activation is None else f"{plain}, activation={self.activation}"


class AvgPool2d(torch.nn.AvgPool2d):
    """Mean over windows; see ``torch.nn.AvgPool2d``."""

    def forward(self, input: Tensor) -> Tensor:
        return functional.avg_pool2d(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
            self.divisor_override,
        )


class AdaptiveMaxPool2d(torch.nn.AdaptiveMaxPool2d):
    """Maximum over as many windows as asked for; see ``torch.nn.AdaptiveMaxPool2d``."""

    def forward(self, input: Tensor) -> Any:
        size: Any = self.output_size
        return functional.adaptive_max_pool2d(input, size, self.return_indices)


class AdaptiveAvgPool2d(torch.nn.AdaptiveAvgPool2d):
    """Mean over as many windows as asked for; see ``torch.nn.AdaptiveAvgPool2d``."""

    def forward(self, input: Tensor) -> Tensor:
        size: Any = self.output_size
        return functional.adaptive_avg_pool2d(input, size)


class CrossEntropyLoss(torch.nn.CrossEntropyLoss):
    """Softmax cross-entropy; see ``torch.nn.CrossEntropyLoss``.

    Classes for rows of scores are ours, on the CPU and, where the build has CUDA kernels, on a GPU; other
    targets, types and devices are left to torch.
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        ours = (
            input.dim() == 2
            and target.dim() == 1
            and target.dtype == torch.int64
            and input.dtype in (torch.float32, torch.float64)
            and input.shape[1] > 0
            and input.device.type in (("cpu", "meta", "cuda") if facts["cuda"] else ("cpu", "meta"))
        )
        if not ours:
            result: Tensor = super().forward(input, target)
            return result
        return functional.cross_entropy(
            input,
            target,
            self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )


class LazyLinear(torch.nn.LazyLinear, Linear):
    """A :class:`Linear` that learns ``in_features`` from its first input; see ``torch.nn.LazyLinear``."""

    cls_to_become = Linear


class LazyConv2d(torch.nn.LazyConv2d, Conv2d):  # type: ignore[misc]
    """A :class:`Conv2d` that learns ``in_channels`` from its first input; see ``torch.nn.LazyConv2d``."""

    cls_to_become = Conv2d


class LazyConvTranspose2d(torch.nn.LazyConvTranspose2d, ConvTranspose2d):  # type: ignore[misc]
    """A :class:`ConvTranspose2d` that learns ``in_channels`` from its first input."""

    cls_to_become = ConvTranspose2d
