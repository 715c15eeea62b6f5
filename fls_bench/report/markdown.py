"""A report as Markdown, for a pull request or a CI step's summary.

Whatever a person gave is escaped: a model's name can't close a table, link or embed anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from fls_bench.report import claims as of_claims
from fls_bench.report import comparison as words
from fls_bench.report import evaluations as of_evaluations
from fls_bench.report import invariants as of_invariants
from fls_bench.report import readings as of_readings
from fls_bench.report import summary
from fls_bench.schema import (
    DIRECTION,
    CaseResult,
    ClaimResult,
    Comparison,
    Evaluation,
    Judgement,
    Pair,
    Report,
)

_SIGNS = {
    "regression": "❌", "no_regression": "✅", "inconclusive": "❔", "not_comparable": "⚠️",
    "no_baseline": "⚠️",
}  # fmt: skip


def render(report: Report) -> str:
    """Render any kind of report; comparisons in full, other kinds as verdicts with their figures.

    Args:
        report: The report.

    Returns:
        GitHub-flavoured Markdown; equal reports give equal text.
    """
    parts = [f"## fls-bench {report.kind}: {_text(_title(report))}"]
    if report.comparison is not None:
        parts += _comparison(report, report.comparison)
    elif report.invariants is not None:
        rows = [of_invariants.row(one) for one in report.invariants.findings]
        parts += [
            _text(of_invariants.headline(report.invariants)),
            table(of_invariants.COLUMNS, rows),
        ]
    elif report.tuning is not None:
        parts += [_text(report.tuning.text), _pairs(summary.tuning_facts(report.tuning))]
    elif report.selftest is not None:
        parts += [
            _pairs(of_readings.selftest_facts(report.selftest)),
            table(of_readings.CONFUSION_COLUMNS, of_readings.confusion_rows(report.selftest)),
        ]
    elif report.evaluation is not None:
        parts += _evaluation(report.evaluation)
    elif report.claims:
        for claim in report.claims:
            parts += _claim(claim)
    elif report.cases:
        parts.append(_text(summary.met_text(report)))
        for case in report.cases:
            parts += [f"### {_text(case.id)}: {_text(summary.verdict_word(case))}", *_verdict(case)]
    else:
        parts += _verdict(report)
    parts.append(_provenance(report))
    return "\n\n".join(part for part in parts if part) + "\n"


def _evaluation(found: Evaluation) -> list[str]:
    parts = [
        _text(of_evaluations.headline(found)),
        table(of_evaluations.COLUMNS, [of_evaluations.cells(one) for one in found.rows]),
        table(
            of_evaluations.RATIO_COLUMNS, [of_evaluations.ratio_cells(one) for one in found.rows]
        ),
    ]
    if rows := [of_evaluations.baseline_cells(one) for one in found.baselines]:
        parts.append(table(of_evaluations.BASELINE_COLUMNS, rows))
    for one in found.rows:
        rows = [of_evaluations.group_cells(group) for group in of_evaluations.worst(one)]
        parts += [
            f"### {one.evidence}, by {one.left_out}: the worst {len(rows)} of {len(one.groups)} groups",
            table(of_evaluations.GROUP_COLUMNS, rows),
        ]
    return parts


def _claim(claim: ClaimResult) -> list[str]:
    parts = [
        f"### {_text(of_claims.title(claim))}: {of_claims.word(claim)}",
        _text(f"The authors claim: {claim.statement}"),
        _text(claim.text),
        _text(claim.reported),
    ]
    if rows := [of_claims.part_cells(one) for one in of_claims.deciding(claim)]:
        parts.append(table(of_claims.PART_COLUMNS, rows))
    if others := [of_claims.part_cells(one) for one in of_claims.beside(claim)]:
        head = summary.counted(len(others), "number") + " beside it that decide nothing"
        parts.append(_folded(head, of_claims.PART_COLUMNS, others))
    left = [f"{one.what}: {one.reason}" for one in claim.not_run]
    if lines := [*claim.cautions, *left]:
        parts.append("\n".join(f"- {_text(line)}" for line in lines))
    return parts


def _title(report: Report) -> str:
    if report.comparison is not None:
        about = "" if report.kind == "compare" else f"{summary.title(report)}: "
        return f"{about}{words.word(report.comparison.status)}"
    if report.cases or report.evaluation is not None:
        return summary.title(report)
    return f"{summary.title(report)}: {summary.verdict_word(report)}"


def _comparison(report: Report, found: Comparison) -> list[str]:
    parts = [f"{_SIGNS[found.status]} **{_text(words.word(found.status))}.** {_text(found.text)}"]
    if found.baseline is not None:
        parts.append(f"Baseline: {_text(found.baseline)}")
    if (step := words.next_words(report)) is not None:
        parts.append(_text(step))
    if lines := words.warnings(found):
        parts.append("\n".join(f"- ⚠️ {_text(line)}" for line in lines))
    for pair in found.pairs:
        parts += _pair(pair, found.sides[0].name, heading=len(found.pairs) > 1)
    if report.kind == "compare" or not found.pairs:
        parts += ["### Sides", table(words.SIDE_COLUMNS, words.side_rows(found))]
        parts.append(_text(f"c: {DIRECTION}."))
    return parts


def _pair(pair: Pair, reference: str, heading: bool) -> list[str]:
    parts = []
    if heading:
        parts.append(
            f"### {_text(pair.name)} against {_text(reference)}: {words.word(pair.status)}"
        )
    if pair.regimes:
        rows = [words.regime_cells(one) for one in pair.regimes]
        parts += ["#### Regime", table(words.REGIME_COLUMNS, rows)]
    if pair.claims:
        rows = [words.claim_cells(one) for one in pair.claims]
        parts += ["#### Claims of the paper", table(words.CLAIM_COLUMNS, rows)]
    if counted := words.gated(pair):
        parts += [
            "#### Gated metrics",
            table(words.COLUMNS, [words.cells(one) for one in counted]),
        ]
        parts.append(_text(words.note(pair)))
    if others := words.shown(pair):
        rows = [words.cells(one)[:-1] for one in others]
        parts.append(
            _folded(
                summary.counted(len(rows), "metric") + " that no gate judges",
                words.COLUMNS[:-1],
                rows,
            )
        )
    if pair.setup:
        rows = words.different_rows(pair.setup)
        parts.append(
            _folded(
                summary.counted(len(rows), "difference") + " of setup",
                words.DIFFERENT_COLUMNS,
                rows,
            )
        )
    if pair.environment:
        rows = words.different_rows(pair.environment)
        head = summary.counted(len(rows), "difference") + " of environment"
        parts.append(_folded(head, words.DIFFERENT_COLUMNS, rows))
    return parts


def _verdict(judgement: Judgement) -> list[str]:
    diagnosis = judgement.diagnosis
    if diagnosis is None:
        return [_text(judgement.intervention.text)] if judgement.intervention is not None else []
    axis = summary.axis_of(judgement)
    parts = [f"**{diagnosis.regime.label}**: {_text(summary.verdict_sentence(diagnosis))}"]
    if isinstance(judgement, CaseResult) and judgement.expect:
        parts.append(
            f"Expected {_text(summary.expectation(judgement))}: {summary.met_word(judgement)}."
        )
    parts += [_text(diagnosis.reason.text), _text(diagnosis.recommendation.text)]
    facts = [*summary.facts(diagnosis, axis), *summary.recommendation_facts(diagnosis)]
    parts.append(_pairs(facts))
    if findings := diagnosis.findings:
        parts.append("\n".join(f"- {one.status}: {_text(one.text)}" for one in findings))
    if reading := judgement.reading:
        rows = [of_readings.push_cells(one) for one in reading.pushes]
        head = f"{of_readings.HEADING}: {of_readings.sentence(reading)}"
        parts.append(_folded(head, of_readings.PUSH_COLUMNS, rows))
    return parts


def _provenance(report: Report) -> str:
    shown = [f"{name} {value}" for name, value in summary.provenance_rows(report)[:6]]
    return f"<sub>{_text(', '.join(shown))}</sub>"


def _pairs(rows: Iterable[tuple[str, str]]) -> str:
    return table(("what", "value"), list(rows))


def _folded(head: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return f"<details><summary>{_text(head)}</summary>\n\n{table(columns, rows)}\n\n</details>"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; no cell can close it, or mean anything beyond its text."""
    head = " | ".join(_text(k, cell=True) for k in columns)
    rule = " | ".join("---" for _ in columns)
    body = [f"| {' | '.join(_text(cell, cell=True) for cell in row)} |" for row in rows]
    return "\n".join([f"| {head} |", f"| {rule} |", *body])


