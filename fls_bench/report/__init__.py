"""A report as a file: read it, write it, publish its schema. Its other views are in here too.

JSON is the product and everything else is a view of it, so nothing below loads more than the
stored value needs: the page is imported when one is written.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from fls_bench.files import check_target, read_stored, write_whole
from fls_bench.schema import BASELINE_SCHEMA, REPORT_SCHEMA, Baseline, Report

__all__ = [
    "check_target",
    "json_schema",
    "json_schema_text",
    "read",
    "to_json",
    "write_html",
    "write_json",
    "write_junit",
    "write_junit_error",
    "write_markdown",
]


def to_json(report: Report) -> str:
    """The report as JSON text: fields in the schema's order, indent 2, a newline at the end.

    Equal reports give equal bytes. Free-form parts (``setup``, ``input``, ``evidence``) keep the
    order in which they were filled.

    Raises:
        ValueError: A free-form part holds NaN or infinity, which JSON has no words for.
        TypeError: A free-form part holds a value that is not plain.
    """
    # Not pydantic's JSON mode, which would turn NaN into null without a word.
    value = report.model_dump(by_alias=True)
    return json.dumps(value, indent=2, allow_nan=False, default=os.fspath) + "\n"


def read(path: str | os.PathLike[str]) -> Report:
    """Read a report.

    Args:
        path: A file written by :func:`write_json`.

    Returns:
        The report; writing it again gives the same bytes.

    Raises:
        InputError: No such file, not readable, not JSON, not a report, damaged, or written by a
            newer fls-bench.
    """
    return read_stored(path, {REPORT_SCHEMA: Report}, "fls-bench diagnose MODEL --json FILE")


def write_json(report: Report, path: str | os.PathLike[str], force: bool = False) -> Path:
    """Write the report as JSON; the file appears whole or not at all.

    Args:
        report: The report.
        path: Where to write.
        force: Overwrite an existing file.

    Returns:
        The path written.

    Raises:
        InputError: The file exists and ``force`` is false, or the place can't be written.
    """
    check_target(Path(path), force)
    return write_whole(Path(path), to_json(report).encode())


def write_html(report: Report, path: str | os.PathLike[str], force: bool = False) -> Path:
    """Write the report as one HTML file that needs nothing else; whole or not at all.

    Args:
        report: The report.
        path: Where to write.
        force: Overwrite an existing file.

    Returns:
        The path written.

    Raises:
        InputError: The file exists and ``force`` is false, or the place can't be written.
    """
    from fls_bench.report import html

    check_target(Path(path), force)
    # A file name on disk need not be valid Unicode and may end up in the page.
    return write_whole(Path(path), html.render(report).encode("utf-8", "xmlcharrefreplace"))


def write_junit(report: Report, path: str | os.PathLike[str], force: bool = False) -> Path:
    """Write a report of kind ``suite``, ``check`` or ``invariants`` as JUnit XML; whole or not at all.

    Args:
        report: The report.
        path: Where to write.
        force: Overwrite an existing file.

    Returns:
        The path written.

    Raises:
        InputError: The file exists and ``force`` is false, the place can't be written, or the
            report is of another kind.
    """
    from fls_bench.report import junit

    check_target(Path(path), force)
    return write_whole(Path(path), junit.render(report).encode("utf-8", "xmlcharrefreplace"))


def write_junit_error(
    problem: str, remedy: str, path: str | os.PathLike[str], force: bool = False
) -> Path:
    """Write a JUnit file of one error: why a check could not be done.

    Args:
        problem: What is wrong.
        remedy: What to do next.
        path: Where to write.
        force: Overwrite an existing file.

    Returns:
        The path written.

    Raises:
        InputError: The file exists and ``force`` is false, or the place can't be written.
    """
    from fls_bench.report import junit

    check_target(Path(path), force)
    return write_whole(Path(path), junit.render_error(problem, remedy).encode("utf-8", "replace"))


def write_markdown(report: Report, path: str | os.PathLike[str], force: bool = False) -> Path:
    """Write the report as Markdown, for a pull request; whole or not at all.

    Args:
        report: The report.
        path: Where to write.
        force: Overwrite an existing file.

    Returns:
        The path written.

    Raises:
        InputError: The file exists and ``force`` is false, or the place can't be written.
    """
    from fls_bench.report import markdown

    check_target(Path(path), force)
    return write_whole(Path(path), markdown.render(report).encode("utf-8", "replace"))


def json_schema(model: type[Report | Baseline] = Report) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of the reports, or the baselines, that this version writes."""
    name = BASELINE_SCHEMA if model is Baseline else REPORT_SCHEMA
    kind = name.split("/")[1]
    schema = model.model_json_schema(mode="serialization", by_alias=True)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:{name.replace('/', ':')}",
        "$comment": f"Generated with: python -m fls_bench.report {kind} > docs/{kind}.schema.json",
        **schema,
        "title": f"fls-bench {kind}, schema {name.split('/')[2]}",
    }


def json_schema_text(model: type[Report | Baseline] = Report) -> str:
    """The JSON Schema as it is published in docs/."""
    return json.dumps(json_schema(model), indent=2, allow_nan=False) + "\n"
