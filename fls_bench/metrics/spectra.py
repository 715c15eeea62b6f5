"""The spectrum of a weight matrix: stable rank, and the exponent of its heavy tail where it has one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

MIN_TAIL = 10
"""Fewest eigenvalues that a tail is fitted to: below, the exponent's error is a third of itself."""
MIN_EIGENVALUES = 20
NUM_SYNTHETIC = 49
MIN_P = 0.1


def eigenvalues(weights: Tensor) -> Tensor:
    """Eigenvalues of W W^T above rounding, ascending: ``[r]`` float64 for ``[out, in]``."""
    values: Tensor = torch.linalg.svdvals(weights.double()).square()
    level = max(weights.shape) * torch.finfo(weights.dtype).eps
    above = values > level**2 * values.amax()
    ascending: Tensor = values[above].sort().values
    return ascending


def stable_rank(weights: Tensor) -> Tensor:
    r"""Squared Frobenius norm over squared spectral norm, a soft count of dimensions.

    .. math:: \|W\|_F^2 / \|W\|_2^2

    Args:
        weights: ``[out, in]``.

    Returns:
        0-d float64 between 1 and min(out, in); NaN for a matrix of zeros and one that is not finite.

    Source: Rudelson, Vershynin, "Sampling from large matrices" (Journal of the ACM 54, 2007),
    section 1.1 (there: numerical rank).
    """
    if not bool(weights.isfinite().all()):
        return weights.new_full((), torch.nan, dtype=torch.float64)  # LAPACK raises
    values: Tensor = torch.linalg.svdvals(weights.double()).square()
    return values.sum() / values.amax()


@dataclass(frozen=True)
class Tail:
    """A power law p(x) ~ x^-alpha fitted to the values from ``smallest`` on.

    Attributes:
        exponent: alpha, 0-d float64.
        distance: Kolmogorov-Smirnov distance of the tail from the fit, 0-d.
        start: Index of the smallest value of the tail, 0-d int.
        size: Number of values in the tail, 0-d int.
    """

    exponent: Tensor
    distance: Tensor
    start: Tensor
    size: Tensor


def fit_tail(values: Tensor, *, min_tail: int = MIN_TAIL) -> Tail:
    r"""Maximum-likelihood exponent of the tail whose start makes the fit closest.

    .. math:: \alpha = 1 + m \Big/ \sum_{i=1}^m \log(x_i / x_{min})

    for the m values >= x_min; each value is tried as x_min that leaves ``min_tail`` or more. The
    empirical distribution at a value is the share below it, as in the authors' program and in the
    tools that follow it, so that exponents can be compared with theirs.

    Args:
        values: ``[..., r]`` positive, ascending, r >= ``min_tail``.
        min_tail: Fewest values in a tail.

    Returns:
        The fit, of shape ``[...]``; the longest tail among equals. NaN for equal values.

    Source: Clauset, Shalizi, Newman, "Power-law distributions in empirical data" (SIAM Review 51,
    2009), equations 3.1 and 3.9.
    """
    logs = values.double().log()
    r = logs.shape[-1]
    starts = r - min_tail + 1
    sizes = torch.arange(r, 0, -1, device=logs.device)[:starts].double()
    sums = logs.flip(-1).cumsum(-1).flip(-1)[..., :starts] - sizes * logs[..., :starts]
    exponents = 1 + sizes / sums
    # Distance of the empirical from the fitted distribution, for all starts at once: [..., start, i].
    above = (logs[..., None, :] - logs[..., :starts, None]).clamp_min(0)
    fitted = -torch.expm1((1 - exponents[..., None]) * above)
    first = torch.arange(starts, device=logs.device)[:, None]
    rank = torch.arange(r, device=logs.device)[None, :] - first
    gaps = (fitted - rank / sizes[:, None]).abs()
    distances = gaps.masked_fill(rank < 0, 0.0).amax(dim=-1).nan_to_num(nan=torch.inf)
    distance, start = distances.min(dim=-1)
    exponent = exponents.gather(-1, start[..., None])[..., 0]
    return Tail(exponent, distance, start, r - start)


def tail_plausibility(values: Tensor, tail: Tail, generator: torch.Generator) -> Tensor:
    """Chance of a fit as poor as this one where the tail really is a power law.

    Synthetic sets draw each value from the fitted tail or from the values below it, in proportion,
    and are fitted anew, so that the search for the start is paid for.

    Args:
        values: ``[r]`` ascending.
        tail: Its fit.
        generator: Draws the synthetic sets.

    Returns:
        0-d float64: (1 + number of sets at least as far from their fit) / (1 + number of sets).

    Source: Clauset, Shalizi, Newman (SIAM Review 51, 2009), section 4.1.
    """
    x = values.double()
    r, start = len(x), tail.start
    shape = (NUM_SYNTHETIC, r)
    u = torch.rand(shape, generator=generator, dtype=torch.float64).to(x.device)
    drawn = x[start] * (1 - u) ** (-1 / (tail.exponent - 1))
    body = torch.rand(shape, generator=generator, dtype=torch.float64).to(x.device)
    below = x[(body * start).long().clamp(max=r - 1)]
    where = torch.rand(shape, generator=generator, dtype=torch.float64).to(x.device)
    synthetic = torch.where(where < tail.size / r, drawn, below).sort(dim=-1).values
    # One after the other: the fit of r values takes r^2 numbers.
    farther = sum((fit_tail(one).distance >= tail.distance).double() for one in synthetic)
    return (1 + torch.as_tensor(farther)) / (1 + NUM_SYNTHETIC)
