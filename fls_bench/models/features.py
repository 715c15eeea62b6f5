"""What a net's weight layers hold and hand on: hidden features and weight matrices, by layer."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

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
