"""Residual nets: published ones by their usual names, and a small one for small images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from fls_bench.models.images import ImageArguments, Norm, sized_image, with_channels
from fls_bench.models.inits import init_he

Stem = Literal["imagenet", "small"]

LARGE = 24
"""From this size of image on, a stride of the stem leaves the three stages enough to see."""


class PublishedArguments(ImageArguments):
    """Arguments of ``resnet18``, ``resnet34`` and ``resnet50``."""

    width: Annotated[int, Field(ge=1, le=4096)] = 64
    """Channels of the stem and of the 3x3 convolutions of the first stage; each of the three stages
    that follow doubles them."""
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


def _shortcut(num_in: int, num_out: int, stride: int, norm: Norm) -> nn.Module:
    """What stands beside the branch of a block: a projection where the shape changes."""
    if stride == 1 and num_in == num_out:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(num_in, num_out, 1, stride, bias=False), _norm(norm, num_out))


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut, projected where the shape changes.

    Args:
        num_in: Channels of the input.
        num_out: Channels of the output.
        stride: Of the first convolution.
        norm: After each convolution.
    """

    expansion = 1

    def __init__(self, num_in: int, num_out: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(num_in, num_out, 3, stride, padding=1, bias=False)
        self.bn1 = _norm(norm, num_out)
        self.conv2 = nn.Conv2d(num_out, num_out, 3, padding=1, bias=False)
        self.bn2 = _norm(norm, num_out)
        self.downsample = _shortcut(num_in, num_out, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        """Map [n, num_in, height, width] to [n, num_out, height/stride, width/stride]."""
        branch = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(branch + self.downsample(x))


class Bottleneck(nn.Module):
    """Convolutions of 1x1, 3x3 and 1x1 beside a shortcut, projected where the shape changes.

    The stride is that of the 3x3 convolution, as in torchvision's; the paper has it in the first.

    Args:
        num_in: Channels of the input.
        num_mid: Channels of the 3x3 convolution; the output has four times as many.
        stride: Of the 3x3 convolution.
        norm: After each convolution.
    """

    expansion = 4

    def __init__(self, num_in: int, num_mid: int, stride: int, norm: Norm) -> None:
        super().__init__()
        num_out = self.expansion * num_mid
        self.conv1 = nn.Conv2d(num_in, num_mid, 1, bias=False)
        self.bn1 = _norm(norm, num_mid)
        self.conv2 = nn.Conv2d(num_mid, num_mid, 3, stride, padding=1, bias=False)
        self.bn2 = _norm(norm, num_mid)
        self.conv3 = nn.Conv2d(num_mid, num_out, 1, bias=False)
        self.bn3 = _norm(norm, num_out)
        self.downsample = _shortcut(num_in, num_out, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        """Map [n, num_in, height, width] to [n, 4·num_mid, height/stride, width/stride]."""
        branch = torch.relu(self.bn1(self.conv1(x)))
        branch = torch.relu(self.bn2(self.conv2(branch)))
        branch = self.bn3(self.conv3(branch))
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
        stem: See ``PublishedArguments``.
        norm: After each convolution.
        stem_stride: Of the small stem.
        block: What the stages are made of.

    Source: He et al., "Deep Residual Learning for Image Recognition" (arXiv 1512.03385), table 1
    and section 4.2.
    """

    def __init__(
        self, channels: int, n_outputs: int, width: int, blocks: Sequence[int], stem: Stem,
        norm: Norm, stem_stride: int = 1, block: type[Block | Bottleneck] = Block,
    ) -> None:  # fmt: skip
        super().__init__()
        self.stem: Stem = stem
        size, stride = (7, 2) if stem == "imagenet" else (3, stem_stride)
        self.conv1 = nn.Conv2d(channels, width, size, stride, padding=size // 2, bias=False)
        self.bn1 = _norm(norm, width)
        self.num_stages = len(blocks)
        num_in = width
        for stage, num_blocks in enumerate(blocks):
            width_here = width * 2**stage
            strides = [2 if stage else 1] + [1] * (num_blocks - 1)
            parts = []
            for block_stride in strides:
                parts.append(block(num_in, width_here, block_stride, norm))
                num_in = block.expansion * width_here
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


def _published(
    blocks: Sequence[int], block: type[Block | Bottleneck]
) -> Callable[[PublishedArguments], ResNet]:
    def make(arguments: PublishedArguments) -> ResNet:
        return ResNet(
            arguments.input_shape[0],
            arguments.n_outputs,
            arguments.width,
            blocks,
            arguments.stem,
            "batch",
            block=block,
        )

    return make


make_resnet18 = _published((2, 2, 2, 2), Block)
make_resnet34 = _published((3, 4, 6, 3), Block)
make_resnet50 = _published((3, 4, 6, 3), Bottleneck)


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
