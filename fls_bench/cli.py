"""The command line: parse, call one function, set the exit code.

Exit codes: 0 done (an inconclusive verdict included), 1 what was asked for was found (a --fail-on
condition, a broken invariant), 2 usage or input, 3 a run failed or an internal error, 4 inconclusive
with --strict, 130 interrupted, 141 the reader of a pipe went away before the work was done (as of any
Unix program).
"""

from __future__ import annotations

import os
import re
import shlex
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.dummy import DummyProcess
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from fls_bench import __version__
from fls_bench.errors import FlsBenchError, InputError

if TYPE_CHECKING:
    from fls_bench.bench import Options
    from fls_bench.console import Progress
    from fls_bench.examining import Wanted
    from fls_bench.schema import Recipe, Report
    from fls_bench.training_setup import TrainingSetup

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

FAIL_ON = ("over-aligned", "over-fitted", "near-optimal", "inconclusive", "unexpected")
EXIT_CODES = (
    "Exit codes: 0 done, an inconclusive verdict included; 1 --fail-on; 2 usage or input; 3 a run "
    "failed; 4 inconclusive, with --strict; 130 interrupted."
)
TUNE_EXIT_CODES = (
    "Exit codes: 0 done, also where no gain is confirmed; 2 usage or input; 3 a run failed; 4 no gain "
    "confirmed, with --strict; 130 interrupted."
)
INVARIANTS_EXIT_CODES = (
    "Exit codes: 0 none is broken; 1 one is; 2 usage or input; 3 internal error; 130 interrupted."
)
INTERRUPTED, READER_GONE = 130, 141


# --- common options -------------------------------------------------------------------------

SeedOption = Annotated[int, typer.Option(min=0, max=10**6, help="Chooses the seeds.")]
MaxSeedsOption = Annotated[
    int, typer.Option(min=3, max=200, help="Most seeds per multiplier; more find smaller effects.")
]
BudgetOption = Annotated[str, typer.Option(help="Wall-clock budget of the sweep: 60s, 10m or 2h.")]
MaxEpochsOption = Annotated[
    int | None, typer.Option(min=1, max=10**6, help="In place of the setup's own limit.")
]
JobsOption = Annotated[
    int | None,
    typer.Option(min=1, max=1024, help="Batches or processes at a time; default: cores."),
]
DeviceOption = Annotated[
    str, typer.Option(help="auto, cpu or cuda; auto takes a GPU where there is one.")
]
StoreOption = Annotated[
    Path | None, typer.Option(help="Folder for finished runs; default: the user's cache.")
]
NoStoreOption = Annotated[bool, typer.Option("--no-store", help="Neither read nor keep runs.")]
JsonOption = Annotated[
    str | None, typer.Option("--json", help="Write the report as JSON; - for standard output.")
]
HtmlOption = Annotated[
    Path | None, typer.Option("--html", help="Write the report as one HTML page.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no terminal view.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Overwrite existing output files.")]
StrictOption = Annotated[bool, typer.Option("--strict", help="Exit 4 where inconclusive.")]
FailOnOption = Annotated[
    str | None, typer.Option(help=f"Exit 1 on any of these, comma-separated: {', '.join(FAIL_ON)}.")
]
SetupOption = Annotated[
    str | None,
    typer.Option(help="package.module:name of a TrainingSetup (imports and runs your code)."),
]
ModelOption = Annotated[
    str | None, typer.Option(help="package.module:builder of the file's net (imports your code).")
]
DataOption = Annotated[
    Path | None,
    typer.Option(help="In place of the file's own data: .npz, .csv, .parquet, image folder, name."),
]


def _seconds(text: str) -> float:
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|m|min|h)?\s*", text)
    seconds = 0.0
    if match is not None:
        seconds = float(match[1]) * {"s": 1, "m": 60, "min": 60, "h": 3600, None: 1}[match[2]]
    if not 0 < seconds < 1e9:
        raise InputError(
            f"--budget {text!r} is not a positive time.", "Give for example 60s, 10m or 2h."
        )
    return seconds


