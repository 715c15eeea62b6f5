"""Words and rows for comparisons, which page, terminal, Markdown and JUnit share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from fls_bench.gates import REACHED, run_value
from fls_bench.report.summary import (
    Mean,
    hyphens,
    mean_interval,
    power,
)
from fls_bench.schema import (
    OUTCOME_WORDS,
    ClaimDifference,
    ClaimOutcome,
    Comparison,
    CStar,
    Different,
    Gain,
    Interval,
    MetricDifference,
    Pair,
    RecordedCase,
    RecordedCell,
    RecordedClaim,
    RegimeDifference,
    Report,
    SampleMean,
    Side,
)

COLUMNS = ("case", "metric", "before [95 %]", "now [95 %]", "difference [interval]", "n", "verdict")
SHORT_COLUMNS = ("metric", "now", "difference [interval]", "verdict")
REGIME_COLUMNS = ("case", "before", "now", "log2(c/c*) before", "log2(c/c*) now", "verdict")
CLAIM_COLUMNS = ("claim", "what", "before [95 %]", "now [95 %]", "verdict")
SIDE_COLUMNS = (
    "side",
    "case",
    "regime",
    "c",
    "c* [95 %]",
    "gain of c*",
    "test error at c [95 %]",
    "seeds",
)
DIFFERENT_COLUMNS = ("what", "before", "now")

WORDS = {
    "regression": "regression",
    "no_regression": "no regression",
    "inconclusive": "inconclusive",
    "not_comparable": "not comparable",
    "no_baseline": "no baseline",
    "regressed": "REGRESSED",
    "changed": "CHANGED",
    "improved": "improved",
    "held": "held",
    "shown": "-",
    "same": "same",
    "within_noise": "within noise",
    "decided_now": "decided now",
}


def word(status: str) -> str:
    """A status as shown on screen."""
    return WORDS.get(status, hyphens(status))


def metric_word(one: MetricDifference) -> str:
    """A metric's status; what ought not to change has changed, for better or worse."""
    return (
        "CHANGED" if one.status == "regressed" and one.better == "unchanged" else word(one.status)
    )


def is_bad(status: str) -> bool:
    """Whether a metric's or a regime's status is a regression."""
    return status in ("regressed", "changed")


def note(pair: Pair) -> str:
    """How the intervals of the gated metrics are to be read."""
    paired = any(one.paired for one in pair.metrics)
    how = (
        "Differences are paired by training seed; their intervals are those of the sign-flip test"
        if paired
        else "No seed is on both sides: the samples are compared as independent ones (Welch)"
    )
    each, together = (f"{100 * (1 - k):.4g} %" for k in (pair.level / pair.num_tests, pair.level))
    level = f"at {each}"
    if pair.num_tests > 1:
        level = (
            f"each at {each}, so that all {pair.num_tests} gated ones together hold at {together}"
        )
    return (
        f"{how}, {level}. A metric regressed only where its interval excludes 0 on the bad side and the "
        f"difference is beyond its practical minimum. {REACHED} has {together} for itself, shared by "
        "the cases. Other metrics are shown with a 95 % interval each, "
        "and judged nowhere."
    )


def gated(pair: Pair) -> tuple[MetricDifference, ...]:
    """What counts."""
    return tuple(one for one in pair.metrics if one.gated)


def shown(pair: Pair) -> tuple[MetricDifference, ...]:
    """What is shown only."""
    return tuple(one for one in pair.metrics if not one.gated)


def undecided(pair: Pair) -> list[str]:
    """What did not simply hold, one sentence each, the worst first."""
    order = ("changed", "regressed", "inconclusive", "within_noise", "decided_now", "improved")
    lines: list[tuple[str, str]] = [
        (one.status, f"{one.case}: regime {one.text}") for one in pair.regimes
    ]
    lines += [(one.status, f"{claim_name(one)}: {one.text}") for one in pair.claims]
    lines += [(one.status, f"{one.case}: {one.metric}: {one.text}") for one in gated(pair)]
    return [text for status in order for found, text in lines if found == status]


def cells(one: MetricDifference) -> tuple[str, ...]:
    """A metric's difference as texts, in the order of ``COLUMNS``."""
    n = f"{one.n} pairs"
    if not one.paired:
        sizes = [0 if side is None else side.n for side in (one.before, one.after)]
        n = f"{sizes[0]} and {sizes[1]}, unpaired"
    plain = one.status in ("shown", "held")
    verdict = metric_word(one) if plain else f"{metric_word(one)}: {one.text}"
    return (
        one.case, one.metric, mean_text(one.metric, one.before), mean_text(one.metric, one.after),
        difference_text(one), n, verdict,
    )  # fmt: skip


