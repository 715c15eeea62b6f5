"""Numbers and words that every view of a report shows, so that page and terminal never disagree."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from fls_bench.schema import (
    Axis,
    CaseResult,
    Cell,
    Code,
    Cost,
    CStar,
    Diagnosis,
    Gain,
    Interval,
    Intervention,
    InterventionRow,
    Judgement,
    Measurement,
    Outcome,
    RateComparison,
    Regime,
    Report,
    Sweep,
    Trial,
    Tuning,
)

LEVEL = 0.95
"""Confidence level of the intervals that the views compute."""

INTERVAL_NOTE = (
    "Means are over the runs that reached the target, with 95 % Student-t intervals for each value "
    "on its own. The verdict compares runs paired by seed, which is sharper than two such "
    "intervals side by side."
)

RATES_QUESTION = "Is it only the learning rate?"
RATES_NOTE = (
    "Every value was given several learning rates and kept the best of them; this is the best "
    "value at its best rate against another value at its own best rate."
)

# --- numbers --------------------------------------------------------------------------------


def _t_within(theta: float, df: int) -> float:
    """P(|T| <= sqrt(df) tan(theta)) for Student's T with a whole number of degrees of freedom."""
    sine, cosine = math.sin(theta), math.cos(theta)
    total, term = 0.0, 1.0 if df % 2 == 0 else cosine
    for k in range(df % 2, df - 1, 2):
        total += term
        term *= cosine * cosine * (k + 1) / (k + 2)
    if df % 2 == 0:
        return sine * total
    return 2 / math.pi * (theta + sine * total)


@lru_cache(maxsize=256)
def t_quantile(level: float, df: int) -> float:
    """Two-sided quantile of Student's t: the t with P(|T| <= t) = level.

    Solved by bisection on theta = atan(t / sqrt(df)), in which the distribution is a finite sum
    for every whole df. It stands here because a view must not wait for a statistics library.

    Args:
        level: Confidence level in (0, 1).
        df: Degrees of freedom, at least 1.

    Returns:
        The quantile, positive; relative error below 1e-9 for levels up to 0.9999.

    Raises:
        ValueError: ``level`` or ``df`` is out of range.

    Source: Abramowitz, Stegun, "Handbook of Mathematical Functions", 26.7.3 and 26.7.4.
    """
    if not 0 < level < 1 or df < 1:
        raise ValueError(f"level must be in (0, 1) and df at least 1, got {level} and {df}")
    low, high = 0.0, math.pi / 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_within(middle, df) < level else (low, middle)
    return math.sqrt(df) * math.tan((low + high) / 2)


@dataclass(frozen=True)
class Mean:
    """A mean over seeds; ``low`` and ``high`` are None for a single seed."""

    value: float
    low: float | None
    high: float | None
    n: int


def mean_interval(
    values: Sequence[float], lowest: float = -math.inf, highest: float = math.inf
) -> Mean | None:
    """Mean and its 95 % interval, mean ± t(n-1)·sd/sqrt(n), cut to the range of the quantity.

    Args:
        values: One value per seed, finite.
        lowest: Smallest value that the quantity can take.
        highest: Largest value that the quantity can take.

    Returns:
        The mean, or None where there are no values.
    """
    n = len(values)
    if n == 0:
        return None
    mean = math.fsum(values) / n
    if n == 1:
        return Mean(mean, None, None, 1)
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    half = t_quantile(LEVEL, n - 1) * math.sqrt(variance / n)
    # A damaged report may hold values outside of the range.
    return Mean(mean, min(max(mean - half, lowest), mean), max(min(mean + half, highest), mean), n)


@dataclass(frozen=True)
class CellSummary:
    """One c of a sweep in a few numbers; ``None`` where no run left that number."""

    cell: Cell
    num_runs: int
    num_reached: int
    outcomes: tuple[tuple[Outcome, int], ...]
    test_error: Mean | None
    val_error: Mean | None
    test_loss: Mean | None
    test_ties: Mean | None
    chance_error: Mean | None
    measurements: tuple[tuple[str, Mean], ...]

    @property
    def messages(self) -> tuple[str, ...]:
        """What the failed runs said, each message once."""
        return tuple(dict.fromkeys(run.message for run in self.cell.seeds if run.message))

    @property
    def ended_otherwise(self) -> str:
        """How the runs that missed the target ended, such as ``5 plateau, 2 diverged``."""
        return ", ".join(
            f"{count} {hyphens(outcome)}"
            for outcome, count in self.outcomes
            if outcome is not Outcome.REACHED_TARGET
        )


