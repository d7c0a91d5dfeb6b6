"""The layers of well-known networks, each once: what `cisdl bench` holds against torch, network by network.

Names are ``<network>_<layer>_b<batch>``; :func:`network_of` reads the network back. Shapes are those of
224 x 224 images unless the network says otherwise. A layer that a network repeats with the same shape
appears once; an activation is torch's on both sides and is no case.
"""

from __future__ import annotations

from collections.abc import Iterator

from cisdl_ops.cases.build import adaptive_pool, conv2d, conv_transpose2d, linear, pool
from cisdl_ops.cases.table import Case

NETWORKS = ("lenet", "alexnet", "vgg16", "resnet18", "squeezenet", "mobilenet", "unet", "dcgan")


def network_of(case_name: str) -> str | None:
    """The network that a bench case is a layer of.

    >>> network_of("vgg16_conv1_1_b2")
    'vgg16'
    """
    prefix = case_name.split("_", 1)[0]
    return prefix if prefix in NETWORKS else None


def network_cases() -> Iterator[Case]:
    yield from _lenet()
    yield from _alexnet()
    yield from _vgg16()
    yield from _resnet18()
    yield from _squeezenet()
    yield from _mobilenet()
    yield from _unet()
    yield from _dcgan()


def _lenet() -> Iterator[Case]:
    """LeNet-5 on 28 x 28 pixels (LeCun et al. 1998); the paper's pooling averages, today's takes maxima."""
    yield conv2d("bench quick first", "lenet_conv1_b64", (64, 1, 28, 28), (6, 1, 5, 5), padding=2)
    yield conv2d("bench quick", "lenet_conv2_b64", (64, 6, 14, 14), (16, 6, 5, 5))
    for op in ("max_pool2d", "avg_pool2d"):
        yield pool(op, "bench quick", "lenet_pool1_b64", (64, 6, 28, 28), 2)
        yield pool(op, "bench", "lenet_pool2_b64", (64, 16, 10, 10), 2)
    yield linear("bench quick", "lenet_fc1_b64", (64, 400), 120)
    yield linear("bench", "lenet_fc2_b64", (64, 120), 84)
    yield linear("bench", "lenet_fc3_b64", (64, 84), 10)


def _alexnet() -> Iterator[Case]:
    """AlexNet in its one-tower form (Krizhevsky 2014, arXiv:1404.5997), as torchvision has it."""
    yield conv2d(
        "bench quick first", "alexnet_conv1_b16", (16, 3, 224, 224), (64, 3, 11, 11), stride=4, padding=2
    )
    yield conv2d("bench", "alexnet_conv2_b16", (16, 64, 27, 27), (192, 64, 5, 5), padding=2)
    yield conv2d("bench", "alexnet_conv3_b16", (16, 192, 13, 13), (384, 192, 3, 3), padding=1)
    yield conv2d("bench", "alexnet_conv4_b16", (16, 384, 13, 13), (256, 384, 3, 3), padding=1)
    yield conv2d("bench", "alexnet_conv5_b16", (16, 256, 13, 13), (256, 256, 3, 3), padding=1)
    yield pool("max_pool2d", "bench quick", "alexnet_pool1_b16", (16, 64, 55, 55), 3, stride=2)
    yield pool("max_pool2d", "bench", "alexnet_pool2_b16", (16, 192, 27, 27), 3, stride=2)
    yield pool("max_pool2d", "bench", "alexnet_pool5_b16", (16, 256, 13, 13), 3, stride=2)
    yield adaptive_pool("adaptive_avg_pool2d", "bench", "alexnet_avgpool_b16", (16, 256, 13, 13), 6)
    yield linear("bench", "alexnet_fc6_b16", (16, 9216), 4096)
    yield linear("bench", "alexnet_fc7_b16", (16, 4096), 4096)
    yield linear("bench", "alexnet_fc8_b16", (16, 4096), 1000)