def _text(text: str, cell: bool = False) -> str:
    """Text as it is meant, in one line; at the start of a cell no sign begins a list or a quote."""
    line = " ".join(text.split())
    shown = "".join(_sign(line, k, cell) for k in range(len(line)))
    # What GitHub turns into links and mentions after the rendering: an empty space in it stops that.
    return re.sub(r"(?<=:)(?=//)|(?<=www)(?=\.)|(?<=@)(?=\w)|(?<=#)(?=\d)", "\u200b", shown)


def _sign(line: str, k: int, cell: bool) -> str:
    """One sign of a line, escaped where it would mean something at its place."""
    sign, before, after = line[k], line[k - 1 : k], line[k + 1 : k + 2]
    if sign in "&<":
        return {"&": "&amp;", "<": "&lt;"}[sign]
    if sign in "\\`*{}|~#!":
        return f"\\{sign}"
    if sign in "[]":
        return sign if _numeric(line, k) else f"\\{sign}"
    if sign == "_":
        return sign if before.isalnum() and after.isalnum() else f"\\{sign}"
    if sign in "+->.)" and not cell:
        # Lists and quotes: a sign at the start, or a number before it.
        return f"\\{sign}" if re.fullmatch(r"\d*", line[:k]) else sign
    return sign


def _numeric(line: str, k: int) -> bool:
    """Whether a bracket belongs to an interval such as ``[0.1, 0.2]``, which can't be a link."""
    start, end = line.rfind("[", 0, k + 1), line.find("]", k)
    inside = line[start + 1 : end]
    return (
        start >= 0
        and end >= 0
        and re.fullmatch(r"[-+0-9., e%a-z]*", inside) is not None
        and line[end + 1 : end + 2] not in ("(", "[", ":")
    )
