"""``fls-bench baseline``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fls_bench.cli.app import baseline_app
from fls_bench.cli.options import (
    BudgetOption,
    DeviceOption,
    JobsOption,
    NoStoreOption,
    PairedSeedOption,
    PythonPathOption,
    QuietOption,
    ScaleOption,
    SeedOption,
    SetupOption,
    StoreOption,
    SuiteArgument,
    parse_options,
    search_in,
)
from fls_bench.cli.process import stdout_kept
from fls_bench.errors import InputError

if TYPE_CHECKING:
    from fls_bench.schema import Report
    from fls_bench.suite import Suite
    from fls_bench.training_setup import TrainingSetup

FileOption = Annotated[
    Path | None, typer.Option("--file", help="Baseline file; default: ./baselines/SUITE.json.")
]
ReportOption = Annotated[
    Path | None,
    typer.Option(
        "--report", help="Take the runs of a stored report of run or check; trains nothing."
    ),
]


@baseline_app.callback(invoke_without_command=True)
def _baseline(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        baseline_list()


@baseline_app.command("record")
def baseline_record(
    suite: SuiteArgument,
    scale: ScaleOption = "full",
    setup: SetupOption = None,
    pythonpath: PythonPathOption = None,
    file: FileOption = None,
    report: ReportOption = None,
    seed: SeedOption = 0,
    budget: BudgetOption = "10m",
    jobs: JobsOption = None,
    device: DeviceOption = "auto",
    store: StoreOption = None,
    no_store: NoStoreOption = False,
    quiet: QuietOption = False,
) -> None:
    """Run a suite and write its first baseline; commit the file.

    One that is there already changes by `baseline bless` alone.
    """
    search_in(pythonpath)
    from fls_bench import baselines, checking, console

    loaded, path = _place(suite, scale, file, setup is not None)
    if path.exists():
        raise InputError(
            f"{path} exists already.",
            "See what would change, with the same options, by 'fls-bench baseline bless'.",
        )
    _folder(path)
    made, own = _runs(loaded, setup, report, quiet, seed, budget, jobs, device, store, no_store)
    baseline = baselines.baseline_of(made, own)
    baselines.write(baseline, path)
    for line in checking.weak_points(made, baseline):
        console.note(f"note: {line}")
    console.note(f"baseline written to {path}: commit it", stdout=True)


@baseline_app.command("bless")
def baseline_bless(
    suite: SuiteArgument,
    scale: ScaleOption = "full",
    setup: SetupOption = None,
    pythonpath: PythonPathOption = None,
    file: FileOption = None,
    report: ReportOption = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Don't ask: for scripts; the difference is shown still.")
    ] = False,
    seed: PairedSeedOption = None,
    budget: BudgetOption = "10m",
    jobs: JobsOption = None,
    device: DeviceOption = "auto",
    store: StoreOption = None,
    no_store: NoStoreOption = False,
    quiet: QuietOption = False,
) -> None:
    """Show what changed since the baseline, and replace it once you agree.

    With --report it takes what CI measured, from the JSON of its `check`.
    """
    search_in(pythonpath)
    from fls_bench import baselines, checking, console

    loaded, path = _place(suite, scale, file, setup is not None)
    found = baselines.Found(path, "given", baselines.read(path))
    chosen = checking.seed_of(found) if seed is None else seed
    made, own = _runs(loaded, setup, report, quiet, chosen, budget, jobs, device, store, no_store)
    if other := baselines.setup_mismatch(found.baseline, own):
        raise InputError(f"{path} {other}.", "Give the right --setup, or another --file.")
    why = baselines.mismatch(found.baseline, made.suite or {}, own)
    shown = checking.compare_run(made, loaded, checking.Reference(found, why), target="")
    console.show(shown)
    if not yes and not _agreed(path):
        console.note(f"{path} is left as it was", stdout=True)
        return
    baselines.write(baselines.baseline_of(made, own), path, force=True)
    console.note(f"{path} replaced: commit it", stdout=True)


def _place(suite: str, scale: str, file: Path | None, alone: bool) -> tuple[Suite, Path]:
    from fls_bench import baselines, checking
    from fls_bench.suite import load_at_scale

    loaded = load_at_scale(suite, scale)
    checking.refuse_unfit(loaded, alone)
    return loaded, file or baselines.project_path(loaded.name)


def _folder(path: Path) -> None:
    """Make ./baselines, and no other folder."""
    from fls_bench.files import check_target

    if path.parent == Path("baselines"):
        try:
            path.parent.mkdir(exist_ok=True)
        except OSError as error:
            raise InputError(
                f"The folder {path.parent} can't be made: {error.strerror}.", "Give --file."
            ) from None
    check_target(path, False)


def _runs(
    suite: Suite, setup: str | None, report: Path | None, quiet: bool, seed: int, budget: str,
    jobs: int | None, device: str, store: Path | None, no_store: bool,
) -> tuple[Report, str | None]:  # fmt: skip
    """A run of the suite, new or stored, and the name of the user's setup in it."""
    if report is not None:
        return _stored(suite, report, setup)
    from fls_bench import bench, console
    from fls_bench.training_setup import import_setup

    with stdout_kept(), console.Progress(quiet) as listen:
        options = parse_options(listen, seed, 200, budget, None, jobs, device, store, no_store)
        own: TrainingSetup | None = None if setup is None else import_setup(setup)
        return bench.run(suite, options, own), None if own is None else own.name


