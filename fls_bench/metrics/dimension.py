"""Intrinsic dimension of a set of points, from distances to nearest neighbours."""

from __future__ import annotations

import torch
from torch import Tensor

from fls_bench.metrics.kernels import rounding_level

DISCARDED = 0.1


def neighbour_distances(points: Tensor, num: int) -> tuple[Tensor, Tensor]:
    """Distances of each point to its ``num`` nearest neighbours.

    Args:
        points: ``[n, d]``, n > num.
        num: At least 1.

    Returns:
        (``[n, num]`` float64 > 0 in ascending order, NaN where the nearest neighbour is a duplicate
        up to rounding; number of such points, 0-d int).
    """
    x = points.double()
    x = x - x.mean(dim=0, keepdim=True)
    distances = torch.cdist(x, x, compute_mode="use_mm_for_euclid_dist")
    distances.fill_diagonal_(torch.inf)
    near = distances.topk(min(num + 1, len(x) - 1), dim=1, largest=False).indices
    # Products cancel; the few distances that count are computed again from the differences.
    exact = torch.stack([torch.linalg.vector_norm(x[j] - x, dim=1) for j in near.T], dim=1)
    exact = exact.sort(dim=1).values[:, :num]
    duplicate = exact[:, 0] <= rounding_level(points)[0, 0] * x.shape[-1] ** 0.5
    return exact.masked_fill(duplicate[:, None], torch.nan), duplicate.sum()


def neighbour_ratios(points: Tensor) -> tuple[Tensor, Tensor]:
    """Distance to the second nearest neighbour over that to the nearest, for each point.

    Args:
        points: ``[n, d]``, n >= 3.

    Returns:
        (``[n]`` float64 >= 1, NaN where the nearest neighbour is a duplicate up to rounding;
        number of such points, 0-d int).
    """
    distances, duplicates = neighbour_distances(points, 2)
    return distances[:, 1] / distances[:, 0], duplicates


def two_nn_dimension(ratios: Tensor) -> Tensor:
    r"""Slope through the origin of -log(1 - F(mu)) against log mu, F the empirical distribution.

    The tenth with the largest ratios is left out, where the density is least constant.

    Args:
        ratios: ``[n]`` from :func:`neighbour_ratios`, without NaN.

    Returns:
        0-d float64 > 0; infinite or NaN where the two neighbours are always equally far.

    Source: Facco, d'Errico, Rodriguez, Laio, "Estimating the intrinsic dimension of datasets by a
    minimal neighborhood information" (Scientific Reports 7, 2017), section "Results", steps 1-5.
    """
    n = len(ratios)
    logs = ratios.log().sort().values[: int(n * (1 - DISCARDED))]
    below = torch.arange(1, len(logs) + 1, device=logs.device, dtype=torch.float64) / n
    heights = -torch.log1p(-below)
    return (logs * heights).sum() / logs.square().sum()


def mle_dimension(distances: Tensor) -> Tensor:
    r"""(mean over points i and j < k of log(T_k(i) / T_j(i)))^-1, T_j the distance to neighbour j.

    It uses more of the neighbours than :func:`two_nn_dimension` does: it varies less, and is defined
    on a grid as well, where the nearest neighbours are equally far; but it asks for a constant
    density over a larger ball, so that it lies lower where points are few for the dimension.

    Args:
        distances: ``[n, k]`` from :func:`neighbour_distances`, k >= 2, without NaN.

    Returns:
        0-d float64 > 0; infinite where all k neighbours of every point are equally far.

    Source: Levina, Bickel, "Maximum likelihood estimation of intrinsic dimension" (NeurIPS 2004),
    eq. 8; averaged over points by its inverse as MacKay, Ghahramani, "Comments on 'Maximum likelihood
    estimation of intrinsic dimension'" (2005) derive.
    """
    return 1 / (distances[:, -1:] / distances[:, :-1]).log().mean()
