"""Two recordings of a suite against each other: per seed, corrected, with a practical minimum.

Loads no statistics library, since a comparison of stored files must not wait for one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from fls_bench.gates import LEVEL, REACHED, RUN_VALUES, num_tests, run_value
from fls_bench.report.summary import counted, flat, mean_interval, power
from fls_bench.schema import (
    Different,
    Gate,
    Interval,
    MetricDifference,
    Pair,
    RecordedCase,
    RecordedCell,
    Regime,
    RegimeDifference,
    SampleMean,
    Side,
    Skipped,
)
from fls_bench.verdict.intervals import (
    Values,
    detectable_apart,
    detectable_in_pairs,
    sign_flip_interval,
    welch_interval,
)

# --- one metric -----------------------------------------------------------------------------


def values_of(cell: RecordedCell, metric: str) -> dict[int, float]:
    """Seed -> value, of the seeds that have one."""
    if metric == REACHED:
        row: Sequence[float | None] = [float(seed not in cell.missed) for seed in cell.seeds]
    else:
        row = cell.values.get(metric, ())
    pairs = zip(cell.seeds, row, strict=False)
    return {seed: value for seed, value in pairs if value is not None}


def compare_metric(
    case: str,
    metric: str,
    before: Mapping[int, float],
    after: Mapping[int, float],
    gate: Gate | None,
    level: float,
) -> MetricDifference:
    """Compare one metric of one case.

    It regressed only where the interval of after - before lies wholly on the bad side of 0 *and* the
    difference is beyond the practical minimum.

    Args:
        case: The case's id.
        metric: The metric's name.
        before: Seed -> value.
        after: Seed -> value.
        gate: How it is judged; None: it is shown only.
        level: Two-sided error rate of its interval.

    Returns:
        The difference with its status.
    """
    seeds = sorted(before.keys() & after.keys())
    paired = bool(seeds)
    a, b = _array(before, seeds if paired else before), _array(after, seeds if paired else after)
    means = [
        _mean(metric, {seed: side[seed] for seed in seeds} if paired else side)
        for side in (before, after)
    ]
    fields = {
        "case": case, "metric": metric, "unit": run_value(metric).unit, "gated": gate is not None,
        "better": None if gate is None else gate.better, "paired": paired, "n": min(len(a), len(b)),
        "before": means[0], "after": means[1],
    }  # fmt: skip
    if gate is not None and gate.tolerance is not None:
        return _compare_exactly(fields, seeds, before, after, gate.tolerance)
    interval: Interval | None = None
    least = detectable = None
    if gate is not None and gate.min_effect is not None:
        least = gate.min_effect * (abs(float(a.mean())) if gate.relative and len(a) else 1.0)
    if len(a) and len(b):
        bounds = sign_flip_interval(b - a, level) if paired else welch_interval(a, b, level)
        low, high = bounds or (None, None)
        interval = Interval(value=float(b.mean() - a.mean()), low=low, high=high, level=1 - level)
    status, text = _judged(fields, interval, gate, least, level)
    if status == "inconclusive" and least is not None and interval and interval.low is not None:
        detectable = (
            detectable_in_pairs(float((b - a).std(ddof=1)), len(a), level, least)
            if paired
            else detectable_apart(a, b, level, least)
        )
        text += (
            f"; a true difference of {run_value(metric).amount(detectable)} would be found in four of "
            "five cases"
        )
    return MetricDifference(
        **fields, difference=interval, min_effect=least, detectable=detectable, status=status,
        text=text,
    )  # fmt: skip


def _judged(
    fields: Mapping[str, object], found: Interval | None, gate: Gate | None, least: float | None,
    level: float,
) -> tuple[str, str]:  # fmt: skip
    before, after = fields["before"], fields["after"]
    if found is None:
        missing = "before" if before is None else "now"
        if before is None and after is None:
            missing = "on either side"
        text = f"nothing was measured {missing}"
        return ("shown", text) if gate is None else ("inconclusive", text)
    if gate is None or least is None:
        return "shown", "not gated"
    if found.low is None or found.high is None:
        needed = 3 if not fields["paired"] else math.ceil(1 + math.log2(1 / level) - 1e-12)
        what = "pairs of seeds" if fields["paired"] else "seeds on each side"
        return "inconclusive", f"{fields['n']} {what} can't decide at this level; {needed} could"
    # Harm is positive: for "unchanged" it is whatever side the difference lies on.
    sign = {"lower": 1.0, "higher": -1.0}.get(str(gate.better), math.copysign(1.0, found.value))
    low, high = sorted((sign * found.low, sign * found.high))
    harm = sign * found.value
    value = run_value(str(fields["metric"]))
    amount = value.amount
    minimum = f"the practical minimum of {amount(least)}"
    if low > 0 and harm > least:
        if gate.better == "unchanged":
            return "regressed", f"changed by {value.change(found.value)}, beyond {minimum}"
        return "regressed", f"worse by {amount(harm)}, beyond {minimum}"
    if gate.better == "unchanged":
        if high <= least and low >= -least:
            return "held", f"no change beyond {minimum}"
    elif high < 0 and harm < -least:
        return "improved", f"better by {amount(-harm)}"
    elif high <= least:
        return "held", f"not worse by more than {minimum}"
    if low > 0:
        return "inconclusive", f"a difference is there, but whether beyond {minimum} is open"
    return "inconclusive", "neither a difference nor its absence is shown"


def _compare_exactly(
    fields: Mapping[str, object], seeds: Sequence[int], before: Mapping[int, float],
    after: Mapping[int, float], tolerance: float,
) -> MetricDifference:  # fmt: skip
    off = [s for s in seeds if abs(after[s] - before[s]) > tolerance * max(abs(before[s]), 1e-300)]
    gaps = [after[s] - before[s] for s in seeds]
    worst = max(gaps, key=abs, default=None)
    if worst is None:
        # Fresh seeds are a choice: what only holds seed by seed is then no question.
        status, text = "shown", "no seed is on both sides, so nothing can be compared exactly"
        fields = {**fields, "gated": False}
    elif off:
        named = ", ".join(map(str, off[:4])) + (", ..." if len(off) > 4 else "")
        status = "regressed"
        text = f"{len(off)} of {len(seeds)} seeds have another value (seeds {named})"
    else:
        status, text = "held", f"the same up to {tolerance:g} in all {len(seeds)} seeds"
    return MetricDifference(
        **fields, exact=True, status=status, text=text,
        difference=None if worst is None else Interval(value=worst, low=None, high=None),
    )  # fmt: skip


def _array(values: Mapping[int, float], seeds: Sequence[int] | Mapping[int, float]) -> Values:
    return np.array([values[seed] for seed in seeds], dtype=float)


def _mean(metric: str, values: Mapping[int, float]) -> SampleMean | None:
    found = mean_interval(list(values.values()), *run_value(metric).range)
    if found is None:
        return None
    return SampleMean(value=found.value, low=found.low, high=found.high, n=found.n)


# --- the verdict ----------------------------------------------------------------------------


def compare_regimes(
    before: RecordedCase, after: RecordedCase, control: bool = False
) -> RegimeDifference:
    """Whether the verdict moved, with hysteresis.

    Args:
        before: The reference.
        after: The case now.
        control: Whether the case is one that must stay undecided, such as random labels.

    Returns:
        The change, or why there is none.
    """
    ratios = before.log2_c_ratio, after.log2_c_ratio
    old, new = before.regime, after.regime
    if old == new:
        status, text = "same", f"{new.label} as before"
    elif old is Regime.INCONCLUSIVE and control:
        status = "changed"
        text = f"{new.label}, where nothing can be decided: do the labels leak?"
    elif old is Regime.INCONCLUSIVE:
        status, text = "decided_now", f"was inconclusive, is {new.label} now"
    elif new is Regime.INCONCLUSIVE:
        status, text = "inconclusive", f"was {old.label}, can't be told now"
    elif _apart(*ratios):
        status = "improved" if new is Regime.NEAR_OPTIMAL else "changed"
        text = f"was {old.label}, is {new.label} now"
    else:
        status = "within_noise"
        text = (
            f"was {old.label}, is {new.label} now, but the intervals of log2(c/c*) overlap: the setup "
            "may lie at the border"
        )
    return RegimeDifference(
        case=after.id, before=old, after=new, ratio_before=ratios[0], ratio_after=ratios[1],
        status=status, text=text,
    )  # fmt: skip


def _apart(first: Interval | None, second: Interval | None) -> bool:
    """Whether two intervals have nothing in common; one that is not known has all in common."""
    if first is None or second is None:
        return False
    low, high = (
        [(-math.inf if k.low is None else k.low, math.inf if k.high is None else k.high)
         for k in (first, second)]
    )  # fmt: skip
    return low[1] < high[0] or high[1] < low[0]


# --- everything -----------------------------------------------------------------------------


def compare_sides(
    before: Side,
    after: Side,
    gates: Mapping[str, Gate],
    *,
    controls: frozenset[str] = frozenset(),
    level: float = LEVEL,
    whole: bool = False,
) -> Pair:
    """Compare a recording with a reference, case by case.

    Args:
        before: The reference.
        after: What is compared with it.
        gates: Metric -> how it is judged; the others are shown.
        controls: Ids of cases that must stay undecided.
        level: Chance of any false alarm over everything that is gated.
        whole: Whether every case of either side has to be compared: what is left out then leaves the
            result open.

    Returns:
        All differences, which of them matter, and what is not comparable.
    """
    matched, skipped = match_cases(before, after)
    tests = max(1, num_tests(gates, len(matched)))
    regimes, metrics = [], []
    for old, new in matched:
        regimes.append(compare_regimes(old, new, new.id in controls))
        one, other = old.own, new.own
        if one is None or other is None:
            side = "the reference" if one is None else after.name
            skipped.append(
                Skipped(
                    what=f"metrics of {new.id}", code="no_own_c",
                    reason=f"{side} has no runs at the setup's own c.",
                )
            )  # fmt: skip
            continue
        for metric in _metrics(one, other, gates):
            gate = gates.get(metric)
            share = (
                LEVEL if gate is None else level / (len(matched) if metric == REACHED else tests)
            )
            found = compare_metric(
                new.id, metric, values_of(one, metric), values_of(other, metric), gate, share
            )
            if metric == REACHED and other.missed:
                found = found.model_copy(update={"text": f"{found.text} ({_how_missed(other)})"})
            metrics.append(found)
    status, text = _overall(regimes, metrics, bool(matched), skipped if whole else [])
    return Pair(
        name=after.name, status=status, text=text, level=level, num_tests=tests,
        matched=tuple((old.id, new.id) for old, new in matched),
        regimes=tuple(regimes), metrics=tuple(metrics), skipped=tuple(skipped),
        environment=_differences(before.environment, after.environment),
        setup=tuple(
            different
            for old, new in matched
            for different in _differences(
                *_setups(old, new), prefix=f"{new.id}: " if len(matched) > 1 else ""
            )
        ),
    )  # fmt: skip


def match_cases(
    before: Side, after: Side
) -> tuple[list[tuple[RecordedCase, RecordedCase]], list[Skipped]]:
    """Which case is compared with which: by id, or the only ones of both; on the same data."""
    old, new = ({case.id: case for case in side.cases} for side in (before, after))
    shared = [name for name in new if name in old]
    if not shared and len(old) == len(new) == 1:
        pairs = [(before.cases[0], after.cases[0])]
    elif not shared and 1 in (len(old), len(new)):
        # A model against a baseline, either way round: the baseline's case on the same data.
        like = [
            (one, two)
            for one in before.cases
            for two in after.cases
            if one.setup.get("task") == two.setup.get("task")
        ]
        pairs = like if len(like) == 1 else []
    else:
        pairs = [(old[name], new[name]) for name in shared]
    skipped = []
    taken = {id(case) for pair in pairs for case in pair}
    for side, other in ((before, after), (after, before)):
        for case in side.cases:
            if id(case) not in taken:
                reason = f"{side.name} has it, and {other.name} has no case to compare it with."
                skipped.append(Skipped(what=case.id, code="no_counterpart", reason=reason))
    same = []
    for one, two in pairs:
        if why := _obstacle(one, two):
            skipped.append(Skipped(what=two.id, code="not_comparable", reason=why))
        else:
            same.append((one, two))
    return same, skipped


def _obstacle(one: RecordedCase, two: RecordedCase) -> str | None:
    for what, first, second in (
        ("data are", one.setup.get("task"), two.setup.get("task")),
        ("kinds of error are", one.error, two.error),
        ("swept axes are", one.axis, two.axis),
    ):
        if first != second:
            return f"The {what} not the same: {first} and {second}."
    return None


def _metrics(one: RecordedCell, other: RecordedCell, gates: Mapping[str, Gate]) -> list[str]:
    """What is gated first, then what was measured on either side, in the table's order."""
    measured = dict.fromkeys([REACHED, *one.values, *other.values])
    ordered = [name for name in RUN_VALUES if name in measured]
    return list(dict.fromkeys([*gates, *ordered, *sorted(measured)]))


