"""Which weight layers of a net read its inputs, hold its logits, or pass units to one another.

Nothing is read off a net's class: layers are watched while it runs, and what a layer is taken for is
believed only where the change that it allows leaves the function as it was.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fls_bench.models import WEIGHT_LAYERS

Layer = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d


@dataclass(frozen=True)
class Pair:
    """A layer whose units the next one reads, and what acts on each unit between them.

    Attributes:
        first: Name of the layer that makes the units.
        second: Name of the layer that reads them.
        between: Names of the modules run between them that hold one number per unit.
    """

    first: str
    second: str
    between: tuple[str, ...]


@dataclass(frozen=True)
class Seen:
    """One layer as it was run."""

    name: str
    reads_inputs: bool


def executed(net: nn.Module, x: Tensor) -> list[Seen]:
    """The modules without children, in the order in which they were run, once each.

    Args:
        net: Any module.
        x: Inputs [n, ...].
    """
    names = {module: name for name, module in net.named_modules()}
    seen: dict[str, Seen] = {}
    flat = x.flatten(1)

    def watch(module: nn.Module, args: tuple[object, ...]) -> None:
        value = args[0] if args and isinstance(args[0], Tensor) else None
        reads = value is not None and value.ndim == 2 and value.shape == flat.shape
        reads = reads and value is not None and bool(torch.equal(value, flat))
        seen.setdefault(names[module], Seen(names[module], reads))

    leaves = [module for module in net.modules() if not any(True for _ in module.children())]
    handles = [module.register_forward_pre_hook(watch) for module in leaves]
    try:
        with torch.no_grad():
            copy_of_mode = net.training
            net.eval()(x)
            net.train(copy_of_mode)
    finally:
        for handle in handles:
            handle.remove()
    return list(seen.values())


def input_layers(net: nn.Module, x: Tensor) -> list[str]:
    """Names of the linear layers that read the flat inputs themselves."""
    return [
        one.name
        for one in executed(net, x)
        if one.reads_inputs and isinstance(net.get_submodule(one.name), nn.Linear)
    ]


def readout_layer(net: nn.Module, x: Tensor, num_outputs: int) -> str | None:
    """Name of the weight layer that was run last, if it is linear and has one unit per output."""
    layers = [one.name for one in executed(net, x) if _is_weight_layer(net, one.name)]
    if not layers:
        return None
    last = net.get_submodule(layers[-1])
    linear = isinstance(last, nn.Linear) and last.out_features == num_outputs
    return layers[-1] if linear else None


def pairs(net: nn.Module, x: Tensor) -> list[Pair]:
    """Layers run one after the other, whether or not units can really be exchanged between them."""
    found: list[Pair] = []
    between: list[str] = []
    previous: str | None = None
    for one in executed(net, x):
        module = net.get_submodule(one.name)
        if _is_weight_layer(net, one.name):
            if previous is not None:
                num = len(net.get_submodule(previous).weight)  # type: ignore[arg-type]
                names = tuple(name for name in between if _per_unit(net.get_submodule(name), num))
                found.append(Pair(previous, one.name, names))
            previous, between = one.name, []
        elif any(True for _ in module.parameters()) or any(True for _ in module.buffers()):
            between.append(one.name)
    return found


def _is_weight_layer(net: nn.Module, name: str) -> bool:
    return isinstance(net.get_submodule(name), WEIGHT_LAYERS)


def _per_unit(module: nn.Module, num: int) -> bool:
    tensors = [*module.parameters(), *module.buffers()]
    return any(tensor.shape == (num,) for tensor in tensors)


# --- changes --------------------------------------------------------------------------------


def permuted(net: nn.Module, pair: Pair, order: Tensor) -> nn.Module | None:
    """A copy with the units of a pair in another order; None where the shapes don't allow it."""
    return _changed(net, pair, order=order)


def rescaled(net: nn.Module, pair: Pair, factors: Tensor) -> nn.Module | None:
    """A copy with the weights into each unit times a factor, those out of it divided by the factor."""
    return _changed(net, pair, factors=factors)


def num_units(net: nn.Module, pair: Pair) -> int:
    """Units between the two layers."""
    return len(net.get_submodule(pair.first).weight)  # type: ignore[arg-type]


@torch.no_grad()
def _changed(
    net: nn.Module, pair: Pair, order: Tensor | None = None, factors: Tensor | None = None
) -> nn.Module | None:
    net = copy.deepcopy(net)
    first, second = (net.get_submodule(name) for name in (pair.first, pair.second))
    assert isinstance(first, Layer)
    assert isinstance(second, Layer)
    num, read = len(first.weight), second.weight.shape[1]
    grouped = isinstance(second, nn.modules.conv._ConvNd) and second.groups != 1
    # A linear layer behind a flattened map reads several numbers of each channel, one after the other.
    if grouped or read % num:
        return None
    out = second.weight.view(len(second.weight), num, read // num, *second.weight.shape[2:])
    into = [first.weight] + ([] if first.bias is None else [first.bias])
    if order is not None:
        held = [net.get_submodule(name) for name in pair.between]
        tensors = [t for module in held for t in (*module.parameters(), *module.buffers())]
        for tensor in into + [t for t in tensors if t.shape == (num,)]:
            tensor.copy_(tensor[order].clone())
        out.copy_(out[:, order].clone())
    if factors is not None:
        for tensor in into:
            tensor.mul_(factors.view(-1, *[1] * (tensor.ndim - 1)))
        out.div_(factors.view(1, -1, *[1] * (out.ndim - 2)))
    return net


@torch.no_grad()
def with_rotated_inputs(net: nn.Module, layers: list[str], rotation: Tensor) -> nn.Module:
    """A copy whose named linear layers undo a rotation of the inputs: W Q^T."""
    net = copy.deepcopy(net)
    for name in layers:
        layer = net.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        layer.weight.copy_(layer.weight @ rotation.T)
    return net


@torch.no_grad()
def with_renamed_outputs(net: nn.Module, layer: str, order: Tensor) -> nn.Module:
    """A copy whose read-out gives its logits in another order."""
    net = copy.deepcopy(net)
    readout = net.get_submodule(layer)
    assert isinstance(readout, nn.Linear)
    readout.weight.copy_(readout.weight[order].clone())
    if readout.bias is not None:
        readout.bias.copy_(readout.bias[order].clone())
    return net
