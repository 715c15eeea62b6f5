"""How a net's output scales with its parameters, measured: what an exact learning-rate rule needs.

A net is quasi-homogeneous if there are exponents e_p >= 0 such that its parameters times alpha^e_p
give alpha^L times its output. Homogeneous nets (e = 1 for all), nets with biases (e = l in layer l)
and nets that end in a normalisation and a read-out (e = 0 before the normalisation) are all of that
kind. Source: Kunin et al., "The asymmetric maximum margin bias of quasi-homogeneous neural
networks" (arXiv 2210.03820), definition 3.1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.func import functional_call

Matrix = npt.NDArray[np.float64]

NORMALISATIONS = (
    nn.modules.batchnorm._NormBase,  # every batch and instance normalisation
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
)

INVARIANT = 2e-3
"""A parameter whose directional derivative is below this share of the output, everywhere, is scale
invariant. Behind a normalisation it is not 0: the normalisation's own epsilon adds some 1e-5."""

SPARE = 4
"""Projections beyond the number of parameters."""

DISTURBANCES = (0.3, 0.1, 0.03)
"""Of the parameters, in units of their spread: the smaller, the fewer units can die of it."""

LARGEST = 1e100
"""Of outputs and derivatives: their squares have to be numbers."""

MIN_POINTS, MAX_POINTS = 16, 64


@dataclass(frozen=True)
class Scaling:
    """Exponents of a quasi-homogeneous net, in the normal form with the largest weight's e = 1.

    Attributes:
        depth: L, a whole number: parameters times alpha^e give alpha^L times the output.
        exponents: Parameter name -> e >= 0.
        kind: ``homogeneous``: every weight has e > 0. ``normalised``: weights with e = 0 are
            scale-invariant, or the net has normalisation layers.
    """

    depth: int
    exponents: Mapping[str, float]
    kind: str


def has_normalisation(net: nn.Module) -> bool:
    """Whether a net has normalisation layers (batch, instance, layer, group, root mean square)."""
    return any(isinstance(module, NORMALISATIONS) for module in net.modules())


def measured_scaling(net: nn.Module, x: Tensor) -> Scaling | None:
    r"""Find the exponents of a net by Euler's relation, and check them by scaling.

    Quasi-homogeneity is :math:`\sum_p e_p \langle p, \partial f/\partial p\rangle = L f` at all
    inputs: linear equations in e, one per random projection of the outputs. Many e may solve them
    (any share of L between two layers): of these the one is taken whose largest e of a weight is
    smallest, which is the same e for all weights of a homogeneous net, and among those the one with
    the smallest sum, which is 0 wherever a common scale has no effect. The result is checked at two
    alphas, in float64, in training and in evaluation mode, with disturbed parameters (biases that
    are zero at init would hide that they matter). Where one disturbance gives no exponents, or weights
    without effect, several are looked at together: units that are dead in one hide what they do.

    Args:
        net: Any module; it is left as it is, and so is torch's global random state.
        x: Inputs [n, ...]; 16 to 64 are used, the more the fewer outputs it has.

    Returns:
        The exponents; None where the net has none, or only by its read-out although weights before
        it are neither scale-invariant nor normalised (c would then not be the scale of the net).
    """
    found = _measured(net, x, DISTURBANCES[:1])
    if found is None or (found.kind == "normalised" and not has_normalisation(net)):
        return _measured(net, x, DISTURBANCES)
    return found


