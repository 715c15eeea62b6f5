"""Nets by name: what a model file may name, built from checked arguments.

A net here computes f(x) alone: the output multiplier c and the centering are put around it by
``fls_bench.training``, so that every net is treated alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, ValidationError
from torch import Tensor, nn
from torch.func import functional_call

from fls_bench.errors import InputError
from fls_bench.schema import Frozen

MAX_PARAMETERS = 50_000_000

Size = Annotated[int, Field(ge=1, le=1_000_000)]
Activation = Literal["relu", "tanh"]


class MlpArguments(Frozen):
    """Arguments of ``mlp``."""

    input_dim: Size
    n_outputs: Annotated[int, Field(ge=1, le=100_000)]
    depth: Annotated[int, Field(ge=1, le=64)] = 4
    """Number of weight layers, the read-out counted."""
    width: Size = 128
    activation: Activation = "relu"
    bias: bool = False


class TwoLayerArguments(Frozen):
    """Arguments of ``two_layer``, the balanced net of the two-layer theory."""

    input_dim: Size
    width: Size = 64
    n_outputs: Literal[1] = 1


class Mlp(nn.Module):
    """Fully connected net: ``depth`` weight layers, one activation between them, no normalisation.

    Args:
        sizes: Units per layer, input and output included: ``depth + 1`` numbers.
        activation: ``relu`` or ``tanh``.
        bias: Whether layers have biases (zero at init).
    """

    def __init__(self, sizes: tuple[int, ...], activation: Activation, bias: bool) -> None:
        super().__init__()
        self.activation: Activation = activation
        self.layers = nn.ModuleList(
            nn.Linear(fan_in, fan_out, bias=bias) for fan_in, fan_out in pairwise(sizes)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs [n, ...] to f(x) [n, n_outputs]."""
        x = x.flatten(1)
        for layer in self.layers[:-1]:
            x = torch.relu(layer(x)) if self.activation == "relu" else torch.tanh(layer(x))
        output: Tensor = self.layers[-1](x)
        return output


def _init_he(net: Mlp, generator: torch.Generator) -> None:
    """Normal weights with variance gain/fan_in: gain 2 for ReLU (He et al. 2015), 1 for tanh."""
    gain = 2.0 if net.activation == "relu" else 1.0
    for layer in net.layers:
        assert isinstance(layer, nn.Linear)
        draw = torch.randn(layer.weight.shape, generator=generator, dtype=torch.float64)
        layer.weight.copy_(draw * math.sqrt(gain / layer.in_features))
        if layer.bias is not None:
            layer.bias.zero_()


def _init_balanced(net: Mlp, generator: torch.Generator) -> None:
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


@dataclass(frozen=True)
class Architecture:
    """One row of the table of built-in nets."""

    arguments: type[MlpArguments] | type[TwoLayerArguments]
    sizes: Callable[[Any], tuple[int, ...]]
    init: Callable[[Mlp, torch.Generator], None]
    summary: str


ARCHITECTURES: Mapping[str, Architecture] = {
    "mlp": Architecture(
        MlpArguments,
        lambda a: (a.input_dim, *[a.width] * (a.depth - 1), a.n_outputs),
        _init_he,
        "fully connected net, He init, biases off by default",
    ),
    "two_layer": Architecture(
        TwoLayerArguments,
        lambda a: (a.input_dim, a.width, 1),
        _init_balanced,
        "balanced two-layer ReLU net with one logit (YHL section 5)",
    ),
}


def check_arguments(name: str, arguments: Mapping[str, Any]) -> MlpArguments | TwoLayerArguments:
    """Validate the arguments of a built-in net, with upper bounds, before anything is built.

    Args:
        name: A key of ``ARCHITECTURES``.
        arguments: Plain values.

    Returns:
        The checked arguments.

    Raises:
        InputError: Unknown name, unknown or missing argument, value out of range, too many weights.
    """
    if name not in ARCHITECTURES:
        raise InputError(
            f"There is no built-in net named {name[:60]!r}.",
            f"Built-in nets are {', '.join(ARCHITECTURES)}; for your own give "
            "--model package.module:builder or --setup package.module:setup.",
        )
    row = ARCHITECTURES[name]
    try:
        checked = row.arguments.model_validate(dict(arguments))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "arguments"
        raise InputError(
            f"The net {name!r} can't be built: {place}: {first['msg']}.",
            f"Its arguments are {', '.join(row.arguments.model_fields)}.",
        ) from None
    sizes = row.sizes(checked)
    total = sum(a * b for a, b in pairwise(sizes))
    if total > MAX_PARAMETERS:
        raise InputError(
            f"The net {name!r} would have {total:,} weights; the limit is {MAX_PARAMETERS:,}.",
            "Choose a smaller width or depth.",
        )
    return checked


def _empty(name: str, arguments: Mapping[str, Any]) -> Mlp:
    checked = check_arguments(name, arguments)
    return Mlp(
        ARCHITECTURES[name].sizes(checked),
        getattr(checked, "activation", "relu"),
        getattr(checked, "bias", False),
    )


