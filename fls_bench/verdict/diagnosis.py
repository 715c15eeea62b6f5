"""Everything measured -> one Diagnosis: regime, mechanism, recommendation and findings in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fls_bench.scaling import effective_multiplier, format_multiplier
from fls_bench.schema import (
    DIRECTION,
    Code,
    Cost,
    CStar,
    Diagnosis,
    Finding,
    Gain,
    Measurement,
    Recommendation,
    Regime,
    Sweep,
    Tier,
)
from fls_bench.verdict.contrasts import Table, beats_chance, contrast, table
from fls_bench.verdict.mechanism import over_aligned_mechanism, over_fitted_face
from fls_bench.verdict.regime import c_star, decide, log2_ratio, loss_disagrees

SMALL_TEST_PART = 500
"""Below so many test points a finding reminds that the intervals do not cover their choice."""


@dataclass(frozen=True)
class Evidence:
    """What a sweep-based diagnosis rests on.

    Attributes:
        sweep: The sweep at the setup's own centering.
        c: The value on the sweep's axis that is judged.
        gain: From c to c* on fresh seeds, or None.
        centered: The centered sweep, or None.
        measurements: Of the model that was given.
        cost: What the sweep cost.
    """

    sweep: Sweep
    c: float
    gain: Gain | None = None
    centered: Sweep | None = None
    measurements: Sequence[Measurement] = ()
    cost: Cost = Cost()


def without_sweep(tier: Tier, why: str, measured: bool) -> Diagnosis:
    """The diagnosis below T3: inconclusive, since nobody trained at another c.

    Args:
        tier: The tier reached.
        why: What kept it from a sweep, as a sentence.
        measured: Whether metrics were measured.

    Returns:
        An inconclusive diagnosis that says what would decide.
    """
    if tier is Tier.T0:
        code = "weights_alone"
        text = "The output scale can't be seen from weights alone."
    else:
        code = "no_calibration"
        text = (
            "Without training at other c the regime can only be inferred from measurements, and no "
            "calibration of them exists yet."
        )
        if measured:
            text += " The measurements are shown; they are not a verdict."
    return Diagnosis(
        regime=Regime.INCONCLUSIVE,
        evidence_tier=tier,
        method="none",
        reason=Code(code=code, text=f"{text} {why}"),
        recommendation=Recommendation(
            text="No change is recommended. A sweep would decide: give the data, the initial "
            "weights and the training recipe (fls_bench.save_bundle stores all three), or --setup."
        ),
    )


def diagnose(evidence: Evidence) -> Diagnosis:
    """Judge a sweep (method: intervention, tier T3).

    Args:
        evidence: The sweep and what goes with it.

    Returns:
        The diagnosis; inconclusive with a reason wherever the evidence does not decide.
    """
    sweep, c = evidence.sweep, evidence.c
    data = table(sweep)
    star, findings = None, []
    if c in data.test and len(data.test) > 1:
        star = c_star(data, c)
        findings += _edge(star, sweep)
        other = loss_disagrees(data, c, star.value)
        if other is not None:
            findings.append(
                Finding(
                    code="loss_optimum_on_other_side",
                    status="warning",
                    text=f"Validation loss is lowest at {format_multiplier(other)}, on the other "
                    f"side of {format_multiplier(c)} than c* by validation error. Error decides.",
                )
            )
    regime, reason = _regime(evidence, data, star)
    mechanism = None
    if star is not None and regime is Regime.OVER_ALIGNED:
        nulls = beats_alignment_nulls(evidence.measurements)
        mechanism, numbers = over_aligned_mechanism(sweep, c, star.value, nulls)
        findings.append(_evidence_finding("mechanism", mechanism, numbers))
    elif star is not None and regime is Regime.OVER_FITTED:
        mechanism, numbers = _face(evidence, star)
        findings.append(_evidence_finding("face", mechanism, numbers))
    findings += _data_findings(sweep, data, c)
    return Diagnosis(
        regime=regime,
        evidence_tier=Tier.T3,
        method="intervention",
        mechanism=mechanism,
        reason=reason,
        log2_c_ratio=None if star is None else log2_ratio(c, star),
        c=c,
        c_star=star,
        recommendation=_recommend(evidence, regime, star, reason),
        findings=tuple(findings),
    )


def _regime(evidence: Evidence, data: Table, star: CStar | None) -> tuple[Regime, Code]:
    """The regime, after everything that forbids a verdict."""
    c, sweep = evidence.c, evidence.sweep

    def open_because(code: str, text: str) -> tuple[Regime, Code]:
        return Regime.INCONCLUSIVE, Code(code=code, text=text)

    if c not in data.test:
        why = data.unusable.get(c, "no run finished")
        return open_because(
            "target_not_reached",
            f"At the setup's own c = {format_multiplier(c)} {why}, so it can't be compared. Raise "
            "max_epochs, or change the learning rate or the target.",
        )
    if star is None:
        budget = " within the budget" if evidence.cost.budget_bound else ""
        return open_because(
            "nothing_to_compare",
            f"No other c could be trained to the target{budget}. Raise --budget or max_epochs.",
        )
    if not beats_chance(data):
        return open_because(
            "no_signal",
            "No c beats the majority class on test data by more than noise: there is no signal to "
            "judge by. More training data, or data with signal, would decide.",
        )
    decision = decide(data.test, c, data.n_test, level=sweep.level)
    if decision.regime is Regime.INCONCLUSIVE and evidence.cost.budget_bound:
        return open_because(
            decision.reason.code, f"{decision.reason.text} The budget ended the sweep."
        )
    if decision.regime not in (Regime.OVER_ALIGNED, Regime.OVER_FITTED):
        return decision.regime, decision.reason
    toward = 1 if decision.regime is Regime.OVER_ALIGNED else -1
    if (star.value - c) * toward <= 0:
        return open_because(
            "validation_disagrees",
            f"Test errors favour a {'larger' if toward > 0 else 'smaller'} c, validation errors do "
            f"not (they are lowest at {format_multiplier(star.value)}). More seeds or validation "
            "points would decide.",
        )
    if evidence.gain is None:
        what = "the budget ended before" if evidence.cost.budget_bound else "runs failed when"
        return open_because(
            "not_confirmed", f"{decision.reason.text} But {what} fresh seeds could confirm it."
        )
    if evidence.gain.low <= 0:
        return open_because(
            "not_confirmed",
            f"{decision.reason.text} But {evidence.gain.num_seeds} fresh seeds do not confirm a gain "
            f"({_points(evidence.gain)}).",
        )
    return decision.regime, decision.reason


def _points(gain: Gain) -> str:
    return f"{gain.value:+.2g} points [{gain.low:+.2g}, {gain.high:+.2g}]"


def _edge(star: CStar, sweep: Sweep) -> list[Finding]:
    if star.at_edge == "none":
        return []
    ends = [cell.c for cell in sweep.cells if cell.usable]
    end = min(ends) if star.at_edge == "low" else max(ends)
    side = "smaller" if star.at_edge == "low" else "larger"
    verb = "lies" if star.value == end else "may lie"
    return [
        Finding(
            code="optimum_at_edge",
            status="warning",
            text=f"The optimum {verb} at the end of the range: a c {side} than "
            f"{format_multiplier(end)}, the last that could be judged, may do better still.",
            evidence={"end": end},
        )
    ]


def _evidence_finding(code: str, named: Code, numbers: Mapping[str, float]) -> Finding:
    text = f"What the {code} ({named.code.replace('_', ' ')}) rests on, paired by seed."
    return Finding(code=code, status="info", text=text, evidence=dict(numbers))


def beats_alignment_nulls(measurements: Sequence[Measurement]) -> bool | None:
    """Whether first-layer neurons are nearer to class-mean directions than both nulls.

    Args:
        measurements: Of one model.

    Returns:
        True only if the alignment exceeds its value at init and the upper end of the
        label-permutation null; None where one of the three was not measured.
    """
    first: dict[str, Measurement] = {}
    for one in measurements:
        if one.metric.startswith("alignment.class_means") and one.subject == "model":
            first.setdefault(one.metric, one)
    value = first.get("alignment.class_means")
    init = first.get("alignment.class_means_at_init")
    null = first.get("alignment.class_means_permutation_null")
    if value is None or init is None or null is None:
        return None
    if value.value is None or init.value is None or null.high is None:
        return None
    return value.value > init.value and value.value > null.high


def _face(evidence: Evidence, star: CStar) -> tuple[Code, dict[str, float]]:
    if evidence.sweep.centered:
        text = "lazy: the setup is centered, so no initial function is left in its outputs."
        return Code(code="lazy", text=text), {}
    if evidence.centered is None:
        text = "undetermined: the centered sweep did not run."
        return Code(code="undetermined", text=text), {}
    return over_fitted_face(evidence.sweep, evidence.centered, evidence.c, star.value)


def _data_findings(sweep: Sweep, data: Table, c: float) -> list[Finding]:
    findings = []
    for value, why in sorted(data.unusable.items()):
        findings.append(
            Finding(
                code="not_judged",
                status="warning",
                text=f"c = {format_multiplier(value)} was not judged: {why}.",
            )
        )
    calibrated = [cell for cell in sweep.cells if cell.lr_calibrated]
    if calibrated:
        listed = ", ".join(f"{format_multiplier(k.c)} ({k.lr:.3g})" for k in calibrated)
        findings.append(
            Finding(
                code="rate_calibrated",
                status="info",
                text=f"The rule's learning rate failed at {listed}; another was chosen on training "
                "behaviour.",
            )
        )
    if data.n_test < SMALL_TEST_PART:
        findings.append(
            Finding(
                code="small_test_part",
                status="warning",
                text=f"The test part has {data.n_test} points: one is {100 / data.n_test:.2g} points "
                "of error. Intervals cover the choice of training data and of initial weights, not "
                "the choice of test points.",
            )
        )
    ties = [
        run.test_ties
        for cell in sweep.cells
        if cell.c == c
        for run in cell.seeds
        if run.test_ties is not None
    ]
    if ties and float(np.mean(ties)) > 0.001:
        findings.append(
            Finding(
                code="ties",
                status="info",
                text=f"{100 * float(np.mean(ties)):.2g} % of test points tie (f = 0 exactly); each "
                "counts as its chance of being wrong.",
            )
        )
    return findings


def _recommend(
    evidence: Evidence, regime: Regime, star: CStar | None, reason: Code
) -> Recommendation:
    c, sweep = evidence.c, evidence.sweep
    if regime is Regime.NEAR_OPTIMAL:
        return Recommendation(
            multiply_output_by=1.0,
            expected_gain=evidence.gain,
            text=f"Keep c = {format_multiplier(c)}. ({DIRECTION}.)",
        )
    if regime is Regime.INCONCLUSIVE or star is None:
        return Recommendation(text=f"No change is recommended. {_next_step(reason)}")
    depth = sweep.lr_rule.depth
    rates = {cell.c: cell.lr for cell in sweep.cells}
    before, after = rates[c], rates[star.value]
    ratio = star.value / c
    on_scale = sweep.axis == "init_scale"
    factor = effective_multiplier(1.0, ratio, depth) if on_scale else ratio
    what = (
        f"Multiply the initial weights by {_number(ratio)} (alpha: {format_multiplier(c)} -> "
        f"{format_multiplier(star.value)}; the same as multiplying the output by {_number(factor)} "
        "with its rate compensated)"
        if on_scale
        else f"Multiply the output by {_number(ratio)} (c: {format_multiplier(c)} -> "
        f"{format_multiplier(star.value)})"
    )
    rate = f"learning rate {before:.3g} -> {after:.3g}"
    gain = "" if evidence.gain is None else (
        f" Expected gain on test data: {_points(evidence.gain)} of accuracy "
        f"({evidence.gain.num_seeds} fresh seeds)."
    )  # fmt: skip
    return Recommendation(
        multiply_output_by=factor,
        learning_rate=(before, after),
        expected_gain=evidence.gain,
        text=f"{what}; {rate}.{gain}",
        snippet=_snippet(on_scale, ratio, before, after),
    )


def _number(value: float) -> str:
    """A factor as people write it: 16, 1/16, 0.3."""
    if value < 1 and abs(1 / value - round(1 / value)) < 1e-9:
        return f"1/{round(1 / value)}"
    return f"{value:.6g}"


def _snippet(on_scale: bool, ratio: float, before: float, after: float) -> str:
    number = _number(ratio)
    if on_scale:
        change = (
            "with torch.no_grad():\n"
            "    for parameter in model.parameters():  # right after the weights are initialised\n"
            f"        parameter.mul_({number})"
        )
    else:
        change = f"logits = {number} * model(x)  # in training, validation and deployment alike"
    optimizer = (
        f"optimizer = torch.optim.SGD(model.parameters(), lr={after:.4g})  # was {before:.4g}"
    )
    return f"{change}\n{optimizer}"


def _next_step(reason: Code) -> str:
    """What would decide, where the reason does not say so already."""
    return {
        "too_few_seeds": "More seeds (--max-seeds) or more test data would decide.",
        "one_side_missing": "A larger --max-epochs would let that side train to its target.",
        "two_optima": "Look at the curve: the regime of this c is not a matter of side.",
        "not_confirmed": "More seeds (--max-seeds) or a larger --budget would decide.",
    }.get(reason.code, "See the reason above for what would decide.")


DIRECTIONS: Mapping[str, Regime] = {
    "movement.relative": Regime.OVER_ALIGNED,
    "rank.effective": Regime.OVER_FITTED,
}
"""The side that higher values go with, for what every run measures; as in the table of metrics."""


def measured_at(sweep: Sweep, c: float, star: float | None) -> tuple[Measurement, ...]:
    """Means over seeds of what every run measured, at c and at c*, with 95 % intervals.

    Args:
        sweep: The sweep.
        c: The value that is judged.
        star: c*, or None.

    Returns:
        Measurements with ``subject`` ``at_c`` or ``at_c_star`` and n = number of seeds.
    """
    found: list[Measurement] = []
    for cell in sweep.cells:
        subjects: list[Any] = ["at_c"] * (cell.c == c) + ["at_c_star"] * (cell.c == star != c)
        values: dict[str, list[float]] = {}
        for run in cell.seeds:
            for key, value in run.measurements.items():
                values.setdefault(key, []).append(value)
        for subject in subjects:
            for key, row in values.items():
                metric, _, layer = key.partition(":")
                one = contrast(np.array(row), np.zeros(len(row)), 0.0)
                width = None if one is None else one.half_width(0.025)
                mean = math.fsum(row) / len(row)
                found.append(
                    Measurement(
                        metric=metric,
                        subject=subject,
                        layer=layer or None,
                        split="test",
                        value=mean,
                        n=len(row),
                        unit="dimensions" if metric == "rank.effective" else "1",
                        direction=DIRECTIONS.get(metric),
                        low=None if width is None else mean - width,
                        high=None if width is None else mean + width,
                    )
                )
    return tuple(found)
