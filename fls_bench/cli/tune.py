"""``fls-bench tune``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fls_bench.cli.app import app
from fls_bench.cli.deliver import deliver, end
from fls_bench.cli.options import (
    BackendOption,
    BudgetOption,
    DataOption,
    DeviceOption,
    ForceOption,
    HtmlOption,
    JobsOption,
    JsonOption,
    MaxEpochsOption,
    MdOption,
    ModelOption,
    NoStoreOption,
    PythonPathOption,
    QuietOption,
    SchedulerOption,
    SeedOption,
    SetupOption,
    StoreOption,
    check_outputs,
    parse_data,
    parse_options,
    search_in,
)
from fls_bench.cli.process import stdout_kept
from fls_bench.errors import InputError

TUNE_EXIT_CODES = (
    "Exit codes: 0 done, also where no gain is confirmed; 2 usage or input; 3 a run failed; 4 no gain "
    "confirmed, with --strict; 130 interrupted."
)


@app.command(epilog=TUNE_EXIT_CODES)
def tune(
    path: Annotated[Path | None, typer.Argument(help="Model file.", show_default=False)] = None,
    setup: SetupOption = None,
    pythonpath: PythonPathOption = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write the tuned model, where a gain is confirmed."),
    ] = None,
    model: ModelOption = None,
    data: DataOption = None,
    seed: SeedOption = 0,
    train_seed: Annotated[
        int, typer.Option(min=0, max=10**6, help="Seed of the tuned model that is written.")
    ] = 0,
    max_seeds: Annotated[
        int, typer.Option(min=3, max=200, help="Most seeds per value in the search.")
    ] = 12,
    confirm: Annotated[
        int, typer.Option(min=3, max=200, help="Fresh seeds that verify the gain.")
    ] = 10,
    budget: BudgetOption = "10m",
    max_epochs: MaxEpochsOption = None,
    jobs: JobsOption = None,
    backend: BackendOption = "auto",
    scheduler: SchedulerOption = None,
    device: DeviceOption = "auto",
    store: StoreOption = None,
    no_store: NoStoreOption = False,
    json: JsonOption = None,
    html: HtmlOption = None,
    md: MdOption = None,
    quiet: QuietOption = False,
    force: ForceOption = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 4 where no gain is confirmed.")] = (
        False
    ),
) -> None:
    """Find the best c and learning rate, and verify their gain.

    Chooses c and the rate on validation data in a short search, and verifies the gain on test data with
    seeds that chose nothing, the rate tuned at both c. Shows what to change in your code. Where the
    gain's interval reaches 0 it says to keep the setup, and writes no model; where only another rate is
    confirmed to gain, c stays. Smaller c = larger FLS = toward over-aligned.
    """
    search_in(pythonpath)
    if path is None and setup is None:
        raise InputError("There is nothing to tune.", "Give a model file, or --setup.")
    if setup is not None and (path or model or data):
        raise InputError(
            "--setup brings its own net and data.", "Leave out the model file, --model and --data."
        )
    check_outputs(json, html, force, output, md=md)
    from fls_bench import console, tuning
    from fls_bench.subject import Given
    from fls_bench.training_setup import import_setup

    with stdout_kept(), console.Progress(quiet) as listen:
        options = parse_options(
            listen, seed, max_seeds, budget, max_epochs, jobs, device, store, no_store,
            backend, scheduler, pythonpath,
        )  # fmt: skip
        writing: dict[str, Any] = {
            "output": output, "train_seed": train_seed, "confirm": confirm, "force": force
        }  # fmt: skip
        if path is not None:
            given = Given(builder=model, **parse_data(data))
            made = tuning.tune_file(path, options, given, **writing)
        else:
            made = tuning.tune_setup(import_setup(str(setup)), options, **writing)
    deliver(made, json, html, quiet, force, md=md)
    end(made, strict, set())
