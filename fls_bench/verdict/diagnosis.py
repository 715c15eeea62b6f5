"""Everything measured -> one Diagnosis: regime, mechanism, recommendation and findings in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fls_bench.scaling import format_multiplier
from fls_bench.schema import (
    Code,
    CStar,
    Diagnosis,
    Finding,
    Interval,
    Measurement,
    Outcome,
    Reading,
    Recommendation,
    Regime,
    Sweep,
    Tier,
)
from fls_bench.verdict.advice import recommend
from fls_bench.verdict.contrasts import (
    Table,
    beats_chance,
    contrast,
    practical_margin,
    table,
)
from fls_bench.verdict.evidence import Evidence, points_of, symbol_of
from fls_bench.verdict.mechanism import over_aligned_mechanism, over_fitted_face
from fls_bench.verdict.regime import c_star, decide, log2_ratio, loss_disagrees

MIN_TEST_PART = 100
"""With fewer test points, one of them is more than the largest practical margin: no verdict."""

MIN_OCTAVES = 6.0
"""Over at least so many octaves c has to leave the error alone before it is said not to matter."""

SMALL_TEST_PART = 500
"""Below so many test points a finding reminds that the intervals do not cover their choice."""


def without_budget(why: str) -> Diagnosis:
    """The diagnosis of a setup that could be swept, had the budget allowed it.

    Args:
        why: What the budget is, and what it would take, as a sentence.

    Returns:
        An inconclusive diagnosis.
    """
    return Diagnosis(
        regime=Regime.INCONCLUSIVE,
        evidence_tier=Tier.T2,
        method="none",
        reason=Code(code="budget", text=why),
        recommendation=Recommendation(
            text="No change is recommended. A larger --budget would let a sweep decide."
        ),
    )


def without_sweep(tier: Tier, why: str) -> Diagnosis:
    """The diagnosis where a net could be neither swept nor run: inconclusive.

    Args:
        tier: The tier reached.
        why: What kept it from both, as a sentence.

    Returns:
        An inconclusive diagnosis that says what would decide.
    """
    if tier is Tier.T0:
        code = "weights_alone"
        text = "The output scale can't be seen from weights alone."
    else:
        code = "not_measured"
        text = "The net could not be run on its data, so nothing could be read from it."
    return Diagnosis(
        regime=Regime.INCONCLUSIVE,
        evidence_tier=tier,
        method="none",
        reason=Code(code=code, text=f"{text} {why}"),
        recommendation=Recommendation(
            text="No change is recommended. A sweep would decide. It takes the net's builder (--model), "
            "data, initial weights and the training recipe, of which fls_bench.record keeps all but the "
            "builder; or --setup."
        ),
    )


def from_reading(reading: Reading, tier: Tier, why: str, c: float | None = None) -> Diagnosis:
    """The diagnosis where nothing was swept: what was read from the net alone.

    Args:
        reading: Of the net.
        tier: What could be had: at T3 a sweep.
        why: What kept it from a sweep, as a sentence.
        c: The net's own multiplier, where it is known.

    Returns:
        A diagnosis by observation, its tier that of the reading; inconclusive where the reading is.
    """
    regime, ratio = reading.regime, reading.log2_c_ratio
    mechanism, multiply = None, None
    if regime in (Regime.OVER_ALIGNED, Regime.OVER_FITTED):
        text = "A mechanism is measured between c and c*, which takes a sweep."
        mechanism = Code(code="undetermined", text=text)
        assert ratio is not None
        toward = 1.0 if regime is Regime.OVER_ALIGNED else -1.0
        # The regime decides the side; an estimate that lies on the other one gives no distance.
        octaves = toward * max(1.0, round(-toward * ratio.value))
        multiply = 2.0**octaves
        side = "larger" if toward > 0 else "smaller"
        advice = (
            f"Try a {side} output multiplier: {_factors(ratio, octaves)} times the present one, with "
            "the learning rate that its rule gives (docs/learning-rates.md). Only the side was read "
            "from this one net, hardly the distance: confirm it by a sweep, or find c* and its rate "
            "with fls-bench tune."
        )
    elif regime is Regime.NEAR_OPTIMAL:
        advice = "No change is recommended. A sweep would confirm it."
        if ratio is not None and ratio.low is not None and ratio.high is not None:
            advice += (
                " Near-optimal says that hardly anything is to be gained, wherever c* lies."
                if not ratio.low <= 0 <= ratio.high
                else ""
            )
    else:
        advice = "No change is recommended. A sweep would decide: " + (
            "leave out --observe-only, or raise --budget."
            if tier is Tier.T3
            else "give the training setup (--setup), by which nets of other c can be trained."
        )
    return Diagnosis(
        regime=regime,
        evidence_tier=Tier(reading.evidence[:2]),
        method="observation",
        mechanism=mechanism,
        reason=Code(
            code=reading.reason.code, text=" ".join(filter(None, (reading.reason.text, why)))
        ),
        probabilities=reading.probabilities or None,
        log2_c_ratio=ratio,
        c=c,
        recommendation=Recommendation(multiply_output_by=multiply, text=advice),
    )


def _factors(ratio: Interval, octaves: float) -> str:
    """By how much c is to change, as far as the interval of log2(c/c*) says it."""
    about = format_multiplier(2.0**octaves)
    if ratio.low is None or ratio.high is None:
        return f"about {about}"
    side = 1 if octaves > 0 else -1
    ends = sorted((-ratio.low, -ratio.high), key=abs)
    first, second = (2.0 ** (side * max(0.0, side * round(end))) for end in ends)
    if first == 1:
        reach = "up to" if side > 0 else "down to"
    else:
        reach = f"between {format_multiplier(first)} and"
    return f"{reach} {format_multiplier(second)}, about {about},"


def reading_finding(reading: Reading, regime: Regime) -> Finding:
    """What the reading of the net said, beside what the sweep found.

    Args:
        reading: Of the net that was given.
        regime: By the sweep, which decides.

    Returns:
        A warning where both are sure and differ.
    """
    said = reading.regime.label
    if reading.regime is Regime.INCONCLUSIVE:
        code, status = "reading_inconclusive", "info"
        text = f"Read from the net alone, the regime was inconclusive: {reading.reason.text}"
    elif regime is Regime.INCONCLUSIVE:
        code, status = "reading_not_confirmed", "info"
        text = f"Read from the net alone it was {said}; the sweep could not confirm it."
    elif regime is reading.regime:
        code, status = "reading_confirmed", "info"
        text = f"Read from the net alone it was {said}, as the sweep found."
    else:
        code, status = "reading_disagrees", "warning"
        text = (
            f"Read from the net alone it was {said}, and the sweep found {regime.label}: the sweep "
            "decides, since nets were trained at other c for it."
        )
    evidence = {name.replace("_", "-"): p for name, p in reading.probabilities.items()}
    return Finding.model_validate(
        {"code": code, "status": status, "text": text, "evidence": evidence}
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
    star: CStar | None = None
    findings: list[Finding] = []
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
                    f"side of {format_multiplier(c)} than {symbol_of(sweep)}* by validation error. "
                    "Error decides.",
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
    if star is not None and regime is Regime.NEAR_OPTIMAL and evidence.gain is not None:
        text = (
            f"Moving to {symbol_of(sweep)}* = {format_multiplier(star.value)} would change test "
            f"accuracy by {points_of(evidence.gain)} ({evidence.gain.num_seeds} fresh seeds)."
        )
        findings.append(Finding(code="gain_at_c_star", status="info", text=text))
    if evidence.cost.budget_bound:
        text = "The budget ended the diagnosis early; what did not run is listed as skipped."
        findings.append(Finding(code="budget_bound", status="warning", text=text))
    findings += _setup_findings(evidence)
    findings += _no_effect(evidence, data, regime)
    findings += _data_findings(sweep, data, c)
    return Diagnosis(
        regime=regime,
        evidence_tier=Tier.T3,
        method="intervention",
        mechanism=mechanism,
        reason=reason,
        log2_c_ratio=None if star is None else _ratio(sweep, c, star),
        c=c,
        c_star=star,
        recommendation=recommend(evidence, regime, star, reason),
        findings=tuple(findings),
    )


def _ratio(sweep: Sweep, c: float, star: CStar) -> Interval:
    """log2(c/c*), an init scale turned into the c that it stands for."""
    ratio = log2_ratio(c, star)
    factor = sweep.lr_rule.depth if sweep.axis == "init_scale" else 1
    assert ratio.low is not None
    assert ratio.high is not None
    return Interval(
        value=factor * ratio.value, low=factor * ratio.low, high=factor * ratio.high,
        level=ratio.level,
    )  # fmt: skip


def _setup_findings(evidence: Evidence) -> list[Finding]:
    rule, found = evidence.sweep.lr_rule, []
    if rule.name == "calibrated" or (rule.name == "plain" and not evidence.advised.normalised):
        text = (
            "No learning-rate rule is exact for this net (a nonlinearity other than ReLU, or branches "
            "of different depth): the rate at each other c is a guess, calibrated only where training "
            "failed. Part of a difference between c may be the rate."
        )
        found.append(Finding(code="rule_not_exact", status="warning", text=text))
    elif rule.name == "plain":
        text = (
            "One rate eta/c for all parameters: weights in front of a normalisation are "
            "scale-invariant and take a 1/c times larger step, so what is judged is their step "
            "together with the feature learning strength."
        )
        found.append(Finding(code="plain_rule", status="warning", text=text))
    elif rule.name == "normalised":
        text = (
            "The net is normalised inside, so c sets the scale of what follows the last normalisation "
            f"alone ({_some(list(rule.exponents))}): these rates follow c, all others keep theirs. "
            "This is exact, and c means less here than in a net without normalisation."
        )
        found.append(Finding(code="normalised_rule", status="info", text=text))
    if evidence.plain is not None:
        found.append(_both_rules(evidence, evidence.plain))
    return found


def _some(names: Sequence[str], most: int = 6) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _both_rules(evidence: Evidence, plain: Sweep) -> Finding:
    """What the same c give under YHL's eta/c on all parameters: shown beside, never decides."""
    exact, other = table(evidence.sweep), table(plain)
    rows = {}
    for value in sorted(set(exact.test) | set(other.test)):
        for name, data in (("exact", exact), ("plain", other)):
            if value in data.test:
                error = float(np.nanmean(data.test[value]))
                rows[f"{name} {format_multiplier(value)}"] = round(error, 5)
    c = evidence.c
    text = "Under the plain rule eta/c on all parameters"
    if c in other.test and len(other.test) > 1:
        decision = decide(other.test, c, other.n_test, level=plain.level)
        text += f" the same c would be judged {decision.regime.label}"
        text += ", without fresh seeds to confirm it,"
    else:
        text += " too few c reached the target to be judged"
    text += (
        " (test errors of both rules: see the evidence). There, weights in front of a normalisation "
        "take a 1/c times larger step, so it measures that step as well as c; it decides nothing here."
    )
    return Finding(code="both_rules", status="info", text=text, evidence=rows)


