"""``fls-bench run``."""

from __future__ import annotations

from fls_bench.cli.app import app
from fls_bench.cli.deliver import deliver, end
from fls_bench.cli.options import (
    EXIT_CODES,
    BackendOption,
    BudgetOption,
    DeviceOption,
    FailOnOption,
    ForceOption,
    HtmlOption,
    JobsOption,
    JsonOption,
    JunitOption,
    MaxEpochsOption,
    MaxSeedsOption,
    MdOption,
    NoStoreOption,
    PythonPathOption,
    QuietOption,
    ScaleOption,
    SchedulerOption,
    SeedOption,
    SetupOption,
    StoreOption,
    StrictOption,
    SuiteArgument,
    check_outputs,
    parse_conditions,
    parse_options,
    search_in,
)
from fls_bench.cli.process import stdout_kept


@app.command(epilog=EXIT_CODES)
def run(
    suite: SuiteArgument,
    scale: ScaleOption = "full",
    setup: SetupOption = None,
    pythonpath: PythonPathOption = None,
    seed: SeedOption = 0,
    max_seeds: MaxSeedsOption = 200,
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
    strict: StrictOption = False,
    fail_on: FailOnOption = None,
) -> None:
    """Run a suite of cases and judge each.

    With --setup the suite runs on your own setup, in place of its tasks and models. A suite that tests a
    claim of the paper says whether it is reproduced here; its runs are kept, so that an interrupted one
    goes on. Where c is shown: smaller c = larger FLS = toward over-aligned.
    """
    search_in(pythonpath)
    conditions = parse_conditions(fail_on)
    check_outputs(json, html, force, junit=junit, md=md)
    from fls_bench.suite import load_at_scale

    loaded = load_at_scale(suite, scale)
    from fls_bench import bench, console
    from fls_bench.training_setup import import_setup

    with stdout_kept(), console.Progress(quiet) as listen:
        options = parse_options(
            listen, seed, max_seeds, budget, max_epochs, jobs, device, store, no_store,
            backend, scheduler, pythonpath,
        )  # fmt: skip
        own = None if setup is None else import_setup(setup)
        made = bench.run(loaded, options, own)
    deliver(made, json, html, quiet, force, md=md, junit=junit)
    end(made, strict, conditions)
