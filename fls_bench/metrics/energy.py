"""Which part of a weight change lies in the span of the class means, and what else would do that."""

from __future__ import annotations

import torch
from torch import Tensor

from fls_bench.metrics.alignment import class_directions
from fls_bench.metrics.kernels import centered_features

_MAX_NUMBERS = 2**22
# Directions whose share of the span's energy is below this are rounding: the K directions from the
# grand mean are linearly dependent, so that the last one always is.
_DEPENDENT = 1e-9


def span_size(directions: Tensor) -> int:
    """Number of dimensions that unit vectors ``[K, d]`` span, NaN rows left out."""
    units = directions[directions.isfinite().all(dim=-1)]
    values = torch.linalg.svdvals(units)
    return int((values.square() > _DEPENDENT * len(units)).sum())


def energy_in_span(change: Tensor, directions: Tensor) -> Tensor:
    r"""Share of a matrix's squared norm that lies in the span of directions of its input space.

    .. math:: \|\Delta W \, P\|_F^2 / \|\Delta W\|_F^2, \qquad P \text{ the projection on the span}

    Args:
        change: ``[h, d]``, the change of a weight matrix.
        directions: ``[..., K, d]`` unit vectors or NaN, from
            :func:`~fls_bench.metrics.alignment.class_directions`.

    Returns:
        ``[...]`` float64 in [0, 1]; NaN where no direction is defined or the matrix is 0.

    Source: own definition, after Yeom, Ha, Lee (arXiv 2602.00827), section 5: in the alignment phase
    neurons move along the class means.
    """
    w = change.double()
    defined = directions.isfinite().all(dim=-1)
    units = directions.masked_fill(~defined[..., None], 0.0)
    along = units @ w.mT
    inverse = torch.linalg.pinv(units @ units.mT, rtol=_DEPENDENT, hermitian=True)
    inside = ((inverse @ along) * along).sum(dim=(-2, -1))
    share: Tensor = (inside / w.square().sum()).clamp(0.0, 1.0)
    return share.masked_fill(~defined.any(dim=-1), torch.nan)


def permuted_energies(
    change: Tensor, features: Tensor, labels: Tensor, n_classes: int, permutations: Tensor
) -> Tensor:
    """Energy of the same change in the span of the class means of permuted labels, the first null.

    Args:
        change: ``[h, d]``.
        features: ``[n, d]`` inputs of the layer.
        labels: ``[n]`` int.
        n_classes: K.
        permutations: ``[m, n]`` int, each row a permutation of 0 to n - 1.

    Returns:
        ``[m]`` float64 in ascending order; NaN as in :func:`energy_in_span`.

    Source: Phipson and Smyth (Stat. Appl. Genet. Mol. Biol. 9, 2010), section 3.
    """
    at_once = max(1, _MAX_NUMBERS // (n_classes * (len(change) + sum(features.shape))))
    values = [
        energy_in_span(change, class_directions(features, labels[some], n_classes))
        for some in (permutations[i : i + at_once] for i in range(0, len(permutations), at_once))
    ]
    return torch.cat(values).sort().values


def principal_energies(
    change: Tensor,
    features: Tensor,
    size: int,
    generator: torch.Generator,
    *,
    resamples: int,
    kept: int = 64,
) -> Tensor:
    """Energy of the same change in the leading principal components of its inputs, the second null.

    Gradients are sums of inputs, so they lie in the leading components whatever the labels say, and
    class means often lie there too. The components are those of bootstrap resamples of the points,
    computed within the leading ``kept`` (at least 2 ``size``) components of all points: what lies
    beyond those hardly ever enters the leading ones.

    Args:
        change: ``[h, d]``.
        features: ``[n, d]`` inputs of the layer.
        size: Number of components, that of the span of the class means.
        generator: Draws the resamples.
        resamples: Their number.
        kept: Components in which resamples may differ.

    Returns:
        ``[resamples]`` float64 in ascending order, in [0, 1]; NaN where the features do not vary or
        the change is 0.

    Source: own definition; bootstrap of principal components within a leading subspace: Fisher,
    Caffo, Schwartz, Zipunnikov (Journal of the American Statistical Association 111, 2016),
    section 3.
    """
    x, w = centered_features(features), change.double()
    n, d = x.shape
    most = min(n, d, max(kept, 2 * size))
    if d <= n:
        basis = torch.linalg.eigh(x.mT @ x).eigenvectors[:, -most:]
        scores = x @ basis
    else:
        values, left = torch.linalg.eigh(x @ x.mT)
        lengths = values[-most:].clamp_min(0).sqrt()
        scores = left[:, -most:] * lengths
        basis = torch.where(lengths > 0, (x.mT @ left[:, -most:]) / lengths, 0.0)
    along = w @ basis
    energy = along.mT @ along
    drawn = torch.randint(n, (resamples, n), generator=generator).to(x.device)
    at_once = max(1, _MAX_NUMBERS // (n * most))
    shares = []
    for i in range(0, resamples, at_once):
        some = scores[drawn[i : i + at_once]]
        some = some - some.mean(dim=-2, keepdim=True)
        leading = torch.linalg.eigh(some.mT @ some).eigenvectors[..., -size:]
        shares.append(((energy @ leading) * leading).sum(dim=(-2, -1)))
    share = (torch.cat(shares) / w.square().sum()).clamp(0.0, 1.0).sort().values
    return share if bool(x.any()) else torch.full_like(share, torch.nan)
