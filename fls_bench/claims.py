"""Stored outcomes of the paper's claims: taken from a report, written, found and read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from fls_bench import __version__
from fls_bench.baselines import environment_of
from fls_bench.errors import InputError
from fls_bench.files import check_target, packaged, read_stored, write_whole
from fls_bench.schema import (
    CLAIMS_SCHEMA,
    REPORT_SCHEMA,
    ClaimsRecord,
    Provenance,
    Report,
    ScalingFit,
    Seed,
)
from fls_bench.suite.tables import Name

PROJECT_FOLDER = Path("baselines") / "claims"
_MADE_BY = "fls-bench claims --record REPORT"


def record_of(report: Report) -> ClaimsRecord:
    """What is kept of a report: its claims, with suite, date and machine.

    Args:
        report: Of a suite that tests claims.

    Returns:
        The record.

    Raises:
        InputError: The report tests no claim, or is of a small scale or of a suite without a name.
    """
    if report.claims and all(one.outcome == "not_run" for one in report.claims):
        raise InputError(
            "Nothing of the claim could be run, so there is no outcome to keep.",
            "See in the report what was missing.",
        )
    if not report.claims or report.suite is None:
        raise InputError(
            f"A report of kind {report.kind} without claims has no outcome to keep.",
            "Give the JSON of a suite that tests claims, such as 'fls-bench run theory --json FILE'.",
        )
    name = _name_of(report.suite)
    if name.endswith("-small"):
        raise InputError(
            f"{name} is a suite at its small scale, and outcomes are kept of the full one alone.",
            f"Give the JSON of 'fls-bench run {name.removesuffix('-small')} --json FILE'.",
        )
    return ClaimsRecord(
        suite=report.suite, recorded=report.provenance.started,
        environment=environment_of(report.provenance), seeds=_seeds_of(report),
        claims=report.claims,
    )  # fmt: skip


def _name_of(suite: Mapping[str, Any]) -> str:
    """The suite's name, which becomes that of a file: nothing but what a suite may be called."""
    try:
        name: str = TypeAdapter(Name).validate_python(suite.get("name"))
    except ValidationError:
        raise InputError(
            f"{str(suite.get('name'))[:80]!r} is no name of a suite, so that its outcome has no place.",
            "Give a report as 'fls-bench run SUITE --json FILE' wrote it.",
        ) from None
    return name


def _seeds_of(report: Report) -> tuple[Seed, Seed] | None:
    """First and last seed of the report's sweeps."""
    sweeps = [case.sweep for case in report.cases if case.sweep is not None]
    seeds = [run.seed for sweep in sweeps for cell in sweep.cells for run in cell.seeds]
    return (min(seeds), max(seeds)) if seeds else None


def write(record: ClaimsRecord, folder: Path, force: bool = False) -> Path:
    """Write a record under its suite's name; whole or not at all.

    Args:
        record: The record.
        folder: Made where it is missing.
        force: Whether an older record of the suite may be replaced.

    Returns:
        The file.

    Raises:
        InputError: It exists and ``force`` is false, can't be written, or its suite has no name.
    """
    path = folder / f"{_name_of(record.suite)}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"The folder {folder} can't be made: {error.strerror}.", "Name another with --folder."
        ) from None
    check_target(path, force)
    text = json.dumps(record.model_dump(mode="json", by_alias=True), indent=1, allow_nan=False)
    return write_whole(path, f"{text}\n".encode())


def find(folder: Path | None = None) -> tuple[list[ClaimsRecord], tuple[Path, ...]]:
    """All stored outcomes of a folder: the one given, else the project's and the package's.

    Of a suite that has an outcome in both, the project's stands for it.

    Args:
        folder: A folder of records, or None.

    Returns:
        (the records by suite, the folders that they are from).

    Raises:
        InputError: The given folder is missing, or a file in it can't be used.
    """
    if folder is not None and not folder.is_dir():
        raise InputError(f"There is no folder {folder}.", "Leave --folder out, or correct it.")
    of_package = packaged("baselines")
    places = [folder] if folder is not None else [
        PROJECT_FOLDER, *([] if of_package is None else [of_package / "claims"])
    ]  # fmt: skip
    found: list[ClaimsRecord] = []
    used = []
    for place in places:
        nearer = {one.suite.get("name") for one in found}
        read = [
            read_stored(path, {CLAIMS_SCHEMA: ClaimsRecord}, _MADE_BY)
            for path in (sorted(place.glob("*.json")) if place.is_dir() else [])
        ]
        # In the source tree the project's folder is the package's too, and adds nothing.
        if new := [one for one in read if one.suite.get("name") not in nearer]:
            found += new
            used.append(place)
    return sorted(found, key=lambda one: str(one.suite.get("name"))), tuple(used)


def page_of(records: Sequence[ClaimsRecord]) -> Report:
    """All stored outcomes as a report of kind suite, for the page.

    Args:
        records: From :func:`find`.

    Returns:
        The report; its provenance is that of the latest record.

    Raises:
        InputError: There is no record.
    """
    if not records:
        raise InputError("There are no stored outcomes to show.", f"Keep one with '{_MADE_BY}'.")
    latest = max(records, key=lambda one: one.recorded)
    env = latest.environment
    return Report(
        kind="suite",
        claims=tuple(sorted((c for one in records for c in one.claims), key=lambda c: c.claim)),
        provenance=Provenance(
            version=env.get("fls-bench", __version__), torch=env.get("torch"), blas=env.get("blas"),
            device=env.get("device", "cpu"), started=latest.recorded, seconds=0.0,
            extra={
                f"{one.suite.get('name')} {one.suite.get('version')}": one.recorded for one in records
            },
        ),
    )  # fmt: skip


def fits_in(path: Path) -> tuple[ScalingFit, ...]:
    """The scaling fits of a report or of a stored outcome.

    Args:
        path: JSON of ``run`` or of ``claims --record``.

    Returns:
        One or more fits.

    Raises:
        InputError: The file can't be used, or holds no fit.
    """
    kinds: dict[str, type[Report | ClaimsRecord]] = {
        REPORT_SCHEMA: Report, CLAIMS_SCHEMA: ClaimsRecord
    }  # fmt: skip
    found = read_stored(path, kinds, "fls-bench run scaling-law --json FILE")
    fits = tuple(fit for claim in found.claims for fit in claim.fits)
    if not fits:
        raise InputError(
            f"{path} holds no fit of c* over width and training points.",
            "Give the JSON of 'fls-bench run scaling-law --json FILE'.",
        )
    return fits
