"""Whether a halving of the step of a flow left what is judged as it was."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from fls_bench.schema import OUTCOME_WORDS, Outcome, Sweep
from fls_bench.schema.theory import (
    DIFFERENCE_SHARE,
    LARGE_SHARE,
    NOT_BY_DEGREES,
    RUNS_DIFFER,
    FlowLevel,
)
from fls_bench.verdict.claims.cases import t_interval
from fls_bench.verdict.claims.theory.c5 import ROUNDING, trends
from fls_bench.verdict.claims.theory.c6 import main_slope, slope_outcome
from fls_bench.verdict.claims.theory.table import Table, table_of

ERROR_FLOOR, ANGLE_FLOOR, SLOPE_FLOOR = 1e-5, 1e-3, 2e-3
"""A halved step may move a mean by this much in any case: error rates, radians, and the slope."""

WATCHED: Mapping[str, float] = {
    "over_alignment": ERROR_FLOOR,
    "over_fitting": ERROR_FLOOR,
    "excess_effective": ERROR_FLOOR,
    "theta": ANGLE_FLOOR,
}

Change = tuple[float, str]
"""By how many times what is allowed something changed, and what."""


def flow_level(step: float, before: Sweep | None, sweep: Sweep, tolerance: float) -> FlowLevel:
    """What is kept of all runs at one step.

    Args:
        step: The step.
        before: The runs at twice the step; None at the first.
        sweep: The runs at this one.
        tolerance: Share of its 95 % half-width by which a mean may move.
    """
    runs = [run for cell in sweep.cells for run in cell.seeds]
    outcomes = [run.outcome for run in runs]
    table = table_of(sweep)
    slope = None if table is None else main_slope(table)
    change, changed = (None, None) if before is None else largest_change(before, sweep, tolerance)
    return FlowLevel(
        step=step, num_runs=len(runs), num_reached=outcomes.count(Outcome.REACHED_TARGET),
        replica_steps=sum(run.epochs for run in runs),
        slope=None if slope is None else slope.value, change=change, changed=changed,
    )  # fmt: skip


def largest_change(before: Sweep, after: Sweep, tolerance: float) -> Change:
    """What a halving of the step changed most, of all that it must leave as it was.

    The outcomes of C5 and C6 may not change at all. Of every scale, the mean over seeds of what is
    watched may move by the tolerance times its 95 % half-width, plus a floor, and so may the slope of
    C6. C5 is decided by differences between scales that are paired by seed, which are known far better
    than the means: between any two scales, neighbours or not, these may move by ``DIFFERENCE_SHARE`` of
    C5's margin, and by ``LARGE_SHARE`` of the difference itself: between a scale that fits like a kernel
    and one that does not, errors differ by so much that the margin is no measure of it.

    Args:
        before: The runs at twice the step.
        after: The runs.
        tolerance: See above.

    Returns:
        The change, <= 1 where all is as it was; ``NOT_BY_DEGREES`` for what changes or does not.
    """
    old, new = table_of(before), table_of(after)
    if old is None or new is None or old.alphas != new.alphas or old.seeds != new.seeds:
        return NOT_BY_DEGREES, RUNS_DIFFER
    return max([*_means(old, new, tolerance), *_c5(old, new), *_c6(old, new, tolerance)])


def _means(old: Table, new: Table, tolerance: float) -> Iterator[Change]:
    for name, floor in WATCHED.items():
        a, b = old.of(name), new.of(name)
        for k, alpha in enumerate(new.alphas):
            interval = t_interval(b[k])
            assert interval.high is not None
            allowed = tolerance * (interval.high - interval.value) + floor
            moved = abs(float(np.mean(b[k] - a[k])))
            yield moved / allowed, f"mean {name.replace('_', ' ')} at {alpha:.3g}"


def _c5(old: Table, new: Table) -> Iterator[Change]:
    first, second = trends(old), trends(new)
    if first.outcome != second.outcome:
        yield _other("C5", first.outcome, second.outcome)
    allowed = DIFFERENCE_SHARE * second.margin + ROUNDING
    for name, words in (("over_alignment", "OA"), ("over_fitting", "OF")):
        before, after = (one.of(name).mean(axis=1) for one in (old, new))
        moves = after - before
        shares = [
            (abs(moves[j] - moves[i]) / (allowed + LARGE_SHARE * abs(after[j] - after[i])), i, j)
            for i in range(len(moves)) for j in range(i + 1, len(moves))
        ]  # fmt: skip
        share, i, j = max(shares)
        yield (
            float(share),
            f"the difference in {words} between {new.power(i)} and {new.power(j)}",
        )


def _c6(old: Table, new: Table, tolerance: float) -> Iterator[Change]:
    first, second = main_slope(old), main_slope(new)
    if slope_outcome(first) != slope_outcome(second):
        yield _other("C6", slope_outcome(first), slope_outcome(second))
    if (first is None) != (second is None):
        yield NOT_BY_DEGREES, "whether the angle has a slope"
    if first is not None and second is not None:
        assert second.high is not None
        allowed = tolerance * (second.high - second.value) + SLOPE_FLOOR
        yield abs(second.value - first.value) / allowed, "the slope of the angle"


def _other(claim: str, first: str, second: str) -> Change:
    words = f"the outcome of {claim} ({OUTCOME_WORDS[first]}, then {OUTCOME_WORDS[second]})"
    return NOT_BY_DEGREES, words
