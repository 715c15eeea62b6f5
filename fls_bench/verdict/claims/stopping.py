"""Claim C3: the best c is the same, whichever rule stops the training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fls_bench.schema import (
    ClaimOutcome,
    ClaimPanel,
    ClaimPart,
    ClaimResult,
    Interval,
    Stop,
    TargetAccuracy,
    TargetLoss,
)
from fls_bench.verdict.claims.cases import (
    ERROR_LABEL,
    LEVEL,
    ClaimCase,
    Errors,
    Findings,
    axis_label,
    best_octave,
    chosen_elsewhere,
    corrected,
    counted,
    curve,
    errors_of,
    left_out,
    of_seeds,
    percentiles,
    read_with_care,
    resamples,
    shown,
    t_interval,
    within,
)
from fls_bench.verdict.contrasts import MIN_SEEDS

STATEMENT = "The best c is the same whether training stops on training or on validation risk."
REPORTED = (
    "Reported by the authors: the same best c under both stops, without a figure known to us."
)
MARGIN = 2.0
"""Octaves of c within which two optima are called the same: one step of a grid of factors of four."""


def judge_stopping(cases: Sequence[ClaimCase]) -> ClaimResult:
    """Judge every stop of a family against its training-loss stop, paired by seed.

    Args:
        cases: Of each family one that stops at a training loss, and others; controls are left out.

    Returns:
        C3: reproduced where every stop's best c lies within ``MARGIN`` octaves of the reference's; a
        stop that could not be compared leaves it undecided.
    """
    cases = [case for case in cases if not case.control]
    num_deciding = sum(not (case.beside or isinstance(case.stop, TargetLoss)) for case in cases)
    findings = Findings()
    for family in dict.fromkeys(case.family for case in cases):
        members = [case for case in cases if case.family == family]
        tables = [(case, errors_of(case.sweep)) for case in members]
        findings.cautions += [
            line for case, errors in tables for line in read_with_care(case, errors)
        ]
        found = [(case, errors) for case, errors in tables if errors is not None]
        for case, errors in tables:
            if errors is None:
                findings.skipped.append(left_out(case, "most c did not come to their stop"))
        reference = next((one for one in found if isinstance(one[0].stop, TargetLoss)), None)
        for case, errors in tables:
            if isinstance(case.stop, TargetLoss):
                continue
            if errors is None or reference is None:
                findings.outcomes += [] if case.beside else ["undecided"]
                continue
            own, outcome = _against(reference, (case, errors), LEVEL / max(1, num_deciding))
            findings.show(own, not case.beside)
            if not case.beside:
                findings.outcomes.append(outcome)
                findings.seeds.append(own[0].n)
                findings.data.append(case.data)
        if found:
            findings.panels.append(
                ClaimPanel(
                    title=f"{family}, {found[0][0].setting}: test error over c",
                    x_label=axis_label(found[0][0].sweep.axis),
                    y_label=ERROR_LABEL,
                    curves=tuple(curve(stop_name(k.stop), e, e.test) for k, e in found),
                )
            )
    text = (
        f"The best c within {MARGIN:g} octaves of that of the training-loss stop, "
        f"{counted(findings.outcomes)}. {_largest(findings.parts)}"
        if findings.outcomes
        else "No stop could be compared."
    )
    return findings.result("C3", STATEMENT, REPORTED, text)


def _largest(parts: Sequence[ClaimPart]) -> str:
    """The largest shift of those that decide, how far any may go, and how many are told from none."""
    found = [
        (part.estimate, part.setting)
        for part in parts
        if part.outcome is not None and part.estimate is not None
    ]
    if not found:
        return ""
    bounds = [abs(end) for one, _ in found for end in (one.low, one.high) if end is not None]
    apart = sum((one.low or 0.0) > 0 or (one.high or 0.0) < 0 for one, _ in found)
    one, setting = max(found, key=lambda pair: abs(pair[0].value))
    return (
        f"The largest shift: {shown(one)} octaves, {setting}; no interval goes beyond {max(bounds):.2f} "
        f"octaves, and {apart} of {len(found)} exclude 0."
    )


def stop_name(stop: Stop) -> str:
    """A stopping rule in a few words."""
    if isinstance(stop, TargetLoss):
        return f"training loss {stop.target_loss:g}"
    if isinstance(stop, TargetAccuracy):
        return f"training accuracy {100 * stop.target_accuracy:g} %"
    return {"ValidationLoss": "best validation loss", "FixedSteps": "fixed steps"}[
        type(stop).__name__
    ]


def _against(
    reference: tuple[ClaimCase, Errors], other: tuple[ClaimCase, Errors], level: float
) -> tuple[list[ClaimPart], ClaimOutcome]:
    shared = sorted(set(reference[1].seeds) & set(other[1].seeds))
    setting = (
        f"{other[0].family}: {stop_name(other[0].stop)} against {stop_name(reference[0].stop)}"
    )
    if len(shared) < MIN_SEEDS:
        none = ClaimPart(
            name="shift of log2 c*", setting=setting, outcome="undecided", estimate=None,
            unit="octaves", expected="", n=len(shared), text="fewer than three shared seeds",
        )  # fmt: skip
        return [none], "undecided"
    draws = resamples(len(shared))
    sides = [(case, of_seeds(errors, shared)) for case, errors in (reference, other)]
    before, after = (best_octave(case, errors, draws) for case, errors in sides)
    value, drawn = after.value - before.value, after.draws - before.draws
    shift = percentiles(value, drawn, len(shared))
    outer = percentiles(value, drawn, len(shared), level)
    outcome = within(shift, -MARGIN, MARGIN, outer)
    also = corrected(shift, outer, outcome, -MARGIN, MARGIN)
    ends = ""
    if before.at_edge or after.at_edge:
        outcome, ends = "undecided", "; a best c is not shown to lie inside of the range"
    expected = f"between -{MARGIN:g} and {MARGIN:g}"
    parts = [
        ClaimPart(
            name="shift of log2 c*", setting=setting, outcome=outcome, estimate=shift,
            unit="octaves", expected=expected, n=len(shared),
            text=f"{shown(shift)} octaves, from 2^{before.value:.1f} to 2^{after.value:.1f}{also}{ends}",
        )
    ]  # fmt: skip
    if (regret := _regret(sides[0][1], sides[1][1], other[0].sweep.n_test)) is not None:
        parts.append(
            ClaimPart(
                name="what the reference's best c costs under this stop", setting=setting, outcome=None,
                estimate=regret, unit="points", expected="shown", n=len(shared),
                text=f"{shown(regret)} points of test error",
            )
        )  # fmt: skip
    return parts, outcome


def _regret(reference: Errors, other: Errors, n_test: int) -> Interval | None:
    """Test error under the other stop: at the c that the reference chooses, less at its own choice."""
    both = [c for c in reference.c if c in other.c]
    if len(both) < 3:
        return None
    mine = np.array([reference.c.index(c) for c in both])
    theirs = np.array([other.c.index(c) for c in both])
    seeds = np.arange(len(other.seeds))
    test = other.test[theirs]
    lost = (
        test[chosen_elsewhere(reference.val[mine]), seeds]
        - test[chosen_elsewhere(other.val[theirs]), seeds]
    )
    return t_interval(100 * lost, 50 / n_test)