def _stored(suite: Suite, path: Path, setup: str | None) -> tuple[Report, str | None]:
    from fls_bench import report as reports

    if setup is not None:
        raise InputError("A stored report brings its setup's name.", "Leave --setup out.")
    made = reports.read(path)
    if made.suite is None or made.suite.get("digest") != suite.digest:
        raise InputError(
            f"{path} is no run of the suite {suite.name} as it is now (digest {suite.digest[:12]}).",
            "Give the JSON of run or check of this suite.",
        )
    ids = {case.id for case in suite.cases}
    own = next((case.id for case in made.cases if case.id not in ids), None)
    return made, own


def _agreed(path: Path) -> bool:
    if not sys.stdin.isatty():
        raise InputError(
            f"Nobody can be asked whether {path} is to be replaced.", "Give --yes to replace it."
        )
    return typer.confirm(f"Replace {path}?")


@baseline_app.command("show")
def baseline_show(
    name: Annotated[str, typer.Argument(help="A suite's name, or a baseline's file.")],
) -> None:
    """Show what a baseline holds."""
    from fls_bench import baselines, console

    path = Path(name)
    if path.suffix == ".json" or "/" in name:
        found = baselines.Found(path, "given", baselines.read(path))
    else:
        there = baselines.find(name)
        if there is None:
            raise InputError(
                f"There is no baseline of a suite {name!r}.",
                "fls-bench baseline list shows those that there are.",
            )
        found = there
    console.show_baseline(found.baseline, found.shown)


@baseline_app.command("list")
def baseline_list() -> None:
    """List the baselines of this folder and of the package."""
    from fls_bench import baselines, console

    rows = []
    for path, where in baselines.list_files():
        one = baselines.read(path)
        suite = one.suite or {}
        seeds = max((len(cell.seeds) for case in one.cases for cell in case.cells), default=0)
        rows.append(
            [path.name if where == "package" else str(path), where,
             f"{suite.get('name')} {suite.get('version')}", one.setup or "-",
             str(len(one.cases)), str(seeds), one.recorded[:10]]
        )  # fmt: skip
    if not rows:
        console.note("No baselines: 'fls-bench baseline record SUITE' writes one.", stdout=True)
        return
    columns = ("file", "of the", "suite", "setup", "cases", "seeds", "recorded")
    console.table("baselines", columns, rows)
