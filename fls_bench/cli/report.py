"""``fls-bench report`` and ``fls-bench env``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fls_bench.cli.app import app
from fls_bench.cli.deliver import deliver
from fls_bench.cli.options import (
    ForceOption,
    HtmlOption,
    JunitOption,
    MdOption,
    QuietOption,
    check_outputs,
)


@app.command()
def report(
    path: Annotated[Path, typer.Argument(help="A report written with --json.")],
    html: HtmlOption = None,
    md: MdOption = None,
    junit: JunitOption = None,
    quiet: QuietOption = False,
    force: ForceOption = False,
) -> None:
    """Show a stored report again, in any form; trains nothing."""
    from fls_bench import report as reports

    check_outputs(None, html, force, junit=junit, md=md)
    deliver(reports.read(path), None, html, quiet, force, md=md, junit=junit)


@app.command()
def env(json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """Show versions and machine facts."""
    from fls_bench import console
    from fls_bench.facts import environment

    facts = environment()
    if json:
        import json as json_module

        print(json_module.dumps(facts, indent=2))
    else:
        console.table("environment", ("what", "value"), [[k, v] for k, v in facts.items()])
