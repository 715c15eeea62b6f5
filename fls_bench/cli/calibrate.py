"""``fls-bench calibrate`` and ``fls-bench selftest``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from fls_bench.cli.app import app
from fls_bench.cli.options import (
    BackendOption,
    ForceOption,
    HtmlOption,
    JobsOption,
    JsonOption,
    NoStoreOption,
    QuietOption,
    SchedulerOption,
    SeedOption,
    StoreOption,
    check_outputs,
    parse_options,
)
from fls_bench.errors import InputError


@app.command(
    epilog="Exit codes: 0 done; 1 with --check, the refit differs from the file; 2 usage or input."
)
def calibrate(
    atlas: Annotated[
        Path | None, typer.Option(help="Folder of the atlas; default: the committed one.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where to write the models.")] = Path(
        "baselines/atlas/reading.json"
    ),
    check: Annotated[
        Path | None,
        typer.Option(help="Write nothing: refit, and compare with this file.", show_default=False),
    ] = None,
    survey: Annotated[
        str | None,
        typer.Option(help="First train what the atlas lacks of this suite, shard by shard."),
    ] = None,
    shards: Annotated[
        str | None, typer.Option(help="With --survey: numbers of shards, such as 0,1 or 3-7.")
    ] = None,
    jobs: JobsOption = None,
    backend: BackendOption = "auto",
    scheduler: SchedulerOption = None,
    store: StoreOption = None,
    no_store: NoStoreOption = False,
    quiet: QuietOption = False,
    force: ForceOption = False,
) -> None:
    """Fit the reading of single nets to the atlas.

    From the atlas' records alone, which come with fls-bench (about a minute): nothing is trained,
    unless --survey adds shards to the atlas first.
    """
    from fls_bench import console
    from fls_bench.atlas import atlas_folder, load_atlas, load_models
    from fls_bench.files import check_target, write_whole

    given = {
        "--shards": shards is not None,
        "--backend": backend != "auto" or scheduler is not None,
    }
    if survey is None and any(given.values()):
        option = next(name for name, there in given.items() if there)
        raise InputError(f"{option} goes with --survey.", "Leave it out.")
    stored = None if check is None else load_models(check)
    if stored is None:
        check_target(out, force)
    folder = atlas or atlas_folder()
    if survey is not None:
        _survey(survey, folder, shards, quiet, jobs, store, no_store, backend, scheduler)
    with console.Progress(quiet) as listen:
        listen.note(f"fitting the reading to {folder}")
        from fls_bench.calibrating import calibrated, differences

        models = calibrated(load_atlas(folder))
    if stored is not None:
        found = differences(stored, models)
        for line in found:
            console.note(line, stdout=True)
        if found:
            raise typer.Exit(1)
        console.note(f"the refit reproduces {check}", stdout=True)
        return
    text = models.model_dump_json(by_alias=True, exclude_none=True) + "\n"
    write_whole(out, text.encode())
    console.note(f"models of {models.atlas['nets']:,} nets written to {out}")


def _survey(
    name: str, folder: Path, shards: str | None, quiet: bool, jobs: int | None,
    store: Path | None, no_store: bool, backend: str, scheduler: str | None,
) -> None:  # fmt: skip
    from fls_bench import console
    from fls_bench.suite import load_suite
    from fls_bench.surveying import survey

    suite = load_suite(name)
    with console.Progress(quiet) as listen:
        options = parse_options(
            listen, 0, 20, "10m", None, jobs, "cpu", store, no_store, backend, scheduler
        )
        folder.mkdir(parents=True, exist_ok=True)
        survey(suite, folder, options, _numbers(shards))


def _numbers(text: str | None) -> tuple[int, ...]:
    found: list[int] = []
    for part in filter(None, (one.strip() for one in (text or "").split(","))):
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or len(part) > 12:
            raise InputError(
                f"--shards {text!r} is no list of numbers.", "Give for example 0,1 or 3-7."
            )
        found += range(int(first), int(last or first) + 1)
    return tuple(found)


@app.command(epilog="Exit codes: 0 done; 1 the reading fails on these nets; 2 usage or input.")
def selftest(
    nets: Annotated[
        int, typer.Option(min=1, max=200, help="Nets that are trained for each place.")
    ] = 12,
    seed: SeedOption = 0,
    jobs: JobsOption = None,
    json: JsonOption = None,
    html: HtmlOption = None,
    quiet: QuietOption = False,
    force: ForceOption = False,
) -> None:
    """Try the reading on small nets of a known regime.

    Trains them (half a minute; nothing is stored), reads each, and counts what it was called against
    where its c puts it.
    """
    check_outputs(json, html, force)
    from fls_bench import console, selftesting
    from fls_bench.cli.deliver import deliver

    with console.Progress(quiet) as listen:
        options = parse_options(listen, seed, 20, "10m", None, jobs, "cpu", None, True)
        made = selftesting.run_selftest(replace(options, fixed_seeds=nets))
    deliver(made, json, html, quiet, force)
    assert made.selftest is not None
    if made.selftest.failures:
        raise typer.Exit(1)
