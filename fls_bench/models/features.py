"""What a net's weight layers hold and hand on: hidden features and weight matrices, by layer."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
WEIGHT_LAYERS = (nn.Linear, *CONVOLUTIONS)

MAX_FEATURES = 1024
"""Maps and token sequences of more numbers per point than this are averaged over places."""


@torch.no_grad()
def named_features(
    net: nn.Module, x: Tensor, also: str | None = None
) -> tuple[dict[str, Tensor], Tensor]:
    """Run a net and keep its hidden features.

    A feature is what a weight layer hands to the next one: the input of each linear or
    convolutional layer but the first, as one row per point, under the name of the layer executed
    before it. In a chain of layers that is the layer's own activation.

    - A layer that reads a tensor which another one has read already is passed over: it is no new
      feature, and gives its name to none. So the projection on the shortcut of a residual block
      does not count, and the sum of branch and shortcut has the name of the branch's last layer.
    - The last feature is the read-out's input.
    - Maps [n, channels, ...] of more than ``MAX_FEATURES`` numbers per point are averaged to the
      finest grid of equal sides with channels·side^d <= ``MAX_FEATURES`` (at least one cell),
      tokens [n, ..., width] over all tokens: ranks, kernels and probes cost the square of the
      width, and a linear probe of more features than points fits anything. Inputs [n, width] are
      kept as they are, whatever their width.
    - Inputs that are not one row per sample (a layer inside a module may act on something else) are
      left out.

    Args:
        net: Any module, left in the mode that it is in.
        x: Inputs [n, ...].
        also: Name of a module of another kind (a pooling, a whole block), whose output is kept too,
            in the order of execution.

    Returns:
        (layer name -> [n, width] in the order of execution, output [n, K]).
    """
    names = {module: name for name, module in net.named_modules()}
    features: dict[str, Tensor] = {}
    read: list[tuple[weakref.ref[Tensor], int]] = []
    outputs: list[Tensor] = []  # of the module ``also``
    previous: str | None = None

    def keep(module: nn.Module, args: tuple[Any, ...]) -> None:
        nonlocal previous
        value = args[0] if args and isinstance(args[0], Tensor) else None
        if value is not None:
            # The version tells a tensor that was changed in place since. A weak reference holds no
            # memory: a tensor that is gone can't be read again.
            if any(ref() is value and version == value._version for ref, version in read):
                return
            read.append((weakref.ref(value), value._version))
            if any(_same_numbers(value, one) for one in outputs):
                pass  # what that module handed on has its name
            elif previous is not None and value.ndim > 1 and len(value) == len(x):
                features.pop(previous, None)  # a layer that is used twice: in order of execution
                features[previous] = _rows(value.detach(), isinstance(module, CONVOLUTIONS))
        previous = names[module]

    def keep_output(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        value = output[0] if isinstance(output, tuple) and output else output
        if (
            also is not None
            and isinstance(value, Tensor)
            and value.ndim > 1
            and len(value) == len(x)
        ):
            features.pop(also, None)
            features[also] = _rows(value.detach(), value.ndim > 3)
            outputs[:] = [value]

    handles = [
        module.register_forward_pre_hook(keep)
        for module in net.modules()
        if isinstance(module, WEIGHT_LAYERS)
    ]
    if also is not None and not isinstance(chosen := net.get_submodule(also), WEIGHT_LAYERS):
        handles.append(chosen.register_forward_hook(keep_output))
    try:
        output: Tensor = net(x)
    finally:
        for handle in handles:
            handle.remove()
    return features, output


def _same_numbers(value: Tensor, other: Tensor) -> bool:
    """Whether two tensors are one, shape aside; both must be alive."""
    return value.data_ptr() == other.data_ptr() and value.numel() == other.numel()


@torch.no_grad()
def read_out(net: nn.Module, x: Tensor) -> tuple[str | None, Tensor | None, bool]:
    """Find the last linear map of a net, whose input counts as its last features.

    Args:
        net: Any module, left in the mode that it is in.
        x: A few inputs [n, ...].

    Returns:
        (name of the linear or convolutional layer executed last, or None where there is none; its
        input as ``named_features`` keeps it, or None where that is not one row per point; whether
        the net hands on its output as it is, shape aside).
    """
    last: list[tuple[str, Tensor | None, Tensor]] = []

    def note(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            value = args[0] if args and isinstance(args[0], Tensor) else None
            fed = None
            if value is not None and value.ndim > 1 and len(value) == len(x):
                fed = _rows(value, isinstance(module, CONVOLUTIONS))
            last[:] = [(name, fed, output)]

        return hook

    handles = [
        module.register_forward_hook(note(name))
        for name, module in net.named_modules()
        if isinstance(module, WEIGHT_LAYERS)
    ]
    try:
        output = net(x)
    finally:
        for handle in handles:
            handle.remove()
    if not last:
        return None, None, False
    name, fed, given = last[0]
    same = isinstance(output, Tensor) and output.numel() == given.numel()
    return name, fed, same and torch.equal(output.flatten(), given.flatten())


def _rows(value: Tensor, is_map: bool) -> Tensor:
    """The input of a layer as [n, width]; see ``named_features``."""
    if value.ndim == 2 or value.shape[1:].numel() <= MAX_FEATURES:
        return value.flatten(1)
    if not is_map:
        return value.flatten(1, -2).mean(1)
    channels, *sides = value.shape[1:]
    side = 1
    while channels * (side + 1) ** len(sides) <= MAX_FEATURES:
        side += 1
    missing = [1] * (3 - len(sides))
    depth, height, width = (*missing, *(min(side, length) for length in sides))
    solid = value.reshape(len(value), channels, *missing, *sides)
    return functional.adaptive_avg_pool3d(solid, (depth, height, width)).flatten(1)


def weight_matrices(net: nn.Module) -> dict[str, Tensor]:
    """Weights of the linear and convolutional layers as matrices [out, in], by layer name."""
    return {
        name: module.weight.detach().flatten(1)
        for name, module in net.named_modules()
        if isinstance(module, WEIGHT_LAYERS)
    }
