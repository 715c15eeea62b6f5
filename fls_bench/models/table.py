"""The table of built-in nets: what a model file may name, built from checked arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import ValidationError
from torch import nn

from fls_bench.errors import InputError
from fls_bench.models import cnn, mlp, resmlp, resnet, vgg, vit
from fls_bench.models.images import sized_image
from fls_bench.models.inits import init_he, init_torchvision
from fls_bench.schema import Frozen

MAX_PARAMETERS = 50_000_000


@dataclass(frozen=True)
class Architecture:
    """One row of the table of built-in nets.

    Attributes:
        arguments: What the net can be told, each size with an upper bound: rows are named in files
            that anyone may have written, so that a net of any allowed arguments must be cheap to
            make on the meta device.
        make: Checked arguments -> the module, with weights of any value.
        init: (net in float64, generator) -> draws all weights and resets all buffers.
        sized: (shape of one input, number of outputs) -> the arguments that follow from the data.
        summary: One line for people.
    """

    arguments: type[Frozen]
    make: Callable[[Any], nn.Module]
    init: Callable[[Any, torch.Generator], None]
    sized: Callable[[tuple[int, ...], int], dict[str, Any]]
    summary: str


ARCHITECTURES: Mapping[str, Architecture] = {
    "mlp": Architecture(
        mlp.MlpArguments,
        mlp.make_mlp,
        mlp.init_mlp,
        mlp.sized_flat,
        "fully connected net, He init, biases off by default",
    ),
    "resmlp": Architecture(
        resmlp.ResmlpArguments,
        resmlp.Resmlp,
        resmlp.init_resmlp,
        mlp.sized_flat,
        "residual fully connected net: pre-LayerNorm blocks, He init, no biases",
    ),
    "two_layer": Architecture(
        mlp.TwoLayerArguments,
        mlp.make_two_layer,
        mlp.init_balanced,
        mlp.sized_flat,
        "balanced two-layer ReLU net with one logit (YHL section 5)",
    ),
    "cnn": Architecture(
        cnn.CnnArguments,
        cnn.Cnn,
        init_he,
        sized_image,
        "plain convolutional net for small images, no normalisation by default, He init",
    ),
    "resnet": Architecture(
        resnet.ResnetArguments,
        resnet.make_resnet,
        resnet.init_resnet,
        resnet.sized_resnet,
        "small residual net for small images, BatchNorm by default",
    ),
    "resnet18": Architecture(
        resnet.PublishedArguments,
        resnet.make_resnet18,
        init_torchvision,
        sized_image,
        "ResNet-18 with the names and the init of torchvision's",
    ),
    "resnet34": Architecture(
        resnet.PublishedArguments,
        resnet.make_resnet34,
        init_torchvision,
        sized_image,
        "ResNet-34 with the names and the init of torchvision's",
    ),
    "resnet50": Architecture(
        resnet.PublishedArguments,
        resnet.make_resnet50,
        init_torchvision,
        sized_image,
        "ResNet-50 with the names and the init of torchvision's",
    ),
    "vgg19": Architecture(
        vgg.VggArguments,
        vgg.Vgg,
        init_he,
        sized_image,
        "VGG-19 with torchvision's names and one linear read-out, BatchNorm by default, He init",
    ),
    "vit": Architecture(
        vit.VitArguments,
        vit.Vit,
        vit.init_vit,
        sized_image,
        "small vision transformer: pre-LayerNorm, learned positions",
    ),
}


def architecture(name: str) -> Architecture:
    """The row of a built-in net.

    Args:
        name: A key of ``ARCHITECTURES``.

    Returns:
        The row.

    Raises:
        InputError: There is no such net.
    """
    if name not in ARCHITECTURES:
        raise InputError(
            f"There is no built-in net named {name[:60]!r}.",
            f"Built-in nets are {', '.join(ARCHITECTURES)}; for your own give "
            "--model package.module:builder or --setup package.module:setup.",
        )
    return ARCHITECTURES[name]


def check_arguments(name: str, arguments: Mapping[str, Any]) -> Any:
    """Validate the arguments of a built-in net, with upper bounds, before anything is allocated.

    Args:
        name: A key of ``ARCHITECTURES``.
        arguments: Plain values.

    Returns:
        The checked arguments, of the model that the net's row names.

    Raises:
        InputError: Unknown name, unknown or missing argument, value out of range, images that do
            not go through the net, too many weights.
    """
    return _described(name, arguments)[0]


def _described(name: str, arguments: Mapping[str, Any]) -> tuple[Frozen, nn.Module]:
    """Checked arguments, and the net on the meta device: names and shapes without numbers."""
    row = architecture(name)
    try:
        checked = row.arguments.model_validate(dict(arguments))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        told = first["msg"].removeprefix("Value error, ")
        raise InputError(
            f"The net {name!r} can't be built: {f'{place}: ' if place else ''}{told}.",
            f"Its arguments are {', '.join(row.arguments.model_fields)}.",
        ) from None
    with torch.device("meta"):
        net = row.make(checked)
    total = sum(parameter.numel() for parameter in net.parameters())
    if total > MAX_PARAMETERS:
        raise InputError(
            f"The net {name!r} would have {total:,} weights; the limit is {MAX_PARAMETERS:,}.",
            "Choose a smaller width or depth.",
        )
    return checked, net


def build(
    name: str,
    arguments: Mapping[str, Any],
    *,
    seed: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> nn.Module:
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
    net = _described(name, arguments)[1].to_empty(device="cpu").double()
    with torch.no_grad():
        ARCHITECTURES[name].init(net, generator)
    return net.to(dtype)


def state_shapes(name: str, arguments: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the parameters and buffers of a built-in net, without allocating them.

    Args:
        name: A key of ``ARCHITECTURES``.
        arguments: Plain values.

    Returns:
        Name in the state dict -> shape; () for the whole number that counts a BatchNorm's batches.

    Raises:
        InputError: As ``check_arguments``.
    """
    net = _described(name, arguments)[1]
    return {key: tuple(value.shape) for key, value in net.state_dict().items()}
