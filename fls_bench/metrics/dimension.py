"""Intrinsic dimension of a set of points, from the distances to the two nearest neighbours."""

from __future__ import annotations

import torch
from torch import Tensor

from fls_bench.metrics.kernels import rounding_level

DISCARDED = 0.1


def neighbour_ratios(points: Tensor) -> tuple[Tensor, Tensor]:
    """Distance to the second nearest neighbour over that to the nearest, for each point.

    Args:
        points: ``[n, d]``, n >= 3.

    Returns:
        (``[n]`` float64 >= 1, NaN where the nearest neighbour is a duplicate up to rounding;
        number of such points, 0-d int).
    """
    x = points.double()
    x = x - x.mean(dim=0, keepdim=True)
    distances = torch.cdist(x, x, compute_mode="use_mm_for_euclid_dist")
    distances.fill_diagonal_(torch.inf)
    near = distances.topk(3 if len(x) > 3 else 2, dim=1, largest=False).indices
    # Products cancel; the few distances that count are computed again from the differences.
    exact = torch.linalg.vector_norm(x[near] - x[:, None, :], dim=-1).sort(dim=1).values
    duplicate = exact[:, 0] <= rounding_level(points)[0, 0] * x.shape[-1] ** 0.5
    return (exact[:, 1] / exact[:, 0]).masked_fill(duplicate, torch.nan), duplicate.sum()


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
