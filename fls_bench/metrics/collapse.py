"""Neural collapse: how far the features of a class have shrunk to its mean, and the read-out to both."""

from __future__ import annotations

import torch
from torch import Tensor

from fls_bench.metrics.alignment import class_means
from fls_bench.metrics.kernels import rounding_level


def within_between(features: Tensor, labels: Tensor, n_classes: int) -> Tensor:
    r"""Variability within classes against that between them, NC1.

    .. math:: \mathrm{tr}(\Sigma_W \Sigma_B^\dagger) / K

    Sigma_W is the covariance of points around their class mean, Sigma_B that of the class means
    around the mean of the class means, and K the number of classes with points.

    Args:
        features: ``[n, d]``.
        labels: ``[n]`` int.
        n_classes: Upper bound of the labels.

    Returns:
        0-d float64 >= 0, 0 for complete collapse; NaN where the class means are equal.

    Source: Papyan, Han, Donoho, "Prevalence of neural collapse during the terminal phase of deep
    learning training" (PNAS 117, 2020), NC1 as in the section "Methods".
    """
    x = features.double()
    means = class_means(x, labels, n_classes)
    within = x - means[labels.long()]
    present = means[means.isfinite().all(dim=-1)]
    num = len(present)
    if num == 0:
        return torch.tensor(torch.nan, dtype=torch.float64)
    _, lengths, directions = torch.linalg.svd(
        present - present.mean(dim=0, keepdim=True), full_matrices=False
    )
    # Class means that differ by rounding only have no direction to be far apart in.
    real = lengths > rounding_level(features)[0, 0] * x.shape[-1] ** 0.5
    variances = (within @ directions.mT).square().mean(dim=0)
    ratios: Tensor = (variances * num / lengths.square()).masked_fill(~real, 0.0)
    return (ratios.sum() / num).masked_fill(~real.any(), torch.nan)


def self_duality(readout: Tensor, features: Tensor, labels: Tensor) -> Tensor:
    r"""Cosine between the read-out weights and the centred class means, NC3.

    .. math:: \langle W, \dot M \rangle_F / (\|W\|_F \|\dot M\|_F)

    The mean over the classes is taken off the rows of W, as softmax does not see it. It is 1 where
    the read-out has become the class means; the squared distance of Papyan et al. is 2 - 2 of it.

    Args:
        readout: ``[K, d]``; one row stands for two classes, told apart by the sign.
        features: ``[n, d]`` that the read-out acts on.
        labels: ``[n]`` int.

    Returns:
        0-d float64 in [-1, 1]; NaN where the class means are equal, a class has no points, or the
        read-out is 0.

    Source: Papyan, Han, Donoho (PNAS 117, 2020), NC3.
    """
    w = readout.double()
    means = class_means(features, labels, max(2, len(w)))
    if len(w) == 1:
        means = means[1:] - means[:1]
    else:
        w = w - w.mean(dim=0, keepdim=True)
        means = means - means.mean(dim=0, keepdim=True)
    length = torch.linalg.vector_norm(means)
    cosine: Tensor = (w * means).sum() / (torch.linalg.vector_norm(w) * length)
    rounding = rounding_level(features)[0, 0] * means.numel() ** 0.5
    return cosine.clamp(-1.0, 1.0).masked_fill(length <= rounding, torch.nan)
