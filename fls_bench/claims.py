"""Stored outcomes of the paper's claims: taken from a report, written, found and read."""

from __future__ import annotations

import json
from pathlib import Path

from fls_bench.baselines import environment_of
from fls_bench.errors import InputError
from fls_bench.files import check_target, packaged, read_stored, write_whole
from fls_bench.schema import (
    CLAIMS_SCHEMA,
    REPORT_SCHEMA,
    ClaimsRecord,
    Report,
    ScalingFit,
)

PROJECT_FOLDER = Path("baselines") / "claims"
_MADE_BY = "fls-bench claims --record REPORT"


def record_of(report: Report) -> ClaimsRecord:
    """What is kept of a report: its claims, with suite, date and machine.

    Args:
        report: Of a suite that tests claims.

    Returns:
        The record.

    Raises:
        InputError: The report tests no claim.
    """
    if not report.claims or report.suite is None:
        raise InputError(
            f"A report of kind {report.kind} without claims has no outcome to keep.",
            "Give the JSON of a suite that tests claims, such as 'fls-bench run theory --json FILE'.",
        )
    return ClaimsRecord(
        suite=report.suite, recorded=report.provenance.started,
        environment=environment_of(report.provenance), claims=report.claims,
    )  # fmt: skip


def write(record: ClaimsRecord, folder: Path, force: bool = False) -> Path:
    """Write a record under its suite's name; whole or not at all.

    Args:
        record: The record.
        folder: Made where it is missing.
        force: Whether an older record of the suite may be replaced.

    Returns:
        The file.

    Raises:
        InputError: It exists and ``force`` is false, or can't be written.
    """
    path = folder / f"{record.suite['name']}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"The folder {folder} can't be made: {error.strerror}.", "Name another with --folder."
        ) from None
    check_target(path, force)
    text = json.dumps(record.model_dump(mode="json", by_alias=True), indent=1, allow_nan=False)
    return write_whole(path, f"{text}\n".encode())


def find(folder: Path | None = None) -> tuple[list[ClaimsRecord], Path | None]:
    """All stored outcomes, by suite, of a folder: the one given, else the project's, else the package's.

    Args:
        folder: A folder of records, or None.

    Returns:
        (the records, the folder they are from; None where there is none).

    Raises:
        InputError: The given folder is missing, or a file in it can't be used.
    """
    if folder is not None and not folder.is_dir():
        raise InputError(f"There is no folder {folder}.", "Leave --folder out, or correct it.")
    of_package = packaged("baselines")
    places = [folder] if folder is not None else [
        PROJECT_FOLDER, *([] if of_package is None else [of_package / "claims"])
    ]  # fmt: skip
    for place in places:
        if files := sorted(place.glob("*.json")) if place.is_dir() else []:
            return [
                read_stored(path, {CLAIMS_SCHEMA: ClaimsRecord}, _MADE_BY) for path in files
            ], place
    return [], None


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
