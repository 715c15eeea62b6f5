"""Claim C5: OA falls and OF rises with alpha, and their sum is the excess."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fls_bench.schema import OUTCOME_WORDS, ClaimOutcome, ClaimPart, ClaimResult, Interval
from fls_bench.schema.theory import MIN_SCALES, FlowFacts
from fls_bench.verdict.claims.cases import all_of, shown, t_interval
from fls_bench.verdict.claims.theory.panels import c5_panels
from fls_bench.verdict.claims.theory.table import Table
from fls_bench.verdict.claims.theory.trend import Trend, trend

C5_STATEMENT = (
    "As the init scale alpha grows, over-alignment OA falls and over-fitting OF rises; their sum is the "
    "excess error of the effective predictor."
)
C5_REPORTED = (
    "Reported by the authors: opposite monotonicity of OA and OF, numerically; OA + OF = excess."
)

MARGIN_SHARE = 0.02
"""A change the wrong way below this share of the least mean excess is no practical one."""

ROUNDING = 1e-12
"""By how much OA + OF may differ from the excess: a few roundings of error rates."""


@dataclass(frozen=True)
class Trends:
    """What C5 is decided by.

    Attributes:
        margin: Change of an error rate that is no practical one.
        falls: OA.
        rises: OF.
        gap: Largest difference in any run between OA + OF and the excess.
    """

    margin: float
    falls: Trend
    rises: Trend
    gap: float

    @property
    def identity(self) -> ClaimOutcome:
        """Whether OA + OF is the excess."""
        return "reproduced" if self.gap <= ROUNDING else "not_reproduced"

    @property
    def outcome(self) -> ClaimOutcome:
        """C5's, if the step is no matter."""
        return all_of([self.falls.outcome, self.rises.outcome, self.identity])


def trends(table: Table) -> Trends:
    """Test C5 on a table."""
    oa, of, excess = (table.of(k) for k in ("over_alignment", "over_fitting", "excess_effective"))
    margin = MARGIN_SHARE * float(excess.mean(axis=1).min())
    gap = float(np.abs(oa + of - excess).max())
    return Trends(margin, trend(oa, False, margin), trend(of, True, margin), gap)


def judge_c5(table: Table, facts: FlowFacts, data: tuple[str, ...]) -> ClaimResult:
    """C5 from the table of a sweep; ``data`` says in words what was trained on."""
    found = trends(table)
    of, margin, falls, rises = table.of("over_fitting"), found.margin, found.falls, found.rises
    setting, n = data[0], len(table.seeds)
    expected = f"no change the wrong way by more than {100 * margin:.2g} points"
    parts = [
        ClaimPart(
            name=f"{name} {way} with alpha", setting=setting, outcome=facts.decided(one.outcome),
            estimate=_percent(one.total), unit="points of error, last scale minus first",
            expected=expected, n=n, text=_trend_text(table, name, one, margin),
        )
        for name, way, one in (("OA", "falls", falls), ("OF", "rises", rises))
    ]  # fmt: skip
    parts.append(
        ClaimPart(
            name="OA + OF = excess error of the effective predictor", setting=setting,
            outcome=found.identity, estimate=Interval(value=found.gap, low=None, high=None),
            unit="largest difference in any run", expected=f"at most {ROUNDING:g}: rounding", n=n,
            text="An identity of the definitions: it can only fail by a mistake.",
        )
    )  # fmt: skip
    least = int(of.mean(axis=1).argmin())
    if len(table.alphas) - least >= MIN_SCALES and least > 0:
        beyond = trend(of[least:], True, margin)
        parts.append(
            ClaimPart(
                name=f"OF rises from {table.power(least)} on, where its mean is least",
                setting=setting, outcome=None, estimate=_percent(beyond.total),
                unit="points of error, last scale minus that one", expected=expected, n=n,
                text="Beside the claim, since the range was chosen on the same runs: by that test it "
                f"{_verb(beyond.outcome)}.",
            )
        )  # fmt: skip
    return ClaimResult(
        claim="C5", statement=C5_STATEMENT, reported=C5_REPORTED, outcome=facts.decided(found.outcome),
        text=f"OA falling: {OUTCOME_WORDS[falls.outcome]}. OF rising: {OUTCOME_WORDS[rises.outcome]}. "
        f"{_trend_text(table, 'OA', falls, margin)} {_trend_text(table, 'OF', rises, margin)} "
        f"The sum is the excess in every run (largest difference {found.gap:.1g}). {facts.sentence}",
        data=data, num_seeds=n, parts=tuple(parts), panels=c5_panels(table),
        cautions=_cautions(table, rises),
    )  # fmt: skip


