"""The path of ``check`` and of the baselines: run a suite, compare it with what was recorded."""

from __future__ import annotations

from dataclasses import dataclass

from fls_bench import baselines, bench
from fls_bench.baselines import Found
from fls_bench.bench import Options
from fls_bench.errors import InputError
from fls_bench.schema import Comparison, Regime, Report
from fls_bench.suite import Suite
from fls_bench.training_setup import TrainingSetup
from fls_bench.verdict.comparison import compare_sides


@dataclass(frozen=True)
class Reference:
    """What a check is compared with.

    Attributes:
        found: The baseline, or None.
        obstacle: Why there is nothing to compare with, or None.
    """

    found: Found | None
    obstacle: str | None


def reference(suite: Suite, found: Found | None, setup: TrainingSetup | None) -> Reference:
    """Say before anything is trained whether a run can be compared.

    Args:
        suite: The suite.
        found: Its baseline, or None.
        setup: The user's setup that stands in for the suite's cases, or None.

    Returns:
        The baseline, and what stands in the way.
    """
    if found is None:
        return Reference(None, "There is no baseline yet.")
    name = None if setup is None else setup.name
    why = baselines.mismatch(found.baseline, bench.suite_facts(suite), name)
    return Reference(found, None if why is None else f"{found.path} is not comparable: {why}")


def check(
    suite: Suite, options: Options, against: Reference, setup: TrainingSetup | None = None
) -> Report:
    """Run a suite and compare it with a baseline.

    Args:
        suite: The suite.
        options: Seeds, budget, store.
        against: From ``reference``.
        setup: Replaces every case's task and model.

    Returns:
        A report of kind ``check``.

    Raises:
        InputError: The suite intervenes on ranks, or a case can't be set up.
    """
    if suite.intervention is not None:
        raise InputError(
            f"The suite {suite.name} intervenes on ranks: none of its runs is a setup as it is.",
            "Check a suite of sweeps.",
        )
    return compare_run(bench.run(suite, options, setup), suite, against)


def compare_run(made: Report, suite: Suite, against: Reference) -> Report:
    """Compare a finished run of a suite with a baseline.

    Args:
        made: Of kind suite.
        suite: The suite.
        against: From ``reference``.

    Returns:
        A report of kind ``check``.
    """
    now = baselines.side_of_report(made, "this run")
    found = against.found
    if found is None or against.obstacle is not None:
        status = "no_baseline" if found is None else "not_comparable"
        comparison = Comparison(
            status=status, text=str(against.obstacle), sides=(now,),
            baseline=None if found is None else str(found.path),
        )  # fmt: skip
        return made.model_copy(update={"kind": "check", "comparison": comparison})
    before = baselines.side_of_baseline(found.baseline, str(found.path))
    controls = frozenset(
        case.id
        for case in suite.cases
        if case.expect is not None and case.expect.regime is Regime.INCONCLUSIVE
    )
    pair = compare_sides(before, now, suite.gates, controls=controls)
    comparison = Comparison(
        status=pair.status, text=pair.text, baseline=str(found.path), sides=(before, now),
        pairs=(pair,),
    )  # fmt: skip
    return made.model_copy(update={"kind": "check", "comparison": comparison})
