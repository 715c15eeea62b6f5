"""Baselines: a suite's runs per seed, as committed JSON; found, read, written, and told apart."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fls_bench.errors import InputError
from fls_bench.files import check_target, packaged, read_stored, write_whole
from fls_bench.schema import (
    BASELINE_SCHEMA,
    Baseline,
    Cell,
    ClaimResult,
    Interval,
    Judgement,
    Outcome,
    Provenance,
    RecordedCase,
    RecordedCell,
    RecordedClaim,
    RecordedPart,
    Report,
    SeedResult,
    Side,
)

_MACHINE = ("python", "numpy", "platform", "cpu", "gpu")
_DIGITS = 7
"""Nets are trained in single precision; equal runs give equal text."""

# --- from a report --------------------------------------------------------------------------


def side_of_report(report: Report, name: str) -> Side:
    """A report as one side of a comparison.

    Args:
        report: One with a verdict and a sweep: of kind diagnose, suite or check.
        name: How the side is called.

    Returns:
        The side.

    Raises:
        InputError: The report holds no verdict with a sweep.
    """
    if report.cases:
        cases = [recorded_case(case, case.id) for case in report.cases]
    else:
        own_name = str(report.setup.get("name") or Path(str(report.input.get("path", name))).stem)
        cases = [recorded_case(report, own_name)]
    found = tuple(case for case in cases if case is not None)
    if not found:
        raise InputError(
            f"{name} holds no sweep over c, so there is nothing to compare.",
            "Give reports of diagnose or run, or a baseline.",
        )
    return Side(
        name=name, kind=report.kind, suite=_suite_text(report.suite),
        recorded=report.provenance.started, environment=environment_of(report.provenance),
        cases=found,
    )  # fmt: skip


def side_of_baseline(baseline: Baseline, name: str) -> Side:
    """A baseline as one side of a comparison."""
    return Side(
        name=name, kind="baseline", suite=_suite_text(baseline.suite), recorded=baseline.recorded,
        environment=baseline.environment, cases=baseline.cases,
    )  # fmt: skip


def baseline_of(report: Report, setup: str | None = None) -> Baseline:
    """What a report of a suite leaves as a baseline.

    Args:
        report: Of kind suite or check.
        setup: Name of the user's setup that stood in for the suite's cases.

    Returns:
        The baseline.

    Raises:
        InputError: The report is of another kind, or has no sweep.
    """
    if report.suite is None or not report.cases:
        raise InputError(
            f"A report of kind {report.kind} is no run of a suite.",
            "Record from a report of run or check.",
        )
    side = side_of_report(report, "this run")
    return Baseline(
        suite=report.suite, setup=setup, recorded=side.recorded, environment=side.environment,
        cases=side.cases, claims=tuple(recorded_claim(one) for one in report.claims),
    )  # fmt: skip


def environment_of(provenance: Provenance) -> dict[str, str]:
    """What rounding may depend on, by name."""
    given = {
        "fls-bench": provenance.version, "torch": provenance.torch, "blas": provenance.blas,
        "threads": provenance.threads, "device": provenance.device,
        **{key: provenance.extra.get(key) for key in _MACHINE},
    }  # fmt: skip
    return {key: str(value) for key, value in given.items() if value is not None}


def _suite_text(suite: Mapping[str, Any] | None) -> str | None:
    if suite is None:
        return None
    return f"{suite.get('name')}, version {suite.get('version')}, digest {str(suite.get('digest'))[:12]}"


def recorded_case(judgement: Judgement, id_: str) -> RecordedCase | None:
    """What is kept of a case; None where there was neither a sweep nor a verdict."""
    sweep, diagnosis = judgement.sweep, judgement.diagnosis
    if sweep is None or diagnosis is None:
        return None
    cells = tuple(
        recorded_cell(cell) for cell in sorted(sweep.cells, key=lambda one: (one.c, one.lr))
    )
    return RecordedCase(
        id=id_, regime=diagnosis.regime, c=diagnosis.c, c_star=diagnosis.c_star,
        log2_c_ratio=diagnosis.log2_c_ratio, gain=diagnosis.recommendation.expected_gain,
        axis=sweep.axis, error=sweep.error, n_test=sweep.n_test, setup=judgement.setup, cells=cells,
    )  # fmt: skip


def recorded_cell(cell: Cell) -> RecordedCell:
    """What is kept of a cell: values per seed, of the runs that reached the target."""
    runs = sorted(cell.seeds, key=lambda run: run.seed)
    rows = [_values(run) if run.outcome is Outcome.REACHED_TARGET else {} for run in runs]
    names = dict.fromkeys(name for row in rows for name in row)
    return RecordedCell(
        c=cell.c, lr=cell.lr, usable=cell.usable, seeds=tuple(run.seed for run in runs),
        missed={r.seed: r.outcome for r in runs if r.outcome is not Outcome.REACHED_TARGET},
        values={name: tuple(row.get(name) for row in rows) for name in names},
    )  # fmt: skip


def _values(run: SeedResult) -> dict[str, float]:
    own = ("epochs", "train_loss", "val_error", "val_loss", "test_error", "test_loss",
           "test_ties", "chance_error")  # fmt: skip
    found = {name: getattr(run, name) for name in own} | dict(run.measurements)
    return {k: _rounded(v) for k, v in found.items() if v is not None}


def recorded_claim(result: ClaimResult) -> RecordedClaim:
    """What is kept of a claim: its outcome, and the numbers that it was judged by."""
    parts = tuple(
        RecordedPart(
            name=part.name, setting=part.setting, outcome=part.outcome,
            estimate=None if part.estimate is None else _rounded_interval(part.estimate),
        )
        for part in result.parts
    )  # fmt: skip
    return RecordedClaim(claim=result.claim, outcome=result.outcome, parts=parts)


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def _rounded_interval(found: Interval) -> Interval:
    low, high = (None if k is None else _rounded(k) for k in (found.low, found.high))
    return Interval(value=_rounded(found.value), low=low, high=high, level=found.level)


# --- files ----------------------------------------------------------------------------------


def to_text(baseline: Baseline) -> str:
    """The baseline as JSON to commit: sorted, each metric's values over the seeds in one line."""
    value = baseline.model_dump(mode="json", by_alias=True)
    if not baseline.claims:  # of suites without claims it reads as it did before there were any
        del value["claims"]
    text = json.dumps(value, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
    # Within a string a line never ends, so that only lists of plain values are drawn together.
    row = re.compile(r"\[\n\s+([^\[\]{}]*?)\n\s+\]")
    return row.sub(lambda found: "[" + re.sub(r",\n\s+", ", ", found[1]) + "]", text) + "\n"


def read(path: str | Path) -> Baseline:
    """Read a baseline.

    Raises:
        InputError: It can't be read, is none, is damaged, or was written by a newer fls-bench.
    """
    return read_stored(path, {BASELINE_SCHEMA: Baseline}, "fls-bench baseline record SUITE")


def write(baseline: Baseline, path: Path, force: bool = False) -> Path:
    """Write a baseline, whole or not at all.

    Raises:
        InputError: The file exists and ``force`` is false, or the place can't be written.
    """
    check_target(path, force)
    return write_whole(path, to_text(baseline).encode())


@dataclass(frozen=True)
class Found:
    """A baseline and where it is from.

    Attributes:
        path: The file.
        where: ``given``, ``project`` (./baselines) or ``package``.
        baseline: What it holds.
    """

    path: Path
    where: str
    baseline: Baseline

    @property
    def shown(self) -> str:
        """The file as people know it: where a package is installed says nothing to them."""
        return f"{self.path.name} of the package" if self.where == "package" else str(self.path)


def find(suite: str, given: Path | None = None, *, own_setup: bool = False) -> Found | None:
    """The baseline of a suite: the file given, else ./baselines/SUITE.json, else the package's.

    Args:
        suite: The suite's name.
        given: A file that the user names.
        own_setup: Whether a user's setup stands in for the suite's cases; the package has no
            baseline of that.

    Returns:
        The baseline, or None where there is none.

    Raises:
        InputError: The file found can't be used.
    """
    if given is not None:
        return Found(given, "given", read(given))
    places = [(project_path(suite), "project")]
    if not own_setup and (folder := packaged_folder()) is not None:
        places.append((folder / f"{suite}.json", "package"))
    for path, where in places:
        if path.is_file():
            return Found(path, where, read(path))
    return None


def project_path(suite: str) -> Path:
    """Where a project keeps the baseline of a suite."""
    return Path("baselines") / f"{suite}.json"


def packaged_folder() -> Path | None:
    """The baselines that come with the package: inside of it, else beside the source tree."""
    return packaged("baselines")


def list_files() -> list[tuple[Path, str]]:
    """All baselines of the project and of the package, as (file, where)."""
    project = Path("baselines")
    found = [(path, "project") for path in sorted(project.glob("*.json"))]
    packaged = packaged_folder()
    if packaged is not None and packaged.resolve() != project.resolve():
        found += [(path, "package") for path in sorted(packaged.glob("*.json"))]
    return found


def mismatch(baseline: Baseline, suite: Mapping[str, Any], setup: str | None) -> str | None:
    """Why a run of a suite can't be compared with a baseline, or None.

    Args:
        baseline: The baseline.
        suite: name, version and digest of the suite now.
        setup: Name of the user's setup that stands in for its cases, or None.

    Returns:
        One sentence, or None.
    """
    recorded = baseline.suite or {}
    if recorded.get("name") != suite["name"]:
        return f"It is of the suite {recorded.get('name')!r}, not of {suite['name']!r}."
    if recorded.get("digest") != suite["digest"]:
        return (
            f"The suite has changed since: version {recorded.get('version')}, digest "
            f"{str(recorded.get('digest'))[:12]} then; version {suite['version']}, digest "
            f"{str(suite['digest'])[:12]} now."
        )
    other = setup_mismatch(baseline, setup)
    return None if other is None else f"It {other}."


def setup_mismatch(baseline: Baseline, setup: str | None) -> str | None:
    """What a baseline is of, and what a run is of, where that is not the same: a part of a sentence."""
    if baseline.setup == setup:
        return None
    then, now = (
        "the suite's own cases" if name is None else f"the setup {name!r}"
        for name in (baseline.setup, setup)
    )
    return f"was recorded with {then}, and this run is of {now}"
