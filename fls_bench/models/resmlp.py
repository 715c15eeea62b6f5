"""A residual net of fully connected layers."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from fls_bench.models.inits import init_he
from fls_bench.models.mlp import Size
from fls_bench.schema import Frozen

Norm = Literal["none", "layer"]


class ResmlpArguments(Frozen):
    """Arguments of ``resmlp``."""

    input_dim: Size
    n_outputs: Annotated[int, Field(ge=1, le=100_000)]
    width: Size = 128
    """Units of every hidden layer."""
    blocks: Annotated[int, Field(ge=1, le=32)] = 2
    """Residual blocks, of two weight layers each."""
    norm: Norm = "layer"


def _norm(arguments: ResmlpArguments) -> nn.Module:
    return nn.LayerNorm(arguments.width) if arguments.norm == "layer" else nn.Identity()


class Block(nn.Module):
    """Two layers with a ReLU between them, which see their input normalised and add to it.

    Args:
        arguments: See ``ResmlpArguments``.
    """

    def __init__(self, arguments: ResmlpArguments) -> None:
        super().__init__()
        self.norm = _norm(arguments)
        self.hidden = nn.Linear(arguments.width, arguments.width, bias=False)
        self.out = nn.Linear(arguments.width, arguments.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map [n, width] to [n, width]."""
        output: Tensor = x + self.out(torch.relu(self.hidden(self.norm(x))))
        return output


class Resmlp(nn.Module):
    """A linear layer, blocks, a last normalisation, a linear read-out; biases in the norms alone.

    Args:
        arguments: See ``ResmlpArguments``.
    """

    def __init__(self, arguments: ResmlpArguments) -> None:
        super().__init__()
        self.embed = nn.Linear(arguments.input_dim, arguments.width, bias=False)
        self.blocks = nn.Sequential(*(Block(arguments) for _ in range(arguments.blocks)))
        self.norm = _norm(arguments)
        self.readout = nn.Linear(arguments.width, arguments.n_outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs [n, ...] to f(x) [n, n_outputs]."""
        output: Tensor = self.readout(self.norm(self.blocks(self.embed(x.flatten(1)))))
        return output


def init_resmlp(net: Resmlp, generator: torch.Generator) -> None:
    """He's init; without normalisation the last layer of each branch starts 1/sqrt(L) as large.

    L is the number of blocks; why, ``resnet.init_resnet`` says.

    Source: Hayou et al., "Stable ResNet" (arXiv 2010.12859), the uniform scaling.
    """
    init_he(net, generator)
    if isinstance(net.norm, nn.Identity):
        for block in net.blocks:
            assert isinstance(block, Block)
            block.out.weight.mul_(1 / math.sqrt(len(net.blocks)))