def _mean(cell: RecordedCell, metric: str) -> Mean | None:
    """Over the seeds that have a value."""
    values = [value for value in cell.values.get(metric, ()) if value is not None]
    return mean_interval(values, *run_value(metric).range)


def mean_text(metric: str, mean: SampleMean | Mean | None) -> str:
    """A mean with its unit and interval."""
    if mean is None:
        return "not measured"
    return run_value(metric).level(mean.value, mean.low, mean.high)


def difference_text(one: MetricDifference) -> str:
    """A difference with its unit and interval."""
    if one.difference is None:
        return "-"
    found = one.difference
    text = run_value(one.metric).change(found.value, found.low, found.high)
    if one.exact:
        return f"at most {text}"
    return text if found.low is not None and found.high is not None else f"{text} [undecided]"


def short_cells(one: MetricDifference) -> tuple[str, ...]:
    """The same in short, in the order of ``SHORT_COLUMNS``: for a terminal, case by case."""
    after = None if one.after is None else one.after.value
    now = "not measured" if after is None else run_value(one.metric).level(after)
    return one.metric, now, difference_text(one), metric_word(one)


def regime_cells(one: RegimeDifference) -> tuple[str, ...]:
    """A case's verdicts as texts, in the order of ``REGIME_COLUMNS``."""
    ratios = []
    for ratio in (one.ratio_before, one.ratio_after):
        if ratio is None:
            ratios.append("-")
            continue
        low = "open" if ratio.low is None else f"{ratio.low:+.2f}"
        high = "open" if ratio.high is None else f"{ratio.high:+.2f}"
        ratios.append(f"{ratio.value:+.2f} [{low}, {high}]")
    return (
        one.case, one.before.label, one.after.label, *ratios, f"{word(one.status)}: {one.text}"
    )  # fmt: skip


def claim_name(one: ClaimDifference) -> str:
    """The claim, and what of it is compared, in one line."""
    return f"{one.claim}: {claim_part(one)}" if one.part else one.claim


def claim_part(one: ClaimDifference) -> str:
    """What of a claim is compared."""
    return ", ".join(k for k in (one.part, one.setting) if k) or "outcome"


def claim_cells(one: ClaimDifference) -> tuple[str, ...]:
    """A claim, or a number that it is judged by, as texts, in the order of ``CLAIM_COLUMNS``."""
    return (
        one.claim, claim_part(one), _judged_text(one.before, one.estimate_before),
        _judged_text(one.after, one.estimate_after), f"{word(one.status)}: {one.text}",
    )  # fmt: skip


def estimate_text(found: Interval) -> str:
    """A number that a claim is judged by, with its interval."""
    if found.low is None and found.high is None:
        return f"{found.value:.4g}"
    low, high = ("open" if k is None else f"{k:.4g}" for k in (found.low, found.high))
    return f"{found.value:.4g} [{low}, {high}]"


def _judged_text(outcome: ClaimOutcome | None, estimate: Interval | None) -> str:
    words = [] if outcome is None else [OUTCOME_WORDS[outcome]]
    words += [] if estimate is None else [estimate_text(estimate)]
    return ", ".join(words) or "-"


def side_cells(side: Side, case: RecordedCase) -> tuple[str, ...]:
    """One case of one side as texts, in the order of ``SIDE_COLUMNS``."""
    own = case.own
    seeds, error = "-", "-"
    if own is not None:
        seeds = f"{own.num_reached} / {len(own.seeds)}"
        if (mean := _mean(own, "test_error")) is not None:
            error = mean_text("test_error", mean)
    return (
        side.name, case.id, case.regime.label, "-" if case.c is None else power(case.c),
        "-" if case.c_star is None else _c_star_text(case.c_star),
        "-" if case.gain is None else _gain_text(case.gain), error, seeds,
    )  # fmt: skip


def _c_star_text(found: CStar) -> str:
    low = "open" if found.low is None else power(found.low)
    high = "open" if found.high is None else power(found.high)
    edge = "" if found.at_edge == "none" else ", at the end of the range"
    return f"{power(found.value)} [{low}, {high}]{edge}"


def _gain_text(found: Gain) -> str:
    interval = f"[{found.low:+.2f}, {found.high:+.2f}]"
    return f"{found.value:+.2f} points {interval}, {found.num_seeds} fresh seeds"


def side_rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """All cases of all sides."""
    return [side_cells(side, case) for side in comparison.sides for case in side.cases]


