"""Claim C2: the harder the data, the more the best c gains over c = 1."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fls_bench.schema import (
    ClaimCurve,
    ClaimOutcome,
    ClaimPanel,
    ClaimPart,
    ClaimResult,
    CurvePoint,
    Interval,
)
from fls_bench.verdict.claims.cases import (
    ERROR_LABEL,
    LEVEL,
    ClaimCase,
    Errors,
    Findings,
    Values,
    axis_label,
    counted,
    curve,
    errors_of,
    excess,
    left_out,
    read_with_care,
    shown,
    t_interval,
)
from fls_bench.verdict.contrasts import MIN_SEEDS

STATEMENT = (
    "The gain of the best c over c = 1 grows with the effective latent dimension of the data."
)
REPORTED = (
    "Reported by the authors: on BigGAN images of effective latent dimension 32, 64 and 128 with "
    "ResNet-18 the gain grows; at 128, 59.95 % of accuracy at c = 1 and 76.62 % at c = 2^-6."
)
SLOPE_NAME = "change of the gain per doubling of the dimension"
LEAST_SLOPE = 0.005
"""Gain per doubling of the dimension below which it is said not to grow: half a point."""

Rung = tuple[ClaimCase, Errors, Values]
"""A case, its table, and [S] what its best c gains over c = 1."""


def judge_difficulty(cases: Sequence[ClaimCase]) -> ClaimResult:
    """Judge each ladder of cases by the slope of the gain over log2 of the difficulty.

    Args:
        cases: Of one or more families; each but the controls has its difficulty.

    Returns:
        C2: reproduced where the gain grows on every deciding ladder; a ladder of fewer than two rungs
        that could be judged leaves it undecided.
    """
    cases = [case for case in cases if case.difficulty is not None and not case.control]
    families = list(dict.fromkeys(case.family for case in cases))
    num_deciding = len({case.family for case in cases if not case.beside})
    findings = Findings()
    for family in families:
        rungs: list[Rung] = []
        members = [case for case in cases if case.family == family]
        decides = not any(case.beside for case in members)
        for case in members:
            errors = errors_of(case.sweep)
            findings.cautions += read_with_care(case, errors)
            if errors is None or case.own not in errors.c:
                findings.skipped.append(
                    left_out(case, "c = 1, or most others, did not reach the target")
                )
                continue
            rungs.append((case, errors, excess(errors, errors.c.index(case.own), errors.test)))
        shared = sorted(set.intersection(*(set(errors.seeds) for _, errors, _ in rungs))) if (
            rungs
        ) else []  # fmt: skip
        if len(rungs) < 2 or len(shared) < MIN_SEEDS:
            findings.outcomes += ["undecided"] if decides else []
            findings.cautions.append(
                f"{family}: fewer than two rungs, or three shared seeds, can be judged."
            )
            continue
        own_parts, outcome, points = _ladder(family, rungs, shared, LEVEL / max(1, num_deciding))
        findings.show(own_parts, decides)
        if decides:
            findings.outcomes.append(outcome)
            findings.seeds.append(len(shared))
            findings.data += [case.data for case, _, _ in rungs]
        findings.panels.append(
            ClaimPanel(
                title=f"{family}: gain of the best c over the dimension",
                x_label="dimension of the data that varies (harder →)",
                y_label="gain over c = 1 (points of test accuracy)",
                curves=(ClaimCurve(name="gain", points=points),),
            )
        )
        findings.panels.append(
            ClaimPanel(
                title=f"{family}: test error over c",
                x_label=axis_label(rungs[0][0].sweep.axis),
                y_label=ERROR_LABEL,
                curves=tuple(
                    curve(f"dimension {case.difficulty:g}", errors, errors.test)
                    for case, errors, _ in rungs
                ),
            )
        )
    text = "No ladder was run."
    if findings.outcomes:
        slopes = [
            f"{part.text} ({part.setting})" for part in findings.parts if part.outcome is not None
        ]
        slopes += [
            f"{part.text} ({part.setting}), beside it"
            for part in findings.parts
            if part.outcome is None and part.name == SLOPE_NAME
        ]
        words = "; ".join(slopes) or "none judged"
        text = f"The gain grows, {counted(findings.outcomes, 'ladders')}: {words}."
    return findings.result("C2", STATEMENT, REPORTED, text)


def _ladder(
    family: str, rungs: Sequence[Rung], shared: Sequence[int], level: float
) -> tuple[list[ClaimPart], ClaimOutcome, tuple[CurvePoint, ...]]:
    parts, points, ends = [], [], []
    for case, errors, gain in rungs:
        assert case.difficulty is not None
        one = t_interval(100 * gain, 50 / case.sweep.n_test)
        best = errors.c[int(errors.val.mean(axis=1).argmin())]
        at_end = best in (errors.c[0], errors.c[-1]) and best != case.own
        ends += [case.id] if at_end else []
        points.append(
            CurvePoint(x=math.log2(case.difficulty), value=one.value, low=one.low, high=one.high)
        )
        parts.append(
            ClaimPart(
                name="gain of the best c over c = 1", setting=f"{case.id}: {case.setting}",
                outcome=None, estimate=one, unit="points", expected="shown", n=len(errors.seeds),
                text=f"{shown(one)} points; best c = 2^{math.log2(best):g}"
                + (", an end of the range: the gain may be larger" if at_end else ""),
            )
        )  # fmt: skip
    gains = np.array([[g[e.seeds.index(s)] for s in shared] for _, e, g in rungs])
    x = np.log2([float(case.difficulty or 1) for case, _, _ in rungs])
    slopes = (x - x.mean()) @ gains / ((x - x.mean()) ** 2).sum()
    slope, outer = t_interval(slopes), t_interval(slopes, level=level)
    assert slope.low is not None
    assert slope.high is not None
    assert outer.high is not None
    outcome: ClaimOutcome = "undecided"
    if slope.low > 0:
        outcome = "reproduced"
    elif outer.high < LEAST_SLOPE:
        outcome = "not_reproduced"
    scaled = Interval(value=100 * slope.value, low=100 * slope.low, high=100 * slope.high)
    text = f"{shown(scaled)} points per doubling"
    if ends:  # a gain that is only bounded from below has no slope
        outcome = "undecided"
        text += f"; at {', '.join(ends)} the best c lies at an end of the range"
    parts.append(
        ClaimPart(
            name=SLOPE_NAME, setting=family, outcome=outcome,
            estimate=scaled, unit="points", expected="above 0", n=len(shared), text=text,
        )
    )  # fmt: skip
    return parts, outcome, tuple(points)
