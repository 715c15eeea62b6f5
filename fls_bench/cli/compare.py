"""``fls-bench compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fls_bench.cli.app import app
from fls_bench.cli.deliver import deliver
from fls_bench.cli.options import (
    ForceOption,
    HtmlOption,
    JsonOption,
    MdOption,
    QuietOption,
    check_outputs,
)

COMPARE_EXIT_CODES = (
    "Exit codes: 0 done, whatever the differences; 2 usage or input; 5 nothing can be compared."
)


@app.command(epilog=COMPARE_EXIT_CODES)
def compare(
    files: Annotated[
        list[Path], typer.Argument(help="Reports written with --json, or baselines; two or more.")
    ],
    json: JsonOption = None,
    html: HtmlOption = None,
    md: MdOption = None,
    quiet: QuietOption = False,
    force: ForceOption = False,
) -> None:
    """Put stored reports side by side.

    Each is compared with the first. Shows regimes, c*, gains and metrics with their differences and
    intervals, which of them matter, what differs in setup and environment, and what is not comparable
    and why. Trains nothing.
    """
    check_outputs(json, html, force, md=md)
    from fls_bench import comparing

    made = comparing.compare_files(files)
    deliver(made, json, html, quiet, force, md=md)
    if made.comparison is not None and made.comparison.status == "not_comparable":
        raise typer.Exit(5)
