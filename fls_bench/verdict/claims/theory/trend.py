"""Whether a quantity moves one way only over the scales, beyond the noise of seeds."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri, stdtrit

from fls_bench.schema import ClaimOutcome, Interval
from fls_bench.verdict.claims.cases import LEVEL, NUM_DRAWS, Values, t_interval

SEEDS_FOR_SIGNS = 10


@dataclass(frozen=True)
class Trend:
    """Whether a quantity moves one way only over the scales, but for changes within a margin.

    Attributes:
        outcome: As a claim's.
        total: Its change from the first scale to the last.
        worst: The largest mean change the wrong way between two scales, or None where there is none.
        between: The indices of these scales.
        back: Pairs of scales between which it moves the wrong way beyond noise, by however little.
    """

    outcome: ClaimOutcome
    total: Interval
    worst: Interval | None
    between: tuple[int, int]
    back: tuple[tuple[int, int], ...]


def trend(values: Values, rising: bool, margin: float) -> Trend:
    """Test over all pairs of scales, paired by seed, whether a quantity moves the wrong way nowhere.

    Against it: some pair moves the wrong way by more than the margin, by intervals that hold for all
    pairs at once (about so: see ``_joint_quantile``). For it: no pair does by its own 95 % interval (an
    intersection-union test, which needs no correction), and the total change has the right sign by its
    own. So a quantity that passes may still stand still, or turn back by less than the margin. Noise is
    that of seeds alone: an error that all of them share, as that of a step, is not in the intervals.

    Args:
        values: [A, S].
        rising: Which way it should move.
        margin: Change that is no practical one, >= 0.

    Returns:
        The trend.
    """
    num, num_seeds = values.shape
    pairs = [(i, j) for i in range(num) for j in range(i + 1, num)]
    sign = -1.0 if rising else 1.0
    wrong = np.array([sign * (values[j] - values[i]) for i, j in pairs])  # [P, S]
    means, errors = wrong.mean(axis=1), wrong.std(axis=1, ddof=1) / math.sqrt(num_seeds)
    each = -float(stdtrit(num_seeds - 1, LEVEL / 2))
    least = means - _joint_quantile(wrong - means[:, None], errors) * errors
    total = t_interval(values[-1] - values[0])
    assert total.low is not None
    assert total.high is not None
    right = total.low > 0 if rising else total.high < 0
    outcome: ClaimOutcome = "undecided"
    if (least > margin).any():
        outcome = "not_reproduced"
    elif right and bool((means + each * errors <= margin).all()):
        outcome = "reproduced"
    k = int(means.argmax())
    worst = t_interval(wrong[k]) if means[k] > 0 else None
    back = tuple(pair for pair, one in zip(pairs, least, strict=True) if one > 0)
    return Trend(outcome, total, worst, pairs[k], back)


def _joint_quantile(centred: Values, errors: Values) -> float:
    """By how many standard errors some mean exceeds its true value in about 2.5 % of cases.

    Neighbouring pairs of scales say nearly the same, so Bonferroni's correction would give most of the
    power away: the largest t under random signs of the seeds is used in its place, with the tail of
    Student's t over the normal one. Too few seeds have too few signs; there it is Bonferroni's.

    Args:
        centred: [P, S] differences minus their means.
        errors: [P] standard errors of these means.

    Returns:
        The quantile, at least that of a single mean.

    Source: Westfall and Young, "Resampling-based multiple testing" (1993), section 2.
    """
    num_pairs, num_seeds = centred.shape
    single = -float(stdtrit(num_seeds - 1, LEVEL / 2))
    if num_seeds < SEEDS_FOR_SIGNS:
        return -float(stdtrit(num_seeds - 1, LEVEL / 2 / num_pairs))
    varying = errors > 0
    if not varying.any():
        return single
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (NUM_DRAWS, num_seeds))
    largest = (signs @ centred[varying].T / num_seeds / errors[varying]).max(axis=1)
    tail = single / -float(ndtri(LEVEL / 2))
    return max(single, tail * float(np.quantile(largest, 1 - LEVEL / 2)))
