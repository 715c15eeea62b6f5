"""Empirical tangent kernels of any module, on as many points as a fixed work and memory allow.

What it would cost is counted before anything is computed, by operations and bytes and not by a
clock, so that the same net and data give the same kernel on every machine.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

from fls_bench.metrics.snapshot import TangentKernel

MAX_POINTS = 512
MIN_POINTS = 30
MAX_WORK = 3e11
"""Operations for all states together: a few seconds on one core."""
MAX_BYTES = 1e9
"""Bytes of gradients of one output at all points, which have to be held at a time."""
_BLOCK = 1e8  # More at a time is slower: fresh memory costs more than a repeated forward pass.
FEW_GRADIENTS = 200
MAX_LOOP = 6000
"""Gradients one by one, where torch can't take them for many points at once."""
# A backward pass takes two forward passes, and small convolutions run at a fourth of the speed of
# the large products that the kernel itself is made of.
_BACKWARD = 2 * 4


@dataclass(frozen=True)
class _Size:
    """How many training and test points a kernel is computed on."""

    train: int
    test: int


def tangent_kernels(
    net: nn.Module,
    states: Sequence[Mapping[str, Tensor]],
    x_train: Tensor,
    x_test: Tensor,
    *,
    max_work: float = MAX_WORK,
    max_bytes: float = MAX_BYTES,
    min_points: int = MIN_POINTS,
    max_points: int = MAX_POINTS,
    max_outputs: int | None = None,
    with_test: bool = True,
    seed: int = 0,
) -> tuple[TangentKernel, ...] | str:
    r"""Tangent kernel of a net in one or more states, mean over its outputs.

    .. math:: \Theta(x, x') = \frac1K \sum_k \langle \nabla_W f_k(x), \nabla_W f_k(x') \rangle

    over all parameters that require a gradient. The mean over outputs is kept, and not the K x K
    block: in the limit of infinite width the block is this mean times the identity, and the block
    would take K times the work and K^2 times the memory. The net is evaluated as it is (in evaluation
    mode: with the state's running statistics). Points are a random part drawn from ``seed``, all
    where all can be had.

    Args:
        net: Any module that maps [n, ...] to [n, K] point by point; left as it is.
        states: Parameters and buffers by name; the first is the final state, with a block from test
            to training points, the others have none.
        x_train: ``[n_train, ...]``.
        x_test: ``[n_test, ...]``.
        max_work: Limit of floating-point operations.
        max_bytes: Limit of memory for gradients.
        min_points: With fewer training points than this there is no kernel.
        max_points: Most training points, at least ``min_points``.
        max_outputs: The mean is over the first so many outputs, at least 1; None: over all.
        with_test: Whether the first state has a block from test to training points.
        seed: Draws the points.

    Returns:
        One kernel for each state, or one sentence that says why there are none.

    Cost: about n^2·K·P operations for each state, n points and P parameters, and the gradients.

    Source: Jacot, Gabriel, Hongler, "Neural tangent kernel" (arXiv 1806.07572), equation 4; the mean
    over outputs as in Mohamadi, Bae, Sutherland, "A fast, well-founded approximation to the empirical
    neural tangent kernel" (arXiv 2206.12543), there for the sum of the logits.
    """
    # functional_call does not put a module back that stands in the net under two names.
    net = copy.deepcopy(net)
    trained = {name: p for name, p in net.named_parameters() if p.requires_grad}
    # Of a shared parameter a state holds every name, and one of them is enough.
    names = {*dict(net.named_parameters()), *dict(net.named_buffers())}
    own = [{name: state[name] for name in state if name in names} for state in states]
    num_parameters = sum(p.numel() for p in trained.values())
    if not num_parameters:
        return "The net has no parameter that is trained."
    if not len(x_train):
        return "There are no training points."
    item = next(iter(trained.values())).element_size()
    try:
        outputs, forward = _counted(net, own[0], x_train[:1])
    except Exception as error:
        return f"The net can't be run on a single point: {_in_one_line(error)}."
    if outputs.ndim != 2 or len(outputs) != 1:
        return f"The net's output for one point has shape {list(outputs.shape)}, not [1, K]."
    num_outputs = min(outputs.shape[1], max_outputs or outputs.shape[1])

    def fits(size: _Size, by_point: bool) -> bool:
        rows = size.train * len(states) + size.test
        products = size.train * (size.train * len(states) + size.test)
        work = num_outputs * (2.0 * num_parameters * products + _BACKWARD * forward * rows)
        held = (size.train + size.test) * num_parameters * item
        return (
            work <= max_work
            and held <= max_bytes
            and (not by_point or rows * num_outputs <= MAX_LOOP)
        )

    def largest(by_point: bool) -> _Size | str:
        for train in range(min(len(x_train), max_points), min_points - 1, -1):
            for test in (
                (min(len(x_test), train), min(len(x_test), train // 2)) if with_test else (0,)
            ):
                if fits(_Size(train, test), by_point):
                    return _Size(train, test)
        if len(x_train) < min_points:
            return f"The kernel needs {min_points} training points, and there are {len(x_train)}."
        return (
            f"Gradients of {num_outputs} outputs with respect to {num_parameters:,} parameters at "
            f"{min_points} training points are beyond the limits of {max_bytes / 1e9:g} GB and "
            f"{max_work:.0e} operations{', one point at a time' if by_point else ''}."
        )

    problem = ""
    most = min(len(x_train), max_points) * len(states) + (len(x_test) if with_test else 0)
    # A few gradients are had sooner one by one than torch loads what batches them.
    ways = (True,) if most * num_outputs <= FEW_GRADIENTS else (False, True)
    for by_point in ways:
        size = largest(by_point)
        if isinstance(size, str):
            return problem + size
        train = _part(len(x_train), size.train, seed).to(x_train.device)
        test = _part(len(x_test), size.test, seed + 1).to(x_test.device)
        kernels = []
        try:
            for i, state in enumerate(own):
                points = x_train[train] if i else torch.cat([x_train[train], x_test[test]])
                gram = _gram(net, state, tuple(trained), points, size.train, by_point, num_outputs)
                among, across = (
                    gram[: size.train],
                    gram[size.train :] if not i and with_test else None,
                )
                kernels.append(TangentKernel(train, (among + among.mT) / 2, test, across))
        except Exception as error:
            if by_point:
                return f"The net's gradients can't be taken: {_in_one_line(error)}."
            problem = "Its gradients can't be taken for many points at once. "
            continue
        return tuple(kernels)
    raise AssertionError("unreachable")


def _counted(net: nn.Module, state: Mapping[str, Tensor], x: Tensor) -> tuple[Tensor, float]:
    """Outputs, and about how many operations they took: those of weights with what they act on."""
    operations = [2.0 * sum(value.numel() for value in state.values())]

    def count(module: nn.Module, _: object, output: object) -> None:
        weight = getattr(module, "weight", None)
        if isinstance(weight, Tensor) and isinstance(output, Tensor) and weight.ndim > 1:
            operations.append(2.0 * weight[0].numel() * output.numel())

    handles = [module.register_forward_hook(count) for module in net.modules()]
    try:
        with torch.no_grad():
            outputs: Tensor = functional_call(net, dict(state), (x,))
    finally:
        for handle in handles:
            handle.remove()
    return outputs, max(operations[0], sum(operations[1:]))


def _part(n: int, size: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(n, generator=generator)[:size].sort().values


def _gram(
    net: nn.Module,
    state: Mapping[str, Tensor],
    trained: Sequence[str],
    points: Tensor,
    columns: int,
    by_point: bool,
    num_outputs: int,
) -> Tensor:
    """Kernel ``[n, columns]`` float64 between all points and the first of them, mean over outputs."""
    weights = {name: state[name].detach() for name in trained}
    fixed = {name: value for name, value in state.items() if name not in weights}
    num_parameters = sum(value.numel() for value in weights.values())
    row_bytes = num_parameters * next(iter(weights.values())).element_size()

    def outputs(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        result: Tensor = functional_call(net, {**parameters, **fixed}, (x[None],))[0]
        return result

    at_once = int(max(1, min(num_outputs, _BLOCK // (len(points) * row_bytes))))
    kernel = torch.zeros(len(points), columns, dtype=torch.float64, device=points.device)
    for start in range(0, num_outputs, at_once):
        part = slice(start, min(start + at_once, num_outputs))
        rows = _gradients(outputs, weights, points, part, by_point)
        kernel += (rows @ rows[:columns].mT).double()
    return kernel / num_outputs


def _gradients(
    outputs: Callable[[dict[str, Tensor], Tensor], Tensor],
    weights: dict[str, Tensor],
    points: Tensor,
    part: slice,
    by_point: bool,
) -> Tensor:
    """Gradients ``[n, outputs in part * P]`` of some outputs at each point."""
    one = next(iter(weights.values()))
    width = (part.stop - part.start) * sum(value.numel() for value in weights.values())
    rows = torch.empty(len(points), width, dtype=one.dtype, device=one.device)
    if by_point:
        leaves = {name: value.clone().requires_grad_() for name, value in weights.items()}
        for i, x in enumerate(points):
            offset = 0
            with torch.enable_grad():
                values = outputs(leaves, x)[part].unbind()
            for value in values:
                for gradient in torch.autograd.grad(
                    value, list(leaves.values()), retain_graph=True, materialize_grads=True
                ):
                    rows[i, offset : offset + gradient.numel()] = gradient.flatten()
                    offset += gradient.numel()
        return rows
    # torch.func sees through no_grad, but not all nets do.
    with torch.enable_grad():
        jacobian = vmap(jacrev(lambda w, x: outputs(w, x)[part]), in_dims=(None, 0))
        by_output = rows.view(len(points), part.stop - part.start, -1)
        step = int(max(1, min(64, _BLOCK // (width * one.element_size()))))
        for start in range(0, len(points), step):
            stop, offset = min(start + step, len(points)), 0
            for gradients in jacobian(weights, points[start:stop]).values():
                flat = gradients.detach().flatten(2)
                by_output[start:stop, :, offset : offset + flat.shape[2]] = flat
                offset += flat.shape[2]
    return rows


def _in_one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:200].rstrip(".: ")