def different_rows(found: Sequence[Different]) -> list[tuple[str, ...]]:
    """Facts that differ."""
    return [(one.name, one.before, one.after) for one in found]


def warnings(comparison: Comparison) -> list[str]:
    """What a reader should know before the numbers."""
    lines = []
    for pair in comparison.pairs:
        if pair.environment:
            what = ", ".join(f"{k.name} {k.before} -> {k.after}" for k in pair.environment)
            lines.append(
                f"{pair.name}: another environment than the reference's ({what}); numbers may differ "
                "for that alone."
            )
        if data := [k.name.rpartition(": ")[0] for k in pair.setup if k.name.endswith("data")]:
            of = " of " + ", ".join(data) if any(data) else ""
            lines.append(f"{pair.name}: the data{of} are not the same as the reference's.")
        if pair.setup:
            what = "; ".join(f"{k.name} {k.before} -> {k.after}" for k in pair.setup[:6])
            more = f"; and {len(pair.setup) - 6} more" if len(pair.setup) > 6 else ""
            lines.append(f"{pair.name}: the setup differs ({what}{more}).")
        lines += [f"{pair.name}: {one.what}: {one.reason}" for one in pair.skipped]
    return lines


def next_step(report: Report) -> str | None:
    """The command to run, where a check could not compare or found something."""
    found = report.comparison
    if found is None or report.kind != "check" or found.target == "":
        return None
    target = found.target or str((report.suite or {}).get("name", "SUITE"))
    if found.status == "no_baseline":
        return f"fls-bench baseline record {target}"
    if found.status in ("regression", "not_comparable"):
        return f"fls-bench baseline bless {target}"
    return None


def next_words(report: Report) -> str | None:
    """The same with what it is for."""
    step = next_step(report)
    if step is None or report.comparison is None:
        return None
    if report.comparison.status == "no_baseline":
        return f"Record one with '{step}' (what was trained is stored), and commit the file."
    return f"If the change is meant, '{step}' shows it once more and replaces the baseline."


RECORDED_COLUMNS = ("claim", "what", "recorded [95 %]")


def recorded_rows(claims: Sequence[RecordedClaim]) -> list[tuple[str, ...]]:
    """What a baseline holds of claims, in the order of ``RECORDED_COLUMNS``."""
    rows: list[tuple[str, ...]] = []
    for one in claims:
        rows.append((one.claim, "outcome", OUTCOME_WORDS[one.outcome]))
        rows += [
            (
                one.claim,
                f"{part.name}, {part.setting}",
                _judged_text(part.outcome, part.estimate)
                + ("; shown beside it" if part.outcome is None else ""),
            )
            for part in one.parts
        ]
    return rows


CASE_COLUMNS = ("metric", "mean [95 %]", "seeds")


def case_rows(case: RecordedCase) -> list[tuple[str, ...]]:
    """Means at the setup's own c as texts, in the order of ``CASE_COLUMNS``."""
    own = case.own
    if own is None:
        return []
    rows: list[tuple[str, ...]] = [
        (REACHED, f"{own.num_reached} of {len(own.seeds)}", str(len(own.seeds)))
    ]
    for metric in own.values:
        if (mean := _mean(own, metric)) is not None:
            rows.append((metric, mean_text(metric, mean), str(mean.n)))
    return rows


class Point(NamedTuple):
    """One mark of a curve: the mean test error at one c, over the seeds that reached the target."""

    c: float
    lr: float
    error: Mean


def curve_points(case: RecordedCase) -> list[Point]:
    """Test error over c of a case."""
    points = []
    for cell in case.cells:
        if (mean := _mean(cell, "test_error")) is not None:
            points.append(Point(cell.c, cell.lr, mean))
    return points


def groups(comparison: Comparison) -> list[list[tuple[str, RecordedCase]]]:
    """Which cases belong into one drawing, as (side's name, case).

    A case of the first side with what was compared with it; of a single side every case alone.
    """
    first, *others = comparison.sides
    if not others:
        return [[(first.name, case)] for case in first.cases]
    found = []
    for case in first.cases:
        row = [(first.name, case)]
        for side, pair in zip(others, comparison.pairs, strict=True):
            names = dict(pair.matched)
            row += [(side.name, one) for one in side.cases if one.id == names.get(case.id)]
        if len(row) > 1:
            found.append(row)
    return found


def case_label(case: RecordedCase) -> str:
    """A case with its verdict and c, in short."""
    return f"{case.id}: {case.regime.label}" + (
        "" if case.c is None else f" at c = {power(case.c)}"
    )
