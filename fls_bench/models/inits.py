"""Initial weights, drawn in float64 from a generator of their own."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

NORMS = (nn.BatchNorm2d, nn.LayerNorm)


def normal(tensor: Tensor, variance: float, generator: torch.Generator) -> None:
    """Fill a tensor with independent normal numbers.

    Args:
        tensor: Any shape; overwritten.
        variance: Of each entry, >= 0.
        generator: Drawn from.
    """
    draw = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
    tensor.copy_(draw * math.sqrt(variance))


def fan_in(layer: nn.Linear | nn.Conv2d) -> int:
    """How many numbers each output of a linear or convolutional layer is a sum over."""
    return layer.weight[0].numel()


def init_he(net: nn.Module, generator: torch.Generator, gain: float = 2.0) -> None:
    """Normal weights with variance gain/fan_in, zero biases, norms that start as they are defined.

    The read-out has the same gain as the layers before it.

    Args:
        net: Its linear and convolutional layers are filled in the order of their names.
        generator: Drawn from.
        gain: 2 keeps the size of the signal through ReLU, 1 through a linear layer.

    Source: He et al., "Delving Deep into Rectifiers" (arXiv 1502.01852), equation 10.
    """
    for module in net.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            normal(module.weight, gain / fan_in(module), generator)
            if module.bias is not None:
                module.bias.zero_()
        elif isinstance(module, NORMS):
            module.reset_parameters()
