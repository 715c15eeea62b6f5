"""Sweeps -> verdict: which side of the best output multiplier a setup is on, and how sure that is.

The regime is decided on paired differences of test error, D(c') = R(c0) - R(c'), seed by seed, each
with its own deviation (the noise differs by orders of magnitude between multipliers):

- D > 0 is claimed by one-sided Student-t tests with Holm's step-down over every multiplier that the
  sweep could have reached, tried or not: where to look next may then depend on the data.
- near-optimal is claimed only if each D is below 2·delta by its own one-sided test; all of them must
  hold, so no correction is needed (an intersection-union test, Berger 1982).
- a sweep that adds seeds where it is undecided looks several times; the levels of its looks add up
  to ``LEVEL``.

Smaller c = larger FLS = toward over-aligned. Nothing in here sees a tensor: a verdict can be
repeated from a report's sweep.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import stdtrit

from fls_bench.schema import Code, CStar, Gain, Interval, Regime
from fls_bench.verdict.contrasts import (
    FAMILY,
    LEVEL,
    Contrast,
    Errors,
    Table,
    contrast,
    holm,
    practical_margin,
)


def points(difference: float) -> str:
    """A difference of error rates in points, for people."""
    number = f"{100 * difference:.2g}"
    return f"{number} point" if number == "1" else f"{number} points"


@dataclass(frozen=True)
class Decision:
    """What the test errors say at one look.

    Attributes:
        regime: The regime.
        reason: Why, as a code and a sentence.
        contrasts: c' -> D(c').
        better: The c' that are better than c0 by more than delta, beyond noise.
        open: The c' that are neither better nor shown to be no better than 2·delta: more seeds there
            would help.
        delta: The practical margin.
        seeds_needed: About how many seeds would decide; None where that can't be told.
    """

    regime: Regime
    reason: Code
    contrasts: Mapping[float, Contrast]
    better: tuple[float, ...]
    open: tuple[float, ...]
    delta: float
    seeds_needed: int | None = None


def decide(
    test: Mapping[float, Errors],
    c: float,
    n_test: int,
    *,
    level: float = LEVEL,
    family: int = FAMILY,
    symbol: str = "c",
) -> Decision:
    """Decide the regime of c from test errors (science: definitions of the regimes and delta).

    Args:
        test: c' -> [S] test errors aligned by seed, NaN where there is none; must hold c.
        c: The multiplier that is judged.
        n_test: Number of test points.
        level: Family-wise error rate of this look.
        family: How many c' could have been tried.
        symbol: What the swept quantity is called in the reason.

    Returns:
        The decision; ``INCONCLUSIVE`` whenever the evidence does not separate the regimes.
    """
    means = {key: float(np.nanmean(row)) for key, row in test.items() if np.isfinite(row).any()}
    delta = practical_margin(min(means.values()), n_test)
    contrasts = {
        other: found
        for other, row in test.items()
        if other != c and (found := contrast(test[c], row, 1 / n_test)) is not None
    }
    below = [other for other in contrasts if other < c]
    above = [other for other in contrasts if other > c]
    rejected = holm({k: v.p_value for k, v in contrasts.items()}, level, family)
    better = tuple(sorted(k for k in rejected if contrasts[k].mean > delta))
    cleared = {k for k, v in contrasts.items() if v.mean + v.half_width(level) < 2 * delta}
    undecided = tuple(sorted(set(contrasts) - cleared - set(better)))

    def result(regime: Regime, code: str, text: str, needed: int | None = None) -> Decision:
        return Decision(
            regime, Code(code=code, text=text), contrasts, better, undecided, delta, needed
        )

    if not below or not above:
        side = "smaller" if not below else "larger"
        return result(
            Regime.INCONCLUSIVE,
            "one_side_missing",
            f"No {side} {symbol} could be judged, so that side can't be excluded.",
        )
    if any(k in below for k in better) and any(k in above for k in better):
        return result(
            Regime.INCONCLUSIVE,
            "two_optima",
            f"Both a smaller and a larger {symbol} do better than this one: there is more than one "
            "optimum.",
        )
    if better:
        best = max(better, key=lambda k: contrasts[k].mean)
        over = Regime.OVER_ALIGNED if best > c else Regime.OVER_FITTED
        return result(
            over,
            "better_multiplier_found",
            f"{len(better)} {'larger' if best > c else 'smaller'} {symbol} did better by more than "
            f"{points(delta)} of test error, beyond noise, and none on the other side.",
        )
    if not undecided:
        return result(
            Regime.NEAR_OPTIMAL,
            "no_better_multiplier",
            f"No {symbol} in the range does better by more than {points(2 * delta)} of test error "
            f"(twice the practical margin), each excluded at level {level:.2g}.",
        )
    needed = _seeds_needed([contrasts[k] for k in undecided], delta, level, family)
    hint = (
        f"About {needed} seeds would decide."
        if needed
        else "Some differences lie so near the practical margin that more seeds may not decide."
    )
    num_seeds = max(v.num_seeds for v in contrasts.values())
    return result(
        Regime.INCONCLUSIVE,
        "too_few_seeds",
        f"{num_seeds} seeds can't tell whether {len(undecided)} of {len(contrasts)} other {symbol} do "
        f"better by more than the practical margin of {points(delta)}. {hint}",
        needed,
    )


def _seeds_needed(
    undecided: Sequence[Contrast], delta: float, level: float, family: int
) -> int | None:
    """Seeds at which each contrast would be settled, were its mean and deviation the true ones."""
    worst = 0
    for found in undecided:
        deviation = found.standard_error * math.sqrt(found.num_seeds)
        for n in (3, 4, 5, 6, 8, 10, 12, 16, 20, 30, 40, 60, 80, 120, 160, 200):
            error = deviation / math.sqrt(n)
            cleared = found.mean - stdtrit(n - 1, level) * error < 2 * delta
            better = found.mean > delta and found.mean + stdtrit(n - 1, level / family) * error > 0
            if n > found.num_seeds and (cleared or better):
                worst = max(worst, n)
                break
        else:
            return None
    return worst or None


def best_multiplier(data: Table, c: float) -> float:
    """c*: the usable multiplier with the lowest validation error, paired with c by seed.

    Args:
        data: The table; must hold c.
        c: The multiplier that is judged, which has every seed.

    Returns:
        c*; of equals the one nearest to c.
    """

    def excess(other: float) -> float:
        found = contrast(data.val[other], data.val[c], 1 / data.n_test)
        return math.inf if found is None else found.mean

    return min(
        data.val,
        key=lambda other: (0.0 if other == c else excess(other), abs(math.log2(other / c))),
    )


def open_ends(data: Table, star: float) -> tuple[float, ...]:
    """Ends of the range where validation error is still within the practical margin of its best.

    Beyond such an end some c may do as well as c* or better.

    Args:
        data: The table.
        star: c*, one of its multipliers.

    Returns:
        The lowest and the highest usable c, as far as they are open.
    """
    margin = practical_margin(float(np.nanmean(data.val[star])), data.n_test)

    def is_open(end: float) -> bool:
        found = contrast(data.val[end], data.val[star], 1 / data.n_test)
        return end == star or (found is not None and found.mean < margin)

    return tuple(end for end in sorted({min(data.val), max(data.val)}) if is_open(end))


def c_star(data: Table, c: float, level: float = LEVEL, value: float | None = None) -> CStar:
    """c* and the set of multipliers that may be the best one, from validation errors.

    A multiplier leaves the set if some other is better beyond noise; each is tested against the
    m - 1 others at level/(m - 1), so the best of those tried stays in with probability 1 - level
    (multiple comparisons with the best, Hsu 1984). The interval is the extent of the set.

    Args:
        data: The table; must hold c.
        c: The multiplier that is judged.
        level: Error rate.
        value: c*, where it is known already; None: ``best_multiplier``.

    Returns:
        c* with its interval; ``at_edge`` says which end of the range the interval reaches.
    """
    value = best_multiplier(data, c) if value is None else value
    tried = sorted(data.val)
    share = level / max(1, len(tried) - 1)

    def beaten(one: float) -> bool:
        found = (
            contrast(data.val[one], data.val[other], 1 / data.n_test)
            for other in tried
            if other != one
        )
        return any(k is not None and k.p_value < share for k in found)

    kept = [one for one in tried if one == value or not beaten(one)]
    ends = open_ends(data, value)
    # Where the whole curve is flat both ends are open: the nearer one is named.
    nearest = min(ends, key=lambda end: abs(math.log2(end / value)), default=None)
    edge: Literal["none", "low", "high"] = (
        "none" if nearest is None else "low" if nearest == tried[0] else "high"
    )
    return CStar(value=value, low=kept[0], high=kept[-1], level=1 - level, at_edge=edge)


def log2_ratio(c: float, star: CStar) -> Interval:
    """log2(c / c*) with the interval of c*; negative = toward over-aligned."""
    assert star.low is not None
    assert star.high is not None
    return Interval(
        value=math.log2(c / star.value),
        low=math.log2(c / star.high),
        high=math.log2(c / star.low),
        level=star.level,
    )


def gain(before: Errors, after: Errors, n_test: int, level: float = LEVEL) -> Gain | None:
    """Expected gain in test accuracy, paired by seed.

    Unbiased where the seeds are fresh, that is, where they had no part in choosing ``after``: a
    multiplier's luck on validation data is partly the luck of the same nets on test data.

    Args:
        before: [S] test errors at c.
        after: [S] test errors at the multiplier that was chosen.
        n_test: Number of test points.
        level: Error rate of the two-sided Student-t interval.

    Returns:
        The gain in percentage points, or None with too few shared seeds.
    """
    found = contrast(before, after, 1 / n_test)
    if found is None:
        return None
    width = found.half_width(level / 2)
    return Gain(
        value=100 * found.mean,
        low=100 * (found.mean - width),
        high=100 * (found.mean + width),
        num_seeds=found.num_seeds,
        level=1 - level,
    )


def loss_disagrees(data: Table, c: float, star: float) -> float | None:
    """The c of lowest validation loss, if it lies on the other side of c than c* does."""
    means = {}
    for other, row in data.val_loss.items():
        found = contrast(row, data.val_loss[c], 0.0)
        if found is not None:
            means[other] = found.mean
    if not means:
        return None
    best = min(means, key=lambda k: means[k])
    return best if (best - c) * (star - c) < 0 else None