def _measured(net: nn.Module, x: Tensor, disturbances: Sequence[float]) -> Scaling | None:
    names = [name for name, p in net.named_parameters() if p.numel()]
    if not names:
        return None
    modes = {module: module.training for module in net.modules()}
    try:
        net.train(True)
        probe = _Probe(net, x[:MAX_POINTS])
        # Twice as many outputs as equations: more points would only take longer.
        num_outputs = probe.output(probe.parameters)[0].numel()
        num = max(MIN_POINTS, -(-2 * (len(names) + SPARE) // max(1, num_outputs)))
        probes = [_Probe(net, x[: min(num, MAX_POINTS)], size) for size in disturbances]
        rows, values = zip(*(one.euler(names) for one in probes), strict=True)
        derivatives, outputs = np.concatenate(rows), np.concatenate(values)
        size = np.abs(outputs).max()
        if not (0 < size < LARGEST and np.abs(derivatives).max() < LARGEST):
            return None
        matters = np.abs(derivatives).max(axis=0) > INVARIANT * size
        solved = _smallest_exponents(
            derivatives[:, matters],
            outputs,
            np.array([not name.endswith("bias") for name in names])[matters],
        )
        if solved is None:
            return None
        exponents = dict.fromkeys(names, 0.0) | dict(
            zip(np.array(names)[matters].tolist(), solved[1], strict=True)
        )
        depth = solved[0]
        for training in (True, False):
            net.train(training)
            if not all(one.scales(exponents, depth) for one in probes):
                return None
    finally:
        for module, mode in modes.items():
            module.training = mode
    matrices = {name for name, p in net.named_parameters() if p.ndim > 1}
    left_out = {name for name in matrices if exponents[name] == 0}
    invariant = {name for name, some in zip(names, matters, strict=True) if not some}
    if not left_out:
        return Scaling(depth, exponents, "homogeneous")
    if has_normalisation(net) or left_out <= invariant:
        return Scaling(depth, exponents, "normalised")
    return None


class _Probe:
    """A net with disturbed parameters in float64, and its few inputs."""

    def __init__(self, net: nn.Module, x: Tensor, size: float = DISTURBANCES[0]) -> None:
        self.net, self.x = net, x.double()
        generator = torch.Generator().manual_seed(0)
        self.parameters: dict[str, Tensor] = {}
        for name, parameter in net.named_parameters():
            p = parameter.detach().double().cpu()
            spread = float(p.std()) if p.numel() > 1 else 0.0
            draw = torch.randn(p.shape, generator=generator, dtype=torch.float64)
            self.parameters[name] = p + size * (spread or 1.0) * draw

    def output(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """f(x) [n, K] with fresh buffers and the same dropout masks every time."""
        state = dict(parameters)
        for name, value in self.net.named_buffers():
            wanted = torch.float64 if value.is_floating_point() else value.dtype
            state[name] = value.to("cpu", wanted, copy=True)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            result: Tensor = functional_call(self.net, state, (self.x,))
        return result

    def euler(self, names: list[str]) -> tuple[Matrix, Matrix]:
        """Derivatives along each parameter [m, P] and outputs [m], of m random projections."""
        generator = torch.Generator().manual_seed(1)
        leaves = {k: v.clone().requires_grad_(k in names) for k, v in self.parameters.items()}
        with torch.enable_grad():
            f = self.output(leaves)
        wanted = [leaves[name] for name in names]
        rows, outputs = [], []
        for _ in range(len(names) + SPARE):
            direction = torch.randn(f.shape, generator=generator, dtype=torch.float64)
            with torch.enable_grad():
                gradients = torch.autograd.grad(
                    f, wanted, direction, retain_graph=True, allow_unused=True
                )
            rows.append(
                [
                    0.0 if g is None else float((p.detach() * g).sum())
                    for p, g in zip(wanted, gradients, strict=True)
                ]
            )
            outputs.append(float((f.detach() * direction).sum()))
        return np.array(rows), np.array(outputs)

    def scales(self, exponents: Mapping[str, float], depth: int) -> bool:
        """Whether parameters times alpha^e give alpha^L times the output."""
        with torch.no_grad():
            reference = self.output(self.parameters)
            size = float(reference.norm())
            if not size < math.inf:
                return False
            for alpha in (1.25, 2.0):
                scaled = {k: alpha ** exponents[k] * v for k, v in self.parameters.items()}
                wanted = alpha**depth * reference
                if not float((self.output(scaled) - wanted).norm()) <= 1e-9 * alpha**depth * size:
                    return False
        return True


def _smallest_exponents(
    derivatives: Matrix, outputs: Matrix, bounded: npt.NDArray[np.bool_]
) -> tuple[int, list[float]] | None:
    """Solve ``derivatives @ e = L·outputs`` in e >= 0 by linear programming, in normal form.

    Args:
        derivatives: [m, P].
        outputs: [m].
        bounded: [P], which e count for the largest (biases do not).

    Returns:
        (L, e), or None where no solution exists or its L is no whole number.
    """
    from scipy.optimize import linprog

    num = derivatives.shape[1]
    if num == 0 or not bounded.any():
        return None
    # In the basis of its singular vectors the system is well conditioned for the solver.
    left, sizes, right = np.linalg.svd(derivatives, full_matrices=False)
    kept = sizes > 1e-8 * sizes[0]
    wanted = left[:, kept].T @ outputs
    residual = outputs - left[:, kept] @ wanted
    if np.linalg.norm(residual) > 1e-6 * np.linalg.norm(outputs):
        return None
    equations = np.hstack([right[kept], np.zeros((int(kept.sum()), 1))])
    below_largest = np.hstack([np.eye(num), -np.ones((num, 1))])[bounded]
    # Unknowns: e for L = 1, and the largest of the bounded ones.
    solution = linprog(
        np.append(np.full(num, 1e-3 / num), 1.0),
        A_ub=below_largest,
        b_ub=np.zeros(len(below_largest)),
        A_eq=equations,
        b_eq=wanted / sizes[kept],
        bounds=[(0, None)] * (num + 1),
    )
    if solution.status != 0 or solution.x is None or not solution.x[-1] > 1e-4:
        return None
    depth = 1 / float(solution.x[-1])
    if abs(depth - round(depth)) > 1e-3 or not 1 <= round(depth) <= 1000:
        return None
    scaled = [Fraction(float(e * round(depth))).limit_denominator(24) for e in solution.x[:-1]]
    return round(depth), [float(e) for e in scaled]
