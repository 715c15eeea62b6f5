"""A plain convolutional net for small images."""

from __future__ import annotations

from typing import Annotated, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from fls_bench.models.images import ImageArguments, Norm, with_channels

GRID = 4
"""The last map is averaged to at most this many cells a side, so that the read-out of large images
is not most of the net."""


class CnnArguments(ImageArguments):
    """Arguments of ``cnn``."""

    depth: Annotated[int, Field(ge=2, le=64)] = 4
    """Number of convolutions; with the read-out there are ``depth + 1`` weight layers."""
    width: Annotated[int, Field(ge=1, le=4096)] = 16
    """Channels of the first half of the convolutions; the second half has twice as many."""
    norm: Norm = "none"
    bias: bool = False

    @model_validator(mode="after")
    def _check_size(self) -> Self:
        height, width = self.input_shape[1:]
        if min(height, width) < 4:
            raise ValueError(
                f"images of {height} x {width} are too small for two poolings; 4 x 4 is the least"
            )
        return self


class Cnn(nn.Module):
    """3x3 convolutions in two halves of equal width, a linear read-out of a small grid.

    Each convolution is followed by its normalisation, if any, and a ReLU; the first of each half
    also by 2x2 max pooling, early since most of the cost lies in the largest maps. Without
    normalisation and biases, f(alpha·W) = alpha^(depth + 1)·f(W) exactly.

    Args:
        arguments: See ``CnnArguments``.
    """

    def __init__(self, arguments: CnnArguments) -> None:
        super().__init__()
        channels, height, width = arguments.input_shape
        first = (arguments.depth + 1) // 2
        self.pooled = (0, first)
        widths = [arguments.width] * first + [2 * arguments.width] * (arguments.depth - first)
        self.convs = nn.ModuleList(
            nn.Conv2d(num_in, num_out, 3, padding=1, bias=arguments.bias)
            for num_in, num_out in zip([channels, *widths[:-1]], widths, strict=True)
        )
        self.norms = nn.ModuleList(
            nn.BatchNorm2d(num) if arguments.norm == "batch" else nn.Identity() for num in widths
        )
        self.grid = (min(GRID, height // 4), min(GRID, width // 4))
        features = widths[-1] * self.grid[0] * self.grid[1]
        self.readout = nn.Linear(features, arguments.n_outputs, bias=arguments.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [n, channels, height, width] or [n, height, width] to f(x) [n, n_outputs]."""
        x = with_channels(x)
        for k, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = torch.relu(norm(conv(x)))
            if k in self.pooled:
                x = functional.max_pool2d(x, 2)
        x = functional.adaptive_avg_pool2d(x, self.grid)
        output: Tensor = self.readout(x.flatten(1))
        return output
