"""Residual nets: the published ResNet-18 by its usual names, and a small one for small images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from fls_bench.models.images import ImageArguments, Norm, sized_image, with_channels
from fls_bench.models.inits import init_he, normal

Stem = Literal["imagenet", "small"]

LARGE = 24
"""From this size of image on, a stride of the stem leaves the three stages enough to see."""


class Resnet18Arguments(ImageArguments):
    """Arguments of ``resnet18``."""

    width: Annotated[int, Field(ge=1, le=4096)] = 64
    """Channels of the first stage; each of the three that follow doubles them."""
    stem: Stem = "small"
    """``imagenet``: 7x7 convolution of stride 2 and max pooling; ``small``: 3x3 of stride 1."""


class ResnetArguments(ImageArguments):
    """Arguments of ``resnet``."""

    blocks: Annotated[int, Field(ge=1, le=32)] = 1
    """Residual blocks in each of the three stages."""
    width: Annotated[int, Field(ge=1, le=4096)] = 16
    """Channels of the first stage; each of the two that follow doubles them."""
    stem_stride: Annotated[int, Field(ge=1, le=2)] = 1
    """2 takes a quarter of the time; the usual one for images of at least 24 x 24."""
    norm: Norm = "batch"


def _norm(norm: Norm, channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels) if norm == "batch" else nn.Identity()


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut, projected where the shape changes.

    Args:
        num_in: Channels of the input.
        num_out: Channels of the output.
        stride: Of the first convolution.
        norm: After each convolution.
    """

    def __init__(self, num_in: int, num_out: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(num_in, num_out, 3, stride, padding=1, bias=False)
        self.bn1 = _norm(norm, num_out)
        self.conv2 = nn.Conv2d(num_out, num_out, 3, padding=1, bias=False)
        self.bn2 = _norm(norm, num_out)
        self.downsample: nn.Module = nn.Identity()
        if stride > 1 or num_in != num_out:
            self.downsample = nn.Sequential(
                nn.Conv2d(num_in, num_out, 1, stride, bias=False), _norm(norm, num_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map [n, num_in, height, width] to [n, num_out, height/stride, width/stride]."""
        branch = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(branch + self.downsample(x))


class ResNet(nn.Module):
    """A stem, stages of residual blocks, the mean over the last map and a linear read-out.

    Parameters and buffers have the names of the published implementation in torchvision, so that
    its state dicts load: ``conv1``, ``bn1``, ``layer1.0.conv1``, ..., ``fc``.

    Args:
        channels: Of the images.
        n_outputs: Number of outputs.
        width: Channels of the first stage, doubled by each that follows.
        blocks: Number of blocks of each stage.
        stem: See ``Resnet18Arguments``.
        norm: After each convolution.
        stem_stride: Of the small stem.

    Source: He et al., "Deep Residual Learning for Image Recognition" (arXiv 1512.03385), table 1
    and section 4.2.
    """

    def __init__(
        self, channels: int, n_outputs: int, width: int, blocks: Sequence[int], stem: Stem,
        norm: Norm, stem_stride: int = 1,
    ) -> None:  # fmt: skip
        super().__init__()
        self.stem: Stem = stem
        size, stride = (7, 2) if stem == "imagenet" else (3, stem_stride)
        self.conv1 = nn.Conv2d(channels, width, size, stride, padding=size // 2, bias=False)
        self.bn1 = _norm(norm, width)
        self.num_stages = len(blocks)
        num_in = width
        for stage, num_blocks in enumerate(blocks):
            num_out = width * 2**stage
            strides = [2 if stage else 1] + [1] * (num_blocks - 1)
            parts = []
            for block_stride in strides:
                parts.append(Block(num_in, num_out, block_stride, norm))
                num_in = num_out
            self.add_module(f"layer{stage + 1}", nn.Sequential(*parts))
        self.fc = nn.Linear(num_in, n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [n, channels, height, width] or [n, height, width] to f(x) [n, n_outputs]."""
        x = torch.relu(self.bn1(self.conv1(with_channels(x))))
        if self.stem == "imagenet":
            x = functional.max_pool2d(x, 3, stride=2, padding=1)
        for stage in range(self.num_stages):
            x = self.get_submodule(f"layer{stage + 1}")(x)
        output: Tensor = self.fc(x.mean((2, 3)))
        return output


def make_resnet18(arguments: Resnet18Arguments) -> ResNet:
    """The net of checked arguments, weights as torch leaves them."""
    return ResNet(
        arguments.input_shape[0],
        arguments.n_outputs,
        arguments.width,
        (2, 2, 2, 2),
        arguments.stem,
        "batch",
    )


def make_resnet(arguments: ResnetArguments) -> ResNet:
    """The net of checked arguments, weights as torch leaves them."""
    return ResNet(
        arguments.input_shape[0],
        arguments.n_outputs,
        arguments.width,
        [arguments.blocks] * 3,
        "small",
        arguments.norm,
        arguments.stem_stride,
    )


def sized_resnet(input_shape: tuple[int, ...], n_outputs: int) -> dict[str, Any]:
    """As ``sized_image``, and the stride of the stem that is usual for images of this size."""
    sized = sized_image(input_shape, n_outputs)
    return {**sized, "stem_stride": 2 if min(sized["input_shape"][1:]) >= LARGE else 1}


def init_resnet18(net: ResNet, generator: torch.Generator) -> None:
    """Draw weights as users of torchvision have them.

    Convolutions are normal with variance 2/fan_out, which keeps the size of the gradient through
    ReLU; the read-out and its bias are uniform in ±1/sqrt(fan_in); norms are the identity.

    Source: He et al., "Delving Deep into Rectifiers" (arXiv 1502.01852), equation 14, for the
    convolutions.
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            num_out, _, height, width = module.weight.shape
            normal(module.weight, 2 / (num_out * height * width), generator)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
    bound = 1 / math.sqrt(net.fc.in_features)
    for parameter in (net.fc.weight, net.fc.bias):
        draw = torch.rand(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.copy_((2 * draw - 1) * bound)


def init_resnet(net: ResNet, generator: torch.Generator) -> None:
    """He's init; without normalisation the last layer of each branch starts 1/sqrt(L) as large.

    L is the number of residual blocks. Each adds the second moment of its branch to that of its
    input, and with He's init the branch has twice the input's: the sum would grow like 3^L. With
    1/sqrt(L) on every branch it grows at most by (1 + 2/L)^L < e^2, for any L. The factor is in
    the initial weights alone, so that the net itself has no hidden constant.

    Source: Hayou et al., "Stable ResNet" (arXiv 2010.12859), the uniform scaling.
    """
    init_he(net, generator)
    blocks = [module for module in net.modules() if isinstance(module, Block)]
    if any(isinstance(block.bn2, nn.Identity) for block in blocks):
        for block in blocks:
            block.conv2.weight.mul_(1 / math.sqrt(len(blocks)))
