"""VGG-19 with the read-out that is usual for small images."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator
from torch import Tensor, nn

from fls_bench.models.images import ImageArguments, Norm, with_channels

STAGES = ((1, 2), (2, 2), (4, 4), (8, 4), (8, 4))
"""Of each stage, its channels in units of the width and its number of convolutions."""


class VggArguments(ImageArguments):
    """Arguments of ``vgg19``."""

    width: Annotated[int, Field(ge=1, le=4096)] = 64
    """Channels of the first stage; the four that follow have 2, 4, 8 and 8 times as many."""
    norm: Norm = "batch"
    """``batch`` is torchvision's ``vgg19_bn``, ``none`` its ``vgg19``."""

    @model_validator(mode="after")
    def _check_size(self) -> Self:
        height, width = self.input_shape[1:]
        # On maps of one pixel eight of the nine weights of a kernel see zeros: with one or two
        # stages of them less than a thousandth of the signal is left, and norms would restore it.
        if self.norm == "none" and min(height, width) <= 16:
            raise ValueError(
                f"images of {height} x {width} are too small without normalisation: the last "
                "convolutions would see one pixel; 17 x 17 is the least, or norm = batch"
            )
        return self


class Vgg(nn.Module):
    """Sixteen 3x3 convolutions in five stages that end in 2x2 max pooling, one linear read-out.

    The convolutions are the published ones, with biases and under torchvision's names:
    ``features.0``, ... The three fully connected layers after them are made for 224 x 224 pixels;
    here, as is usual for CIFAR, a single one, ``classifier``, reads the mean over the last map, which
    is one pixel for images of 32 x 32. Sides that are odd are rounded up in pooling, so that smaller
    images go through as well. Without normalisation the net is homogeneous of degree 17, a bias of
    layer l counting l. Its usual init is He's with fan_in: with torchvision's, fan_out, the signal
    would be a hundred times smaller at the read-out, where a bias adds to it.

    Args:
        arguments: See ``VggArguments``.

    Source: Simonyan and Zisserman, "Very deep convolutional networks for large-scale image
    recognition" (arXiv 1409.1556), table 1, configuration E.
    """

    def __init__(self, arguments: VggArguments) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        num_in = arguments.input_shape[0]
        for factor, num_convs in STAGES:
            num_out = factor * arguments.width
            for _ in range(num_convs):
                layers.append(nn.Conv2d(num_in, num_out, 3, padding=1))
                if arguments.norm == "batch":
                    layers.append(nn.BatchNorm2d(num_out))
                layers.append(nn.ReLU())
                num_in = num_out
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(num_in, arguments.n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [n, channels, height, width] or [n, height, width] to f(x) [n, n_outputs]."""
        output: Tensor = self.classifier(self.features(with_channels(x)).mean((2, 3)))
        return output
