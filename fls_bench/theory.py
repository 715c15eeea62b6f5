r"""The two-layer theory of feature learning strength in closed form: errors, angles, bounds, scales.

Data: x = kappa·y·s + sigma·z with z ~ N(0, I_d), y = ±1, \|s\| = 1. Net: f(x) = sum_j v_j relu(<w_j, x>)
with W(0) = alpha·W, v_j(0) = ±\|w_j(0)\|; multiplier c = alpha^2. Smaller alpha = larger FLS = toward
over-aligned. Everything is batched over leading axes and in float64.

Sources: YHL = Yeom, Ha, Lee, "Over-Alignment vs Over-Fitting" (arXiv 2602.00827), section 5, for the
setting, the decomposition and zeta; MMV = Min, Mallada, Vidal, "Early Neuron Alignment in Two-layer
ReLU Networks with Small Initialization" (arXiv 2307.12851) for the alignment phase. Both bound a flow on
the SUM over points of a loss with slope 1 at f = 0. A flow on the MEAN of log(1 + exp(-y f)), slope 1/2,
is the same curve, 2n times slower: :func:`mean_loss_time` converts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

ClassVector = Literal["sum", "mean"]
"""What x_+ is: the sum over the points of the positive class, or their mean."""

_LARGEST_RATIO = 1e150
"""Of kappa to sigma: its product with a cosine of 0 must not be infinity times 0."""


# --- errors ---------------------------------------------------------------------------------


def _ratio(kappa: float | Tensor, sigma: float | Tensor) -> Tensor:
    ratio = torch.as_tensor(kappa, dtype=torch.float64) / torch.as_tensor(
        sigma, dtype=torch.float64
    )
    return ratio.clamp(-_LARGEST_RATIO, _LARGEST_RATIO)


def bayes_error(kappa: float | Tensor, sigma: float | Tensor) -> Tensor:
    r"""Error of the best classifier, sign <s, x>: E* = Phi(-kappa/sigma).

    Args:
        kappa: Half the distance between the class centres, >= 0, ``[...]``.
        sigma: Deviation of the noise along every axis, > 0, ``[...]``.

    Returns:
        ``[...]`` in [0, 1/2]. Source: YHL section 5; Fisher's discriminant with known centres.
    """
    error: Tensor = torch.special.ndtr(-_ratio(kappa, sigma))
    return error


def angle_error(angles: Tensor, kappa: float | Tensor, sigma: float | Tensor) -> Tensor:
    r"""Error of sign <v, x> for a v at an angle to s: Phi(-(kappa/sigma)·cos angle).

    Args:
        angles: Between v and s in radians, ``[...]`` in [0, pi].
        kappa: Half the distance between the class centres, >= 0.
        sigma: Deviation of the noise, > 0.

    Returns:
        ``[...]`` in [0, 1], growing with the angle. Source: YHL section 5.
    """
    error: Tensor = torch.special.ndtr(-_ratio(kappa, sigma) * torch.cos(angles))
    return error


def direction_error(v: Tensor, s: Tensor, kappa: float | Tensor, sigma: float | Tensor) -> Tensor:
    r"""E(v) = Phi(-kappa·<v, s> / (sigma·\|v\|)): error of the linear classifier sign <v, x>.

    Args:
        v: ``[..., d]``; v = 0 decides nothing and has the error 1/2.
        s: Unit direction of the class centres, ``[..., d]``.
        kappa: Half the distance between the class centres, >= 0.
        sigma: Deviation of the noise, > 0.

    Returns:
        ``[...]`` in [0, 1]. Source: YHL section 5.
    """
    return angle_error(angle(v, s), kappa, sigma)


def excess_error(v: Tensor, s: Tensor, kappa: float | Tensor, sigma: float | Tensor) -> Tensor:
    """E(v) - E*, >= 0.

    Args:
        v: ``[..., d]``.
        s: Unit direction of the class centres, ``[..., d]``.
        kappa: Half the distance between the class centres, >= 0.
        sigma: Deviation of the noise, > 0.

    Returns:
        ``[...]``. Source: YHL section 5.
    """
    return direction_error(v, s, kappa, sigma) - bayes_error(kappa, sigma)


# --- directions and angles ------------------------------------------------------------------


def _unit(v: Tensor) -> Tensor:
    """The vector over its length; 0 stays 0. Scaled first: squares may leave the range of numbers."""
    largest = v.abs().amax(dim=-1, keepdim=True)
    scaled = v / torch.where(largest > 0, largest, 1.0)
    length = torch.linalg.vector_norm(scaled, dim=-1, keepdim=True)
    return scaled / torch.where(length > 0, length, 1.0)


def angle(u: Tensor, v: Tensor) -> Tensor:
    r"""Angle between vectors: 2·atan2(\|a - b\|, \|a + b\|) of the unit vectors a and b.

    An arc cosine loses half of the digits near 0. The zero vector is orthogonal to everything: it
    decides nothing.

    Args:
        u: ``[..., d]``.
        v: ``[..., d]``.

    Returns:
        ``[...]`` in [0, pi] radians. Source: Kahan, "How futile are mindless assessments of roundoff in
        floating-point computation?" (2006), section 12.
    """
    a, b = _unit(u.double()), _unit(v.double())
    apart: Tensor = torch.linalg.vector_norm(a - b, dim=-1)
    together: Tensor = torch.linalg.vector_norm(a + b, dim=-1)
    return 2 * torch.atan2(apart, together)


def effective_predictor(w: Tensor, v: Tensor) -> Tensor:
    """w_hat, the sum over neurons with v_j > 0 of v_j·w_j.

    Args:
        w: Neurons ``[..., h, d]``.
        v: Their read-out ``[..., h]``.

    Returns:
        ``[..., d]``. Source: YHL section 5.
    """
    return (v.clamp_min(0)[..., None, :] @ w)[..., 0, :]


def linear_direction(w: Tensor, v: Tensor) -> Tensor:
    """The sum over all neurons of v_j·w_j: w_hat of the positive minus that of the negative neurons.

    It is the net itself (times 2) wherever f is odd, and what YHL's w_hat leaves out.

    Args:
        w: Neurons ``[..., h, d]``.
        v: Their read-out ``[..., h]``.

    Returns:
        ``[..., d]``.
    """
    return (v[..., None, :] @ w)[..., 0, :]


def positive_vector(x: Tensor, positive: Tensor, of: ClassVector) -> Tensor:
    """x_+: sum or mean of the points of the positive class.

    Args:
        x: Training inputs ``[..., n, d]``.
        positive: Which of them are positive, ``[..., n]`` bool.
        of: ``sum`` or ``mean``. Angles do not depend on it, zeta does.

    Returns:
        ``[..., d]``; 0 where no point is positive. Source: YHL section 5.
    """
    members = positive.double()
    total: Tensor = (members[..., None, :] @ x.double())[..., 0, :]
    if of == "sum":
        return total
    return total / members.sum(dim=-1, keepdim=True).clamp_min(1)


# --- the decomposition ----------------------------------------------------------------------


@dataclass(frozen=True)
class Decomposition:
    """The excess error of an effective predictor, in two parts; every field has shape ``[...]``.

    Attributes:
        over_alignment: OA, the least error within the cone, minus E*. Falls as alpha grows.
        over_fitting: OF, the error of w_hat minus that least error. Rises as alpha grows.
        excess: E(w_hat) - E* = OA + OF.
        theta: Angle between w_hat and x_+, the half-width of the cone.
        phi: Angle between x_+ and s: why perfect alignment hurts.
    """

    over_alignment: Tensor
    over_fitting: Tensor
    excess: Tensor
    theta: Tensor
    phi: Tensor


def decompose(
    w_hat: Tensor, x_plus: Tensor, s: Tensor, kappa: float | Tensor, sigma: float | Tensor
) -> Decomposition:
    r"""Over-alignment and over-fitting of an effective predictor.

    The cone H holds the unit vectors at an angle <= theta to x_+. Its point nearest to s lies at the
    angle max(phi - theta, 0):

    .. math::
        OA = \Phi(-(\kappa/\sigma) \cos\max(\varphi - \theta, 0)) - E^*, \quad
        OF = E(\hat w) - E^* - OA

    For phi < theta OA = 0 and OF is the whole excess. OA belongs to too large, OF to too small FLS.

    Args:
        w_hat: ``[..., d]``, from :func:`effective_predictor`.
        x_plus: ``[..., d]``, sum or mean.
        s: Unit direction of the class centres, ``[..., d]``.
        kappa: Half the distance between the class centres, >= 0.
        sigma: Deviation of the noise, > 0.

    Returns:
        The parts. Source: YHL section 5.
    """
    theta, phi, own = angle(w_hat, x_plus), angle(x_plus, s), angle(w_hat, s)
    # own >= phi - theta is the triangle inequality on the sphere: the minimum only undoes rounding.
    nearest = torch.minimum((phi - theta).clamp_min(0), own)
    least, best = angle_error(nearest, kappa, sigma), bayes_error(kappa, sigma)
    error = angle_error(own, kappa, sigma)
    return Decomposition(least - best, error - least, error - best, theta, phi)


# --- the alignment phase --------------------------------------------------------------------


def zeta(
    alpha: float | Tensor,
    n: float,
    h: float,
    x_max: float | Tensor,
    w_max: float | Tensor,
    x_plus_norm: float | Tensor,
) -> Tensor:
    r"""The share of the pull of x_+ that is certain: 1 - 4·alpha·n·sqrt(h)·x_max^2·W_max^2 / \|x_+\|.

    MMV's bound on how far the direction of a neuron moves other than toward x_+, over the pull of x_+.
    Its derivation is for a sum loss, with x_+ the class sum; n is 1 for a mean loss over a class mean,
    where it cancels likewise. With the norm of a class MEAN and n points (sum loss over class mean) it
    is smaller, and the scale at which it is 0 falls with n.

    Args:
        alpha: Init scale, > 0.
        n: Number of training points.
        h: Width.
        x_max: Largest norm of a training input.
        w_max: Largest norm of a row of W, before alpha.
        x_plus_norm: Norm of the class sum, or of the class mean.

    Returns:
        ``[...]``, below 1; at 0 and below the alignment bound says nothing. Source: YHL section 5, from
        the bound on the directions in MMV (their lemma on early alignment).
    """
    norm = torch.as_tensor(x_plus_norm, dtype=torch.float64)
    return 1 - torch.as_tensor(alpha, dtype=torch.float64) / critical_scale(
        n, h, x_max, w_max, norm
    )


def critical_scale(
    n: float,
    h: float,
    x_max: float | Tensor,
    w_max: float | Tensor,
    x_plus_norm: float | Tensor,
) -> Tensor:
    r"""The alpha at which zeta = 0: \|x_+\| / (4·n·sqrt(h)·x_max^2·W_max^2).

    Args:
        n: Number of training points (1 for a mean loss over a class mean).
        h: Width.
        x_max: Largest norm of a training input.
        w_max: Largest norm of a row of W, before alpha.
        x_plus_norm: Norm of the class sum, or of the class mean.

    Returns:
        ``[...]`` > 0; 0 where x_+ = 0. Source: solved from zeta, YHL section 5.
    """
    x, w = (torch.as_tensor(one, dtype=torch.float64) for one in (x_max, w_max))
    return torch.as_tensor(x_plus_norm, dtype=torch.float64) / (4 * n * math.sqrt(h) * x**2 * w**2)


def optimum_exponents(
    x_plus: ClassVector, loss: Literal["sum", "mean"], *, w_max_exponent: float = 0.0
) -> tuple[float, float]:
    r"""How c* = alpha^2 scales with n and with h if the optimum lies where zeta = 0.

    The exponents are measured on :func:`critical_scale` by doubling n and h, with \|x_+\| ~ n for a
    class sum, and with the step of a mean loss 1/n of that of a sum loss.

    Args:
        x_plus: Whether x_+ is the class sum or mean.
        loss: Whether the loss is summed or averaged over the points.
        w_max_exponent: W_max ~ h to this power: 0 for entries of order one, -1/2 for N(0, 1/(d·h)).

    Returns:
        (exponent of n, exponent of h). Source: YHL section 5 reports n^-2·h^-1.
    """

    def c_star(n: float, h: float) -> float:
        # A mean loss pulls along the class sum over n, which is a class mean either way.
        norm = n if (x_plus, loss) == ("sum", "sum") else 1.0
        points = n if loss == "sum" else 1.0
        return float(critical_scale(points, h, 1.0, h**w_max_exponent, norm) ** 2)

    base = c_star(64, 64)
    return math.log2(c_star(128, 64) / base), math.log2(c_star(64, 128) / base)


def alignment_bound(zeta: Tensor, x_plus_norm: float | Tensor, elapsed: float | Tensor) -> Tensor:
    r"""Lower bound on psi_j, the cosine of a neuron with x_+: sqrt(zeta)·tanh(t·\|x_+\|·sqrt(zeta)).

    Args:
        zeta: ``[...]``, with the same x_+.
        x_plus_norm: ``[...]``, norm of the class sum, or of the class mean.
        elapsed: t, ``[...]``, time in the positive cone, of a flow on the sum loss with slope 1.

    Returns:
        ``[...]`` in [-1, 1); -1, which says nothing, where zeta <= 0 or no time has passed in the cone.
        Source: YHL section 5; it solves psi' = \|x_+\|·(zeta - psi^2) from psi = 0.
    """
    norm, time = (torch.as_tensor(k, dtype=torch.float64) for k in (x_plus_norm, elapsed))
    root = zeta.clamp_min(0).sqrt()
    valid = (zeta > 0) & (time >= 0)
    return torch.where(valid, root * torch.tanh(time.clamp_min(0) * norm * root), -1.0)


def phase1_time(alpha: float | Tensor, n: float, h: float, x_max: float | Tensor) -> Tensor:
    r"""How long norms stay small for certain: log(1 / (sqrt(h)·alpha)) / (4·n·X_max).

    Args:
        alpha: Init scale, > 0.
        n: Number of training points.
        h: Width.
        x_max: Largest norm of a training input.

    Returns:
        ``[...]`` >= 0, time of a flow on the sum loss with slope 1; 0 where alpha >= 1/sqrt(h): there
        is no such phase. Source: MMV, the time T of their lemma on small norms.
    """
    scale = torch.as_tensor(alpha, dtype=torch.float64) * math.sqrt(h)
    return -scale.log().clamp_max(0) / (4 * n * torch.as_tensor(x_max, dtype=torch.float64))


def mean_loss_time(time: float | Tensor, n: float) -> Tensor:
    """The time of a flow on mean logistic loss that has come as far: 2n times as long.

    Args:
        time: Of a flow on the sum of a loss with slope 1 at f = 0, ``[...]``.
        n: Number of training points.

    Returns:
        ``[...]``.
    """
    return 2 * n * torch.as_tensor(time, dtype=torch.float64)


def phase1_norm_bound(alpha: float | Tensor, h: float, w_max: float | Tensor) -> Tensor:
    r"""The squared norm up to which a neuron counts as small: 2·alpha·W_max^2 / sqrt(h).

    Phase 1 ends the first time that some \|w_j\|^2 exceeds it. At init norms are up to alpha·W_max, so
    that there is no phase 1 where alpha > 2/sqrt(h).

    Args:
        alpha: Init scale, > 0.
        h: Width.
        w_max: Largest norm of a row of W, before alpha.

    Returns:
        ``[...]`` > 0. Source: MMV, their lemma on small norms.
    """
    scale, w = (torch.as_tensor(one, dtype=torch.float64) for one in (alpha, w_max))
    return 2 * scale * w**2 / math.sqrt(h)