def _options(
    listen: Progress, seed: int, max_seeds: int, budget: str, max_epochs: int | None,
    jobs: int | None, device: str, store: Path | None, no_store: bool,
) -> Options:  # fmt: skip
    from fls_bench.bench import Options

    if store is not None:
        there = next(p for p in (store.absolute(), *store.absolute().parents) if os.path.exists(p))
        if not there.is_dir() or not os.access(there, os.W_OK):
            raise InputError(
                f"--store {str(store)!r} can't be a folder that is written to.",
                "Name another folder, or give --no-store.",
            )
    return Options(
        listener=listen, seed=seed, max_seeds=max_seeds, budget_seconds=_seconds(budget),
        max_epochs=max_epochs, jobs=jobs, device=device, store=False if no_store else store,
    )  # fmt: skip


def _check_outputs(
    json: str | None,
    html: Path | None,
    force: bool,
    output: Path | None = None,
    junit: Path | None = None,
) -> None:
    """Refuse what can't be written before anything is trained."""
    from fls_bench import report

    named = {
        "--json": json if json != "-" else None,
        "--html": html,
        "--output": output,
        "--junit": junit,
    }
    seen: dict[Path, str] = {}
    for option, given in named.items():
        if given is None:
            continue
        report.check_target(Path(given), force)
        other = seen.setdefault(Path(given).resolve(), option)
        if other != option:
            raise InputError(
                f"{other} and {option} name the same file.", "Give them different names."
            )


def _conditions(fail_on: str | None) -> set[str]:
    wanted = {part.strip().replace("_", "-") for part in (fail_on or "").split(",") if part.strip()}
    unknown = sorted(wanted - set(FAIL_ON))
    if unknown:
        raise InputError(
            f"--fail-on does not know {', '.join(unknown)}.", f"Choose from {', '.join(FAIL_ON)}."
        )
    return wanted


def _deliver(made: Report, json: str | None, html: Path | None, quiet: bool, force: bool) -> None:
    """Write what was asked for, then show the rest on the terminal."""
    from fls_bench import console, report

    if json is not None and json != "-":
        report.write_json(made, Path(json), force)
    if html is not None:
        report.write_html(made, html, force)
    try:
        if json == "-":
            sys.stdout.write(report.to_json(made))
            sys.stdout.flush()
        elif not quiet:
            console.show(made)
    except BrokenPipeError:
        _silence(sys.stdout)  # its reader has seen enough; the exit code still tells the verdict
    for path in (None if json in (None, "-") else json, html):
        if path is not None and not quiet:
            console.note(f"report written to {path}")


def _end(made: Report, strict: bool, conditions: set[str]) -> None:
    if made.tuning is not None:
        if strict and made.tuning.change == "none":
            raise typer.Exit(4)
        return
    judged = made.cases if made.kind == "suite" else (made,)
    regimes = {j.diagnosis.regime.label for j in judged if j.diagnosis is not None}
    unexpected = {"unexpected" for case in made.cases if case.met is False}
    if met := sorted((regimes | unexpected) & conditions):
        from fls_bench import console

        console.note(f"exit 1 by --fail-on: {', '.join(met)}")
        raise typer.Exit(1)
    if strict and "inconclusive" in regimes:
        # A case that is expected to be inconclusive is no reason to fail.
        if made.kind == "suite" and all(
            case.met
            for case in made.cases
            if case.diagnosis is not None and case.diagnosis.regime.value == "inconclusive"
        ):
            return
        raise typer.Exit(4)


# --- commands -------------------------------------------------------------------------------


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


