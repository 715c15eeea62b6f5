"""Functions of the centred linear kernel of one or two sets of features."""

from __future__ import annotations

import torch
from torch import Tensor

from fls_bench.schema import RankMeasure

# Rounding in a product over a few hundred inputs stays below this many units in the last place; a
# spread that is smaller says nothing about the net.
_ROUNDING_ULPS = 32


def rounding_level(features: Tensor) -> Tensor:
    """Deviation per entry that rounding alone may cause in features of this size and type.

    Args:
        features: ``[..., n, width]``, any float type.

    Returns:
        ``[..., 1, 1]`` float64: 32 units in the last place of the root mean square entry.
    """
    size = features.double().square().mean(dim=(-2, -1), keepdim=True).sqrt()
    return _ROUNDING_ULPS * torch.finfo(features.dtype).eps * size


def centered_features(features: Tensor) -> Tensor:
    """Features minus their mean over the samples, exactly 0 where they vary by rounding only.

    Args:
        features: ``[..., n, width]``, any float type.

    Returns:
        ``[..., n, width]`` in float64; all 0 where the root mean square deviation is within
        :func:`rounding_level` (so that a ratio built on it is NaN, never noise).
    """
    x = features.double()
    deviation = x - x.mean(dim=-2, keepdim=True)
    spread = deviation.square().mean(dim=(-2, -1), keepdim=True).sqrt()
    return deviation.masked_fill(spread <= rounding_level(features), 0.0)


def effective_rank(features: Tensor) -> Tensor:
    r"""Participation ratio of the features' covariance, a soft count of dimensions.

    .. math:: (\mathrm{tr}\,C)^2 / \mathrm{tr}(C^2) = (\sum_i \lambda_i)^2 / \sum_i \lambda_i^2

    with C the covariance over the samples and lambda its eigenvalues. It lies between 1 and
    min(n - 1, width), does not change under rotation and isotropic scaling of the features, and
    reads too low when n is small: 1 / expected value is about 1/n + 1/true value. (The other
    effective rank in use, the exponential of the eigenvalues' entropy, is larger.)

    Args:
        features: ``[..., n, width]``.

    Returns:
        ``[...]`` float64, in dimensions; NaN where the features do not vary.

    Source: Gao et al., "A theory of multineuronal dimensionality, dynamics and measurement"
    (bioRxiv 214262), the definition of the participation ratio.
    """
    x = centered_features(features)
    n, width = x.shape[-2:]
    # Both products have the same eigenvalues but for zeros: take the smaller one.
    kernel = x.mT @ x if width <= n else x @ x.mT
    return x.square().sum(dim=(-2, -1)).square() / kernel.square().sum(dim=(-2, -1))


_FLOOR = 1e-6
"""Of the trace, under each root: centring leaves an eigenvalue 0, whose root has no gradient."""


def log_rank(features: Tensor, measure: RankMeasure) -> Tensor:
    r"""Logarithm of an effective rank of centred features, with a gradient: a term of a loss.

    .. math:: \log \frac{(\sum_i \sigma_i)^2}{\sum_i \sigma_i^2} \quad\text{or}\quad
              \log \frac{(\sum_i \sigma_i^2)^2}{\sum_i \sigma_i^4}

    with sigma the singular values of the features minus their mean over the samples. The first
    (``nuclear``) sees the tail of the spectrum, the second (``participation``) hardly. For ``nuclear``
    a millionth of the trace is added to each sigma^2 under its root.

    Args:
        features: ``[..., n, width]``; the logarithm does not change with their scale.
        measure: Which of the two.

    Returns:
        ``[...]`` of the features' own type; a finite number without gradient where they do not vary.

    Source: the participation ratio as in :func:`effective_rank`; the other is the squared ratio of
    nuclear and Frobenius norm, between 1 and the rank by the inequality of Cauchy and Schwarz.
    """
    x = features - features.mean(dim=-2, keepdim=True)
    # Fourth powers of small features leave the range of float32; the norm cancels, also in the gradient.
    norm = x.detach().square().sum(dim=(-2, -1), keepdim=True).sqrt()
    x = x / norm.clamp_min(torch.finfo(x.dtype).tiny)
    kernel = x @ x.mT if x.shape[-2] <= x.shape[-1] else x.mT @ x
    trace = x.square().sum(dim=(-2, -1))
    least = torch.finfo(x.dtype).tiny ** 0.5
    if measure == "participation":
        squares: Tensor = kernel.square().sum(dim=(-2, -1))
        participation: Tensor = 2 * (trace + least).log() - (squares + least).log()
        return participation
    # A replica that has diverged must not stop the solver for the others.
    values = torch.linalg.eigvalsh(kernel.nan_to_num()).clamp_min(0.0)
    roots = (values + _FLOOR * trace.unsqueeze(-1) + least).sqrt()
    nuclear: Tensor = 2 * roots.sum(dim=-1).log() - (trace + least).log()
    return nuclear


