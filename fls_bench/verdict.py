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
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr, stdtrit

from fls_bench.schema import Code, CStar, Gain, Interval, Outcome, Regime, Sweep

LEVEL = 0.05
"""Bound on the chance of calling a flat truth over-aligned or over-fitted."""

LOOKS = (0.2, 0.3, 0.5)
"""How ``LEVEL`` is shared between the looks of a sweep; later looks have more seeds."""

FAMILY = 24
"""How many multipliers beside c0 a sweep can reach: Holm's family, tried or not."""

MIN_SEEDS = 3
MAX_DELTA = 0.01
USABLE_SHARE = 0.9
"""At least this share of a multiplier's runs must reach the target for it to be judged."""

Errors = npt.NDArray[np.float64]


def practical_margin(best_error: float, n_test: int) -> float:
    """delta: the smaller of one point and a tenth of the best error, never below one test point.

    Args:
        best_error: Lowest mean test error of the sweep, in 0 .. 1.
        n_test: Number of test points.

    Returns:
        delta > 0, a difference of error rates.
    """
    return max(min(MAX_DELTA, 0.1 * best_error), 1 / n_test)


@dataclass(frozen=True)
class Contrast:
    """A paired difference: mean over shared seeds, and its standard error.

    ``mean`` is positive where the second of the two is better (lower).
    """

    mean: float
    standard_error: float
    num_seeds: int

    @property
    def p_value(self) -> float:
        """One-sided: how often a true difference <= 0 looks this large."""
        if self.standard_error == 0:
            return 0.0 if self.mean > 0 else 1.0
        return float(stdtr(self.num_seeds - 1, -self.mean / self.standard_error))

    def half_width(self, level: float) -> float:
        """Half-width of the one-sided interval at 1 - level, in error rates."""
        return float(-stdtrit(self.num_seeds - 1, level)) * self.standard_error


def contrast(first: Errors, second: Errors, resolution: float) -> Contrast | None:
    """Compare two rows of errors over the seeds that both have.

    Args:
        first: [S] errors, NaN where a seed has none.
        second: [S], the same seeds.
        resolution: Error of one test point. Errors are counts: a handful of equal differences is no
            proof of zero variance, so the deviation is never taken below half of it.

    Returns:
        The contrast, or None with fewer than ``MIN_SEEDS`` shared seeds.
    """
    difference = first - second
    difference = difference[np.isfinite(difference)]
    if len(difference) < MIN_SEEDS:
        return None
    deviation = max(float(difference.std(ddof=1)), 0.5 * resolution)
    if not np.any(difference):
        deviation = 0.0  # the same errors everywhere: nothing to be unsure of
    return Contrast(
        float(difference.mean()), deviation / math.sqrt(len(difference)), len(difference)
    )


def holm(p_values: Mapping[float, float], level: float, family: int) -> set[float]:
    """Keys whose hypothesis Holm's step-down rejects in a family of at least that size.

    Args:
        p_values: Key -> p of the hypotheses that were tested.
        level: Family-wise error rate.
        family: Number of hypotheses that could have been tested; those that were not count with
            p = 1, which keeps the rate whatever decided which ones were.

    Returns:
        The rejected keys. Source: Holm, Scand. J. Statist. 6 (1979) 65.
    """
    family = max(family, len(p_values))
    rejected: set[float] = set()
    for key, p in sorted(p_values.items(), key=lambda item: item[1]):
        if p > level / (family - len(rejected)):
            break
        rejected.add(key)
    return rejected


@dataclass(frozen=True)
class Table:
    """Errors of a sweep's usable multipliers, aligned by seed: what every judgement starts from.

    Attributes:
        test: c -> [S] test errors, NaN where a run did not reach the target.
        val: The same of validation errors.
        val_loss: The same of validation losses.
        chance: [S] test error of the majority class.
        unusable: c -> why it can't be judged.
        n_test: Number of test points.
    """

    test: Mapping[float, Errors]
    val: Mapping[float, Errors]
    val_loss: Mapping[float, Errors]
    chance: Errors
    unusable: Mapping[float, str]
    n_test: int


