"""``fls-bench check``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from fls_bench.cli.app import app
from fls_bench.cli.deliver import deliver, end_check, junit_of_errors, tell_github
from fls_bench.cli.options import (
    BackendOption,
    BudgetOption,
    DeviceOption,
    ForceOption,
    HtmlOption,
    JobsOption,
    JsonOption,
    JunitOption,
    MaxEpochsOption,
    MdOption,
    NoStoreOption,
    PairedSeedOption,
    PythonPathOption,
    QuietOption,
    ScaleOption,
    SchedulerOption,
    SetupOption,
    StoreOption,
    SuiteArgument,
    check_outputs,
    parse_options,
    search_in,
)
from fls_bench.cli.process import stdout_kept

CHECK_EXIT_CODES = (
    "Exit codes: 0 no regression is shown, or there was no baseline; 1 a regression; 2 usage or input; "
    "3 a run failed; 4 inconclusive, with --strict; 5 nothing to compare with, with --baseline or "
    "--require-baseline; 130 interrupted."
)

BaselineOption = Annotated[
    Path | None,
    typer.Option(help="Baseline file; default: ./baselines/SUITE.json, else the package's."),
]


@app.command(epilog=CHECK_EXIT_CODES)
def check(
    suite: SuiteArgument,
    scale: ScaleOption = "full",
    setup: SetupOption = None,
    pythonpath: PythonPathOption = None,
    baseline: BaselineOption = None,
    require_baseline: Annotated[
        bool, typer.Option("--require-baseline", help="Exit 5 where there is nothing to compare.")
    ] = False,
    seed: PairedSeedOption = None,
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
    junit: JunitOption = None,
    quiet: QuietOption = False,
    force: ForceOption = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 4 where it is inconclusive.")] = (
        False
    ),
) -> None:
    """Run a suite and compare it with its baseline.

    Runs are paired by seed. A metric regresses only where the corrected interval of its difference
    excludes 0 in the bad direction and the difference is beyond the metric's practical minimum. Under
    GitHub Actions the result also becomes the step's summary and annotations.
    """
    search_in(pythonpath)
    check_outputs(json, html, force, junit=junit, md=md)
    with junit_of_errors(junit, force):
        from fls_bench import baselines
        from fls_bench.errors import NothingToCompareError
        from fls_bench.suite import load_at_scale

        loaded = load_at_scale(suite, scale)
        if baseline is not None and not baseline.exists():
            raise NothingToCompareError(
                f"There is no file {baseline}.",
                "Name another, or record it: baseline record --file.",
            )
        found = baselines.find(loaded.name, baseline, own_setup=setup is not None)
        from fls_bench import checking, console
        from fls_bench.training_setup import import_setup

        with stdout_kept(), console.Progress(quiet) as listen:
            chosen = checking.seed_of(found) if seed is None else seed
            options = parse_options(
                listen, chosen, 200, budget, max_epochs, jobs, device, store, no_store,
                backend, scheduler, pythonpath,
            )  # fmt: skip
            own = None if setup is None else import_setup(setup)
            checking.refuse_unfit(loaded, own is not None)
            against = checking.reference(loaded, found, own)
            named = {
                "--scale": None if scale == "full" else scale,
                "--setup": setup,
                "--file": None if baseline is None else str(baseline),
            }
            options_ = [part for pair in named.items() if pair[1] is not None for part in pair]
            target = shlex.join([suite, *map(str, options_)])
            if against.obstacle and (require_baseline or baseline is not None):
                raise NothingToCompareError(against.obstacle, against.remedy(target))
            made = checking.check(loaded, options, against, own, target)
    deliver(made, json, html, quiet, force, md=md, junit=junit)
    tell_github(made)
    end_check(made, strict, require_baseline or baseline is not None)
