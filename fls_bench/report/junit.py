"""A report as a JUnit XML file, which test reporters of CI services read.

The format has no standard; this keeps to the elements that they share: testsuites, testsuite,
properties, testcase, failure, skipped.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

from fls_bench.report import invariants as words
from fls_bench.report.summary import flat, hyphens, provenance_rows, title
from fls_bench.schema import Report

# What XML 1.0 can't hold, not even escaped.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render(report: Report) -> str:
    """Render a report of kind ``invariants``: a broken one is a failure, a void one is skipped.

    Args:
        report: The report.

    Returns:
        XML text.

    Raises:
        ValueError: The report is of another kind.
    """
    found = report.invariants
    if found is None:
        raise ValueError(f"a report of kind {report.kind} has no JUnit view")
    counts = {
        "tests": str(len(found.findings)),
        "failures": str(len(words.of_status(found, "broken"))),
        "errors": "0",
        "skipped": str(len(words.of_status(found, "void"))),
        "time": f"{report.provenance.seconds:.3f}",
    }
    suites = ET.Element("testsuites", counts)
    label = f"scaling invariants of {title(report)}"
    suite = ET.SubElement(
        suites, "testsuite", {"name": _xml(label), **counts, "timestamp": report.provenance.started}
    )
    properties = ET.SubElement(suite, "properties")
    facts = [("seed", str(found.seed)), ("examples", str(found.examples)), *flat(found.net)]
    for name, value in (*facts, *provenance_rows(report)):
        ET.SubElement(properties, "property", {"name": _xml(name), "value": _xml(value)})
    for finding in found.findings:
        case = ET.SubElement(
            suite,
            "testcase",
            {"classname": "fls_bench.invariants", "name": words.name(finding), "time": "0"},
        )
        if finding.status == "void":
            ET.SubElement(case, "skipped", {"message": _xml(finding.text)})
        elif finding.status == "broken":
            failure = ET.SubElement(
                case,
                "failure",
                {"message": _xml(finding.text), "type": hyphens(finding.code or "broken")},
            )
            again = "" if found.command is None else f"\nAgain: {found.command}"
            failure.text = _xml(
                f"{finding.statement}\nSmallest counter-example: {words.counter_example(finding)}"
                f"{again}"
            )
    ET.indent(suites)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(suites, "unicode") + "\n"


def _xml(text: str) -> str:
    """The text with what XML can't hold spelled out."""
    return _FORBIDDEN.sub(lambda found: found[0].encode("unicode_escape", "replace").decode(), text)