def summarize(cell: Cell) -> CellSummary:
    """Means over the runs that reached the target, or over all runs where none did."""
    reached = [run for run in cell.seeds if run.outcome is Outcome.REACHED_TARGET]
    runs = reached or cell.seeds
    counts = Counter(run.outcome for run in cell.seeds)

    def mean(name: str, highest: float) -> Mean | None:
        values = [getattr(run, name) for run in runs]
        return mean_interval([value for value in values if value is not None], 0.0, highest)

    metrics = dict.fromkeys(metric for run in runs for metric in run.measurements)
    measured_along = []
    for metric in metrics:
        values = [run.measurements[metric] for run in runs if metric in run.measurements]
        if (one := mean_interval(values)) is not None:
            measured_along.append((metric, one))
    return CellSummary(
        cell=cell,
        num_runs=len(cell.seeds),
        num_reached=len(reached),
        outcomes=tuple((outcome, counts[outcome]) for outcome in Outcome if counts[outcome]),
        test_error=mean("test_error", 1.0),
        val_error=mean("val_error", 1.0),
        test_loss=mean("test_loss", math.inf),
        test_ties=mean("test_ties", 1.0),
        chance_error=mean("chance_error", 1.0),
        measurements=tuple(measured_along),
    )


def num_runs(judgements: Sequence[Judgement]) -> int:
    """All runs that these list one by one."""
    return sum(
        len(cell.seeds)
        for one in judgements
        for sweep in (one.sweep, one.centered_sweep, one.plain_sweep)
        for cell in (sweep.cells if sweep is not None else ())
    )


def summarize_sweep(sweep: Sweep) -> tuple[CellSummary, ...]:
    """All cells, from the smallest c (largest FLS) to the largest."""
    return tuple(summarize(cell) for cell in sorted(sweep.cells, key=lambda one: (one.c, one.lr)))


def metrics_along(cells: Sequence[CellSummary]) -> tuple[str, ...]:
    """Names of all that was measured along a sweep, in the order of first appearance."""
    return tuple(dict.fromkeys(name for cell in cells for name, _ in cell.measurements))


# --- words ----------------------------------------------------------------------------------

_MECHANISMS = {
    "class_mean_alignment": "class-mean alignment",
    "rank_collapse": "rank collapse",
    "initial_function_noise": "initial-function noise",
}


def hyphens(code: str) -> str:
    """A code as shown on screen: ``reached_target`` becomes ``reached-target``."""
    return code.replace("_", "-")


def mechanism_name(code: str) -> str:
    """The mechanism in the field's words."""
    return _MECHANISMS.get(code, hyphens(code))


def mechanism_text(mechanism: Code) -> str:
    """The mechanism's sentence, for display under its name."""
    text = mechanism.text.removeprefix(f"{mechanism_name(mechanism.code)}: ")
    return text if text == mechanism.text else text[:1].upper() + text[1:]


def axis_of(judgement: Judgement) -> Axis:
    """What c stands for in this judgement: the output multiplier, or the init scale."""
    return judgement.sweep.axis if judgement.sweep is not None else "output_multiplier"


def symbol(axis: Axis) -> str:
    """``c`` or ``alpha``."""
    return "c" if axis == "output_multiplier" else "alpha"


def axis_name(axis: Axis) -> str:
    """The axis in words with its symbol."""
    return "output multiplier c" if axis == "output_multiplier" else "init scale alpha"


def sweep_title(sweep: Sweep) -> str:
    """What was swept, in a few words."""
    net = "c·(f - f_0), centered" if sweep.centered else "c·f, plain"
    if sweep.lr_rule.name == "plain":
        net = "c·f under the plain rule eta/c for all parameters"
    return (
        f"Sweep of {net}"
        if sweep.axis == "output_multiplier"
        else ("Sweep of the init scale alpha" + (", centered" if sweep.centered else ""))
    )


