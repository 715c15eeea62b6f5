"""Options that commands share, and what reads their values."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fls_bench.errors import InputError

if TYPE_CHECKING:
    from fls_bench.bench import Options
    from fls_bench.console import Progress
    from fls_bench.schema import Recipe

FAIL_ON = ("over-aligned", "over-fitted", "near-optimal", "inconclusive", "unexpected")
EXIT_CODES = (
    "Exit codes: 0 done, an inconclusive verdict included; 1 --fail-on; 2 usage or input; 3 a run "
    "failed; 4 inconclusive, with --strict; 130 interrupted."
)

SeedOption = Annotated[int, typer.Option(min=0, max=10**6, help="Chooses the seeds.")]
PairedSeedOption = Annotated[
    int | None,
    typer.Option(min=0, max=10**6, help="Chooses the seeds; default: those of the baseline."),
]
MaxSeedsOption = Annotated[
    int, typer.Option(min=3, max=200, help="Most seeds per multiplier; more find smaller effects.")
]
BudgetOption = Annotated[str, typer.Option(help="Wall-clock budget of the sweep: 60s, 10m or 2h.")]
MaxEpochsOption = Annotated[
    int | None, typer.Option(min=1, max=10**6, help="In place of the setup's own limit.")
]
JobsOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=1024,
        help="Batches or processes at a time; default: cores, or slots of a cluster.",
    ),
]
BackendOption = Annotated[
    str,
    typer.Option(
        help="Where runs are trained: auto (this process, or processes of its own), loky (processes "
        "only) or dask (with --scheduler)."
    ),
]
SchedulerOption = Annotated[
    str | None, typer.Option(help="With --backend dask: the scheduler's address, or its file.")
]
DeviceOption = Annotated[
    str,
    typer.Option(
        help="auto, cpu or cuda; auto takes a GPU where there is one.",
        autocompletion=lambda: ["auto", "cpu", "cuda"],
    ),
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
MdOption = Annotated[
    Path | None, typer.Option("--md", help="Write the report as Markdown, for a pull request.")
]
JunitOption = Annotated[
    Path | None, typer.Option("--junit", help="Write a JUnit XML file for CI services.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no terminal view.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Overwrite existing output files.")]
StrictOption = Annotated[bool, typer.Option("--strict", help="Exit 4 where inconclusive.")]
FailOnOption = Annotated[
    str | None, typer.Option(help=f"Exit 1 on any of these, comma-separated: {', '.join(FAIL_ON)}.")
]


def _suites(incomplete: str) -> list[str]:
    """Names of suites, for the shell's completion; it completes files by itself."""
    from fls_bench.suite import suite_folder

    return [path.stem for path in sorted(suite_folder().glob(f"{incomplete}*.toml"))]


SuiteArgument = Annotated[
    str, typer.Argument(help="A suite's name, or a .toml file.", autocompletion=_suites)
]
ScaleOption = Annotated[
    str,
    typer.Option(
        help="full, or small: what the suite keeps for a run of minutes, e.g. in CI.",
        autocompletion=lambda: ["full", "small"],
    ),
]
SetupOption = Annotated[
    str | None,
    typer.Option(help="package.module:name of a TrainingSetup (imports and runs your code)."),
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        help="package.module:builder of the file's net (imports and runs your code), or a built-in "
        "net, NAME,argument=value."
    ),
]
DataOption = Annotated[
    str | None,
    typer.Option(
        help="In place of the file's own data: .npz, .csv, .parquet, image folder, "
        "NAME,argument=value, package.module:function."
    ),
]


PythonPathOption = Annotated[
    Path | None,
    typer.Option(
        help="Folder to import your code from, . for the current one; it is not searched unless you "
        "say so.",
    ),
]


def search_in(folder: Path | None) -> None:
    """Let --setup, --model and --data import from a folder that the user names."""
    if folder is not None:
        if not os.path.isdir(folder):
            raise InputError(f"--pythonpath {str(folder)!r} is no folder.", "Check the path.")
        sys.path.insert(0, str(folder.resolve()))


