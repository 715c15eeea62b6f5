"""How a command ends: the report to where it was asked for, and the exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from fls_bench.cli.process import silence
from fls_bench.errors import FlsBenchError

if TYPE_CHECKING:
    from fls_bench.schema import Report


def deliver(
    made: Report,
    json: str | None,
    html: Path | None,
    quiet: bool,
    force: bool,
    *,
    md: Path | None = None,
    junit: Path | None = None,
) -> None:
    """Write what was asked for, then show the rest on the terminal."""
    from fls_bench import console, report

    if json is not None and json != "-":
        report.write_json(made, Path(json), force)
    if html is not None:
        report.write_html(made, html, force)
    if md is not None:
        report.write_markdown(made, md, force)
    if junit is not None:
        report.write_junit(made, junit, force)
    try:
        if json == "-":
            sys.stdout.write(report.to_json(made))
            sys.stdout.flush()
        elif not quiet:
            console.show(made)
    except BrokenPipeError:
        silence(sys.stdout)  # its reader has seen enough; the exit code still tells the verdict
    for path in (None if json in (None, "-") else json, html, md, junit):
        if path is not None and not quiet:
            console.note(f"report written to {path}")


@contextmanager
def junit_of_errors(junit: Path | None, force: bool) -> Iterator[None]:
    """Where a check can't be done, its JUnit file says so: CI services show no other."""
    try:
        yield
    except FlsBenchError as error:
        if junit is not None:
            from fls_bench import report

            report.write_junit_error(error.problem, error.remedy, junit, force)
        raise


def tell_github(made: Report) -> None:
    """Under GitHub Actions: the step's summary, and annotations on stderr."""
    if os.environ.get("GITHUB_ACTIONS") != "true":
        return
    from fls_bench import console
    from fls_bench.report import github, markdown

    for line in github.workflow_commands(made):
        print(line, file=sys.stderr)
    place = os.environ.get("GITHUB_STEP_SUMMARY")
    if place:
        try:
            with open(place, "a", encoding="utf-8", errors="replace") as file:
                file.write(markdown.render(made))
        except OSError as error:
            console.note(f"the step's summary can't be written: {error.strerror}")


def end_check(made: Report, strict: bool, required: bool) -> None:
    """Leave a check with its exit code, if that is not 0."""
    found = made.comparison
    if found is not None and found.status in ("not_comparable", "no_baseline") and required:
        raise typer.Exit(5)
    if found is not None and found.status == "regression":
        raise typer.Exit(1)
    if found is not None and found.status == "inconclusive" and strict:
        raise typer.Exit(4)


def end(made: Report, strict: bool, conditions: set[str]) -> None:
    """Leave with the exit code that the verdict asks for, if that is not 0."""
    if made.tuning is not None:
        if strict and made.tuning.change == "none":
            raise typer.Exit(4)
        return
    judged = made.cases if made.kind == "suite" else (made,)
    regimes = {j.diagnosis.regime.label for j in judged if j.diagnosis is not None}
    unexpected = {"unexpected" for case in made.cases if case.met is False}
    if met := sorted((regimes | unexpected) & conditions):
        from fls_bench import console

        console.note(f"exit 1 by --fail-on: {', '.join(met)}")
        raise typer.Exit(1)
    if strict and "inconclusive" in regimes:
        # A case that is expected to be inconclusive is no reason to fail.
        if made.kind == "suite" and all(
            case.met
            for case in made.cases
            if case.diagnosis is not None and case.diagnosis.regime.value == "inconclusive"
        ):
            return
        raise typer.Exit(4)