def sweep_note(sweep: Sweep) -> str:
    """How the rates were set and on how many points the test error was measured."""
    rule = f"Learning-rate rule: {sweep.lr_rule.name}, depth {sweep.lr_rule.depth}."
    balanced = " Errors are balanced: the mean over classes of the error in each."
    points = f"Test points: {sweep.n_test}."
    return f"{rule} {points}{balanced if sweep.error == 'balanced_error' else ''}"


def direction(axis: Axis) -> str:
    """Which way is which, said wherever c is shown."""
    return f"smaller {symbol(axis)} = larger FLS = toward over-aligned"


def number(value: float) -> str:
    """Four significant digits, without trailing zeros."""
    return f"{value:.4g}"


def power(c: float) -> str:
    """The value as a power of two, such as ``2^-9`` or ``2^-1.74``."""
    exponent = round(math.log2(c), 2)
    return f"2^{exponent:g}" if exponent else "2^0"


def multiplier(c: float) -> str:
    """The value as a power of two and as a decimal."""
    return f"{power(c)} ({c:.3g})"


def percent(mean: Mean | None) -> str:
    """A share as a percentage with its interval."""
    if mean is None:
        return "-"
    text = f"{100 * mean.value:.2f} %"
    if mean.low is None or mean.high is None:
        return text
    return f"{text} [{100 * mean.low:.2f}, {100 * mean.high:.2f}]"


def plain(mean: Mean | None) -> str:
    """A number with its interval."""
    if mean is None:
        return "-"
    text = f"{mean.value:.3f}"
    if mean.low is None or mean.high is None:
        return text
    return f"{text} [{mean.low:.3f}, {mean.high:.3f}]"


def optional_percent(value: float | None) -> str:
    """A share as a percentage, or a dash."""
    return "-" if value is None else f"{100 * value:.2f} %"


def optional_number(value: float | None) -> str:
    """A number, or a dash."""
    return "-" if value is None else number(value)


def loss_unit(judgement: Judgement) -> str:
    """The unit of the losses, for the head of a column; empty where the setup does not say."""
    loss = judgement.setup.get("loss")
    return {"cross_entropy": ", nats", "logistic": ", nats", "mse": ", squared"}.get(str(loss), "")


def seeds_text(sweep: Sweep | None) -> str:
    """How many runs stand behind each value of a sweep."""
    counts = sorted({len(cell.seeds) for cell in sweep.cells}) if sweep is not None else []
    if not counts:
        return ""
    span = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"n = {span} {'seed' if counts[-1] == 1 else 'seeds'} a value"


def c_star_text(c_star: CStar, axis: Axis) -> str:
    """c* with its interval, and whether it lies at an end of the range swept."""
    low = "the lower end of the range" if c_star.low is None else power(c_star.low)
    high = "the upper end of the range" if c_star.high is None else power(c_star.high)
    text = f"{multiplier(c_star.value)}, {100 * c_star.level:g} % interval from {low} to {high}"
    if c_star.at_edge != "none":
        side, way = {"low": ("lower", "smaller"), "high": ("upper", "larger")}[c_star.at_edge]
        text += (
            f"; the curve is still at its best at the {side} end of the range swept, so the optimum "
            f"may lie at a {way} {symbol(axis)}"
        )
    return text


def gain_text(gain: Gain) -> str:
    """An expected gain with its interval, its seeds and its split."""
    return (
        f"{gain.value:+.2f} {gain.unit}, {100 * gain.level:g} % interval "
        f"{gain.low:+.2f} to {gain.high:+.2f} ({gain.num_seeds} seeds, {gain.split} split)"
    )


def short_gain(gain: Gain) -> str:
    """An expected gain for a cell of a table whose head says the unit."""
    return f"{gain.value:+.2f} [{gain.low:+.2f}, {gain.high:+.2f}], n = {gain.num_seeds}"


def short_c_star(c_star: CStar) -> str:
    """c* with its interval for a cell of a table."""
    low = "..." if c_star.low is None else power(c_star.low)
    high = "..." if c_star.high is None else power(c_star.high)
    return f"{power(c_star.value)} [{low}, {high}]"


