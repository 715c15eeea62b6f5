"""The command line without its commands."""

from __future__ import annotations

from typing import Annotated

import typer

from fls_bench import __version__

app = typer.Typer(
    help="Is a training setup over-aligned, near-optimal or over-fitted? "
    "(c is the output multiplier: smaller c = larger feature learning strength, FLS.)",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
suites_app = typer.Typer(help="The suites that come with fls-bench.", no_args_is_help=False)
app.add_typer(suites_app, name="suites")
baseline_app = typer.Typer(help="Recorded runs of a suite, to compare with.", no_args_is_help=False)
app.add_typer(baseline_app, name="baseline")


GUIDE = """\
fls-bench says whether a training setup learns features too strongly, about
right or too weakly, and what to change. Begin with what you have.

Nothing yet: train a net on digits, and get its verdict (a minute)
  fls-bench train --n-train 150 --output-multiplier 2^-9 -o model.pt
  fls-bench diagnose model.pt --html report.html

A checkpoint: read the regime from the net (seconds; trains nothing)
  fls-bench diagnose ckpt.pt --model pkg.mod:build --data d.npz --pythonpath .

A training setup in Python: train small variations of it (minutes)
  fls-bench diagnose --setup pkg.mod:setup --pythonpath . --budget 10m

A loop of yours, in PyTorch, Lightning or transformers: record it, then diagnose
  with fls_bench.record(model, "model.pt", task=task, ...) as run:
  FlsBenchCallback of fls_bench.integrations.lightning or .transformers

A CI: keep a baseline, and fail where a change makes the setup worse
  fls-bench baseline record quick --setup pkg.mod:setup --pythonpath .
  fls-bench check quick --setup pkg.mod:setup --pythonpath .

Smaller c = larger FLS = toward over-aligned (c multiplies the output, FLS is
the feature learning strength). All commands: fls-bench --help
Completion by the tab key: fls-bench --install-completion
"""


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
        print(GUIDE, end="")
