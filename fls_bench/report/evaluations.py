"""The words of an evaluation of the reading, for every view."""

from __future__ import annotations

from fls_bench.schema import BaselineRow, Evaluation, EvaluationRow, GroupResult, Interval

COLUMNS = (
    "evidence", "left out", "read", "AUC over-aligned [95 %]", "AUC over-fitted [95 %]",
    "balanced accuracy [95 %]", "verdicts that are right [95 %]", "opposite verdicts [95 %]",
    "no verdict [95 %]", "set holds the truth [95 %]", "set size", "calibration error [95 %]",
)  # fmt: skip
RATIO_COLUMNS = (
    "evidence",
    "left out",
    "nets",
    "interval of log2(c/c*) holds it",
    "its median width",
)
BASELINE_COLUMNS = ("one number alone", "left out", "read", "AUC over-aligned", "as it is",
                    "AUC over-fitted", "as it is", "likeliest is the opposite")  # fmt: skip
REGIME_COLUMNS = ("evidence", "left out", "regime", "read", "set holds it", "verdicts that say so",
                  "of these right")  # fmt: skip
GROUP_COLUMNS = ("group", "n", "read", "AUC over-aligned", "AUC over-fitted", "balanced accuracy",
                 "set holds the truth", "opposite", "verdicts")  # fmt: skip
NOTE = (
    "Every figure is of nets of groups that were left out, by models, thresholds and reach that never "
    "saw them, and of nets whose regime six seeds could settle: half of the atlas (grey: others, whose "
    "likeliest regime lies near the margin). Intervals draw whole groups again (cluster bootstrap; none "
    "below eight groups; opposite verdicts are bounded as if each setup gave one; drawing again adds "
    "calibration error of its own, so that its interval may lie above its value). A net that is out of "
    "reach, no better than chance or lacks a measurement is not read: it has no verdict, and what is "
    "said of probabilities and sets is of the others."
)
WORST = 6
"""So many groups are named, those with the worst coverage; and all of which less than half is read."""


def cells(row: EvaluationRow) -> tuple[str, ...]:
    """A row of ``COLUMNS``."""
    return (
        row.evidence,
        f"{row.left_out} ({row.num_groups})",
        f"{row.num_read} of {row.n}",
        interval(row.auc_over_aligned, 3),
        interval(row.auc_over_fitted, 3),
        percent(row.balanced_accuracy),
        percent(row.emitted_accuracy),
        f"{percent(row.opposite, 2)} of {row.num_verdicts}",
        percent(row.abstained),
        percent(row.coverage),
        "-" if row.set_size is None else f"{row.set_size:.2f}",
        interval(row.calibration_error, 3),
    )


def ratio_cells(row: EvaluationRow) -> tuple[str, ...]:
    """A row of ``RATIO_COLUMNS``."""
    held = of_hundred(row.ratio_coverage)
    width = "-" if row.ratio_width is None else f"{row.ratio_width:.1f} octaves"
    return row.evidence, row.left_out, str(row.num_ratios), held, width


def baseline_cells(row: BaselineRow) -> tuple[str, ...]:
    """A row of ``BASELINE_COLUMNS``."""
    return (
        row.name, row.left_out, str(row.n), share(row.auc_over_aligned), share(row.raw_over_aligned),
        share(row.auc_over_fitted), share(row.raw_over_fitted), f"{100 * row.opposite:.1f} %",
    )  # fmt: skip


def regime_rows(row: EvaluationRow) -> list[tuple[str, ...]]:
    """Rows of ``REGIME_COLUMNS``."""
    return [
        (
            row.evidence, row.left_out, one.regime.label, str(one.n), of_hundred(one.coverage),
            str(one.called), of_hundred(one.right),
        )
        for one in row.regimes
    ]  # fmt: skip


def of_hundred(value: float | None) -> str:
    """A share in percent."""
    return "-" if value is None else f"{100 * value:.1f} %"


def group_cells(group: GroupResult) -> tuple[str, ...]:
    """A row of ``GROUP_COLUMNS``."""
    return (
        group.group, str(group.n), str(group.read), share(group.auc_over_aligned),
        share(group.auc_over_fitted), share(group.balanced_accuracy),
        of_hundred(group.coverage), str(group.opposite),
        str(group.emitted),
    )  # fmt: skip


def worst(row: EvaluationRow) -> tuple[GroupResult, ...]:
    """The groups with the worst coverage, then those of which less than half is read."""
    some = [(one.coverage, one.group, one) for one in row.groups if one.coverage is not None]
    uncovered = [one for *_, one in sorted(some, key=lambda k: k[:2])[:WORST]]
    unread = [one for one in row.groups if 2 * one.read < one.n and one not in uncovered]
    return (*uncovered, *unread)


def headline(found: Evaluation) -> str:
    """What it rests on, in a line."""
    counts = ", ".join(f"{n} {regime.replace('_', '-')}" for regime, n in found.truth.items())
    return f"Nets of the atlas whose regime is truth: {counts}. {NOTE}"


def interval(one: Interval | None, digits: int) -> str:
    """A value with its bounds."""
    if one is None:
        return "-"
    bounds = "" if one.low is None or one.high is None else (
        f" [{one.low:.{digits}f}, {one.high:.{digits}f}]"
    )  # fmt: skip
    return f"{one.value:.{digits}f}{bounds}"


def percent(one: Interval | None, digits: int = 1) -> str:
    """A share with its bounds, in percent."""
    if one is None:
        return "-"
    bounds = "" if one.low is None or one.high is None else (
        f" [{100 * one.low:.{digits}f}, {100 * one.high:.{digits}f}]"
    )  # fmt: skip
    return f"{100 * one.value:.{digits}f}{bounds} %"


def share(value: float | None) -> str:
    """Three digits."""
    return "-" if value is None else f"{value:.3f}"
