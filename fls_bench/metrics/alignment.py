"""Class means: how neurons line up with them, and the classifier that they make alone."""

from __future__ import annotations

import torch
from torch import Tensor

from fls_bench.metrics.kernels import rounding_level

_MAX_NUMBERS = 2**22


def class_means(features: Tensor, labels: Tensor, n_classes: int) -> Tensor:
    """Mean of the features of each class.

    Args:
        features: ``[..., n, d]``.
        labels: ``[..., n]`` int, 0 to n_classes - 1.
        n_classes: K.

    Returns:
        ``[..., K, d]`` float64; NaN for a class without samples.
    """
    members: Tensor = torch.nn.functional.one_hot(labels.long(), n_classes).double()
    return (members.mT @ features.double()) / members.sum(dim=-2)[..., None]


def class_directions(features: Tensor, labels: Tensor, n_classes: int) -> Tensor:
    r"""Unit vectors from the mean of all samples to the mean of each class.

    mean_k - mean is a positive multiple of (mean of class k) - (mean of the rest), and, where the
    classes have equal counts, of the first gradient step of logit k of a linear net with f = 0.
    With two classes both directions span the same line.

    Args:
        features: ``[..., n, d]``.
        labels: ``[..., n]`` int.
        n_classes: K.

    Returns:
        ``[..., K, d]`` float64; NaN for a class without samples and where the class mean differs
        from the mean by rounding only.
    """
    x = features.double()
    offsets = class_means(x, labels, n_classes) - x.mean(dim=-2, keepdim=True)
    lengths: Tensor = torch.linalg.vector_norm(offsets, dim=-1, keepdim=True)
    rounding = rounding_level(features) * x.shape[-1] ** 0.5
    return (offsets / lengths).masked_fill(lengths <= rounding, torch.nan)


def class_mean_alignment(weights: Tensor, directions: Tensor) -> Tensor:
    r"""Norm-weighted mean over neurons of the largest \|cosine\| with a class-mean direction.

    .. math:: \sum_j |w_j| \max_k |\cos(w_j, u_k)| \Big/ \sum_j |w_j|

    A neuron that turned its back on a class is as aligned as one that faces it, hence the modulus.
    The maximum over single classes is preferred to the cosine with their span: where features have
    lost rank, the span of any K group means covers nearly all of them, and the span's cosine can
    no longer be told from that of permuted labels. It is far from 0 without any training: read it
    against its value at init and against :func:`permuted_alignments` only.

    Args:
        weights: ``[..., h, d]``, one row per neuron.
        directions: ``[..., K, d]`` unit vectors or NaN, from :func:`class_directions`.

    Returns:
        ``[...]`` float64 in [0, 1]; NaN where no direction is defined or all weights are 0.

    Source: Yeom, Ha, Lee (arXiv 2602.00827), section 5: the cosine of a neuron with the class mean
    at the end of the alignment phase; weighted by norm so that neurons that never grew don't count.
    """
    w = weights.double()
    defined = directions.isfinite().all(dim=-1)
    units = directions.masked_fill(~defined[..., None], 0.0)
    projections = (w @ units.mT).abs().amax(dim=-1).sum(dim=-1)
    norms: Tensor = torch.linalg.vector_norm(w, dim=-1).sum(dim=-1)
    return (projections / norms).clamp(max=1.0).masked_fill(~defined.any(dim=-1), torch.nan)


def permuted_alignments(
    weights: Tensor, features: Tensor, labels: Tensor, n_classes: int, permutations: Tensor
) -> Tensor:
    """Alignment of the same neurons with the class means of permuted labels, the null.

    Weights and features stay as they are, so the null keeps what any group means share (the
    leading principal components). For weights that do not depend on the labels, the true value is
    exchangeable with these: it exceeds the r-th smallest of m in (m + 1 - r) / (m + 1) of cases.

    Args:
        weights: ``[h, d]``.
        features: ``[n, d]``.
        labels: ``[n]`` int.
        n_classes: K.
        permutations: ``[m, n]`` int, each row a permutation of 0 to n - 1.

    Returns:
        ``[m]`` float64 in ascending order; NaN as in :func:`class_mean_alignment`.

    Source: the rank of a value among its permutations, Phipson and Smyth, "Permutation P-values
    should never be zero" (Stat. Appl. Genet. Mol. Biol. 9, 2010), section 3.
    """
    # Many permutations at once are ten times faster; wide layers take fewer, to bound the memory.
    at_once = max(1, _MAX_NUMBERS // (n_classes * (len(weights) + sum(features.shape))))
    values = [
        class_mean_alignment(weights, class_directions(features, labels[some], n_classes))
        for some in (permutations[i : i + at_once] for i in range(0, len(permutations), at_once))
    ]
    return torch.cat(values).sort().values


def split_half_cosine(
    features: Tensor, labels: Tensor, n_classes: int, generator: torch.Generator, *, splits: int
) -> Tensor:
    """Cosine of class-mean directions estimated from one half of the points with the other half's.

    The halves are drawn within each class. No alignment with class means can be told from a perfect
    one more finely than two halves of the data agree on where the class means are; a direction from
    all n points is closer to the true one than this, a direction from n/2 points as close.

    Args:
        features: ``[n, d]``.
        labels: ``[n]`` int.
        n_classes: K.
        generator: Draws the halves.
        splits: How many times the points are halved.

    Returns:
        0-d float64 in [-1, 1], the mean over classes with two points or more and over splits; NaN
        where no class has a direction in both halves.

    Source: split-half reliability, Spearman, "Correlation calculated from faulty data" (British
    Journal of Psychology 3, 1910), here without the step up to the full length.
    """
    cosines = []
    for _ in range(splits):
        keys = labels + torch.rand(len(labels), generator=generator).to(labels.device)
        order = keys.argsort()
        halves = [
            class_directions(features[half], labels[half], n_classes)
            for half in (order[::2], order[1::2])
        ]
        cosines.append((halves[0] * halves[1]).sum(dim=-1))
    return torch.stack(cosines).nanmean().clamp(-1.0, 1.0)


def nearest_class_mean(points: Tensor, means: Tensor) -> Tensor:
    """Label of the nearest class mean (Euclidean) for each point.

    Args:
        points: ``[..., m, d]``.
        means: ``[..., K, d]``, NaN for a class that can't be chosen.

    Returns:
        ``[..., m]`` int64; the lowest label where distances are equal.

    Source: Papyan, Han, Donoho, "Prevalence of neural collapse" (PNAS 117, 2020), NC4, there in
    feature space, here with the means of the space that the caller passes.
    """
    m = means.double()
    # Distances do not change with the origin; near the means, little of them is cancelled.
    origin = m.nanmean(dim=-2, keepdim=True)
    m = m - origin
    scores = (points.double() - origin) @ m.mT - 0.5 * m.square().sum(dim=-1)[..., None, :]
    return scores.masked_fill(scores.isnan(), -torch.inf).argmax(dim=-1)
