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


def uniform(tensor: Tensor, bound: float, generator: torch.Generator) -> None:
    """Fill a tensor with independent numbers, uniform in ±bound.

    Args:
        tensor: Any shape; overwritten.
        bound: >= 0.
        generator: Drawn from.
    """
    draw = torch.rand(tensor.shape, generator=generator, dtype=torch.float64)
    tensor.copy_((2 * draw - 1) * bound)


def init_torch(net: nn.Module, generator: torch.Generator) -> None:
    """Weights and biases uniform in ±1/sqrt(fan_in), as ``torch.nn.Linear`` leaves them.

    Args:
        net: Its linear layers are filled in the order of their names.
        generator: Drawn from.
    """
    for module in net.modules():
        if isinstance(module, nn.Linear):
            for parameter in module.parameters(recurse=False):
                uniform(parameter, 1 / math.sqrt(module.in_features), generator)


def init_torchvision(net: nn.Module, generator: torch.Generator) -> None:
    """Draw the weights of a convolutional net as users of torchvision have them.

    Convolutions are normal with variance 2/fan_out, which keeps the size of the gradient through
    ReLU; a linear layer and its bias are uniform in ±1/sqrt(fan_in), as torch leaves them; norms
    are the identity.

    Args:
        net: Its convolutions, without biases, and linear layers are filled in the order of their
            names.
        generator: Drawn from.

    Source: He et al., "Delving Deep into Rectifiers" (arXiv 1502.01852), equation 14, for the
    convolutions.
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            num_out, _, height, width = module.weight.shape
            normal(module.weight, 2 / (num_out * height * width), generator)
        elif isinstance(module, nn.Linear):
            init_torch(module, generator)
        elif isinstance(module, NORMS):
            module.reset_parameters()