def ratio_text(ratio: Interval, axis: Axis) -> str:
    """log2(c/c*) with its interval and its direction."""
    text = f"{ratio.value:+.2f}"
    if ratio.low is not None and ratio.high is not None:
        text += f" octaves, {100 * ratio.level:g} % interval {ratio.low:+.2f} to {ratio.high:+.2f}"
    stands = ", c = alpha^L" if axis == "init_scale" else ""
    return f"{text} (negative: c is too small, toward over-aligned{stands})"


def problems(diagnosis: Diagnosis) -> str:
    """The findings that may mean that all the rest is of something else; empty where there are none."""
    codes = [hyphens(one.code) for one in diagnosis.findings if one.status == "problem"]
    return f"{counted(len(codes), 'problem')}: {', '.join(codes)}" if codes else ""


_OBSERVED = {
    Regime.OVER_ALIGNED: "It measures like nets whose feature learning is too strong (c is too small).",
    Regime.NEAR_OPTIMAL: "It measures like nets whose output multiplier is near its optimum.",
    Regime.OVER_FITTED: "It measures like nets whose feature learning is too weak (c is too large).",
}


def verdict_sentence(diagnosis: Diagnosis) -> str:
    """The verdict as a sentence; one by observation says no more than that."""
    if diagnosis.method == "observation" and diagnosis.regime in _OBSERVED:
        return _OBSERVED[diagnosis.regime]
    return diagnosis.regime.sentence


def facts(diagnosis: Diagnosis, axis: Axis) -> tuple[tuple[str, str], ...]:
    """The verdict's key figures as (name, text)."""
    name = symbol(axis)
    rows = [(f"{name} now", "not known" if diagnosis.c is None else multiplier(diagnosis.c))]
    rows.append(
        (
            f"best {name} ({name}*)",
            "not determined" if diagnosis.c_star is None else c_star_text(diagnosis.c_star, axis),
        )
    )
    if diagnosis.log2_c_ratio is not None:
        rows.append(("log2(c/c*)", ratio_text(diagnosis.log2_c_ratio, axis)))
    rows.append(("direction", direction(axis)))
    if first := problems(diagnosis):
        rows.insert(2, ("read first", first))
    tier = diagnosis.evidence_tier
    rows.append(("evidence", f"{tier.value}: {tier.sentence}"))
    rows.append(
        (
            "method",
            {
                "intervention": "intervention: nets were trained at other values and compared",
                "observation": "observation: inferred from measurements, nothing was trained",
                "none": "none: nothing that separates the regimes was measured",
            }[diagnosis.method],
        )
    )
    if diagnosis.probabilities:
        rows.append(
            (
                "probabilities",
                ", ".join(
                    f"{hyphens(regime)} {100 * share:.0f} %"
                    for regime, share in diagnosis.probabilities.items()
                ),
            )
        )
    return tuple(rows)


def tiles(judgement: Judgement) -> tuple[tuple[str, str, str], ...]:
    """The few figures that a reader looks for first, as (name, value, interval and n)."""
    axis, diagnosis = axis_of(judgement), judgement.diagnosis
    tuning = judgement.tuning if isinstance(judgement, Report) else None
    if diagnosis is not None:
        c, c_star = diagnosis.c, diagnosis.c_star
        gain = diagnosis.recommendation.expected_gain
    elif tuning is not None:
        c, c_star, gain = tuning.c, tuning.c_star, tuning.gain_in_all
    else:
        return ()
    now, best = f"{symbol(axis)} now", f"best {symbol(axis)} ({symbol(axis)}*)"
    shown = [(now, "not known", "") if c is None else (now, power(c), f"{c:.3g}")]
    if c_star is None:
        shown.append((best, "not determined", ""))
    else:
        interval = c_star_text(c_star, axis).partition(", ")[2]
        aside = [f"{c_star.value:.3g}, {interval}", seeds_text(judgement.sweep)]
        shown.append((best, power(c_star.value), "; ".join(filter(None, aside))))
    if gain is not None:
        value, _, interval = gain_text(gain).partition(f" {gain.unit}, ")
        shown.append(("expected gain", value, f"{gain.unit}, {interval}"))
    return tuple(shown)