def _overall(
    regimes: Sequence[RegimeDifference], metrics: Sequence[MetricDifference], any_matched: bool,
    missing: Sequence[Skipped],
) -> tuple[str, str]:  # fmt: skip
    if not any_matched:
        return "not_comparable", "No case can be compared."
    worse = [f"{one.case}: {one.text}" for one in regimes if one.status == "changed"]
    worse += [
        f"{one.case}: {one.metric} {one.text}" for one in metrics if one.status == "regressed"
    ]
    better = [f"{one.case}: {one.text}" for one in regimes if one.status == "improved"]
    better += [
        f"{one.case}: {one.metric} {one.text}" for one in metrics if one.status == "improved"
    ]
    also = f" Better: {'; '.join(better[:3])}." if better else ""
    if worse:
        more = f" (and {len(worse) - 3} more)" if len(worse) > 3 else ""
        return "regression", f"Regression: {'; '.join(worse[:3])}{more}.{also}"
    gated = [one for one in metrics if one.gated]
    open_ones = [f"{one.case}: {one.text}" for one in regimes if one.status == "inconclusive"]
    open_ones += [f"{k.case}: {k.metric}: {k.text}" for k in gated if k.status == "inconclusive"]
    open_ones += [f"{one.what}: {one.reason.rstrip('.')}" for one in missing]
    if not gated:
        return "inconclusive", f"Nothing that is gated could be compared.{also}"
    if open_ones:
        more = f" (and {len(open_ones) - 2} more)" if len(open_ones) > 2 else ""
        return (
            "inconclusive",
            f"No regression is shown, but not all is decided: {'; '.join(open_ones[:2])}{more}.{also}",
        )
    return "no_regression", f"No regression in {counted(len(gated), 'gated comparison')}.{also}"


def _how_missed(cell: RecordedCell) -> str:
    """How the runs that missed the target ended."""
    counts = Counter(cell.missed.values())
    ends = ", ".join(f"{count} {outcome.replace('_', ' ')}" for outcome, count in counts.items())
    return f"of {len(cell.seeds)} runs {ends}"


def _setups(old: RecordedCase, new: RecordedCase) -> tuple[dict[str, str], dict[str, str]]:
    """The facts of both setups; the fingerprint of the data only where it is of the same seed."""
    before, after = ({**dict(flat(case.setup)), "c": _power(case.c)} for case in (old, new))
    first = [case.cells[0].seeds[:1] if case.cells else () for case in (old, new)]
    if first[0] != first[1]:
        for facts in (before, after):
            facts.pop("data", None)
    return before, after


def _power(c: float | None) -> str:
    return "-" if c is None else power(c)


def _differences(
    before: Mapping[str, str], after: Mapping[str, str], prefix: str = ""
) -> tuple[Different, ...]:
    return tuple(
        Different(name=prefix + name, before=before.get(name, "-"), after=after.get(name, "-"))
        for name in dict.fromkeys([*before, *after])
        if before.get(name, "-") != after.get(name, "-")
    )
