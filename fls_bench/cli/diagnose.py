"""``fls-bench diagnose``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fls_bench.cli.app import app
from fls_bench.cli.deliver import deliver, end
from fls_bench.cli.options import (
    EXIT_CODES,
    BackendOption,
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
    PythonPathOption,
    QuietOption,
    SchedulerOption,
    SeedOption,
    SetupOption,
    StoreOption,
    StrictOption,
    check_outputs,
    parse_conditions,
    parse_data,
    parse_model,
    parse_options,
    search_in,
)
from fls_bench.cli.process import stdout_kept
from fls_bench.errors import InputError


@app.command(epilog=EXIT_CODES)
def diagnose(
    path: Annotated[
        Path | None,
        typer.Argument(
            help="Model file, or a checkpoint: torch.save, Lightning, safetensors (of shards the "
            "index).",
            show_default=False,
        ),
    ] = None,
    setup: SetupOption = None,
    model: ModelOption = None,
    data: DataOption = None,
    data_seed: Annotated[
        int | None,
        typer.Option(min=0, max=10**6, help="Draw of the data that the file was trained on."),
    ] = None,
    init: Annotated[
        Path | None, typer.Option(help="File with the initial weights of a checkpoint.")
    ] = None,
    init_seed: Annotated[
        int | None,
        typer.Option(
            min=0, max=2**63 - 1, help="Seed that the builder was called under; a digest proves it."
        ),
    ] = None,
    init_digest: Annotated[
        str | None, typer.Option(help="fls_bench.state_digest of the initial weights.")
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="Which weights of a checkpoint, by what stands before their names."),
    ] = None,
    feature_layer: Annotated[
        str | None, typer.Option(help="Module whose features count as the last.")
    ] = None,
    fit_head: Annotated[
        bool, typer.Option("--fit-head", help="Fit a read-out to an encoder that has none.")
    ] = False,
    allow: Annotated[
        str | None,
        typer.Option(help="Classes of settings to read past, comma-separated; none is imported."),
    ] = None,
    observe_only: Annotated[
        bool,
        typer.Option(
            "--observe-only", help="Read the regime from the net alone, in seconds: train nothing."
        ),
    ] = False,
    pythonpath: PythonPathOption = None,
    seed: SeedOption = 0,
    max_seeds: MaxSeedsOption = 20,
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
    strict: StrictOption = False,
    fail_on: FailOnOption = None,
) -> None:
    """Diagnose a model file, a checkpoint or your setup.

    Says whether it is over-aligned (c too small), near-optimal or over-fitted (c too large), and what
    to change: smaller c = larger FLS = toward over-aligned. The regime is first read from the net
    itself, then a sweep over c confirms it where the setup can be trained again. A checkpoint needs
    --model and --data, or --setup; nothing in a file is executed.
    """
    beside = {
        **parse_model(model), **parse_data(data), "data_seed": data_seed, "init": init,
        "init_seed": init_seed, "init_digest": init_digest, "weights": weights,
        "feature_layer": feature_layer, "fit_head": fit_head or None,
    }  # fmt: skip
    beside = {name: value for name, value in beside.items() if value is not None}
    if path is None and setup is None:
        raise InputError("There is nothing to diagnose.", "Give a model file, or --setup.")
    if path is None and beside:
        raise InputError(
            "--setup brings its own net and data, and there is no file.",
            f"Leave out --{min(beside).replace('_', '-').replace('builder', 'model')}.",
        )
    if path is None and observe_only:
        raise InputError(
            "--observe-only looks at a net that is there, and there is no file.",
            "Give a model file or a checkpoint too, or leave it out.",
        )
    search_in(pythonpath)
    conditions = parse_conditions(fail_on)
    check_outputs(json, html, force, md=md)
    from fls_bench import bench, console
    from fls_bench.subject import Given
    from fls_bench.training_setup import import_setup

    with stdout_kept(), console.Progress(quiet) as listen:
        options = parse_options(
            listen, seed, max_seeds, budget, max_epochs, jobs, device, store, no_store,
            backend, scheduler, pythonpath,
        )  # fmt: skip
        own = None if setup is None else import_setup(setup)
        if path is not None:
            allowed = tuple(name.strip() for name in (allow or "").split(",") if name.strip())
            given = Given(setup=own, allow=allowed, observe_only=observe_only, **beside)
            made = bench.diagnose_file(path, options, given)
        elif own is not None:
            made = bench.diagnose_setup(own, options)
    deliver(made, json, html, quiet, force, md=md)
    end(made, strict, conditions)