def linear_cka(features: Tensor, reference: Tensor) -> Tensor:
    r"""Linear centred kernel alignment of two sets of features of the same samples.

    .. math:: \|Y^T X\|_F^2 / (\|X^T X\|_F \, \|Y^T Y\|_F), \qquad X, Y \text{ centred}

    1 where one set is a rotated and scaled copy of the other; it does not change under rotation
    and isotropic scaling of either. It reads too high when n is small against the widths.

    Args:
        features: ``[..., n, width]``.
        reference: ``[..., n, other_width]``.

    Returns:
        ``[...]`` float64 in [0, 1]; NaN where one of the sets does not vary.

    Source: Kornblith et al., "Similarity of Neural Network Representations Revisited"
    (arXiv 1905.00414), equation 4 with the linear kernel (table 1).
    """
    x, y = centered_features(features), centered_features(reference)
    n = x.shape[-2]
    if n < max(x.shape[-1], y.shape[-1]):
        kernel, other = x @ x.mT, y @ y.mT
        cross = (kernel * other).sum(dim=(-2, -1))
    else:
        kernel, other = x.mT @ x, y.mT @ y
        cross = (y.mT @ x).square().sum(dim=(-2, -1))
    norms = kernel.square().sum(dim=(-2, -1)).sqrt() * other.square().sum(dim=(-2, -1)).sqrt()
    return (cross / norms).clamp(max=1.0)


def kernel_alignment(kernel: Tensor, other: Tensor) -> Tensor:
    r"""Centred alignment of two kernels on the same points.

    .. math:: \langle HKH, HLH \rangle_F / (\|HKH\|_F \|HLH\|_F), \qquad H = I - 11^T/n

    Linear CKA where both are linear kernels; label alignment where L = Y Y^T for one-hot labels Y.

    Args:
        kernel: ``[n, n]`` symmetric.
        other: The same shape.

    Returns:
        0-d float64 in [0, 1]; NaN where a kernel is constant.

    Source: Cortes, Mohri, Rostamizadeh, "Algorithms for learning kernels based on centered
    alignment" (JMLR 13, 2012), definition 4.
    """
    first, second = _double_centered(kernel), _double_centered(other)
    norms: Tensor = torch.linalg.matrix_norm(first) * torch.linalg.matrix_norm(second)
    return ((first * second).sum() / norms).clamp(0.0, 1.0)


def _double_centered(kernel: Tensor) -> Tensor:
    k = kernel.double()
    centred = k - k.mean(dim=0, keepdim=True) - k.mean(dim=1, keepdim=True) + k.mean()
    level = _ROUNDING_ULPS * torch.finfo(torch.float32).eps * torch.linalg.matrix_norm(k)
    return centred.masked_fill(torch.linalg.matrix_norm(centred) <= level, 0.0)


def kernel_regression(kernel: Tensor, across: Tensor, targets: Tensor, jitter: float) -> Tensor:
    """What kernel ridge regression predicts at new points.

    Args:
        kernel: ``[n, n]`` among the training points.
        across: ``[t, n]`` from new to training points.
        targets: ``[n, K]``.
        jitter: Ridge, as a share of the mean of the kernel's diagonal.

    Returns:
        ``[t, K]`` float64; NaN where the system has no solution.

    Source: Jacot, Gabriel, Hongler, "Neural tangent kernel" (arXiv 1806.07572), section 5: the limit
    of training under a constant kernel.
    """
    k = kernel.double()
    ridge = jitter * k.diagonal().mean() * torch.eye(len(k), dtype=k.dtype, device=k.device)
    solution, failed = torch.linalg.solve_ex(k + ridge, targets.double())
    predicted: Tensor = across.double() @ solution
    return predicted.masked_fill(failed != 0, torch.nan)