@app.command()
def train(
    output: Annotated[Path, typer.Option("--output", "-o", help="Model file to write.")],
    task: Annotated[
        str,
        typer.Option(
            help="Data by name, file, folder or package.module:function; arguments after commas: "
            "rows.csv,target=price."
        ),
    ] = "digits",
    n_train: Annotated[
        int | None, typer.Option(help="Training points; default: the task's own.")
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            help="mlp, two_layer, cnn, resnet, resnet18 or vit; arguments after commas: "
            "cnn,norm=batch,width=32."
        ),
    ] = "mlp",
    depth: Annotated[
        int | None, typer.Option(help="Weight layers of an mlp, the read-out counted; default: 4.")
    ] = None,
    width: Annotated[int | None, typer.Option(help="Units or channels; default: 128, 16.")] = None,
    output_multiplier: Annotated[
        str, typer.Option(help="c: 0.002, 2^-9 or 1/16; smaller c = larger FLS.")
    ] = "1",
    init_scale: Annotated[str, typer.Option(help="alpha, the factor on initial weights.")] = "1",
    lr: Annotated[
        float | None,
        typer.Option(help="Rate at c = 1; the rule gives that at c; default: 0.1, Adam 0.001."),
    ] = None,
    optimizer: Annotated[
        str,
        typer.Option(
            help="sgd, adam or adamw; settings after commas: adamw,weight_decay=0.1,clip_norm=1,"
            "schedule=cosine (or schedule=step:30)."
        ),
    ] = "sgd",
    loss: Annotated[str, typer.Option(help="cross_entropy, logistic or mse.")] = "",
    label_smoothing: Annotated[float, typer.Option(help="Of the cross-entropy.")] = 0.0,
    augment: Annotated[str, typer.Option(help="Of training images: flip, crop or both.")] = "",
    batch_size: Annotated[int, typer.Option(help="Points per step.")] = 25,
    target_loss: Annotated[float, typer.Option(help="Stop at this training loss.")] = 0.1,
    target_accuracy: Annotated[
        float | None, typer.Option(help="Stop at this training accuracy, in place of a loss.")
    ] = None,
    max_epochs: Annotated[int, typer.Option(help="Most epochs.")] = 300,
    centered: Annotated[bool, typer.Option("--centered", help="Train c·(f - f_0).")] = False,
    seed: Annotated[
        int, typer.Option(min=0, max=10**6, help="Seed of weights, data and order.")
    ] = 0,
    device: DeviceOption = "auto",
    force: ForceOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train a built-in net and write a model file.

    The file describes itself: `fls-bench diagnose FILE` needs nothing else.
    """
    from fls_bench import bench, console, report
    from fls_bench.scaling import format_multiplier

    report.check_target(output, force)
    recipe = {
        "optimizer": _optimizer(optimizer, lr),
        "loss": loss or ("logistic" if model.startswith("two_layer") else "cross_entropy"),
        "label_smoothing": label_smoothing,
        "augmentation": [part.strip() for part in augment.split(",") if part.strip()],
        "batch_size": batch_size,
        "stop": {"max_epochs": max_epochs}
        | ({"target_loss": target_loss} if target_accuracy is None else {})
        | ({} if target_accuracy is None else {"target_accuracy": target_accuracy}),
        "seed": seed,
        "data_seed": seed,
    }
    sizes = {"n_train": n_train}, {"depth": depth, "width": width}
    setup = _train_setup(task, model, sizes, recipe, output_multiplier, init_scale, centered)
    facts = bench.train(setup, output, seed=seed, force=force, device=device)
    if not quiet:
        c = format_multiplier(setup.output_multiplier)
        console.note(
            f"{output}: c = {c}, learning rate {facts['lr']:.4g}, "
            f"{facts['num_parameters']:,} parameters, {facts['outcome'].replace('_', ' ')} after "
            f"{facts['epochs']} epochs, training loss {facts['train_loss']:.4f}, "
            f"test error {100 * facts['test_error']:.1f} %",
            stdout=True,
        )
        if facts["outcome"] != "reached_target":
            console.note(
                "The target was not reached, so a diagnosis of this file can only be inconclusive: "
                "raise --max-epochs or --target-loss."
            )


def _named(option: str, text: str) -> tuple[str, dict[str, Any]]:
    """Read ``NAME,key=value,...``; values as in JSON, else as text."""
    import json as json_module

    name, *rest = text.split(",")
    arguments: dict[str, Any] = {}
    for part in rest:
        key, equals, value = part.partition("=")
        if not equals or not key.strip().isidentifier():
            raise InputError(
                f"{option}: {part[:60]!r} is not of the form key=value.",
                f"Give for example {option} NAME,key=value.",
            )
        try:
            arguments[key.strip()] = json_module.loads(value)
        except (ValueError, RecursionError):
            arguments[key.strip()] = value.strip()
    return name, arguments


def _optimizer(text: str, lr: float | None) -> dict[str, Any]:
    kind, settings = _named("--optimizer", text)
    schedule = settings.get("schedule")
    if isinstance(schedule, str):
        name, _, number = schedule.partition(":")
        length = {"cosine": "epochs", "step": "every"}.get(name)
        if length is None or (number and not re.fullmatch(r"\d{1,9}", number)):
            raise InputError(
                f"--optimizer: schedule={schedule} is unknown.",
                "Give schedule=cosine, schedule=cosine:50 (epochs) or schedule=step:30.",
            )
        settings["schedule"] = {"kind": name} | ({length: int(number)} if number else {})
    return {**settings, "kind": kind} | ({} if lr is None else {"lr": lr})


def _train_setup(
    task: str, model: str, sizes: tuple[dict[str, Any], dict[str, Any]], recipe: dict[str, Any],
    output_multiplier: str, init_scale: str, centered: bool,
) -> TrainingSetup:  # fmt: skip
    from fls_bench.subject import built_in_setup
    from fls_bench.tasks import task_source
    from fls_bench.training_setup import import_object

    checked = _checked_recipe(recipe)
    c = _multiplier("--output-multiplier", output_multiplier)
    alpha = _multiplier("--init-scale", init_scale)
    (task, of_task), (model, of_model) = _named("--task", task), _named("--model", model)
    for arguments, given in ((of_task, sizes[0]), (of_model, sizes[1])):
        arguments.update({key: value for key, value in given.items() if value is not None})
    return built_in_setup(
        model,
        of_model,
        task_source(task, of_task, code=lambda name: import_object(name, "--task")),
        checked,
        base_lr=checked.optimizer.lr,
        output_multiplier=c,
        init_scale=alpha,
        centered=centered,
    )


def _checked_recipe(recipe: dict[str, Any]) -> Recipe:
    """A recipe of what options say; errors name the option."""
    from pydantic import ValidationError

    from fls_bench.schema import Recipe

    try:
        return Recipe.model_validate(recipe)
    except ValidationError as error:
        first = error.errors()[0]
        keys = [str(part) for part in first["loc"]]
        # Settings of an optimizer stand behind its name, but for the rate, which is an option.
        inside = keys[0] == "optimizer" and keys[-1] != "lr"
        place = f"optimizer, {keys[-1]}" if inside else keys[0] if keys[0] != "stop" else keys[-1]
        place = "lr" if keys[-1] == "lr" else place
        named = place.replace("_", "-").replace("augmentation", "augment")
        raise InputError(f"--{named}: {first['msg']}.", "Correct its value.") from None


def _multiplier(option: str, text: str) -> float:
    from fls_bench.scaling import parse_multiplier

    try:
        return parse_multiplier(text)
    except InputError as error:
        raise InputError(f"{option}: {error.problem}", error.remedy) from None


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
    conditions = _conditions(fail_on)
    _check_outputs(json, html, force)
    from fls_bench import bench, console
    from fls_bench.training_setup import import_setup

    with _stdout_kept(), console.Progress(quiet) as listen:
        options = _options(
            listen, seed, max_seeds, budget, max_epochs, jobs, device, store, no_store
        )
        if path is not None:
            made = bench.diagnose_file(path, options, builder=model, data=data)
        else:
            made = bench.diagnose_setup(import_setup(str(setup)), options)
    _deliver(made, json, html, quiet, force)
    _end(made, strict, conditions)


@app.command(epilog=TUNE_EXIT_CODES)
def tune(
    path: Annotated[Path | None, typer.Argument(help="Model file.", show_default=False)] = None,
    setup: SetupOption = None,
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
    device: DeviceOption = "auto",
    store: StoreOption = None,
    no_store: NoStoreOption = False,
    json: JsonOption = None,
    html: HtmlOption = None,
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
    if path is None and setup is None:
        raise InputError("There is nothing to tune.", "Give a model file, or --setup.")
    if setup is not None and (path or model or data):
        raise InputError(
            "--setup brings its own net and data.", "Leave out the model file, --model and --data."
        )
    _check_outputs(json, html, force, output)
    from fls_bench import console, tuning
    from fls_bench.training_setup import import_setup

    with _stdout_kept(), console.Progress(quiet) as listen:
        options = _options(
            listen, seed, max_seeds, budget, max_epochs, jobs, device, store, no_store
        )
        writing: dict[str, Any] = {
            "output": output, "train_seed": train_seed, "confirm": confirm, "force": force
        }  # fmt: skip
        if path is not None:
            made = tuning.tune_file(path, options, builder=model, data=data, **writing)
        else:
            made = tuning.tune_setup(import_setup(str(setup)), options, **writing)
    _deliver(made, json, html, quiet, force)
    _end(made, strict, set())


@app.command(epilog=EXIT_CODES)
def run(
    suite: Annotated[str, typer.Argument(help="A suite's name, or a .toml file.")],
    setup: SetupOption = None,
    seed: SeedOption = 0,
    max_seeds: MaxSeedsOption = 200,
    budget: BudgetOption = "10m",
    max_epochs: MaxEpochsOption = None,
    jobs: JobsOption = None,
    device: DeviceOption = "auto",
    store: StoreOption = None,
    no_store: NoStoreOption = False,
    json: JsonOption = None,
    html: HtmlOption = None,
    quiet: QuietOption = False,
    force: ForceOption = False,
    strict: StrictOption = False,
    fail_on: FailOnOption = None,
) -> None:
    """Run a suite of cases and judge each.

    With --setup the suite runs on your own setup, in place of its tasks and models. Where c is shown:
    smaller c = larger FLS = toward over-aligned.
    """
    conditions = _conditions(fail_on)
    _check_outputs(json, html, force)
    from fls_bench.suite import load_suite

    loaded = load_suite(suite)
    from fls_bench import bench, console
    from fls_bench.training_setup import import_setup

    with _stdout_kept(), console.Progress(quiet) as listen:
        options = _options(
            listen, seed, max_seeds, budget, max_epochs, jobs, device, store, no_store
        )
        own = None if setup is None else import_setup(setup)
        made = bench.run(loaded, options, own)
    _deliver(made, json, html, quiet, force)
    _end(made, strict, conditions)


@app.command(epilog=INVARIANTS_EXIT_CODES)
def invariants(
    target: Annotated[
        str,
        typer.Argument(
            help="Model file, or package.module:name of a builder or TrainingSetup (runs your code)."
        ),
    ],
    optimizer: Annotated[
        str | None,
        typer.Option(
            help="sgd, adam or adamw with settings after commas, or package.module:function of your "
            "own: make(net, output_multiplier) -> optimizer."
        ),
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate of a built-in optimizer.")] = None,
    loss: Annotated[str | None, typer.Option(help="cross_entropy, logistic or mse.")] = None,
    task: Annotated[
        str | None, typer.Option(help="Data, as for train; default: the setup's, or random points.")
    ] = None,
    input_shape: Annotated[
        str | None, typer.Option(help="Shape of one input for random points, such as 3,32,32.")
    ] = None,
    model: ModelOption = None,
    only: Annotated[
        str | None, typer.Option(help="Only these invariants, comma-separated: routes,exact-rule.")
    ] = None,
    examples: Annotated[int, typer.Option(min=1, max=10_000, help="Draws per invariant.")] = 20,
    seed: Annotated[
        int, typer.Option(min=0, max=10**6, help="The same one gives the same draws.")
    ] = 0,
    json: JsonOption = None,
    html: HtmlOption = None,
    junit: Annotated[
        Path | None, typer.Option("--junit", help="Write a JUnit XML file for CI services.")
    ] = None,
    quiet: QuietOption = False,
    force: ForceOption = False,
) -> None:
    """Check what the output multiplier does in your net.

    Draws seeds, multipliers and steps, trains pairs of runs that ought to be one function, and says of
    each scaling invariant whether it held, broke (with the smallest counter-example) or is void for this
    net, and why. In float64, on the CPU.
    """
    _check_outputs(json, html, force, junit=junit)
    from fls_bench import console, examining, report

    with _stdout_kept(), console.Progress(quiet, unit="invariants") as listen:
        options = _options(listen, seed, 3, "10m", None, 1, "cpu", None, True)
        made = examining.examine_target(
            target,
            options,
            _wanted(optimizer, lr, loss, task, input_shape),
            examples=examples,
            names=None if only is None else [n.strip().replace("-", "_") for n in only.split(",")],
            builder=model,
            command=_again(
                target, optimizer, lr, loss, task, input_shape, model, examples, seed, only
            ),
        )
    if junit is not None:
        report.write_junit(made, junit, force)
    _deliver(made, json, html, quiet, force)
    if made.invariants and any(one.status == "broken" for one in made.invariants.findings):
        raise typer.Exit(1)


def _wanted(
    optimizer: str | None, lr: float | None, loss: str | None, task: str | None, shape: str | None
) -> Wanted:
    from fls_bench.examining import DEFAULT_OPTIMIZER, Wanted, told_multiplier
    from fls_bench.tasks import task_source
    from fls_bench.training_setup import import_object

    chosen: Any = None
    if optimizer is not None and ":" in optimizer.partition(",")[0]:
        if lr is not None:
            raise InputError("--lr goes with a built-in optimizer.", "Leave it out.")
        chosen = told_multiplier(import_object(optimizer, "--optimizer"), "--optimizer")
    elif optimizer is not None or lr is not None:
        lr = DEFAULT_OPTIMIZER.lr if lr is None and not optimizer else lr
        chosen = _checked_recipe({"optimizer": _optimizer(optimizer or "sgd", lr)}).optimizer
    sizes = None
    if shape is not None:
        parts = [part.strip() for part in shape.split(",")]
        if not all(part.isdecimal() and 0 < int(part) < 10**6 for part in parts):
            raise InputError(
                f"--input-shape {shape[:60]!r} is no list of sizes.", "Give for example 3,32,32."
            )
        sizes = tuple(int(part) for part in parts)
    source = None
    if task is not None:
        name, arguments = _named("--task", task)
        source = task_source(name, arguments, code=lambda name: import_object(name, "--task"))
    checked = None if loss is None else _checked_recipe({"loss": loss}).loss
    return Wanted(optimizer=chosen, task=source, input_shape=sizes, loss=checked)


def _again(
    target: str, optimizer: str | None, lr: float | None, loss: str | None, task: str | None,
    input_shape: str | None, model: str | None, examples: int, seed: int, only: str | None,
) -> str:  # fmt: skip
    """The command that gives the same findings."""
    given = {
        "--optimizer": optimizer, "--lr": lr, "--loss": loss, "--task": task,
        "--input-shape": input_shape, "--model": model, "--examples": examples, "--seed": seed,
        "--only": only,
    }  # fmt: skip
    options = [str(part) for pair in given.items() if pair[1] is not None for part in pair]
    return shlex.join(["fls-bench", "invariants", target, *options])


@app.command()
def report(
    path: Annotated[Path, typer.Argument(help="A report written with --json.")],
    html: HtmlOption = None,
    quiet: QuietOption = False,
    force: ForceOption = False,
) -> None:
    """Show a stored report, or make its HTML page."""
    from fls_bench import report as reports

    _check_outputs(None, html, force)
    _deliver(reports.read(path), None, html, quiet, force)


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


@suites_app.callback(invoke_without_command=True)
def _suites(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        suites_list()


@suites_app.command("list")
def suites_list() -> None:
    """List the suites that come with fls-bench."""
    from fls_bench import console
    from fls_bench.suite import list_suites

    rows = [
        [s.name, str(s.version), str(len(s.cases)), f"{s.cost.seconds:g} s", s.title or ""]
        for s in list_suites()
    ]
    console.table("suites", ("name", "version", "cases", "cost on 2 cores", "title"), rows)


@suites_app.command("show")
def suites_show(name: Annotated[str, typer.Argument(help="A suite's name or file.")]) -> None:
    """Show the cases of a suite."""
    from fls_bench import console
    from fls_bench.suite import load_suite

    suite = load_suite(name)
    rows: list[list[Any]] = [
        [
            case.id,
            " ".join([case.task.name, *(f"{k}={v}" for k, v in case.task.arguments.items())]),
            " ".join([case.model.name, *(f"{k}={v}" for k, v in case.model.arguments.items())]),
            "" if case.expect is None else case.expect.regime.label,
        ]
        for case in suite.cases
    ]
    title = f"{suite.name} {suite.version}, {suite.seeds} seeds, digest {suite.digest[:12]}"
    console.table(title, ("case", "task", "model", "expected"), rows)
    if suite.intervention is not None:
        of = f"interventions on the {suite.intervention.measure} rank"
        shown = [
            [
                row.name,
                " and ".join("small c" if at == "low" else "c*" for at in row.at),
                "; ".join(
                    f"{p.side} {p.layers}, strength {p.strength:g}"
                    + (f", log target {p.offset:+g}" if p.offset else "")
                    for p in row.penalties
                )
                + ("; misdirected" if row.misdirected else ""),
            ]
            for row in suite.intervention.rows
        ]
        console.table(of, ("row", "at", "penalties"), shown)


@suites_app.command("validate")
def suites_validate(path: Annotated[str, typer.Argument(help="A suite's name or file.")]) -> None:
    """Check a suite and its tasks and nets; trains nothing."""
    from fls_bench import bench, console
    from fls_bench.suite import load_suite

    suite = load_suite(path)
    for case in suite.cases:
        bench.case_setup(suite, case)
    console.note(f"{suite.name}: {len(suite.cases)} cases, digest {suite.digest}", stdout=True)


# --- the process ----------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the ``fls-bench`` command.

    Args:
        arguments: In place of those of the process.
    """
    code = _exit_code(sys.argv[1:] if arguments is None else arguments)
    if code == INTERRUPTED:
        # Threads that train see it after their epoch; torch aborts a process that ends under them.
        deadline = time.monotonic() + 2
        for thread in threading.enumerate():
            if isinstance(thread, DummyProcess):
                thread.join(timeout=max(0, deadline - time.monotonic()))
    sys.exit(code)