def usable(outcomes: Sequence[Outcome]) -> str | None:
    """Why runs at one multiplier can't be judged, or None where they can.

    Args:
        outcomes: How they ended.

    Returns:
        A sentence, or None where at least nine in ten reached the target.
    """
    good = sum(outcome is Outcome.REACHED_TARGET for outcome in outcomes)
    if outcomes and good >= USABLE_SHARE * len(outcomes):
        return None
    bad: dict[Outcome, int] = {}
    for outcome in outcomes:
        if outcome is not Outcome.REACHED_TARGET:
            bad[outcome] = bad.get(outcome, 0) + 1
    causes = ", ".join(f"{count} {outcome.value.replace('_', ' ')}" for outcome, count in bad.items())
    return f"only {good} of {len(outcomes)} runs reached the target ({causes})"


def table(sweep: Sweep, aligned_with: Sweep | None = None) -> Table:
    """Align a sweep's cells by seed.

    Args:
        sweep: Any sweep.
        aligned_with: Another sweep, whose seeds get their columns too.

    Returns:
        The table; cells that can't be judged are listed in ``unusable``.
    """
    cells = [*sweep.cells, *(aligned_with.cells if aligned_with else ())]
    seeds = sorted({run.seed for cell in cells for run in cell.seeds})
    place = {seed: i for i, seed in enumerate(seeds)}
    chance = np.full(len(seeds), np.nan)
    rows: dict[str, dict[float, Errors]] = {"test_error": {}, "val_error": {}, "val_loss": {}}
    unusable = {}
    for cell in sweep.cells:
        why = None if cell.usable else cell.reason or "not usable"
        if why is not None:
            unusable[cell.c] = why
        for field, target in rows.items():
            row = np.full(len(seeds), np.nan)
            for run in cell.seeds:
                value = getattr(run, field)
                if run.outcome is Outcome.REACHED_TARGET and value is not None:
                    row[place[run.seed]] = value
            if why is None:
                target[cell.c] = row
        for run in cell.seeds:
            if run.chance_error is not None:
                chance[place[run.seed]] = run.chance_error
    return Table(
        rows["test_error"], rows["val_error"], rows["val_loss"], chance, unusable, sweep.n_test
    )


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
) -> Decision:
    """Decide the regime of c from test errors (science: definitions of the regimes and delta).

    Args:
        test: c' -> [S] test errors aligned by seed, NaN where there is none; must hold c.
        c: The multiplier that is judged.
        n_test: Number of test points.
        level: Family-wise error rate of this look.
        family: How many c' could have been tried.

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
    cleared = {
        k for k, v in contrasts.items() if v.mean + v.half_width(level) < 2 * delta
    }
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
            f"No {side} c could be judged, so that side can't be excluded.",
        )
    if any(k in below for k in better) and any(k in above for k in better):
        return result(
            Regime.INCONCLUSIVE,
            "two_optima",
            "Both a smaller and a larger c do better than this one: there is more than one optimum.",
        )
    if better:
        best = max(better, key=lambda k: contrasts[k].mean)
        over = Regime.OVER_ALIGNED if best > c else Regime.OVER_FITTED
        return result(
            over,
            "better_multiplier_found",
            f"{len(better)} {'larger' if best > c else 'smaller'} c did better by more than "
            f"{100 * delta:.2g} points of test error, beyond noise, and none on the other side.",
        )
    if not undecided:
        return result(
            Regime.NEAR_OPTIMAL,
            "no_better_multiplier",
            f"No c in the range does better by more than {200 * delta:.2g} points of test error "
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
        f"{num_seeds} seeds can't tell whether {len(undecided)} of {len(contrasts)} other c do "
        f"better by more than the practical margin of {100 * delta:.2g} points. {hint}",
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


def beats_chance(data: Table, level: float = LEVEL) -> bool:
    """Whether any usable c does better on test data than the majority class, beyond noise.

    Args:
        data: The table.
        level: Family-wise error rate over the usable c (Holm).

    Returns:
        False also where nothing could be compared.
    """
    tests = {
        c: found.p_value
        for c, row in data.test.items()
        if (found := contrast(data.chance, row, 1 / data.n_test)) is not None
    }
    return bool(holm(tests, level, len(tests)))


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


def c_star(data: Table, c: float, level: float = LEVEL) -> CStar:
    """c* and the set of multipliers that may be the best one, from validation errors.

    A multiplier leaves the set if some other is better beyond noise; each is tested against the
    m - 1 others at level/(m - 1), so the best of those tried stays in with probability 1 - level
    (multiple comparisons with the best, Hsu 1984). The interval is the extent of the set.

    Args:
        data: The table; must hold c.
        c: The multiplier that is judged.
        level: Error rate.

    Returns:
        c* with its interval; ``at_edge`` says which end of the range the interval reaches.
    """
    value = best_multiplier(data, c)
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
    ends = {"low": kept[0] == tried[0], "high": kept[-1] == tried[-1]}
    if value in (tried[0], tried[-1]):
        edge = "low" if value == tried[0] else "high"
    elif all(ends.values()):
        edge = "low" if value * value < tried[0] * tried[-1] else "high"
    else:
        edge = next((name for name, at in ends.items() if at), "none")
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


def gain(
    before: Errors, after: Errors, n_test: int, num_compared: int, level: float = LEVEL
) -> Gain | None:
    """Expected gain in test accuracy, with an interval that allows for ``after`` being selected.

    Args:
        before: [S] test errors at c.
        after: [S] test errors at the multiplier that was chosen on validation data.
        n_test: Number of test points.
        num_compared: How many multipliers the choice was among; the interval holds for all of them
            at once (Bonferroni), since the chosen one's luck on validation data is partly its luck
            on test data.
        level: Error rate.

    Returns:
        The gain in percentage points, or None with too few shared seeds.
    """
    found = contrast(before, after, 1 / n_test)
    if found is None:
        return None
    width = found.half_width(level / (2 * max(1, num_compared)))
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


# --- mechanisms -----------------------------------------------------------------------------


def _paired(sweep: Sweep, c: float, other: float, metric: str) -> Contrast | None:
    """Metric at c minus the same at other, by seed, over runs that reached the target."""
    found = {}
    for cell in sweep.cells:
        if cell.c in (c, other):
            found[cell.c] = {
                run.seed: run.measurements[metric]
                for run in cell.seeds
                if run.outcome is Outcome.REACHED_TARGET and metric in run.measurements
            }
    first, second = found.get(c, {}), found.get(other, {})
    seeds = sorted(set(first) & set(second))
    return contrast(
        np.array([first[s] for s in seeds]), np.array([second[s] for s in seeds]), 0.0
    )


def over_aligned_mechanism(
    sweep: Sweep, c: float, star: float, beats_alignment_nulls: bool | None
) -> tuple[Code, dict[str, float]]:
    """Name what was measured to go with over-alignment: association, not intervention.

    Args:
        sweep: The sweep.
        c: The multiplier that is judged.
        star: c*.
        beats_alignment_nulls: Whether the model's neurons are closer to class-mean directions than
            at init *and* than 95 % of label permutations; None where that was not measured.

    Returns:
        (``class_mean_alignment``, ``rank_collapse`` or ``undetermined`` with the text, the evidence
        as numbers).
    """
    evidence: dict[str, float] = {}

    def change(metric: str) -> int:
        """Sign of metric(c) - metric(c*) beyond noise, else 0."""
        found = _paired(sweep, c, star, metric)
        if found is None:
            return 0
        evidence[f"{metric} at c minus at c*"] = found.mean
        width = found.half_width(LEVEL / 2)
        return (found.mean > width) - (found.mean < -width)

    rank_logits, rank_last = change("rank.effective:logits"), change("rank.effective:last")
    closer = change("agreement.nearest_class_mean")
    # A rank lost in the logits or in the last features, and gained in neither.
    lost_rank = min(rank_logits, rank_last) < 0 and max(rank_logits, rank_last) <= 0
    aligned = closer > 0 and beats_alignment_nulls is True
    if aligned and not lost_rank:
        text = (
            "class-mean alignment: the net answers more like the nearest-class-mean classifier than "
            "at c*, and its neurons are closer to the class means than at init and than under "
            "permuted labels."
        )
        return Code(code="class_mean_alignment", text=text), evidence
    if lost_rank and closer <= 0:
        text = (
            "rank collapse: the effective rank of the last features or logits is lower than at c*, "
            "while agreement with the nearest-class-mean classifier is not higher. (Measured "
            "together; that the one causes the other was not tested.)"
        )
        return Code(code="rank_collapse", text=text), evidence
    both = " Rank is lower and agreement with the class means higher, so neither is singled out."
    text = "undetermined: the measurements do not single out one mechanism."
    return Code(code="undetermined", text=text + (both if lost_rank else "")), evidence


def over_fitted_face(
    plain_sweep: Sweep, centered_sweep: Sweep, c: float, star: float
) -> tuple[Code, dict[str, float]]:
    """Split an over-fitted excess into what the initial function does and what laziness does.

    D_noise = R(c) - R_centered(c) is removed by centering; D_lazy = R_centered(c) - R(c*) stays. The
    larger names the face if the two differ beyond noise.

    Args:
        plain_sweep: The sweep of c·f.
        centered_sweep: The sweep of c·(f - f_0), same seeds.
        c: The multiplier that is judged.
        star: c*.

    Returns:
        (``initial_function_noise``, ``lazy`` or ``undetermined``, the evidence in points of error).
    """
    plain, centered = table(plain_sweep, centered_sweep), table(centered_sweep, plain_sweep)
    if c not in centered.test or star not in plain.test or c not in plain.test:
        text = "undetermined: the centered runs at this c did not reach the target."
        return Code(code="undetermined", text=text), {}
    at_c, at_star, without = plain.test[c], plain.test[star], centered.test[c]
    resolution = 1 / plain.n_test
    noise, lazy = contrast(at_c, without, resolution), contrast(without, at_star, resolution)
    difference = contrast(at_c - without, without - at_star, resolution)
    if noise is None or lazy is None or difference is None:
        return Code(code="undetermined", text="undetermined: too few centered runs."), {}
    evidence = {
        "points removed by centering": 100 * noise.mean,
        "points that stay": 100 * lazy.mean,
        "half-width of their difference": 100 * difference.half_width(LEVEL / 2),
        "num_seeds": float(difference.num_seeds),
    }
    parts = f"centering removes {100 * noise.mean:.1f} points of error, {100 * lazy.mean:.1f} stay"
    width = difference.half_width(LEVEL / 2)
    if difference.mean > width:
        text = (
            f"initial-function noise: {parts}. Most of the harm is the initial function c·f_0 that "
            "training must undo."
        )
        return Code(code="initial_function_noise", text=text), evidence
    if difference.mean < -width:
        text = f"lazy: {parts}. Most of the harm is that the features hardly move."
        return Code(code="lazy", text=text), evidence
    text = f"undetermined: {parts}, too close to call."
    return Code(code="undetermined", text=text), evidence


def neighbours(values: Sequence[float], value: float) -> tuple[float, float]:
    """The values next to one in a sorted list; itself at an end."""
    ordered = sorted(values)
    low = high = value
    for a, b in pairwise(ordered):
        if b == value:
            low = a
        if a == value:
            high = b
    return low, high
