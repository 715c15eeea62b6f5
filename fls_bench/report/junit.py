"""A report as a JUnit XML file, which test reporters of CI services read.

The format has no standard; this keeps to the elements that they share: testsuites, testsuite,
properties, testcase, failure, error, skipped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal, NamedTuple
from xml.etree import ElementTree as ET

from fls_bench.errors import InputError
from fls_bench.report import comparison as of_comparison
from fls_bench.report import invariants as of_invariants
from fls_bench.report.summary import (
    expectation,
    flat,
    hyphens,
    provenance_rows,
    title,
    verdict_word,
)
from fls_bench.schema import Comparison, Invariants, Report

# What XML 1.0 can't hold, not even escaped.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class _Test(NamedTuple):
    """One testcase; ``text`` is the body of a failure."""

    group: str
    name: str
    outcome: Literal["passed", "failure", "error", "skipped"]
    message: str = ""
    code: str = ""
    text: str = ""


def render(report: Report) -> str:
    """Render a report of kind ``suite``, ``check`` or ``invariants``.

    A case that is not as expected, a regression and a broken invariant are failures; what is void or
    inconclusive is skipped; a baseline of something else is an error.

    Args:
        report: The report.

    Returns:
        XML text.

    Raises:
        InputError: The report is of another kind.
    """
    if report.invariants is not None:
        found = report.invariants
        facts = [("seed", str(found.seed)), ("examples", str(found.examples)), *flat(found.net)]
        return _xml_file(
            report, f"scaling invariants of {title(report)}", facts, list(_of_invariants(found))
        )
    if report.comparison is not None and report.kind == "check":
        facts = [("baseline", report.comparison.baseline or "-"), *flat(report.suite or {})]
        tests = list(_of_comparison(report, report.comparison))
        return _xml_file(report, f"check of {title(report)}", facts, tests)
    if report.kind == "suite":
        tests = list(_of_suite(report))
        return _xml_file(report, title(report), flat(report.suite or {}), tests)
    raise InputError(
        f"A report of kind {report.kind} has no JUnit view.",
        "Leave --junit out; reports of run, check and invariants have one.",
    )


def _of_suite(report: Report) -> Iterable[_Test]:
    group = f"fls_bench.suite.{(report.suite or {}).get('name', 'suite')}"
    for case in report.cases:
        found = verdict_word(case)
        text = "" if case.diagnosis is None else case.diagnosis.reason.text
        if case.met is False:
            message = f"expected {expectation(case)}, found {found}"
            yield _Test(group, case.id, "failure", message, "unexpected", text)
        elif case.met is None and found in ("inconclusive", "no verdict"):
            yield _Test(group, case.id, "skipped", f"{found}: {text}")
        else:
            yield _Test(group, case.id, "passed")


def _of_invariants(found: Invariants) -> Iterable[_Test]:
    group = "fls_bench.invariants"
    for one in found.findings:
        name = of_invariants.name(one)
        if one.status == "void":
            yield _Test(group, name, "skipped", one.text)
        elif one.status == "broken":
            again = "" if found.command is None else f"\nAgain: {found.command}"
            text = (
                f"{one.statement}\nSmallest counter-example: {of_invariants.counter_example(one)}"
                f"{again}"
            )
            yield _Test(group, name, "failure", one.text, hyphens(one.code or "broken"), text)
        else:
            yield _Test(group, name, "passed")


def _of_comparison(report: Report, found: Comparison) -> Iterable[_Test]:
    suite = str((report.suite or {}).get("name", "suite"))
    group = f"fls_bench.check.{suite}"
    if not found.pairs:
        step = of_comparison.next_words(report) or ""
        if found.status == "no_baseline":
            yield _Test(group, "baseline", "skipped", f"{found.text} {step}".strip())
        else:
            yield _Test(group, "baseline", "error", found.text, hyphens(found.status), step)
    for pair in found.pairs:
        for one in pair.regimes:
            yield _Test(
                f"{group}.{one.case}", "regime", _OUTCOMES.get(one.status, "passed"), one.text,
                hyphens(one.status), " | ".join(of_comparison.regime_cells(one)),
            )  # fmt: skip
        for claim in pair.claims:
            yield _Test(
                f"{group}.{claim.claim}", of_comparison.claim_part(claim),
                _OUTCOMES.get(claim.status, "passed"), claim.text, hyphens(claim.status),
                " | ".join(of_comparison.claim_cells(claim)),
            )  # fmt: skip
        for metric in of_comparison.gated(pair):
            yield _Test(
                f"{group}.{metric.case}", metric.metric, _OUTCOMES.get(metric.status, "passed"),
                metric.text, hyphens(metric.status), " | ".join(of_comparison.cells(metric)),
            )  # fmt: skip
        for gone in pair.skipped:
            yield _Test(group, gone.what, "error", gone.reason, hyphens(gone.code))


_OUTCOMES: dict[str, Literal["failure", "skipped"]] = {
    "changed": "failure", "regressed": "failure", "inconclusive": "skipped",
}  # fmt: skip


def _xml_file(
    report: Report, label: str, facts: Iterable[tuple[str, str]], tests: list[_Test]
) -> str:
    return _document(
        label, tests, [*facts, *provenance_rows(report)], report.provenance.started,
        report.provenance.seconds,
    )  # fmt: skip


def render_error(problem: str, remedy: str) -> str:
    """One error in place of a report: why a check could not be done."""
    test = _Test("fls_bench.check", "check", "error", problem, "error", remedy)
    return _document("check", [test], [], None, 0.0)


def _document(
    label: str, tests: list[_Test], facts: Iterable[tuple[str, str]], started: str | None,
    seconds: float,
) -> str:  # fmt: skip
    def count(outcome: str) -> str:
        return str(sum(test.outcome == outcome for test in tests))

    counts = {
        "tests": str(len(tests)), "failures": count("failure"), "errors": count("error"),
        "skipped": count("skipped"), "time": f"{seconds:.3f}",
    }  # fmt: skip
    suites = ET.Element("testsuites", counts)
    when = {} if started is None else {"timestamp": started}
    suite = ET.SubElement(suites, "testsuite", {"name": _xml(label), **counts, **when})
    properties = ET.SubElement(suite, "properties")
    for name, value in facts:
        ET.SubElement(properties, "property", {"name": _xml(name), "value": _xml(value)})
    for test in tests:
        case = ET.SubElement(
            suite, "testcase", {"classname": _xml(test.group), "name": _xml(test.name), "time": "0"}
        )
        if test.outcome == "skipped":
            ET.SubElement(case, "skipped", {"message": _xml(test.message)})
        elif test.outcome != "passed":
            attributes = {"message": _xml(test.message), "type": _xml(test.code)}
            ET.SubElement(case, test.outcome, attributes).text = _xml(test.text)
    ET.indent(suites)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(suites, "unicode") + "\n"


def _xml(text: str) -> str:
    """The text with what XML can't hold spelled out."""
    return _FORBIDDEN.sub(lambda found: found[0].encode("unicode_escape", "replace").decode(), text)