def _no_effect(evidence: Evidence, data: Table, regime: Regime) -> list[Finding]:
    """Where no c differs from the best by more than the margin, over a wide range: say so, and why."""
    if (
        regime is not Regime.NEAR_OPTIMAL
        or math.log2(max(data.test) / min(data.test)) < MIN_OCTAVES
    ):
        return []
    means = {value: float(np.nanmean(errors)) for value, errors in data.test.items()}
    delta = practical_margin(min(means.values()), data.n_test)
    if max(means.values()) - min(means.values()) > delta:
        return []
    symbol, ends = symbol_of(evidence.sweep), (min(data.test), max(data.test))
    text = (
        f"{symbol} hardly matters here: from {format_multiplier(ends[0])} to "
        f"{format_multiplier(ends[1])} mean test errors differ by "
        f"{100 * (max(means.values()) - min(means.values())):.2g} points, less than the margin of "
        f"{100 * delta:.2g}."
    )
    if evidence.sweep.lr_rule.name == "normalised":
        text += (
            " Behind a normalisation it only sets how the read-out starts; tune the learning rate of "
            "the layers before it instead."
        )
    return [Finding(code="c_hardly_matters", status="info", text=text)]


def _regime(evidence: Evidence, data: Table, star: CStar | None) -> tuple[Regime, Code]:
    """The regime, after everything that forbids a verdict."""
    c, sweep, symbol = evidence.c, evidence.sweep, symbol_of(evidence.sweep)

    def open_because(code: str, text: str) -> tuple[Regime, Code]:
        return Regime.INCONCLUSIVE, Code(code=code, text=text)

    if c not in data.test:
        why = data.unusable.get(c, "no run finished")
        return open_because(
            "target_not_reached",
            f"At the setup's own {symbol} = {format_multiplier(c)} {why}, so it can't be compared. "
            "Raise max_epochs, or change the learning rate or the target.",
        )
    if star is None:
        budget = " within the budget" if evidence.cost.budget_bound else ""
        return open_because(
            "nothing_to_compare",
            f"No other {symbol} could be trained to the target{budget}. Raise --budget or max_epochs.",
        )
    if not beats_chance(data):
        return open_because(
            "no_signal",
            f"No {symbol} beats the majority class on test data by more than noise: there is no "
            "signal to judge by. More training data, or data with signal, would decide.",
        )
    if data.n_test < MIN_TEST_PART:
        return open_because(
            "test_part_too_small",
            f"The test part has {data.n_test} points, so one of them is more than one point of "
            f"error. At least {MIN_TEST_PART} would decide.",
        )
    decision = decide(data.test, c, data.n_test, level=sweep.level, symbol=symbol)
    if decision.regime is Regime.NEAR_OPTIMAL and not evidence.complete:
        return open_because(
            "budget",
            "No other value that was tried does better, but the budget ended before the range was "
            "searched. Raise --budget.",
        )
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
            f"Test errors favour a {'larger' if toward > 0 else 'smaller'} {symbol}, validation errors "
            f"do not (they are lowest at {format_multiplier(star.value)}). More seeds or validation "
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
            f"({points_of(evidence.gain)}).",
        )
    return decision.regime, decision.reason


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
            text=f"The optimum {verb} at the end of the range: a value {side} than "
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
                text=f"{symbol_of(sweep)} = {format_multiplier(value)} was not judged: {why}.",
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
            if run.outcome is not Outcome.REACHED_TARGET:
                continue
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
