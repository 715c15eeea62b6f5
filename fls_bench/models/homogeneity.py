"""Whether a net is homogeneous in its parameters, and of which degree: measured, not assumed."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.func import functional_call


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
