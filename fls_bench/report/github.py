"""What GitHub Actions reads of a check: annotations by workflow commands.

Source: GitHub's documentation, "Workflow commands for GitHub Actions", on error, warning, notice.
"""

from __future__ import annotations

from fls_bench.report import comparison as words
from fls_bench.schema import Report

MAX_ANNOTATIONS = 10
"""Of each kind; GitHub shows no more of one step."""


def workflow_commands(report: Report) -> list[str]:
    """One line for each thing that deserves an annotation.

    Args:
        report: Of kind check.

    Returns:
        Workflow commands: errors for regressions, warnings for what is not comparable or undecided
        and for another environment, else one notice.
    """
    found = report.comparison
    if found is None:
        return []
    errors: list[str] = []
    undecided: list[str] = []
    for pair in found.pairs:
        for one in pair.regimes:
            if words.is_bad(one.status):
                errors.append(command("error", f"{one.case}: regime", one.text))
            elif one.status == "inconclusive":
                undecided.append(command("warning", f"{one.case}: regime", one.text))
        for claim in pair.claims:
            if words.is_bad(claim.status):
                errors.append(command("error", words.claim_name(claim), claim.text))
            elif claim.status == "inconclusive":
                undecided.append(command("warning", words.claim_name(claim), claim.text))
        for metric in words.gated(pair):
            if words.is_bad(metric.status):
                text = f"{words.difference_text(metric)}: {metric.text}"
                errors.append(command("error", f"{metric.case}: {metric.metric}", text))
            elif metric.status == "inconclusive":
                undecided.append(command("warning", f"{metric.case}: {metric.metric}", metric.text))
    lines = errors[:MAX_ANNOTATIONS] + undecided[: MAX_ANNOTATIONS - 1]
    told = [command("warning", "fls-bench", line) for line in words.warnings(found)]
    lines += told[:MAX_ANNOTATIONS]
    if found.status in ("no_baseline", "not_comparable"):
        step = words.next_words(report) or ""
        lines.append(command("warning", "fls-bench", f"{found.text} {step}".strip()))
    elif not errors:
        lines.append(command("notice", "fls-bench", found.text))
    return lines


def command(kind: str, title: str, text: str) -> str:
    """One workflow command: kind is error, warning or notice."""
    return f"::{kind} title={_property(title)}::{_data(text)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
