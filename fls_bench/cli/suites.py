"""``fls-bench suites``."""

from __future__ import annotations

from typing import Any

import typer

from fls_bench.cli.app import suites_app
from fls_bench.cli.options import SuiteArgument
from fls_bench.errors import AbsentDataError


@suites_app.callback(invoke_without_command=True)
def _suites(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        suites_list()


@suites_app.command("list")
def suites_list() -> None:
    """List the suites that come with fls-bench."""
    from fls_bench import console
    from fls_bench.suite import list_suites

    rows = [
        [s.name, str(s.version), str(len(s.cases)), f"{s.cost.seconds:g} s", s.title or ""]
        for s in list_suites()
    ]
    console.table("suites", ("name", "version", "cases", "cost on 2 cores", "title"), rows)


@suites_app.command("show")
def suites_show(name: SuiteArgument) -> None:
    """Show the cases of a suite."""
    from fls_bench import console
    from fls_bench.suite import load_suite

    suite = load_suite(name)
    rows: list[list[Any]] = [
        [
            case.id,
            " ".join([case.task.name, *(f"{k}={v}" for k, v in case.task.arguments.items())]),
            " ".join([case.model.name, *(f"{k}={v}" for k, v in case.model.arguments.items())]),
            "" if case.expect is None else case.expect.regime.label,
        ]
        for case in suite.cases
    ]
    title = f"{suite.name} {suite.version}, {suite.seeds} seeds, digest {suite.digest[:12]}"
    console.table(title, ("case", "task", "model", "expected"), rows)
    if suite.intervention is not None:
        of = f"interventions on the {suite.intervention.measure} rank"
        shown = [
            [
                row.name,
                " and ".join("small c" if at == "low" else "c*" for at in row.at),
                "; ".join(
                    f"{p.side} {p.layers}, strength {p.strength:g}"
                    + (f", log target {p.offset:+g}" if p.offset else "")
                    for p in row.penalties
                )
                + ("; misdirected" if row.misdirected else ""),
            ]
            for row in suite.intervention.rows
        ]
        console.table(of, ("row", "at", "penalties"), shown)


@suites_app.command("validate")
def suites_validate(path: SuiteArgument) -> None:
    """Check a suite and its tasks and nets; trains nothing."""
    from fls_bench import bench, console
    from fls_bench.suite import load_suite

    suite = load_suite(path)
    for case in suite.cases:
        try:
            bench.case_setup(suite, case)
        except AbsentDataError as error:
            if suite.claim is None:
                raise
            console.note(f"{case.id}: not run here. {error}")
    console.note(f"{suite.name}: {len(suite.cases)} cases, digest {suite.digest}", stdout=True)
