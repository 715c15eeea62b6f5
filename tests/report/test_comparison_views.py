"""A comparison as Markdown, JUnit and workflow commands: golden files, and what hostile names can do.

After a wanted change: ``REGOLD=1 python -m pytest tests/report/test_comparison_views.py``, and read the
difference.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import report_fixtures as fixtures

from fls_bench.errors import InputError
from fls_bench.report import github, junit, markdown
from fls_bench.schema import Report

GOLDEN = Path(__file__).parent / "golden"
UNPAIRED: Callable[[], Report] = lambda: fixtures.check(by=0.0, first_seed=500)  # noqa: E731
REPORTS: dict[str, Callable[[], Report]] = {
    "check_regression": fixtures.check,
    "check_unpaired": UNPAIRED,
    "check_without_baseline": lambda: fixtures.check(baseline=False),
    "compare": fixtures.compare,
    "suite": fixtures.suite,
    "diagnose": fixtures.over_aligned,
    "tune": fixtures.tune,
    "invariants": fixtures.invariants,
}


def golden(name: str, text: str) -> None:
    path = GOLDEN / name
    if os.environ.get("REGOLD"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8"), "see the head of this file"


@pytest.mark.parametrize("name", REPORTS)
def test_markdown_is_as_it_was(name: str) -> None:
    golden(f"{name}.md", markdown.render(REPORTS[name]()))


CHECKS = ["check_regression", "check_unpaired", "check_without_baseline"]


@pytest.mark.parametrize("name", [*CHECKS, "invariants", "suite"])
def test_junit_is_as_it_was(name: str) -> None:
    golden(f"{name}.xml", junit.render(REPORTS[name]()))


@pytest.mark.parametrize("name", CHECKS)
def test_workflow_commands_are_as_they_were(name: str) -> None:
    golden(f"{name}.txt", "\n".join(github.workflow_commands(REPORTS[name]())) + "\n")


def test_junit_keeps_failure_error_and_skipped_apart() -> None:
    root = ET.fromstring(junit.render(fixtures.check()).encode())
    cases = root.findall(".//testcase")
    by_kind = {
        kind: {f"{k.get('classname')}.{k.get('name')}" for k in cases if k.find(kind) is not None}
        for kind in ("failure", "error", "skipped")
    }
    assert any(name.endswith("digits-mlp-small-c.test_error") for name in by_kind["failure"])
    assert root.get("failures") == str(len(by_kind["failure"]))
    assert root.get("skipped") == str(len(by_kind["skipped"]))
    assert root.get("errors") == str(len(by_kind["error"])) == "0"
    assert root.get("tests") == str(len(cases))
    undecided = ET.fromstring(junit.render(UNPAIRED()).encode())
    assert undecided.get("failures") == "0"


def test_a_report_without_a_junit_view_says_so() -> None:
    with pytest.raises(InputError, match="has no JUnit view"):
        junit.render(fixtures.over_aligned())


@pytest.mark.parametrize("text", fixtures.HOSTILE)
@pytest.mark.parametrize(
    "make", [fixtures.check, fixtures.compare, fixtures.tune, fixtures.invariants]
)
def test_hostile_text_stays_text_in_markdown(make: Callable[[str], Report], text: str) -> None:
    made = markdown.render(make(text))
    plain = re.sub(r"</?(details|summary|sub)>", "", made)
    assert not re.search(r"(?<!\\)<(?!/?(details|summary|sub)\b)", plain), "a tag"
    assert "](" not in re.sub(r"\\.", "", plain), "a link"
    assert "javascript:" not in re.sub(r"\\.", "", plain).replace("javascript:alert", "")
    # A table's rows have as many cells as its head.
    for block in re.findall(r"(?:^\|.*\|$\n?)+", made, flags=re.M):
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(widths) == 1, block


@pytest.mark.parametrize("text", fixtures.HOSTILE)
def test_hostile_text_stays_text_in_junit_and_in_workflow_commands(text: str) -> None:
    made = fixtures.check(text)
    ET.fromstring(junit.render(made).encode())
    for line in github.workflow_commands(made):
        assert re.match(r"::(error|warning|notice) title=[^:,\n]*::[^\n]*$", line), line


def test_a_line_break_in_a_name_starts_no_workflow_command() -> None:
    made = fixtures.check("a\n::error::injected")
    assert all(line.count("\n") == 0 for line in github.workflow_commands(made))


def test_every_gated_number_in_markdown_has_unit_n_and_interval() -> None:
    made = markdown.render(fixtures.check())
    rows = [
        line for line in made.splitlines() if re.search(r"\| (test\\?_error|test\\?_loss) \|", line)
    ]
    assert rows
    for row in rows:
        assert re.search(r"(points|nats) \[", row), row
        assert re.search(r"\d+ (pairs|unpaired)", row), row