def recommendation_facts(diagnosis: Diagnosis) -> tuple[tuple[str, str], ...]:
    """The recommendation's figures as (name, text)."""
    advice = diagnosis.recommendation
    rows = []
    if advice.multiply_output_by is not None:
        factor = advice.multiply_output_by
        rows.append(("multiply the output by", f"{number(factor)} ({power(factor)})"))
    if advice.multiply_init_by is not None:
        factor = advice.multiply_init_by
        rows.append(("multiply initial weights by", f"{number(factor)} ({power(factor)})"))
    if advice.learning_rate is not None:
        now, then = advice.learning_rate
        rows.append(("learning rate", f"{number(now)} -> {number(then)}"))
    if advice.expected_gain is not None:
        rows.append(("expected gain", gain_text(advice.expected_gain)))
    return tuple(rows)


def comparison_facts(one: RateComparison, axis: Axis) -> tuple[tuple[str, str], ...]:
    """Two values of c, each at its best rate, as (name, text)."""
    name = symbol(axis)
    tried = ", ".join(number(factor) for factor in one.rates_tried)
    return (
        (f"{name}*", f"{multiplier(one.c_star)} at learning rate {number(one.lr_at_c_star)}"),
        ("against", f"{name} = {multiplier(one.c)} at learning rate {number(one.lr_at_c)}"),
        (f"gain of {name}*", gain_text(one.gain)),
        ("rates tried", f"{tried} times the rule's rate"),
    )


MEASUREMENTS_NOTE = (
    "Brackets: 95 % intervals. A value without brackets was measured once, on one net. Unit 1: a pure "
    "number. n: the samples, or for nets that were trained again the seeds."
)

TRIALS_NOTE = (
    "Everything is chosen on validation data: the error decides, the loss where noise hides the error. "
    "Test data and the seeds of the gains above chose nothing."
)


def tuning_facts(tuning: Tuning) -> tuple[tuple[str, str], ...]:
    """What was tuned and what each change gains, as (name, text)."""
    name = symbol(tuning.axis)
    rows = [(f"{name} now", f"{multiplier(tuning.c)} at learning rate {number(tuning.lr)}")]
    if tuning.lr_at_c is not None:
        rows.append((f"best rate at {name}", number(tuning.lr_at_c)))
    if tuning.c_star is not None:
        rows.append((f"best {name} ({name}*)", c_star_text(tuning.c_star, tuning.axis)))
    if tuning.lr_at_c_star is not None:
        rows.append((f"best rate at {name}*", number(tuning.lr_at_c_star)))
    rows.append(("direction", direction(tuning.axis)))
    gains = (
        (f"gain of {name}* over {name}, each at its best rate", tuning.gain),
        (f"gain of the best rate alone, at {name}", tuning.gain_of_rate),
        (f"gain of {name}* alone, at the rule's rate", tuning.gain_at_rule),
        (f"gain of {name}* at its best rate over the setup as it is", tuning.gain_in_all),
    )
    rows += [(what, gain_text(gain)) for what, gain in gains if gain is not None]
    rows.append(
        (
            "replica-epochs",
            f"search {tuning.search_replica_epochs}, learning rates {tuning.rates_replica_epochs}, "
            f"verification {tuning.verification_replica_epochs}",
        )
    )
    if tuning.model_file is not None:
        rows.append(("tuned model", tuning.model_file))
    return tuple(rows)


def trial_columns(tuning: Tuning) -> tuple[str, ...]:
    """Heads of the table of a tuning's search."""
    return (
        symbol(tuning.axis),
        "rate",
        "reached",
        "validation error",
        "validation loss",
        "last round",
    )


def trial_rows(tuning: Tuning) -> tuple[tuple[str, ...], ...]:
    """Everything that a tuning tried, one row each, in the order of ``trial_columns``."""
    return tuple(
        (
            power(one.c),
            number(one.lr),
            f"{one.num_reached}/{one.num_seeds}",
            optional_percent(one.val_error),
            optional_number(one.val_loss),
            "yes" if one.kept else "-",
        )
        for one in tuning.trials
    )


def trial_error(trial: Trial, cells: Sequence[CellSummary]) -> str:
    """The validation error of a trial, with its interval where the sweep holds the same runs."""
    for one in cells:
        if (one.cell.c, one.cell.lr) == (
            trial.c,
            trial.lr,
        ) and one.num_reached == trial.num_reached:
            return percent(one.val_error)
    return optional_percent(trial.val_error)