def _verb(outcome: ClaimOutcome) -> str:
    return {"reproduced": "holds", "not_reproduced": "does not hold"}.get(outcome, "is undecided")


def _percent(interval: Interval) -> Interval:
    low, high = interval.low, interval.high
    return Interval(
        value=100 * interval.value,
        low=None if low is None else 100 * low,
        high=None if high is None else 100 * high,
    )


def _trend_text(table: Table, name: str, one: Trend, margin: float) -> str:
    way = "fall" if name == "OF" else "rise"
    total = f"From {table.power(0)} to {table.power(-1)} {name} changes by {_points(one.total)}."
    if one.back:
        first, last = _range(one)
        assert one.worst is not None
        i, j = one.between
        return (
            f"{total} Between some scales of {table.power(first)} .. {table.power(last)} it {way}s "
            f"beyond noise; most, and this is judged, from {table.power(i)} to {table.power(j)}: by "
            f"{_points(one.worst)}, where less than {100 * margin:.3f} points count as none."
        )
    if one.worst is None:
        return f"{total} No pair of scales has a mean change the wrong way."
    i, j = one.between
    return (
        f"{total} The largest {way} is {_points(one.worst)}, from {table.power(i)} to "
        f"{table.power(j)}, where less than {100 * margin:.3f} points count as none."
    )


def _range(one: Trend) -> tuple[int, int]:
    """From the first to the last scale of the pairs between which it turns back beyond noise."""
    return min(i for i, _ in one.back), max(j for _, j in one.back)


def _points(interval: Interval) -> str:
    return f"{shown(interval, 100, 4)} points"


def _cautions(table: Table, rises: Trend) -> tuple[str, ...]:
    net, effective, linear = (
        table.of(f"excess_{name}").mean(axis=1) for name in ("net", "effective", "linear")
    )
    of = table.of("over_fitting")
    least = int(of.mean(axis=1).argmin())
    ties, theta = table.of("ties"), table.of("theta").mean(axis=1)
    half = t_interval(50 * ties[0])
    best, best_linear = int(net.argmin()), int(linear.argmin())
    u_shape = t_interval(table.of("excess_linear")[0] - table.of("excess_linear")[best_linear])
    assert u_shape.low is not None
    shape = (
        f"no U: its least excess is at {table.power(best_linear)}, {_points(u_shape)} below that at "
        f"{table.power(0)}"
        if best_linear == 0 or u_shape.low <= 0
        else f"{_points(u_shape)} less excess at {table.power(best_linear)} than at {table.power(0)}"
    )
    falling = (
        "no fall is beyond noise"
        if not rises.back
        else "it falls beyond noise within " + " .. ".join(table.power(k) for k in _range(rises))
    )
    return (
        f"Ties: at {table.power(0)} the net is exactly 0 on {shown(t_interval(100 * ties[0]), 1, 3)} "
        f"% of the test points. Each counts half an error, {shown(half, 1, 3)} points of the net's "
        f"excess of {100 * net[0]:.3f} there.",
        f"The effective predictor is not the net: their least excess is {100 * effective.min():.3f} and "
        f"{100 * net.min():.3f} points (at {table.power(int(effective.argmin()))} and "
        f"{table.power(best)}). The linear direction, of all neurons, shows {shape}: OA that falls "
        "and OF that rises do not by themselves imply an optimum in between.",
        f"Where OF does not rise: {falling}. Its mean is least at {table.power(least)}, by "
        f"{_points(t_interval(of[0] - of[least]))} less than at {table.power(0)}.",
        f"The angle at the stop has a floor, {theta.min():.4f} radians (at "
        f"{table.power(int(theta.argmin()))}), which the second phase adds: the angle of the theory "
        "is that at the end of the first (C6).",
    )
