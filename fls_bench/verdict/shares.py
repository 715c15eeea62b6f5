"""What a penalty on ranks returned of a gap in accuracy: ratios of paired means, and their words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from fls_bench.schema import (
    Interval,
    Intervention,
    InterventionRow,
    Outcome,
    RankMeasure,
    RankPenalty,
    RankSide,
    SeedResult,
)
from fls_bench.verdict.contrasts import LEVEL, MIN_SEEDS, usable

MAX_MISS = math.log(1.1)
"""A rank farther than a tenth from its target, on the side that is penalised, was not held."""

BySeed = Mapping[int, float]


def ratio_of_means(
    numerators: npt.ArrayLike, denominators: npt.ArrayLike, level: float = LEVEL
) -> Interval:
    """The ratio of two means of paired values, with Fieller's interval.

    Args:
        numerators: [S], S >= 2.
        denominators: [S], of the same seeds.
        level: 1 - the confidence level.

    Returns:
        The ratio. Without bounds where the denominator's own mean is not told from 0: every ratio is
        then possible.

    Source: Fieller, "Some problems in interval estimation" (Journal of the Royal Statistical Society B
    16, 1954), section 2, for estimates with a covariance.
    """
    a, b = np.asarray(numerators, np.float64), np.asarray(denominators, np.float64)
    mean_a, mean_b = float(a.mean()), float(b.mean())
    covariance = np.cov(a, b, ddof=1) / len(a) * float(stdtrit(len(a) - 1, level / 2)) ** 2
    s_aa, s_ab, s_bb = (float(covariance[i, j]) for i, j in ((0, 0), (0, 1), (1, 1)))
    ratio = mean_a / mean_b if mean_b else 0.0
    square = mean_b**2 - s_bb
    if square <= 0:
        return Interval(value=ratio, low=None, high=None, level=1 - level)
    middle = (mean_a * mean_b - s_ab) / square
    spread = max(middle**2 - (mean_a**2 - s_aa) / square, 0.0) ** 0.5
    return Interval(value=ratio, low=middle - spread, high=middle + spread, level=1 - level)


@dataclass(frozen=True)
class Aim:
    """The log rank that one hidden layer (counted from 0) is held at, or lowered to, by seed."""

    layer: int
    side: RankSide
    targets: BySeed


@dataclass(frozen=True)
class Row:
    """Finished runs of one row.

    Attributes:
        name: For people; a row at c* shares it with the row at the small c that it stands beside.
        at_star: Whether at c*, else at the small c.
        penalties: What was added to the loss.
        misdirected: Whether its gradient went elsewhere.
        runs: One per seed.
        ranks: Seed -> log rank of each hidden layer, of the runs that have it.
        aims: What was to be reached.
    """

    name: str
    at_star: bool
    penalties: tuple[RankPenalty, ...]
    misdirected: bool
    runs: tuple[SeedResult, ...]
    ranks: Mapping[int, tuple[float, ...]]
    aims: tuple[Aim, ...] = ()

    @property
    def accuracies(self) -> dict[int, float]:
        """Seed -> test accuracy, of the runs that reached the target; none of an unusable row."""
        if usable([run.outcome for run in self.runs]) is not None:
            return {}
        return {
            run.seed: 1 - run.test_error
            for run in self.runs
            if run.outcome is Outcome.REACHED_TARGET and run.test_error is not None
        }


def _ratio(first: tuple[BySeed, BySeed], gap: tuple[BySeed, BySeed]) -> Interval | None:
    """mean(first[0] - first[1]) / mean(gap[0] - gap[1]) over the seeds that all four have."""
    seeds = sorted(set(first[0]) & set(first[1]) & set(gap[0]) & set(gap[1]))
    if len(seeds) < MIN_SEEDS:
        return None
    a = [first[0][s] - first[1][s] for s in seeds]
    b = [gap[0][s] - gap[1][s] for s in seeds]
    return ratio_of_means(a, b)


def _mean(values: Sequence[float]) -> Interval | None:
    if len(values) < MIN_SEEDS:
        return None
    one = ratio_of_means(values, np.ones(len(values)))
    return Interval(value=one.value, low=one.low, high=one.high, level=one.level)


def _exp_means(rows: Sequence[Sequence[float]]) -> tuple[float, ...]:
    return tuple(math.exp(math.fsum(column) / len(column)) for column in zip(*rows, strict=True))


def judge_rows(
    rows: Sequence[Row], low: Row, star: Row, *, measure: RankMeasure, c_low: float, c_star: float
) -> Intervention:
    """Judge every row against the plain gap.

    Args:
        rows: All rows, the plain ones included, as they are to be listed.
        low: The plain row at the small c.
        star: The plain row at c*.
        measure: Which rank.
        c_low: The small c.
        c_star: c*.

    Returns:
        Shares, gaps closed, whether ranks were held, and sentences.
    """
    at_low, at_star = low.accuracies, star.accuracies
    gap = (at_star, at_low)
    plain_gap = _mean([at_star[seed] - at_low[seed] for seed in at_star if seed in at_low])
    beside = {(row.penalties, row.misdirected): row for row in rows if row.at_star}
    judged = []
    for row in rows:
        own = row.accuracies
        plain = not row.penalties
        share = closed = None
        if not plain:
            first = (at_star, own) if row.at_star else (own, at_low)
            share = _ratio(first, gap)
        partner = beside.get((row.penalties, row.misdirected))
        if not plain and not row.at_star and partner is not None:
            left = _ratio((partner.accuracies, own), gap)
            closed = None if left is None else _one_minus(left)
        reached = _exp_means(list(row.ranks.values())) if row.ranks else ()
        targets, held = _held(row)
        judged.append(
            InterventionRow(
                name=row.name,
                c=c_star if row.at_star else c_low,
                penalties=row.penalties,
                misdirected=row.misdirected,
                num_seeds=len(row.runs),
                num_reached=sum(run.outcome is Outcome.REACHED_TARGET for run in row.runs),
                accuracy=_mean(list(own.values())),
                share=share,
                gap_closed=closed,
                ranks=reached,
                targets=targets,
                held=held,
                seeds=row.runs,
                text=_row_text(row, share, closed, held),
            )
        )
    return Intervention(
        measure=measure,
        c_star=c_star,
        c_low=c_low,
        rows=tuple(judged),
        text=_text(judged, plain_gap, c_star),
    )


def _one_minus(one: Interval) -> Interval:
    low = None if one.high is None else 1 - one.high
    high = None if one.low is None else 1 - one.low
    return Interval(value=1 - one.value, low=low, high=high, level=one.level)


def _held(row: Row) -> tuple[tuple[float | None, ...], bool | None]:
    """Targets as geometric means over seeds, and whether all were met within a tenth."""
    if not row.aims or not row.ranks:
        return (), None
    num_hidden = max(map(len, row.ranks.values()))
    targets: list[float | None] = [None] * num_hidden
    held = True
    for aim in row.aims:
        sign = 1 if aim.side == "hold" else -1
        wanted = [aim.targets[seed] for seed in row.ranks]
        missed = [
            sign * (target - ranks[aim.layer])
            for target, ranks in zip(wanted, row.ranks.values(), strict=True)
        ]
        targets[aim.layer] = math.exp(math.fsum(wanted) / len(wanted))
        held = held and math.fsum(missed) / len(missed) <= MAX_MISS
    return tuple(targets), None if row.misdirected else held


# --- words ----------------------------------------------------------------------------------


def interval_text(one: Interval) -> str:
    """A share with its interval, in percent."""
    if one.low is None or one.high is None:
        return "undecided (the plain gap is not told from 0)"
    return f"{100 * one.value:.0f} % [{100 * one.low:.0f}, {100 * one.high:.0f}]"


def _row_text(row: Row, share: Interval | None, closed: Interval | None, held: bool | None) -> str:
    reason = usable([run.outcome for run in row.runs])
    if reason is not None:
        return f"Not judged: {reason}."
    if not row.penalties:
        return "Without a penalty."
    parts = []
    if share is not None:
        what = "Takes" if row.at_star else "Returns"
        parts.append(f"{what} {interval_text(share)} of the gap")
    if closed is not None:
        parts.append(f"under the same penalties at c* the gap closes by {interval_text(closed)}")
    text = "; ".join(parts)
    if held is False:
        text += "; not held: a rank ended more than a tenth from its target"
    if row.misdirected:
        text += "; a control, its gradient goes to other weights"
    return f"{text}."


def _text(rows: Sequence[InterventionRow], gap: Interval | None, c_star: float) -> str:
    """What came back, and what that supports."""
    if gap is None:
        return "Nothing can be said: too few of the plain runs reached the target."
    if gap.low is None or gap.low <= 0:
        return "Nothing can be said: without penalties the small c is not worse beyond noise."

    def find(
        side: str, layers: str, misdirected: bool = False, raised: bool = False
    ) -> InterventionRow | None:
        """The judged row that has this one penalty, of the largest strength."""
        found = [
            row
            for row in rows
            if [(p.side, p.layers, p.offset > 0) for p in row.penalties] == [(side, layers, raised)]
            and row.misdirected is misdirected
            and row.share is not None
            and (row.c == c_star) is (side == "lower")
        ]
        return max(found, key=lambda row: row.penalties[0].strength, default=None)

    def says(row: InterventionRow | None, text: str) -> list[str]:
        if row is None or row.share is None:
            return []
        kept = "" if row.held is not False else " (its target was missed by more than a tenth)"
        return [f"{text} {interval_text(row.share)} of the lost accuracy{kept}"]

    hidden, control = find("hold", "hidden"), find("hold", "hidden", misdirected=True)
    raised = find("hold", "hidden", raised=True)
    parts = [
        *says(hidden, "Holding the rank of all hidden layers at that of c* returned"),
        *says(find("hold", "last"), "a penalty on the last layer alone returned"),
        *says(find("lower", "hidden"), "lowering all of them at c* took"),
        *says(control, "the same gradient given to other weights returned"),
    ]
    if not parts:
        return "No penalised row can be judged."
    text = f"{'; '.join(parts)}."
    if raised is not None and raised.gap_closed is not None:
        text += (
            " With the rank raised above that of c* at both c, the gap between them closes by "
            f"{interval_text(raised.gap_closed)}."
        )
        if raised.gap_closed.low is not None and raised.gap_closed.low > 1:
            text += (
                " The small c then does better: the penalty does more there than restore a rank."
            )
    share = None if hidden is None or not hidden.held else hidden.share
    if share is None or share.low is None or share.low <= 0:
        return f"{text} That does not show that rank carries the loss."
    if control is not None and control.share is not None and (
        control.share.high is None or control.share.high >= share.low
    ):  # fmt: skip
        return f"{text} The control may do as much, so rank is not shown to carry the loss."
    return (
        f"{text} In this setup the ranks of all hidden layers together carry part of the loss, or the "
        "penalty restores what goes with them."
    )
