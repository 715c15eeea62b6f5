"""Fully connected nets, and the balanced net of the two-layer theory."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer
from torch import Tensor, nn
from torch.nn import functional

from fls_bench.models.inits import init_he, init_torch
from fls_bench.schema import Frozen

Size = Annotated[int, Field(ge=1, le=1_000_000)]
Activation = Literal["relu", "tanh", "gelu"]
Init = Literal["lecun", "torch"]

ACTIVATIONS: Mapping[Activation, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "gelu": functional.gelu,
}


class MlpArguments(Frozen):
    """Arguments of ``mlp``."""

    input_dim: Size
    n_outputs: Annotated[int, Field(ge=1, le=100_000)]
    depth: Annotated[int, Field(ge=1, le=64)] = 4
    """Number of weight layers, the read-out counted."""
    width: Size = 128
    activation: Activation = "relu"
    bias: bool = False
    init: Init | None = None
    """None: He's; ``lecun``: normal with variance 1/fan_in; ``torch``: as ``torch.nn.Linear`` has
    it, weights and biases uniform in ±1/sqrt(fan_in)."""

    @model_serializer(mode="wrap")
    def _without_init(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Stored arguments of a net with He's init are as they were before there was a choice."""
        stored: dict[str, Any] = handler(self)
        if self.init is None:
            stored.pop("init", None)
        return stored


class TwoLayerArguments(Frozen):
    """Arguments of ``two_layer``, the balanced net of the two-layer theory."""

    input_dim: Size
    width: Size = 64
    n_outputs: Literal[1] = 1


class Mlp(nn.Module):
    """Fully connected net: ``depth`` weight layers, one activation between them, no normalisation.

    Args:
        sizes: Units per layer, input and output included: ``depth + 1`` numbers.
        activation: ``relu``, ``tanh`` or ``gelu`` (the exact one, z·Phi(z)).
        bias: Whether layers have biases (zero at init, but for the init ``torch``).
        init: As in ``MlpArguments``.
    """

    def __init__(
        self, sizes: tuple[int, ...], activation: Activation, bias: bool, init: Init | None = None
    ) -> None:
        super().__init__()
        self.activation: Activation = activation
        self.init: Init | None = init
        self.layers = nn.ModuleList(
            nn.Linear(fan_in, fan_out, bias=bias) for fan_in, fan_out in pairwise(sizes)
        )

    def forward(self, x: Tensor, hidden: list[Tensor] | None = None) -> Tensor:
        """Map inputs [n, ...] to f(x) [n, n_outputs].

        Args:
            x: The inputs.
            hidden: Gets the activations [n, width] of every hidden layer, in order.
        """
        x = x.flatten(1)
        for layer in self.layers[:-1]:
            x = ACTIVATIONS[self.activation](layer(x))
            if hidden is not None:
                hidden.append(x)
        output: Tensor = self.layers[-1](x)
        return output


def init_balanced(net: Mlp, generator: torch.Generator) -> None:
    """W entries N(0, 1/(d·h)) and v_j = ±|w_j| with equal probability (YHL section 5)."""
    hidden, readout = net.layers
    assert isinstance(hidden, nn.Linear)
    assert isinstance(readout, nn.Linear)
    width, input_dim = hidden.weight.shape
    draw = torch.randn((width, input_dim), generator=generator, dtype=torch.float64)
    weight = draw / math.sqrt(input_dim * width)
    signs = torch.randint(0, 2, (width,), generator=generator).double() * 2 - 1
    hidden.weight.copy_(weight)
    readout.weight.copy_((signs * weight.norm(dim=1)).unsqueeze(0))


def make_mlp(arguments: MlpArguments) -> Mlp:
    """The net of checked arguments, weights as torch leaves them."""
    sizes = (arguments.input_dim, *[arguments.width] * (arguments.depth - 1), arguments.n_outputs)
    return Mlp(sizes, arguments.activation, arguments.bias, arguments.init)


def make_two_layer(arguments: TwoLayerArguments) -> Mlp:
    """The net of checked arguments, weights as torch leaves them."""
    return Mlp((arguments.input_dim, arguments.width, arguments.n_outputs), "relu", False)


def init_mlp(net: Mlp, generator: torch.Generator) -> None:
    """He's init, gain 2 for ReLU and GELU and 1 for tanh; or the one that the arguments name."""
    if net.init == "torch":
        init_torch(net, generator)
    else:
        linear = net.init == "lecun" or net.activation == "tanh"
        init_he(net, generator, gain=1.0 if linear else 2.0)


def sized_flat(input_shape: tuple[int, ...], n_outputs: int) -> dict[str, Any]:
    """Arguments that follow from the data: every point is one flat vector."""
    return {"input_dim": math.prod(input_shape), "n_outputs": n_outputs}
