"""The command line without its commands."""

from __future__ import annotations

from typing import Annotated

import typer

from fls_bench import __version__

app = typer.Typer(
    help="Is a training setup over-aligned, near-optimal or over-fitted? "
    "(c is the output multiplier: smaller c = larger feature learning strength, FLS.)",
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
suites_app = typer.Typer(help="The suites that come with fls-bench.", no_args_is_help=False)
app.add_typer(suites_app, name="suites")
baseline_app = typer.Typer(help="Recorded runs of a suite, to compare with.", no_args_is_help=False)
app.add_typer(baseline_app, name="baseline")


def _version(value: bool) -> None:
    if value:
        print(f"fls-bench {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    context: typer.Context,
    _show_version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit(2)
