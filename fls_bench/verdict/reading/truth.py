"""The known regime of every net of an atlas: that of its setup at its c, from a sweep's errors."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fls_bench.schema import Outcome, Regime
from fls_bench.verdict.contrasts import (
    LEVEL,
    Table,
    beats_chance,
    usable,
)
from fls_bench.verdict.regime import Decision, c_star, decide

Values = npt.NDArray[np.float64]

GREY = (2 / 3, 3 / 2)
"""Between these multiples of delta the largest difference decides nothing: such setups are no truth."""

MAX_WIDTH = 8.0
"""Octaves of c that may be the best, beyond which c* is not known well enough to be learned."""

REGIMES = (Regime.OVER_ALIGNED, Regime.NEAR_OPTIMAL, Regime.OVER_FITTED)


@dataclass(frozen=True)
class Cell:
    """What a sweep says of one c.

    Attributes:
        regime: By the procedure of the regimes; at an end of the range, where only one side could be
            tried, the regime of the next c if the same side does better here too. None where it is
            not known.
        grey: Whether it is no truth, since the largest difference lies near delta, or the side that
            the regime speaks against does better by more than delta as well, if not beyond noise.
        log2_ratio: log2(c / c*), or None where c* is not known well enough.
    """

    regime: Regime | None
    grey: bool
    log2_ratio: float | None


NOTHING_KNOWN = Cell(None, False, None)


def truth(
    log2_c: Values,
    seed: Values,
    outcome: list[Outcome],
    errors: Values,
    n_test: int,
) -> dict[float, Cell]:
    """The regime at each c of one setup.

    Args:
        log2_c: ``[R]`` of each run.
        seed: ``[R]``.
        outcome: Of each run.
        errors: ``[R, 5]`` validation error and loss, test error and loss, chance.
        n_test: Number of test points.

    Returns:
        log2(c) -> what is known of it; c where too few runs reached the target are left out.
    """
    data = _table(log2_c, seed, outcome, errors, n_test)
    if len(data.test) < 3 or not beats_chance(data):
        return {math.log2(c): NOTHING_KNOWN for c in data.test}
    tried = sorted(data.test)
    sides: dict[float, tuple[Regime | None, bool]] = {}
    for c in tried:
        decision = decide(data.test, c, n_test, level=LEVEL, family=len(tried) - 1)
        largest = max((k.mean for k in decision.contrasts.values()), default=0.0) / decision.delta
        regime: Regime | None = decision.regime
        if decision.reason.code == "one_side_missing" and decision.better:
            regime = Regime.OVER_ALIGNED if c == tried[0] else Regime.OVER_FITTED
        elif regime is Regime.INCONCLUSIVE:
            regime = None
        sides[c] = regime, GREY[0] < largest < GREY[1] or _contradicted(c, regime, decision)
    for end, inner in ((tried[0], tried[1]), (tried[-1], tried[-2])):
        if sides[end][0] is not sides[inner][0]:
            sides[end] = None, sides[end][1]
    star = c_star(data, tried[len(tried) // 2])
    assert star.low is not None
    assert star.high is not None
    known = math.log2(star.high / star.low) <= MAX_WIDTH and star.value not in (tried[0], tried[-1])
    return {
        math.log2(c): Cell(regime, grey, math.log2(c / star.value) if known else None)
        for c, (regime, grey) in sides.items()
    }


def _contradicted(c: float, regime: Regime | None, decision: Decision) -> bool:
    """Whether the mean errors speak for the other side too: one c in the noise of its neighbours."""
    if regime not in (Regime.OVER_ALIGNED, Regime.OVER_FITTED):
        return False
    return any(
        found.mean > decision.delta
        for other, found in decision.contrasts.items()
        if (other < c) == (regime is Regime.OVER_ALIGNED)
    )


def _table(
    log2_c: Values, seed: Values, outcome: list[Outcome], errors: Values, n_test: int
) -> Table:
    seeds = sorted(set(seed.tolist()))
    place = {one: k for k, one in enumerate(seeds)}
    rows: dict[str, dict[float, Values]] = {"val": {}, "val_loss": {}, "test": {}}
    chance, unusable = np.full(len(seeds), np.nan), {}
    for log in sorted(set(log2_c.tolist())):
        own = np.flatnonzero(log2_c == log)
        c = 2.0**log
        why = usable([outcome[k] for k in own])
        if why is not None:
            unusable[c] = why
            continue
        for column, name in ((0, "val"), (1, "val_loss"), (2, "test")):
            row = np.full(len(seeds), np.nan)
            for k in own:
                if outcome[k] is Outcome.REACHED_TARGET:
                    row[place[seed[k]]] = errors[k, column]
            rows[name][c] = row
        for k in own:
            chance[place[seed[k]]] = errors[k, 4]
    return Table(rows["test"], rows["val"], rows["val_loss"], chance, unusable, n_test)
