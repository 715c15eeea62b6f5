"""Paired contrasts by seed, corrected for how many there are; a sweep's errors as one table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr, stdtrit

from fls_bench.schema import Outcome, Sweep

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
    words = {Outcome.OUT_OF_BUDGET: "ran out of epochs", Outcome.PLATEAU: "reached a plateau"}
    causes = ", ".join(f"{count} {words.get(k, k.value)}" for k, count in bad.items())
    return f"{good} of {len(outcomes)} runs reached the target ({causes})"


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


def beats_chance(
    data: Table, errors: Mapping[float, Errors] | None = None, level: float = LEVEL
) -> bool:
    """Whether any usable c does better than the majority class, beyond noise.

    Args:
        data: The table.
        errors: c -> [S] errors to compare; None: the test errors.
        level: Family-wise error rate over the usable c (Holm).

    Returns:
        False also where nothing could be compared.
    """
    tests = {
        c: found.p_value
        for c, row in (data.test if errors is None else errors).items()
        if (found := contrast(data.chance, row, 1 / data.n_test)) is not None
    }
    return bool(holm(tests, level, len(tests)))
