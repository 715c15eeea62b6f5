"""The path of ``compare``: stored files -> sides -> differences -> a Report. Loads no torch."""

from __future__ import annotations

import datetime
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from fls_bench import __version__, baselines
from fls_bench.errors import InputError
from fls_bench.files import read_stored
from fls_bench.gates import DEFAULT_GATES, REACHED
from fls_bench.schema import (
    BASELINE_SCHEMA,
    REPORT_SCHEMA,
    Baseline,
    Comparison,
    Gate,
    Provenance,
    Report,
    Side,
)
from fls_bench.suite import load_suite
from fls_bench.verdict.comparison import compare_sides

# The error alone has a share of the level: more would leave few seeds nothing to decide with.
GATES: Mapping[str, Gate] = {name: DEFAULT_GATES[name] for name in (REACHED, "test_error")}


def compare_files(paths: Sequence[Path]) -> Report:
    """Compare stored reports and baselines with the first of them.

    Where all are runs of one suite that is installed, its gates are judged; else the test error, and
    whether runs reach their target. Every pair has the whole level for itself.

    Args:
        paths: Two files or more.

    Returns:
        A report of kind ``compare``.

    Raises:
        InputError: A file can't be read or holds no sweep, or fewer than two are given.
    """
    started, clock = time.perf_counter(), datetime.datetime.now(datetime.UTC)
    if len(paths) < 2:
        raise InputError("There is one file to compare.", "Give two or more.")
    sides, suites = zip(*(_side(path, _name(path, paths)) for path in paths), strict=True)
    gates = _gates(suites)
    pairs = tuple(compare_sides(sides[0], side, gates) for side in sides[1:])
    statuses = [pair.status for pair in pairs]
    order = ("regression", "inconclusive", "no_regression", "not_comparable")
    return Report(
        kind="compare",
        comparison=Comparison(
            status=next(status for status in order if status in statuses),
            text=" ".join(f"{pair.name} against {sides[0].name}: {pair.text}" for pair in pairs),
            sides=sides,
            pairs=pairs,
        ),
        provenance=Provenance(
            version=__version__, started=clock.isoformat(timespec="seconds"),
            seconds=round(time.perf_counter() - started, 2),
        ),
    )  # fmt: skip


def _side(path: Path, name: str) -> tuple[Side, Mapping[str, object] | None]:
    models: dict[str, type[Report] | type[Baseline]] = {
        REPORT_SCHEMA: Report, BASELINE_SCHEMA: Baseline
    }  # fmt: skip
    found = read_stored(path, models, "fls-bench diagnose MODEL --json FILE")
    if isinstance(found, Baseline):
        return baselines.side_of_baseline(found, name), found.suite
    return baselines.side_of_report(found, name), found.suite


def _name(path: Path, paths: Sequence[Path]) -> str:
    """The file's name; with its place where two have the same."""
    alike = sum(other.name == path.name for other in paths) > 1
    return str(path) if alike else path.name


def _gates(suites: Sequence[Mapping[str, object] | None]) -> Mapping[str, Gate]:
    digests = {None if suite is None else str(suite.get("digest")) for suite in suites}
    if len(digests) > 1 or suites[0] is None:
        return GATES
    try:
        suite = load_suite(str(suites[0].get("name")))
    except InputError:
        return GATES
    return suite.gates if {suite.digest} == digests else GATES
