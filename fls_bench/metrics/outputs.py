"""What logits say: errors, ties, loss. One logit means two classes, told apart by its sign."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus


def class_centered(logits: Tensor) -> Tensor:
    """Logits minus their mean over the classes, which softmax can't see: ``[..., n, K]`` float64.

    One logit is returned as it is.
    """
    x = logits.double()
    return x if x.shape[-1] == 1 else x - x.mean(dim=-1, keepdim=True)


def tied_points(logits: Tensor) -> Tensor:
    """1 where the largest logits are equal (one logit: f = 0 exactly), else 0.

    Args:
        logits: ``[..., n, K]``.

    Returns:
        ``[..., n]`` float64; NaN where a logit is not finite.
    """
    if logits.shape[-1] == 1:
        tied = logits[..., 0] == 0
    else:
        top = logits.topk(2, dim=-1).values
        tied = top[..., 0] == top[..., 1]
    return tied.double().masked_fill(~logits.isfinite().all(dim=-1), torch.nan)


def point_errors(logits: Tensor, labels: Tensor) -> Tensor:
    """Chance of a wrong answer at each point, ties among the largest logits broken at random.

    Args:
        logits: ``[..., n, K]``; one logit stands for (0, f), so that f = 0 is half an error.
        labels: ``[..., n]`` int.

    Returns:
        ``[..., n]`` float64 in [0, 1]; NaN where a logit is not finite. The mean over n is the
        error.
    """
    if logits.shape[-1] == 1:
        logits = torch.cat([torch.zeros_like(logits), logits], dim=-1)
    top = logits == logits.amax(dim=-1, keepdim=True)
    hit = top.gather(-1, labels.long().unsqueeze(-1)).squeeze(-1)
    wrong = 1 - hit.double() / top.sum(dim=-1).clamp_min(1)
    return wrong.masked_fill(~logits.isfinite().all(dim=-1), torch.nan)


def mean_error(logits: Tensor, labels: Tensor, balanced: bool = False) -> Tensor:
    """Error over points, or balanced: the mean over the classes that occur of the error in each.

    Args:
        logits: ``[n, K]``.
        labels: ``[n]`` int.
        balanced: Whether every class counts alike, however many points it has.

    Returns:
        0-d float64 in [0, 1]. Source: Brodersen et al., "The balanced accuracy and its posterior
        distribution" (ICPR 2010); ties as in :func:`point_errors`.
    """
    errors = point_errors(logits, labels)
    if not balanced:
        return errors.mean()
    counts = torch.bincount(labels.long())
    sums = torch.zeros(len(counts), dtype=errors.dtype).index_add(0, labels.long(), errors)
    return (sums[counts > 0] / counts[counts > 0]).mean()


def point_losses(logits: Tensor, labels: Tensor) -> Tensor:
    r"""Loss of each point: cross-entropy, or the logistic loss log(1 + exp(-y f)) for one logit.

    Args:
        logits: ``[..., n, K]``.
        labels: ``[..., n]`` int; for one logit 1 stands for y = +1 and 0 for y = -1.

    Returns:
        ``[..., n]`` float64 in nats. The mean over n is the loss.
    """
    x = logits.double()
    if x.shape[-1] == 1:
        return softplus((1 - 2 * labels.long()) * x[..., 0])
    return -x.log_softmax(dim=-1).gather(-1, labels[..., None].long())[..., 0]


def class_probabilities(logits: Tensor) -> Tensor:
    """Softmax of logits ``[..., n, K]`` as float64; one logit f gives (1 - p, p), p its sigmoid."""
    x = logits.double()
    if x.shape[-1] == 1:
        x = torch.cat([torch.zeros_like(x), x], dim=-1)
    return x.softmax(dim=-1)


def brier_score(logits: Tensor, labels: Tensor) -> Tensor:
    r"""Mean squared distance of the probabilities from the one-hot labels.

    .. math:: \frac1n \sum_i \sum_k (p_{ik} - [y_i = k])^2

    Args:
        logits: ``[n, K]``; one logit counts as two classes.
        labels: ``[n]`` int.

    Returns:
        0-d float64 in [0, 2], 0 best.

    Source: Brier, "Verification of forecasts expressed in terms of probability" (Monthly Weather
    Review 78, 1950), equation 2.
    """
    p = class_probabilities(logits)
    truth = torch.nn.functional.one_hot(labels.long(), p.shape[-1]).double()
    return (p - truth).square().sum(dim=-1).mean()


CALIBRATION_BINS = 15


def calibration_error(logits: Tensor, labels: Tensor, *, bins: int = CALIBRATION_BINS) -> Tensor:
    r"""Expected calibration error: confidence against accuracy, in equal bins of confidence.

    .. math:: \sum_b \frac{n_b}{n} |\mathrm{acc}_b - \mathrm{conf}_b|

    Confidence is the largest probability; bins are (i/bins, (i + 1)/bins]. It reads too high for few
    points, for a net that is perfectly calibrated by up to about sqrt(bins / n) / 3.

    Args:
        logits: ``[n, K]``; one logit counts as two classes.
        labels: ``[n]`` int.
        bins: Number of bins.

    Returns:
        0-d float64 in [0, 1], 0 best.

    Source: Guo, Pleiss, Sun, Weinberger, "On calibration of modern neural networks" (arXiv
    1706.04599), equation 3, with their 15 bins.
    """
    confidence = class_probabilities(logits).amax(dim=-1)
    surplus = confidence - (1 - point_errors(logits, labels))
    index = (confidence * bins).ceil().long().clamp(1, bins) - 1
    sums = torch.zeros(bins, dtype=surplus.dtype, device=surplus.device)
    return sums.index_add(0, index, surplus).abs().sum() / len(surplus)
