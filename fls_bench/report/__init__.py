"""A report as a file: read it, write it, publish its schema. Its other views are in here too.

JSON is the product and everything else is a view of it, so nothing below loads more than the
stored value needs: the page is imported when one is written.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import uuid
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fls_bench.errors import InputError
from fls_bench.schema import REPORT_SCHEMA, Report

__all__ = [
    "json_schema",
    "json_schema_text",
    "read",
    "to_json",
    "write_html",
    "write_json",
    "write_junit",
]

_SCHEMA_NAME = re.compile(r"fls-bench/report/([1-9][0-9]{0,8})")


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
    file = Path(path)
    try:
        raw = file.read_bytes()
    except FileNotFoundError:
        raise InputError(
            f"There is no file {file}.",
            "Check the path, or write a report with 'fls-bench diagnose MODEL --json FILE'.",
        ) from None
    except IsADirectoryError:
        raise InputError(
            f"{file} is a folder, not a report.", "Name the report's JSON file in it."
        ) from None
    except OSError as error:
        raise InputError(
            f"{file} can't be read: {error.strerror}.", "Check its permissions."
        ) from None
    try:
        value = json.loads(raw, parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError):
        raise InputError(
            f"{file} is not JSON, or was cut off while it was written.",
            "Name a report written with --json; a page made with --html can't be read back.",
        ) from None
    name = value.get("schema") if isinstance(value, dict) else None
    found = _SCHEMA_NAME.fullmatch(name) if isinstance(name, str) else None
    if found is None:
        raise InputError(
            f"{file} is JSON, but not an fls-bench report: its schema is not {REPORT_SCHEMA!r}.",
            "Name a report written by fls-bench with --json.",
        )
    if found[0] != REPORT_SCHEMA:
        raise InputError(
            f"{file} was written by a newer fls-bench ({found[0]}, and this one reads "
            f"{REPORT_SCHEMA}).",
            "Upgrade fls-bench to read it.",
        )
    try:
        return Report.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InputError(
            f"{file} is a damaged report: {error.error_count()} value(s) don't fit the schema, the "
            f"first is {place!r} ({first['msg']}).",
            "Write it again, or compare it with the published schema in docs/report.schema.json.",
        ) from None


def _refuse(token: str) -> float:
    raise ValueError(token)


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse(text)


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
    return _write(Path(path), to_json(report).encode())


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
    return _write(Path(path), html.render(report).encode("utf-8", "xmlcharrefreplace"))


def write_junit(report: Report, path: str | os.PathLike[str], force: bool = False) -> Path:
    """Write a report of kind ``invariants`` as JUnit XML; whole or not at all.

    Args:
        report: The report.
        path: Where to write.
        force: Overwrite an existing file.

    Returns:
        The path written.

    Raises:
        InputError: The file exists and ``force`` is false, or the place can't be written.
    """
    from fls_bench.report import junit

    check_target(Path(path), force)
    return _write(Path(path), junit.render(report).encode("utf-8", "xmlcharrefreplace"))


def check_target(path: Path, force: bool) -> None:
    """Refuse a place that can't be written, before anything is computed for it.

    Args:
        path: Where a file is to be written.
        force: Whether an existing file may be replaced.

    Raises:
        InputError: The path is a folder or exists already, or its folder is missing or read-only.
    """
    # os.path answers "no" where pathlib raises, and the write itself then says what is wrong.
    if os.path.isdir(path):
        raise InputError(f"{path} is a folder.", "Name a file in it to write to.")
    exists = os.path.exists(path)
    if exists and not os.path.isfile(path):
        raise InputError(f"{path} is not an ordinary file.", "Name an ordinary file to write to.")
    if exists and not force:
        raise InputError(
            f"{path} exists already.", "Choose another name, or pass --force to overwrite it."
        )
    folder = os.path.dirname(os.path.realpath(path))
    if not os.path.isdir(folder):
        raise InputError(f"There is no folder {folder}.", "Make it, or choose another name.")
    if not os.access(folder, os.W_OK):
        raise InputError(f"The folder {folder} can't be written to.", "Choose another one.")


def _write(path: Path, content: bytes) -> Path:
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError as error:
        raise InputError(
            f"{path} can't be written: {error.strerror}.",
            "Choose a folder that exists and that you may write to.",
        ) from None
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
    return path


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of the reports that this version writes."""
    schema = Report.model_json_schema(mode="serialization", by_alias=True)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:{REPORT_SCHEMA.replace('/', ':')}",
        "$comment": "Generated with: python -m fls_bench.report > docs/report.schema.json",
        **schema,
        "title": "fls-bench report, schema 1",
    }


def json_schema_text() -> str:
    """The JSON Schema as it is published in docs/report.schema.json."""
    return json.dumps(json_schema(), indent=2, allow_nan=False) + "\n"
