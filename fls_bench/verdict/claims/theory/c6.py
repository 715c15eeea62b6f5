"""Claim C6: the angle to the class mean goes as the root of alpha."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fls_bench.schema import ClaimOutcome, ClaimPart, ClaimResult, Interval
from fls_bench.schema.theory import MIN_SCALES, FlowFacts
from fls_bench.verdict.claims.cases import Values, shown, t_interval, within
from fls_bench.verdict.claims.theory.panels import c6_panels
from fls_bench.verdict.claims.theory.slopes import slopes, where_positive
from fls_bench.verdict.claims.theory.table import MIN_SEEDS, Table

C6_STATEMENT = (
    "At the end of the alignment phase the angle to the class mean goes like the root of alpha."
)
C6_REPORTED = "Reported by the authors: angle ~ sqrt(alpha), a slope of 1/2 in log-log."

SLOPE_RANGE = (0.4, 0.6)
"""Within which a slope counts as 1/2, fixed in advance."""

CONE_SHARE = 0.95
"""From this share of its v_j > 0 neurons in the positive cone on, a seed is as the theory assumes."""

_AS_ASSUMED = "the same, of seeds whose neurons are as the theory assumes: at least"


def main_slope(table: Table) -> Interval | None:
    """The slope that decides C6, with its interval over seeds; None where it can't be measured."""
    found = slopes(table, "phase1_angle", where_positive(table, "zeta_sum"))
    return None if found is None else t_interval(found)


def slope_outcome(slope: Interval | None) -> ClaimOutcome:
    """C6's outcome, if the step is no matter."""
    return "undecided" if slope is None else within(slope, *SLOPE_RANGE)


def judge_c6(table: Table, facts: FlowFacts, data: tuple[str, ...]) -> ClaimResult:
    """C6 from the table of a sweep; ``data`` says in words what was trained on."""
    setting, n = data[0], len(table.seeds)
    at, narrow = where_positive(table, "zeta_sum"), where_positive(table, "zeta_mean")
    low, high = SLOPE_RANGE
    expected = f"between {low:g} and {high:g}"
    aligned = table.only(_cone_shares(table, at) >= CONE_SHARE)
    main, parts = main_slope(table), []
    for name, angle, scales, decides in (
        ("the effective predictor at the end of phase 1", "phase1_angle", at, True),
        ("the same, where zeta > 0 with x_+ the class mean", "phase1_angle", narrow, False),
        (f"{_AS_ASSUMED} {100 * CONE_SHARE:g} % in the cone", "phase1_angle", at, False),
        (
            "the neurons in the positive cone at the end of phase 1",
            "phase1_neuron_angle",
            at,
            False,
        ),
        ("the largest neuron at the end of phase 1", "phase1_largest_angle", at, False),
        ("the effective predictor at the explicit phase-1 time", "time_angle", at, False),
        ("the effective predictor when the loss gradient has moved", "gradient_angle", at, False),
        ("the effective predictor at the stop", "theta", at, False),
    ):
        of = aligned if name.startswith(_AS_ASSUMED) else table
        found = slopes(of, angle, scales)
        measured = "" if found is None else f"{shown(t_interval(found), 1, 3)}. "
        parts.append(
            ClaimPart(
                name=f"slope of log2 angle against log2 alpha: {name}", setting=setting,
                outcome=facts.decided(slope_outcome(main)) if decides else None,
                estimate=None if found is None else t_interval(found), unit="1", expected=expected,
                n=0 if found is None else len(found), text=f"{measured}{_slope_text(of, angle, scales)}",
            )
        )  # fmt: skip
    span = f"{table.power(at[0])} .. {table.power(at[-1])}" if at else "no scale"
    slope = "can't be measured" if main is None else f"is {shown(main, 1, 3)}"
    vacuous = [table.power(k) for k in range(len(table.alphas)) if k not in at]
    missing = f" The alignment bound is vacuous at {', '.join(vacuous)}." if vacuous else ""
    return ClaimResult(
        claim="C6", statement=C6_STATEMENT, reported=C6_REPORTED,
        outcome=facts.decided(slope_outcome(main)),
        text=f"Over {span}, where zeta > 0 for every seed (x_+ the class sum), the slope of log2 angle "
        f"against log2 alpha at the end of phase 1 {slope}; a half is claimed, and {expected} counts as "
        f"one.{missing} {facts.sentence}",
        data=data, num_seeds=n, parts=tuple(parts), panels=c6_panels(table),
        cautions=_c6_cautions(table, at),
    )  # fmt: skip


def _slope_text(table: Table, name: str, at: Sequence[int]) -> str:
    if len(at) < MIN_SCALES:
        return "Fewer than three init scales have zeta > 0 for every seed."
    values = table.of(name)[list(at)]
    known = (values > 0).all(axis=0)
    if int(known.sum()) < MIN_SEEDS:
        return "Fewer than three seeds have this angle at every scale."
    logs = np.log2(values[:, known]).mean(axis=1)
    local = np.diff(logs) / np.diff(table.log2[list(at)])
    return (
        f"Over {table.power(at[0])} .. {table.power(at[-1])}; between neighbouring scales the slope "
        f"is {local.min():.2f} to {local.max():.2f}; the angle goes from {2 ** logs[0]:.4f} to "
        f"{2 ** logs[-1]:.4f} radians."
    )


def _cone_shares(table: Table, at: Sequence[int]) -> Values:
    """[S] share of v_j > 0 neurons in the positive cone at the end of phase 1, mean over scales."""
    shares = table.of("phase1_cone_share")[list(at)]
    found: Values = shares.mean(axis=0) if at else np.zeros(len(table.seeds))
    return found


def _c6_cautions(table: Table, at: Sequence[int]) -> tuple[str, ...]:
    cautions = [
        "The end of phase 1 is the first time that the squared norm of some neuron exceeds "
        "2·alpha·W_max^2/sqrt(h), the bound of Min, Mallada and Vidal. Other definitions give other "
        "slopes, shown beside it: their explicit time is a lower bound, at which little is aligned yet.",
        "The angle at the stop has a floor that the second phase adds, so no slope is read there: "
        f"{shown(t_interval(table.of('theta')[0]), 1, 4)} radians at {table.power(0)}.",
    ]
    if at:
        shares = _cone_shares(table, at)
        assumed = int((shares >= CONE_SHARE).sum())
        cautions.append(
            f"Of the neurons with v_j > 0, {100 * shares.mean():.1f} % are in the positive cone at the "
            "end of phase 1 (active on all positive, no negative points; mean over seeds and scales). "
            "The theory assumes that those that see the positive class get there, which noise does not "
            f"grant: {assumed} of {len(shares)} seeds have at least {100 * CONE_SHARE:g} %, and their "
            "slope stands beside that of all."
        )
        slack = table.of("psi_slack")[list(at)]
        broken = int((slack < 0).sum())
        cautions.append(
            f"The bound on psi_j was broken in {broken} of {int(np.isfinite(slack).sum())} runs in "
            f"which it says something; the least psi_j - bound of a run is {np.nanmin(slack):.3f} to "
            f"{np.nanmax(slack):.3f}."
            if np.isfinite(slack).any()
            else "The bound on psi_j could be compared with no neuron."
        )
    return tuple(cautions)