def build(
    name: str,
    arguments: Mapping[str, Any],
    *,
    seed: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> Mlp:
    """Build a built-in net with freshly drawn weights.

    Weights are drawn in float64 from their own generator, so that a seed means the same net in
    every precision and the global random state stays untouched.

    Args:
        name: A key of ``ARCHITECTURES``.
        arguments: Plain values; see ``check_arguments``.
        seed: Seed of the weights; None draws one from torch's global state.
        dtype: Floating type of the parameters.

    Returns:
        The net; it computes f(x) [n, n_outputs], without multiplier.

    Raises:
        InputError: As ``check_arguments``.
    """
    generator = torch.Generator()
    if seed is None:
        seed = int(torch.randint(0, 2**31, ()))
    generator.manual_seed(seed)
    with torch.device("meta"):
        net = _empty(name, arguments)
    net = net.to_empty(device="cpu").double()
    with torch.no_grad():
        ARCHITECTURES[name].init(net, generator)
    return net.to(dtype)


def state_shapes(name: str, arguments: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the parameters of a built-in net, without allocating them.

    Args:
        name: A key of ``ARCHITECTURES``.
        arguments: Plain values.

    Returns:
        Parameter name -> shape.

    Raises:
        InputError: As ``check_arguments``.
    """
    with torch.device("meta"):
        net = _empty(name, arguments)
    return {key: tuple(value.shape) for key, value in net.state_dict().items()}


WEIGHT_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@torch.no_grad()
def named_features(net: nn.Module, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Run a net and keep its hidden features.

    A feature is what a weight layer hands to the next one: the input of each linear or
    convolutional layer but the first, flattened, under the name of the layer before it. Inputs that
    are not one row per sample (a layer inside a module may act on something else) are left out.

    Args:
        net: Any module, left in the mode that it is in.
        x: Inputs [n, ...].

    Returns:
        (layer name -> [n, width] in the order of execution, output [n, K]).
    """
    names = {module: name for name, module in net.named_modules()}
    seen: list[tuple[str, Tensor | None]] = []

    def keep(module: nn.Module, args: tuple[Any, ...]) -> None:
        value = args[0].detach() if args and isinstance(args[0], Tensor) else None
        per_sample = value is not None and value.ndim > 1 and len(value) == len(x)
        seen.append((names[module], value.flatten(1) if value is not None and per_sample else None))

    handles = [
        module.register_forward_pre_hook(keep)
        for module in net.modules()
        if isinstance(module, WEIGHT_LAYERS)
    ]
    try:
        output: Tensor = net(x)
    finally:
        for handle in handles:
            handle.remove()
    features = {
        previous: value for (previous, _), (_, value) in pairwise(seen) if value is not None
    }
    return features, output


def weight_matrices(net: nn.Module) -> dict[str, Tensor]:
    """Weights of the linear and convolutional layers as matrices [out, in], by layer name."""
    return {
        name: module.weight.detach().flatten(1)
        for name, module in net.named_modules()
        if isinstance(module, WEIGHT_LAYERS)
    }


@torch.no_grad()
def homogeneity_degree(net: nn.Module, x: Tensor) -> int | None:
    """Measure whether f(alpha·W) = alpha^L f(W) for some whole L, parameters slightly disturbed.

    The disturbance matters: biases that are zero at init would hide that a net with biases is not
    homogeneous. Checked in float64 at two alphas, in training and in evaluation mode: a fresh
    BatchNorm without scale and shift is the identity in the one and a normalisation in the other.

    Args:
        net: Any module; it is left as it is, and so is torch's global random state.
        x: A few inputs [n, ...].

    Returns:
        L, or None where the net is not homogeneous or has no parameters.
    """
    generator = torch.Generator().manual_seed(0)
    disturbed: dict[str, Tensor] = {}
    for name, parameter in net.named_parameters():
        p = parameter.double()
        spread = (p.std() if p.numel() > 1 else p.abs()).nan_to_num().clamp_min(1e-2)
        draw = torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p.device)
        disturbed[name] = p + 0.1 * spread * draw
    buffers = dict(net.named_buffers())
    modes = {module: module.training for module in net.modules()}

    def output(alpha: float) -> Tensor:
        state = {name: alpha * value for name, value in disturbed.items()}
        for name, value in buffers.items():
            wanted = torch.float64 if value.is_floating_point() else value.dtype
            state[name] = value.to(wanted, copy=True)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # the same dropout masks at every alpha
            result: Tensor = functional_call(net, state, (x.double(),))
        return result

    def degree() -> int | None:
        reference, outputs = output(1.0), {alpha: output(alpha) for alpha in (1.25, 2.0)}
        size, doubled = float(reference.norm()), float(outputs[2.0].norm())
        if not (0 < size < math.inf and 0 < doubled < math.inf):
            return None
        power = round(math.log2(doubled / size))
        if not 1 <= power <= 1000:
            return None
        exact = all(
            float((value - alpha**power * reference).norm()) <= 1e-9 * alpha**power * size
            for alpha, value in outputs.items()
        )
        return power if exact else None

    degrees = set()
    try:
        for training in (True, False):
            net.train(training)
            degrees.add(degree())
    finally:
        for module, mode in modes.items():
            module.training = mode
    return degrees.pop() if len(degrees) == 1 else None
