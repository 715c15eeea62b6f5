"""Intervals of differences over seeds, and what difference they could have shown.

Nothing here loads a statistics library: a comparison of stored files must not wait for one.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from fls_bench.report.summary import t_quantile

Values = npt.NDArray[np.float64]

MAX_LISTED = 16
"""Pairs of seeds up to which every sign flip is looked at; beyond, as many drawn ones."""

POWER = 0.8
NUM_DRAWS = 300


def sign_flip_interval(differences: Values, level: float) -> tuple[float, float] | None:
    """Interval of a mean paired difference: what a sign-flip test at ``level`` can't reject.

    The bounds are order statistics of the means over subsets of the differences: of the 2^n - 1
    nonempty subsets, floor(level/2 · 2^n) lie at or beyond each bound. Exact where differences are
    symmetric about their centre, which paired differences of exchangeable runs are. Beyond
    ``MAX_LISTED`` pairs the subsets are drawn, with a fixed seed.

    Args:
        differences: [n], one for each seed, in the metric's unit.
        level: Two-sided error rate in (0, 1).

    Returns:
        (low, high), or None where so few pairs can't reach the level.

    Source: J. A. Hartigan, "Using subsample values as typical values", JASA 64 (1969), theorems 1, 2.
    """
    n = len(differences)
    if n < 2 or 2.0 ** (1 - n) > level:
        return None
    if n <= MAX_LISTED:
        sums, sizes = np.zeros(1), np.zeros(1)
        for one in differences:
            sums, sizes = np.concatenate([sums, sums + one]), np.concatenate([sizes, sizes + 1])
        means = sums[1:] / sizes[1:]
    else:
        chosen = np.random.default_rng(0).random((2**MAX_LISTED - 1, n)) < 0.5
        chosen[~chosen.any(axis=1), 0] = True
        means = chosen @ differences / chosen.sum(axis=1)
    k = math.floor(level / 2 * (len(means) + 1) + 1e-9)
    means.partition([k - 1, len(means) - k])
    return float(means[k - 1]), float(means[-k])


def welch_interval(before: Values, after: Values, level: float) -> tuple[float, float] | None:
    """Interval of the difference of two independent means; degrees of freedom rounded down.

    Args:
        before: [n], one for each seed.
        after: [m], of other seeds.
        level: Two-sided error rate in (0, 1).

    Returns:
        (low, high) of after - before; None with fewer than three of either, or where neither varies
        and so few can't reach the level.

    Source: B. L. Welch, "The generalization of 'Student's' problem ...", Biometrika 34 (1947).
    """
    if min(len(before), len(after)) < 3:
        return None
    error, df = _welch(before, after)
    middle = float(after.mean() - before.mean())
    if error == 0 and middle and 2 / math.comb(len(before) + len(after), len(after)) > level:
        return (
            None  # so few equal values are no proof of zero variance: a permutation can't reach it
        )
    half = t_quantile(1 - level, df) * error
    return middle - half, middle + half


def _welch(before: Values, after: Values) -> tuple[float, int]:
    """Standard error of the difference, and its degrees of freedom."""
    # No variance is formed: its square can leave the range of floating point numbers.
    errors = [_deviation(one) / math.sqrt(len(one)) for one in (before, after)]
    total = math.hypot(*errors)
    if total == 0:
        return 0.0, len(before) + len(after) - 2
    sides = zip(errors, (before, after), strict=True)
    below = sum((error / total) ** 4 / (len(one) - 1) for error, one in sides)
    return total, max(1, math.floor(1 / below + 1e-9))


def _deviation(values: Values) -> float:
    """Standard deviation of a sample, however small or large."""
    centred = values - values.mean()
    scale = float(np.abs(centred).max())
    return scale * float((centred / scale).std(ddof=1)) if scale else 0.0


def detectable_in_pairs(spread: float, n: int, level: float, least: float) -> float:
    """Smallest true mean difference that pairs of seeds show in ``POWER`` of cases.

    Shown: the sign-flip interval excludes 0 and the observed difference is beyond ``least``. Under a
    shift d of normal differences the lower bound moves by d, so that the answer is a quantile over
    draws; beyond ``MAX_LISTED`` pairs Student's t is near enough.

    Args:
        spread: Standard deviation of the differences.
        n: Number of pairs that can reach the level.
        level: Two-sided error rate.
        least: Practical minimum.

    Returns:
        The difference, at least ``least``.
    """
    if n > MAX_LISTED:
        return _by_t(spread / math.sqrt(n), n - 1, level, least)
    lows, means = _standard_draws(n, level)
    return float(np.quantile(np.maximum(-spread * lows, least - spread * means), POWER))


@lru_cache(maxsize=16)
def _standard_draws(n: int, level: float) -> tuple[Values, Values]:
    """Lower bounds and means of draws of n standard normal differences."""
    draws = np.random.default_rng(1).standard_normal((NUM_DRAWS, n))
    bounds = [sign_flip_interval(draw, level) for draw in draws]
    return np.array([k[0] for k in bounds if k is not None]), draws.mean(axis=1)


def detectable_apart(before: Values, after: Values, level: float, least: float) -> float:
    """The same for two independent samples, by Welch's standard error."""
    return _by_t(*_welch(before, after), level, least)


def _by_t(error: float, df: int, level: float, least: float) -> float:
    return max(t_quantile(1 - level, df) * error, least) + t_quantile(2 * POWER - 1, df) * error