def subject(measurement: Measurement, axis: Axis) -> str:
    """On which nets the value was measured."""
    name = symbol(axis)
    return {
        "model": "the model",
        "at_c": f"retrained at {name}",
        "at_c_star": f"retrained at {name}*",
    }[measurement.subject]


def measured(measurement: Measurement) -> str:
    """The value with its interval, or that there is none."""
    if measurement.value is None:
        return hyphens(measurement.status)
    text = number(measurement.value)
    if measurement.low is not None and measurement.high is not None:
        text += f" [{number(measurement.low)}, {number(measurement.high)}]"
    return text


def measured_ones(measurements: Sequence[Measurement]) -> list[Measurement]:
    """Those that have a value."""
    return [one for one in measurements if one.status == "ok"]


def unavailable_ones(measurements: Sequence[Measurement]) -> list[tuple[str, str]]:
    """What could not be measured with its reason; metrics and layers that share a reason together."""
    layers: dict[tuple[str, str], list[str]] = {}
    for one in measurements:
        if one.status != "ok":
            found = layers.setdefault((one.reason or hyphens(one.status), one.metric), [])
            found += [one.layer] if one.layer else []
    names: dict[str, list[str]] = {}
    for (reason, metric), k in layers.items():
        where = f" ({', '.join(k) if len(k) < 4 else f'{len(k)} layers'})" if k else ""
        names.setdefault(reason, []).append(metric + where)
    return [(", ".join(metrics), reason) for reason, metrics in names.items()]


def in_short(measurements: Sequence[Measurement]) -> tuple[list[Measurement], int]:
    """What a terminal shows of the measured ones, and how many rows it leaves out.

    Of a metric that has a value for each layer: the first and the last layer.
    """
    shown: list[Measurement] = []
    measured = measured_ones(measurements)
    for key in dict.fromkeys((one.subject, one.metric) for one in measured):
        rows = [one for one in measured if (one.subject, one.metric) == key]
        shown += rows if len(rows) < 3 else [rows[0], rows[-1]]
    return shown, len(measured) - len(shown)


def directions(judgement: Judgement) -> tuple[str, ...]:
    """Sentences that say which side higher values of which metrics go with."""
    found: dict[str, dict[str, None]] = {"over_aligned": {}, "over_fitted": {}}
    for one in judgement.measurements:
        if one.direction is not None:
            found[one.direction][one.metric] = None
    return tuple(
        f"Higher values go with {'larger' if side == 'over_aligned' else 'smaller'} FLS, toward "
        f"{hyphens(side)}: {', '.join(names)}."
        for side, names in found.items()
        if names
    )


def flat(value: dict[str, Any], prefix: str = "") -> tuple[tuple[str, str], ...]:
    """Nested plain values as (dotted key, text)."""
    rows: list[tuple[str, str]] = []
    for key, item in value.items():
        if isinstance(item, dict) and item:
            rows.extend(flat(item, f"{prefix}{key}."))
        else:
            rows.append((f"{prefix}{key}", _value_text(item)))
    return tuple(rows)


def _value_text(item: Any) -> str:
    if isinstance(item, str):
        return item
    if item is None:
        return "-"
    if isinstance(item, bool):
        return "yes" if item else "no"
    if isinstance(item, float):
        return f"{item:.6g}"
    return json.dumps(item, ensure_ascii=False, default=str)


def counted(n: int, thing: str) -> str:
    """``1 run``, ``10,000 runs``."""
    return f"{n:,} {thing}" if n == 1 else f"{n:,} {thing}s"


def cost_text(cost: Cost) -> str:
    """What the verdict cost, and whether a budget cut it short."""
    text = f"{cost.num_runs} runs, {cost.replica_epochs} replica-epochs"
    if cost.budget_replica_epochs is None:
        return f"{text}; the budget did not bind."
    cut = "the budget cut the sweep short" if cost.budget_bound else "the budget did not bind"
    return f"{text} of a budget of {cost.budget_replica_epochs}; {cut}."


