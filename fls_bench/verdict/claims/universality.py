"""Claim C1: error over c has its least value inside of the range; both ends lose.

Each end is held against the c that the other seeds' validation errors choose, seed by seed on test
data. Both ends have to lose for an optimum inside of the range, so that no correction is needed (an
intersection-union test, Berger 1982): under a monotone curve one of the two loses nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fls_bench.schema import ClaimOutcome, ClaimPanel, ClaimPart, ClaimResult, Interval
from fls_bench.verdict.claims.cases import (
    ERROR_LABEL,
    LEVEL,
    ClaimCase,
    Errors,
    Findings,
    Values,
    all_of,
    axis_label,
    counted,
    curve,
    errors_of,
    excess,
    left_out,
    read_with_care,
    resamples,
    shown,
    t_interval,
)
from fls_bench.verdict.contrasts import practical_margin

STATEMENT = (
    "Stopped at a target, nets generalize best at a feature learning strength in between: a middle c "
    "wins, and both ends lose."
)
REPORTED = (
    "Reported by the authors: with ResNet-50 on CIFAR-100, 53.57 % of accuracy at c = 1 and 59.76 % at "
    "c = 2^-4; the same shape with VGG-19 and ResNet-18 and -34."
)

MIN_SUPPORT = 0.95
"""Share of the resampled seeds in which an inner c has to be best."""


def judge_universality(cases: Sequence[ClaimCase]) -> ClaimResult:
    """Judge every case for an optimum inside of its range of c.

    Args:
        cases: Sweeps over c; controls are left out, and cases beside don't decide.

    Returns:
        C1: reproduced where it is in every deciding case, not where one shows that it does not hold; a
        case that could not be judged leaves it undecided.
    """
    cases = [case for case in cases if not case.control]
    deciding = [case for case in cases if not case.beside]
    findings = Findings()
    for case in cases:
        errors = errors_of(case.sweep)
        findings.cautions += read_with_care(case, errors)
        if errors is None:
            findings.skipped.append(
                left_out(case, "fewer than three c, or three seeds, reached the target")
            )
            findings.outcomes += [] if case.beside else ["undecided"]
            continue
        findings.panels.append(
            ClaimPanel(
                title=f"{case.id}: {case.setting}",
                x_label=axis_label(case.sweep.axis),
                y_label=ERROR_LABEL,
                curves=(curve("test error", errors, errors.test),),
            )
        )
        margin = practical_margin(float(errors.test.mean(axis=1).min()), case.sweep.n_test)
        resolution = 0.5 / case.sweep.n_test
        level = LEVEL / max(1, len(deciding))
        outcome, own_parts = _ends(case, errors, errors.test, margin, resolution, "error", level)
        findings.show(own_parts, not case.beside)
        _, of_loss = _ends(case, errors, errors.loss, 0.0, 0.0, "loss", level)
        findings.show(of_loss, False)
        if not case.beside:
            findings.outcomes.append(outcome)
            findings.data.append(case.data)
            findings.seeds.append(len(errors.seeds))
    text = "No case was run."
    if findings.outcomes:
        text = f"An optimum inside of the range, {counted(findings.outcomes)}. {_least(findings.parts)}"
    return findings.result("C1", STATEMENT, REPORTED, text)


def _ends(
    case: ClaimCase,
    errors: Errors,
    of: Values,
    margin: float,
    least: float,
    what: str,
    level: float,
) -> tuple[ClaimOutcome, list[ClaimPart]]:
    """What both ends lose against the c that is chosen without them."""
    parts = []
    for at, there, words in (
        (0, errors.ends[0], "smallest c (largest FLS)"),
        (len(errors.c) - 1, errors.ends[1], "largest c (smallest FLS)"),
    ):
        lost = t_interval(excess(errors, at, of), least)
        assert lost.low is not None
        assert lost.high is not None
        outcome: ClaimOutcome = "undecided"
        if lost.low > 0:
            outcome = "reproduced"
        elif there and _loses_nothing(at, of, margin, least, level):
            outcome = "not_reproduced"
        factor, unit = (100.0, "points") if what == "error" else (1.0, "nats")
        scaled = Interval(value=factor * lost.value, low=factor * lost.low, high=factor * lost.high)
        text = f"{shown(scaled)} {unit} above the best c"
        if not there:
            text += f", at 2^{math.log2(errors.c[at]):g}: beyond it runs missed the target"
        parts.append(
            ClaimPart(
                name=f"excess {what} at the {words}", setting=f"{case.id}: {case.setting}",
                outcome=outcome, estimate=scaled, unit=unit, expected="above 0",
                n=len(errors.seeds), text=text,
            )
        )  # fmt: skip
    support = _support(of)
    inner = f"; in {100 * support:.0f} % of the resampled seeds an inner c is best"
    parts[-1] = parts[-1].model_copy(update={"text": parts[-1].text + inner})
    outcome = all_of([part.outcome for part in parts if part.outcome is not None])
    if outcome == "reproduced" and support < MIN_SUPPORT:
        outcome = "undecided"
        parts = [part.model_copy(update={"outcome": outcome}) for part in parts]
    return outcome, parts


def _loses_nothing(at: int, of: Values, margin: float, least: float, level: float) -> bool:
    """Whether an end is shown to lose less than the margin against *every* other c.

    All have to say so (Berger 1982), whichever of them is the best: no choice is made on the way.
    """
    others = [k for k in range(len(of)) if k != at]
    highs = [t_interval(of[at] - of[k], least, level).high for k in others]
    return all(high is not None and high < margin for high in highs)


def _least(parts: Sequence[ClaimPart]) -> str:
    """The end that loses least, of all that decide."""
    ends = [
        (part.estimate.value, shown(part.estimate), part.setting)
        for part in parts
        if part.outcome is not None and part.estimate is not None
    ]
    if not ends:
        return ""
    _, words, setting = min(ends)
    return f"The end that loses least: {words} points, {setting}."


def _support(of: Values) -> float:
    """Share of the resampled seeds in which the least mean lies inside of the range."""
    means = of[:, resamples(of.shape[1])].mean(axis=2)
    best = means.argmin(axis=0)
    return float(np.mean((best > 0) & (best < len(means) - 1)))