def _exit_code(arguments: Sequence[str]) -> int:
    """Run a command. However it ends: at most a paragraph on stderr, never a traceback."""
    from fls_bench import console

    try:
        # Not typer's own main, which would answer errors in other words and a lost pipe with 1.
        command = typer.main.get_command(app)
        with command.make_context("fls-bench", list(arguments)) as context:
            command.invoke(context)
        sys.stdout.flush()
    except typer.Exit as end:
        return end.exit_code
    except FlsBenchError as error:
        console.fail(error.problem, error.remedy)
        return error.exit_code
    except KeyboardInterrupt:
        console.fail(
            "Interrupted.", "The same command goes on from the finished runs that it has stored."
        )
        return INTERRUPTED
    except BrokenPipeError:
        _silence(sys.stdout, sys.stderr)
        return READER_GONE
    except (Exception, SystemExit) as error:
        usage = _usage_problem(error)
        if usage is not None:
            console.fail(*usage)
            return 2
        if os.environ.get("FLS_BENCH_DEBUG"):
            traceback.print_exc()
        problem = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(".")
        console.fail(
            f"Internal error: {problem}.",
            "Please report it; FLS_BENCH_DEBUG=1 in the environment shows where it happened.",
        )
        return 3
    return 0


def _usage_problem(error: BaseException) -> tuple[str, str] | None:
    """What the parser says about a command line; its error classes have no public names."""
    if not hasattr(error, "format_message"):
        return None
    context = getattr(error, "ctx", None)
    command = "fls-bench" if context is None else context.command_path
    problem = " ".join(str(error.format_message()).split()).rstrip(".")
    return problem if problem.endswith("?") else f"{problem}.", f"See {command} --help."


def _silence(*streams: TextIO) -> None:
    """Nobody reads these any more: let what is still to come vanish."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in streams:
        os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


@contextmanager
def _stdout_kept() -> Iterator[None]:
    """What the user's code prints goes to stderr, in worker processes too: stdout is the report's."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