def provenance_rows(report: Report) -> tuple[tuple[str, str], ...]:
    """Times and machine facts as (name, text)."""
    facts_ = report.provenance
    rows = [("fls-bench", facts_.version)]
    optional = (("torch", facts_.torch), ("blas", facts_.blas), ("threads", facts_.threads))
    rows.extend((name, str(value)) for name, value in optional if value is not None)
    rows.append(("device", facts_.device))
    rows.append(("started", facts_.started))
    rows.append(("time", f"{facts_.seconds:.1f} s"))
    rows.extend(facts_.extra.items())
    return tuple(rows)


def title(report: Report) -> str:
    """What the report is about, in a few words."""
    if report.claims and not report.cases:
        return "The paper's claims, as stored"
    if report.kind == "compare":
        return "Comparison"
    if report.kind == "selftest":
        return "Self-test of the reading"
    if report.kind in ("suite", "check"):
        suite = report.suite or {}
        name, version = suite.get("name", "without a name"), suite.get("version")
        return f"Suite {name}" + ("" if version is None else f", version {version}")
    return str(report.setup.get("name") or report.input.get("path") or "Training setup")


INTERVENTION_COLUMNS = (
    "row", "c", "reached", "accuracy, % [95 %]", "share [95 %]", "gap closed [95 %]", "ranks", "held",
)  # fmt: skip


def intervention_note(intervention: Intervention) -> str:
    """How to read the table."""
    return (
        f"c* = {power(intervention.c_star)} against c = {power(intervention.c_low)}, paired by seed. "
        "Share: what of the plain gap in accuracy a row returns (at c*: takes). Gap closed: under the "
        "same penalties at both c. Ranks: of each hidden layer on minibatches at the stop, "
        f"{intervention.measure}, with its target after a slash."
    )


def intervention_cells(row: InterventionRow) -> tuple[str, ...]:
    """One row as texts, in the order of ``INTERVENTION_COLUMNS``."""
    ranks = [
        f"{rank:.1f}" + ("" if target is None else f"/{target:.1f}")
        for rank, target in zip(row.ranks, row.targets or [None] * len(row.ranks), strict=True)
    ]
    return (
        row.name,
        power(row.c),
        f"{row.num_reached} / {row.num_seeds}",
        _share_text(row.accuracy, 100, 1),
        _share_text(row.share, 1, 2),
        _share_text(row.gap_closed, 1, 2),
        " ".join(ranks) or "-",
        {True: "yes", False: "not held", None: "-"}[row.held],
    )


def _share_text(one: Interval | None, factor: int, digits: int) -> str:
    if one is None:
        return "-"
    if one.low is None or one.high is None:
        return "undecided"
    value, low, high = (f"{factor * k:.{digits}f}" for k in (one.value, one.low, one.high))
    return f"{value} [{low}, {high}]"


def verdict_word(judgement: Judgement) -> str:
    """The regime's name, ``intervention``, ``no verdict``; for a tuning, whether there is a gain."""
    if judgement.intervention is not None:
        return "intervention"
    if isinstance(judgement, Report) and judgement.tuning is not None:
        return "no gain confirmed" if judgement.tuning.change == "none" else "gain confirmed"
    if isinstance(judgement, Report) and judgement.invariants is not None:
        statuses = {one.status for one in judgement.invariants.findings}
        return next((word for word in ("broken", "held") if word in statuses), "void")
    if isinstance(judgement, Report) and judgement.selftest is not None:
        return "failed" if judgement.selftest.failures else "passed"
    return "no verdict" if judgement.diagnosis is None else judgement.diagnosis.regime.label


def expectation(case: CaseResult) -> str:
    """What a suite's case expects."""
    return (
        ", ".join(
            hyphens(value) if key == "regime" else f"{key} = {hyphens(value)}"
            for key, value in case.expect.items()
        )
        or "-"
    )


def met_word(case: CaseResult) -> str:
    """Whether the expectation held."""
    return {True: "yes", False: "NO", None: "-"}[case.met]


def met_text(report: Report) -> str:
    """How many cases came out as expected."""
    counts = Counter(case.met for case in report.cases)
    cases = "1 case" if len(report.cases) == 1 else f"{len(report.cases)} cases"
    text = f"{cases}: {counts[True]} as expected, {counts[False]} not"
    return f"{text}, {counts[None]} without an expectation." if counts[None] else f"{text}."
