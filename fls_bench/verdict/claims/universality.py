"""Claim C1: error over c has its least value inside of the range; both ends lose.

Each end is held against the c that the other seeds' validation errors choose, seed by seed on test
data. Both ends have to lose for an optimum inside of the range, so that no correction is needed (an
intersection-union test, Berger 1982): under a monotone curve one of the two loses nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fls_bench.schema import ClaimOutcome, ClaimPanel, ClaimPart, ClaimResult, Interval, Skipped
from fls_bench.verdict.claims.cases import (
    ERROR_LABEL,
    ClaimCase,
    Errors,
    Values,
    all_of,
    axis_label,
    counted,
    curve,
    errors_of,
    excess,
    left_out,
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


def judge_universality(cases: Sequence[ClaimCase]) -> ClaimResult:
    """Judge every case for an optimum inside of its range of c.

    Args:
        cases: Sweeps over c; controls and cases beside don't decide.

    Returns:
        C1: reproduced where it is in every deciding case, not where one shows that it does not hold.
    """
    parts: list[ClaimPart] = []
    outcomes: list[ClaimOutcome] = []
    panels: list[ClaimPanel] = []
    skipped: list[Skipped] = []
    cautions: list[str] = []
    seeds = 0
    for case in cases:
        errors = errors_of(case.sweep)
        if errors is None:
            skipped.append(left_out(case, "fewer than three c, or three seeds, reached the target"))
            continue
        panels.append(
            ClaimPanel(
                title=f"{case.id}: {case.setting}",
                x_label=axis_label(case.sweep.axis),
                y_label=ERROR_LABEL,
                curves=(curve("test error", errors, errors.test),),
            )
        )
        margin = practical_margin(float(errors.test.mean(axis=1).min()), case.sweep.n_test)
        resolution = 0.5 / case.sweep.n_test
        outcome, own_parts = _ends(case, errors, errors.test, margin, resolution, "error")
        decides = not (case.beside or case.control)
        for part in own_parts:
            parts.append(part if decides else part.model_copy(update={"outcome": None}))
        _, of_loss = _ends(case, errors, errors.loss, 0.0, 0.0, "loss")
        parts += [part.model_copy(update={"outcome": None}) for part in of_loss]
        if decides:
            outcomes.append(outcome)
            seeds = max(seeds, len(errors.seeds))
        if case.control:
            quiet = "no optimum is found" if outcome != "reproduced" else "AN OPTIMUM IS FOUND"
            cautions.append(f"Negative control {case.id} ({case.setting}): {quiet}.")
        for words in errors.left_out:
            cautions.append(f"{case.id}: left out {words}.")
    outcome = all_of(outcomes)
    text = "No case was run."
    if outcomes:
        text = f"An optimum inside of the range, {counted(outcomes)}. {_least(parts)}"
    return ClaimResult(
        claim="C1", statement=STATEMENT, reported=REPORTED, outcome=outcome, text=text,
        data=tuple(dict.fromkeys(c.data for c in cases if not (c.beside or c.control))),
        num_seeds=seeds, parts=tuple(parts), panels=tuple(panels), cautions=tuple(cautions),
        not_run=tuple(skipped),
    )  # fmt: skip


def _ends(
    case: ClaimCase, errors: Errors, of: Values, margin: float, least: float, what: str
) -> tuple[ClaimOutcome, list[ClaimPart]]:
    """What both ends lose against the c that is chosen without them."""
    parts = []
    for at, words in (
        (0, "smallest c (largest FLS)"),
        (len(errors.c) - 1, "largest c (smallest FLS)"),
    ):
        lost = t_interval(excess(errors, at, of), least)
        parts.append(
            _part(case, lost, margin, f"excess {what} at the {words}", what, len(errors.seeds))
        )
    support = _support(of)
    last = parts[-1]
    parts[-1] = last.model_copy(
        update={
            "text": f"{last.text}; in {100 * support:.0f} % of the resampled seeds an inner c is best"
        }
    )
    outcome = all_of([part.outcome for part in parts if part.outcome is not None])
    if outcome == "reproduced" and support < 0.95:
        outcome = "undecided"
    return outcome, parts


def _part(
    case: ClaimCase, lost: Interval, margin: float, name: str, what: str, n: int
) -> ClaimPart:
    assert lost.low is not None
    assert lost.high is not None
    outcome: ClaimOutcome = "undecided"
    if lost.low > 0:
        outcome = "reproduced"
    elif lost.high < margin:
        outcome = "not_reproduced"
    factor, unit = (100.0, "points") if what == "error" else (1.0, "nats")
    scaled = Interval(value=factor * lost.value, low=factor * lost.low, high=factor * lost.high)
    return ClaimPart(
        name=name, setting=f"{case.id}: {case.setting}", outcome=outcome, estimate=scaled, unit=unit,
        expected="above 0", n=n, text=f"{shown(scaled)} {unit} above the best c",
    )  # fmt: skip


def _least(parts: Sequence[ClaimPart]) -> str:
    """The end that loses least, of all that decide."""
    ends = [
        (part.estimate.value, shown(part.estimate), part.setting)
        for part in parts
        if part.outcome is not None and part.estimate is not None
    ]
    _, words, setting = min(ends)
    return f"The end that loses least: {words} points, {setting}."


def _support(of: Values) -> float:
    """Share of the resampled seeds in which the least mean lies inside of the range."""
    means = of[:, resamples(of.shape[1])].mean(axis=2)
    best = means.argmin(axis=0)
    return float(np.mean((best > 0) & (best < len(means) - 1)))