def _vgg16() -> Iterator[Case]:
    """VGG-16, configuration D (Simonyan and Zisserman 2015, arXiv:1409.1556)."""
    sizes = (224, 112, 56, 28, 14)
    channels = 3
    for block, (size, width) in enumerate(zip(sizes, (64, 128, 256, 512, 512), strict=True), 1):
        shapes = {"1": channels, "2": width} if channels != width else {"1": width}
        for layer, inputs in shapes.items():
            first = " first" if inputs == 3 else ""
            yield conv2d(
                f"bench{first}",
                f"vgg16_conv{block}_{layer}_b2",
                (2, inputs, size, size),
                (width, inputs, 3, 3),
                padding=1,
            )
        yield pool("max_pool2d", "bench", f"vgg16_pool{block}_b2", (2, width, size, size), 2)
        channels = width
    yield adaptive_pool("adaptive_avg_pool2d", "bench", "vgg16_avgpool_b2", (2, 512, 7, 7), 7)
    yield linear("bench", "vgg16_fc6_b2", (2, 25088), 4096)


def _resnet18() -> Iterator[Case]:
    """ResNet-18 (He et al. 2015, arXiv:1512.03385)."""
    yield conv2d(
        "bench first",
        "resnet18_conv1_b8",
        (8, 3, 224, 224),
        (64, 3, 7, 7),
        bias=False,
        stride=2,
        padding=3,
    )
    yield pool("max_pool2d", "bench", "resnet18_maxpool_b8", (8, 64, 112, 112), 3, stride=2, padding=1)
    inputs, size = 64, 56
    for stage, width in enumerate((64, 128, 256, 512), 1):
        shape = (8, inputs, size, size)
        if inputs != width:
            yield conv2d(
                "bench",
                f"resnet18_layer{stage}_conv1_b8",
                shape,
                (width, inputs, 3, 3),
                bias=False,
                stride=2,
                padding=1,
            )
            yield conv2d(
                "bench",
                f"resnet18_layer{stage}_downsample_b8",
                shape,
                (width, inputs, 1, 1),
                bias=False,
                stride=2,
            )
            size //= 2
        quick = " quick" if width == 128 else ""
        yield conv2d(
            f"bench{quick}",
            f"resnet18_layer{stage}_conv2_b8",
            (8, width, size, size),
            (width, width, 3, 3),
            bias=False,
            padding=1,
        )
        inputs = width
    yield adaptive_pool("adaptive_avg_pool2d", "bench quick", "resnet18_avgpool_b8", (8, 512, 7, 7), 1)
    yield linear("bench", "resnet18_fc_b8", (8, 512), 1000)


def _squeezenet() -> Iterator[Case]:
    """SqueezeNet 1.1 (Iandola et al. 2016, arXiv:1602.07360): squeeze, then expand by 1x1 and 3x3."""
    yield conv2d("bench first", "squeezenet_conv1_b8", (8, 3, 224, 224), (64, 3, 3, 3), stride=2)
    for name, channels, size in (("pool1", 64, 111), ("pool3", 128, 55), ("pool5", 256, 27)):
        yield pool(
            "max_pool2d",
            "bench",
            f"squeezenet_{name}_b8",
            (8, channels, size, size),
            3,
            stride=2,
            ceil_mode=True,
        )
    for fire, inputs, squeeze, expand, size in (
        (2, 64, 16, 64, 55),
        (3, 128, 16, 64, 55),
        (4, 128, 32, 128, 27),
        (5, 256, 32, 128, 27),
        (6, 256, 48, 192, 13),
        (7, 384, 48, 192, 13),
        (8, 384, 64, 256, 13),
        (9, 512, 64, 256, 13),
    ):
        name = f"squeezenet_fire{fire}"
        yield conv2d("bench", f"{name}_squeeze_b8", (8, inputs, size, size), (squeeze, inputs, 1, 1))
        if fire % 2 == 0:
            shape = (8, squeeze, size, size)
            yield conv2d("bench", f"{name}_expand1x1_b8", shape, (expand, squeeze, 1, 1))
            yield conv2d("bench", f"{name}_expand3x3_b8", shape, (expand, squeeze, 3, 3), padding=1)
    yield conv2d("bench", "squeezenet_conv10_b8", (8, 512, 13, 13), (1000, 512, 1, 1))
    yield adaptive_pool("adaptive_avg_pool2d", "bench", "squeezenet_avgpool_b8", (8, 1000, 13, 13), 1)