def parse_seconds(text: str) -> float:
    """Read a wall-clock budget: 60s, 10m or 2h."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|m|min|h)?\s*", text)
    seconds = 0.0
    if match is not None:
        seconds = float(match[1]) * {"s": 1, "m": 60, "min": 60, "h": 3600, None: 1}[match[2]]
    if not 0 < seconds < 1e9:
        raise InputError(
            f"--budget {text!r} is not a positive time.", "Give for example 60s, 10m or 2h."
        )
    return seconds


def parse_options(
    listen: Progress, seed: int, max_seeds: int, budget: str, max_epochs: int | None,
    jobs: int | None, device: str, store: Path | None, no_store: bool,
    backend: str = "auto", scheduler: str | None = None, pythonpath: Path | None = None,
) -> Options:  # fmt: skip
    """What a sweep is told, of the options that say so."""
    from fls_bench.bench import Options
    from fls_bench.training import find_backend

    if store is not None:
        there = next(p for p in (store.absolute(), *store.absolute().parents) if os.path.exists(p))
        if not there.is_dir() or not os.access(there, os.W_OK):
            raise InputError(
                f"--store {str(store)!r} can't be a folder that is written to.",
                "Name another folder, or give --no-store.",
            )
    folders = () if pythonpath is None else (str(pythonpath.resolve()),)
    where = find_backend(backend, scheduler, folders)
    if where.slots is not None:
        listen.note(f"dask: {where.slots} jobs at a time at {where.scheduler}")
    return Options(
        listener=listen, seed=seed, max_seeds=max_seeds, budget_seconds=parse_seconds(budget),
        max_epochs=max_epochs, jobs=jobs, device=device, store=False if no_store else store,
        backend=where,
    )  # fmt: skip


def check_outputs(
    json: str | None,
    html: Path | None,
    force: bool,
    output: Path | None = None,
    junit: Path | None = None,
    md: Path | None = None,
) -> None:
    """Refuse what can't be written before anything is trained."""
    from fls_bench import report

    named = {
        "--json": json if json != "-" else None,
        "--html": html,
        "--output": output,
        "--junit": junit,
        "--md": md,
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


def parse_conditions(fail_on: str | None) -> set[str]:
    """Read the comma-separated conditions of --fail-on."""
    wanted = {part.strip().replace("_", "-") for part in (fail_on or "").split(",") if part.strip()}
    unknown = sorted(wanted - set(FAIL_ON))
    if unknown:
        raise InputError(
            f"--fail-on does not know {', '.join(unknown)}.", f"Choose from {', '.join(FAIL_ON)}."
        )
    return wanted


def parse_named(option: str, text: str) -> tuple[str, dict[str, Any]]:
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


def parse_model(text: str | None) -> dict[str, Any]:
    """Read --model: ``package.module:builder``, or ``NAME,key=value,...``."""
    if text is None or ":" in text.partition(",")[0]:
        return {} if text is None else {"builder": text}
    name, arguments = parse_named("--model", text)
    return {"builder": name, "builder_arguments": arguments}


def parse_data(text: str | None) -> dict[str, Any]:
    """Read --data: a path that exists, or ``NAME,key=value,...``."""
    if text is None:
        return {}
    if os.path.exists(text):
        return {"data": text}
    name, arguments = parse_named("--data", text)
    return {"data": name, "data_arguments": arguments}


def parse_optimizer(text: str, lr: float | None) -> dict[str, Any]:
    """Read ``NAME,setting=value,...`` into the fields of an optimizer."""
    kind, settings = parse_named("--optimizer", text)
    schedule = settings.get("schedule")
    per_step = {
        field: settings.pop(key)
        for key, field in (("warmup", "warmup_steps"), ("steps", "steps"))
        if key in settings
    }
    if isinstance(schedule, str):
        name, _, number = schedule.partition(":")
        length = {"cosine": "epochs", "step": "every"}.get(name)
        if schedule in ("linear", "constant") or (schedule == "cosine" and per_step):
            settings["schedule"] = {"kind": "per_step", "decay": schedule, **per_step}
        elif per_step or length is None or (number and not re.fullmatch(r"\d{1,9}", number)):
            raise InputError(
                f"--optimizer: schedule={schedule} is unknown"
                f"{', or not one of warmup= and steps=' if per_step else ''}.",
                "Give schedule=cosine, schedule=cosine:50 (epochs) or schedule=step:30; or, per step, "
                "schedule=linear, cosine or constant with warmup=100, and steps=1000 for its length.",
            )
        else:
            settings["schedule"] = {"kind": name} | ({length: int(number)} if number else {})
    elif per_step:
        raise InputError(
            "--optimizer: warmup= and steps= go with a schedule.",
            "Give schedule=linear, schedule=cosine or schedule=constant too.",
        )
    return {**settings, "kind": kind} | ({} if lr is None else {"lr": lr})


def checked_recipe(recipe: dict[str, Any]) -> Recipe:
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
