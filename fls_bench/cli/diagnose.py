"""``fls-bench diagnose``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fls_bench.cli.app import app
from fls_bench.cli.deliver import deliver, end
from fls_bench.cli.options import (
    EXIT_CODES,
    BudgetOption,
    DataOption,
    DeviceOption,
    FailOnOption,
    ForceOption,
    HtmlOption,
    JobsOption,
    JsonOption,
    MaxEpochsOption,
    MaxSeedsOption,
    MdOption,
    ModelOption,
    NoStoreOption,
    QuietOption,
    SeedOption,
    SetupOption,
    StoreOption,
    StrictOption,
    check_outputs,
    parse_conditions,
    parse_options,
)
from fls_bench.cli.process import stdout_kept
from fls_bench.errors import InputError


@app.command(epilog=EXIT_CODES)
def diagnose(
    path: Annotated[Path | None, typer.Argument(help="Model file.", show_default=False)] = None,
    setup: SetupOption = None,
    model: ModelOption = None,
    data: DataOption = None,
    seed: SeedOption = 0,
    max_seeds: MaxSeedsOption = 20,
    budget: BudgetOption = "10m",
    max_epochs: MaxEpochsOption = None,
    jobs: JobsOption = None,
    device: DeviceOption = "auto",
    store: StoreOption = None,
    no_store: NoStoreOption = False,
    json: JsonOption = None,
    html: HtmlOption = None,
    md: MdOption = None,
    quiet: QuietOption = False,
    force: ForceOption = False,
    strict: StrictOption = False,
    fail_on: FailOnOption = None,
) -> None:
    """Diagnose a model file, or with --setup your own setup.

    Says whether it is over-aligned (c too small), near-optimal or over-fitted (c too large), and what
    to change: smaller c = larger FLS = toward over-aligned.
    """
    if path is None and setup is None:
        raise InputError("There is nothing to diagnose.", "Give a model file, or --setup.")
    if setup is not None and (path or model or data):
        raise InputError(
            "--setup brings its own net and data.", "Leave out the model file, --model and --data."
        )
    conditions = parse_conditions(fail_on)
    check_outputs(json, html, force, md=md)
    from fls_bench import bench, console
    from fls_bench.training_setup import import_setup

    with stdout_kept(), console.Progress(quiet) as listen:
        options = parse_options(
            listen, seed, max_seeds, budget, max_epochs, jobs, device, store, no_store
        )
        if path is not None:
            made = bench.diagnose_file(path, options, builder=model, data=data)
        else:
            made = bench.diagnose_setup(import_setup(str(setup)), options)
    deliver(made, json, html, quiet, force, md=md)
    end(made, strict, conditions)