def _mobilenet() -> Iterator[Case]:
    """MobileNet (Howard et al. 2017, arXiv:1704.04861): a depthwise 3x3 and a pointwise 1x1 in turn."""
    yield conv2d(
        "bench first",
        "mobilenet_conv1_b8",
        (8, 3, 224, 224),
        (32, 3, 3, 3),
        bias=False,
        stride=2,
        padding=1,
    )
    size = 112
    for inputs, outputs, stride in (
        (32, 64, 1),
        (64, 128, 2),
        (128, 128, 1),
        (128, 256, 2),
        (256, 256, 1),
        (256, 512, 2),
        (512, 512, 1),
        (512, 1024, 2),
        (1024, 1024, 1),
    ):
        yield conv2d(
            "bench",
            f"mobilenet_dw{inputs}_{size}_s{stride}_b8",
            (8, inputs, size, size),
            (inputs, 1, 3, 3),
            bias=False,
            stride=stride,
            padding=1,
            groups=inputs,
        )
        size //= stride
        yield conv2d(
            "bench",
            f"mobilenet_pw{inputs}_{outputs}_{size}_b8",
            (8, inputs, size, size),
            (outputs, inputs, 1, 1),
            bias=False,
        )
    yield adaptive_pool("adaptive_avg_pool2d", "bench", "mobilenet_avgpool_b8", (8, 1024, 7, 7), 1)
    yield linear("bench", "mobilenet_fc_b8", (8, 1024), 1000)


def _unet() -> Iterator[Case]:
    """U-Net (Ronneberger et al. 2015, arXiv:1505.04597) on 128 x 128 pixels, with today's padding of 1."""
    widths, sizes = (64, 128, 256, 512), (128, 64, 32, 16)
    inputs = 1
    for level, (width, size) in enumerate(zip(widths, sizes, strict=True), 1):
        first = " first" if inputs == 1 else ""
        for layer, channels in (("conv1", inputs), ("conv2", width)):
            yield conv2d(
                f"bench{first if layer == 'conv1' else ''}",
                f"unet_down{level}_{layer}_b4",
                (4, channels, size, size),
                (width, channels, 3, 3),
                padding=1,
            )
        if width < 512:
            yield pool("max_pool2d", "bench", f"unet_pool{level}_b4", (4, width, size, size), 2)
        inputs = width
    for level, (width, size) in enumerate(zip(widths[:-1], sizes[:-1], strict=True), 1):
        yield conv_transpose2d(
            "bench",
            f"unet_up{level}_b4",
            (4, 2 * width, size // 2, size // 2),
            (2 * width, width, 2, 2),
            stride=2,
        )
        yield conv2d(
            "bench",
            f"unet_up{level}_conv1_b4",
            (4, 2 * width, size, size),
            (width, 2 * width, 3, 3),
            padding=1,
        )
    yield conv2d("bench", "unet_output_b4", (4, 64, 128, 128), (2, 64, 1, 1))


def _dcgan() -> Iterator[Case]:
    """DCGAN (Radford et al. 2016, arXiv:1511.06434) on 64 x 64 pixels: generator g, discriminator d.

    The discriminator's first layer is no ``first``: the generator learns through its input's gradient.
    """
    yield conv_transpose2d("bench first", "dcgan_g1_b64", (64, 100, 1, 1), (100, 512, 4, 4), bias=False)
    for layer, inputs, outputs, size in (
        (2, 512, 256, 4),
        (3, 256, 128, 8),
        (4, 128, 64, 16),
        (5, 64, 3, 32),
    ):
        quick = " quick" if layer == 3 else ""
        yield conv_transpose2d(
            f"bench{quick}",
            f"dcgan_g{layer}_b64",
            (64, inputs, size, size),
            (inputs, outputs, 4, 4),
            bias=False,
            stride=2,
            padding=1,
        )
    for layer, inputs, outputs, size in (
        (1, 3, 64, 64),
        (2, 64, 128, 32),
        (3, 128, 256, 16),
        (4, 256, 512, 8),
    ):
        yield conv2d(
            "bench",
            f"dcgan_d{layer}_b64",
            (64, inputs, size, size),
            (outputs, inputs, 4, 4),
            bias=False,
            stride=2,
            padding=1,
        )
    yield conv2d("bench", "dcgan_d5_b64", (64, 512, 4, 4), (1, 512, 4, 4), bias=False)
