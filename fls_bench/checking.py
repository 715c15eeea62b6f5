"""The path of ``check`` and of the baselines: run a suite, compare it with what was recorded."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from fls_bench import baselines, bench
from fls_bench.baselines import Found
from fls_bench.bench import Options
from fls_bench.errors import InputError, RunFailedError
from fls_bench.report.comparison import claim_name, estimate_text
from fls_bench.schema import (
    OUTCOME_WORDS,
    Baseline,
    ClaimDifference,
    ClaimOutcome,
    Comparison,
    Interval,
    Pair,
    RecordedClaim,
    RecordedPart,
    Regime,
    Report,
)
from fls_bench.suite import Suite
from fls_bench.training_setup import TrainingSetup
from fls_bench.verdict.comparison import compare_sides


@dataclass(frozen=True)
class Reference:
    """What a check is compared with.

    Attributes:
        found: The baseline, or None.
        obstacle: Why there is nothing to compare with, or None.
        other_setup: Whether the file is taken: it is of another setup, or of the suite's own cases.
    """

    found: Found | None
    obstacle: str | None
    other_setup: bool = False

    def remedy(self, target: str) -> str:
        """The command that makes one, for a suite, setup and file as a command line takes them."""
        if self.found is None:
            return f"Record one with 'fls-bench baseline record {target}'."
        if self.other_setup:
            return (
                f"Record one of its own with 'fls-bench baseline record {target} --file FILE', and name "
                "it with --baseline."
            )
        return f"See what changed, and replace it, with 'fls-bench baseline bless {target}'."


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
    obstacle = None if why is None else f"{found.shown} is not comparable: {why}"
    return Reference(found, obstacle, why is not None and found.baseline.setup != name)


def seed_of(found: Found | None) -> int:
    """The ``--seed`` that gives the seeds of a baseline, so that runs can be paired with its own."""
    seeds = [seed for case in found.baseline.cases for cell in case.cells for seed in cell.seeds] if (
        found is not None
    ) else []  # fmt: skip
    return max(0, (min(seeds) - bench.FIRST_SEED) // bench.SEEDS_APART) if seeds else 0


def refuse_unfit(suite: Suite, alone: bool = False) -> None:
    """Refuse a suite that can't be compared, before it is run.

    Args:
        suite: The suite.
        alone: Whether a setup of the user's stands in for all of its cases.

    Raises:
        InputError: The suite intervenes on ranks, or has too few seeds for its gates.
    """
    cases = suite.cases[:1] if alone else suite.cases
    if why := suite.model_copy(update={"cases": cases}).too_few_seeds:
        raise InputError(f"The suite {suite.name} can't be checked: {why}.", "Change its file.")
    if suite.intervention is not None:
        raise InputError(
            f"The suite {suite.name} intervenes on ranks: none of its runs is a setup as it is.",
            "Take a suite of sweeps.",
        )


def controls_of(suite: Suite) -> frozenset[str]:
    """Ids of the cases that must stay undecided, such as random labels."""
    return frozenset(
        case.id
        for case in suite.cases
        if case.expect is not None and case.expect.regime is Regime.INCONCLUSIVE
    )


def weak_points(made: Report, baseline: Baseline) -> list[str]:
    """What a baseline can't be compared with, in words, for whoever records it."""
    kept = {case.id for case in baseline.cases}
    lines = [f"{k.id}: not swept, and not in the baseline" for k in made.cases if k.id not in kept]
    bound = [case.id for case in made.cases if case.cost.budget_bound]
    lines += [f"{name}: the budget cut the sweep short" for name in bound]
    for case in baseline.cases:
        own = case.own
        if case.regime is Regime.INCONCLUSIVE:
            lines.append(
                f"{case.id}: its verdict is inconclusive, so that no change of regime can be seen"
            )
        if own is None:
            lines.append(
                f"{case.id}: no runs at the setup's own c, so that no metric can be compared"
            )
        elif own.missed:
            lines.append(
                f"{case.id}: {len(own.missed)} of {len(own.seeds)} runs missed the target and leave no "
                "numbers"
            )
    lines += [
        f"{one.claim}: it is {OUTCOME_WORDS[one.outcome]}, so that no change of its outcome can be seen"
        for one in baseline.claims
        if one.outcome in ("undecided", "not_run")
    ]
    return lines


def check(
    suite: Suite,
    options: Options,
    against: Reference,
    setup: TrainingSetup | None = None,
    target: str | None = None,
) -> Report:
    """Run a suite and compare it with a baseline.

    Args:
        suite: The suite.
        options: Seeds, budget, store.
        against: From ``reference``.
        setup: Replaces every case's task and model.
        target: The suite, setup and file as a command line takes them.

    Returns:
        A report of kind ``check``.

    Raises:
        InputError: The suite intervenes on ranks, or a case can't be set up.
    """
    refuse_unfit(suite, setup is not None)
    return compare_run(bench.run(suite, options, setup), suite, against, target)


def compare_run(
    made: Report, suite: Suite, against: Reference, target: str | None = None
) -> Report:
    """Compare a finished run of a suite with a baseline.

    Args:
        made: Of kind suite.
        suite: The suite.
        against: From ``reference``.
        target: The suite, setup and file as a command line takes them.

    Returns:
        A report of kind ``check``.

    Raises:
        RunFailedError: No case was swept.
    """
    if not any(case.sweep is not None and case.diagnosis is not None for case in made.cases):
        raise RunFailedError(
            "No case was swept, so there is nothing to compare: the budget may not pay for one.",
            "Give a larger --budget.",
        )
    now = baselines.side_of_report(made, "this run")
    found = against.found
    if found is None or against.obstacle is not None:
        status = "not_comparable"
        if found is None or against.other_setup:
            status = "no_baseline"
        if against.other_setup and target:
            target = f"{target} --file FILE"
        comparison = Comparison(
            status=status, text=str(against.obstacle), sides=(now,),
            baseline=None if found is None else found.shown, target=target,
        )  # fmt: skip
        return made.model_copy(update={"kind": "check", "comparison": comparison})
    before = baselines.side_of_baseline(found.baseline, found.shown)
    pair = with_claims(
        compare_sides(before, now, suite.gates, controls=controls_of(suite), whole=True),
        compare_claims(
            found.baseline.claims, [baselines.recorded_claim(one) for one in made.claims]
        ),
    )
    comparison = Comparison(
        status=pair.status, text=pair.text, baseline=found.shown, sides=(before, now),
        pairs=(pair,), target=target,
    )  # fmt: skip
    return made.model_copy(update={"kind": "check", "comparison": comparison})


# --- claims ---------------------------------------------------------------------------------


def compare_claims(
    before: Sequence[RecordedClaim], after: Sequence[RecordedClaim]
) -> tuple[ClaimDifference, ...]:
    """What became of claims since they were recorded: each as a whole, and what decides it.

    Args:
        before: What the baseline holds.
        after: What the run found.

    Returns:
        One difference for each claim, and for each number that it is judged by on either side.
    """
    old, new = ({one.claim: one for one in side} for side in (before, after))
    found: list[ClaimDifference] = []
    for name in sorted({*old, *new}):
        one, two = old.get(name), new.get(name)
        if one is None or two is None:
            side = "the baseline" if one is None else "this run"
            found.append(
                ClaimDifference(
                    claim=name, before=one and one.outcome, after=two and two.outcome,
                    status="inconclusive", text=f"{side} has no outcome of it",
                )
            )  # fmt: skip
            continue
        status, text = _turned(one.outcome, two.outcome)
        found.append(
            ClaimDifference(
                claim=name, before=one.outcome, after=two.outcome, status=status, text=text
            )
        )
        first, second = _by_name(one.parts), _by_name(two.parts)
        for key in dict.fromkeys([*first, *second]):
            a, b = first.get(key), second.get(key)
            outcomes = a and a.outcome, b and b.outcome
            if outcomes == (None, None):
                continue
            status, text = _part_turned(a, b)
            found.append(
                ClaimDifference(
                    claim=name, part=key[0], setting=key[1], before=outcomes[0], after=outcomes[1],
                    estimate_before=a and a.estimate, estimate_after=b and b.estimate,
                    status=status, text=text,
                )
            )  # fmt: skip
    return tuple(found)


def _by_name(parts: Sequence[RecordedPart]) -> dict[tuple[str, str, int], RecordedPart]:
    """Parts by name, setting and, where two have the same, their order."""
    seen: Counter[tuple[str, str]] = Counter()
    found = {}
    for part in parts:
        key = (part.name, part.setting)
        found[*key, seen[key]] = part
        seen[key] += 1
    return found


def _turned(before: ClaimOutcome, after: ClaimOutcome) -> tuple[str, str]:
    was, now = OUTCOME_WORDS[before], OUTCOME_WORDS[after]
    if before == after:
        return "same", f"{now} as before"
    text = f"was {was}, is {now} now"
    if {before, after} == {"reproduced", "not_reproduced"}:
        return "changed", text
    return ("decided_now" if before == "undecided" else "inconclusive"), text


def _part_turned(before: RecordedPart | None, after: RecordedPart | None) -> tuple[str, str]:
    if before is None or after is None:
        there = "this run" if before is None else "the baseline"
        return "inconclusive", f"only {there} is judged by it"
    if before.outcome is None or after.outcome is None:
        ways = ["decides" if one.outcome else "is shown alone" for one in (before, after)]
        return "inconclusive", f"it {ways[0]} in the baseline, and {ways[1]} in this run"
    status, text = _turned(before.outcome, after.outcome)
    old, new = before.estimate, after.estimate
    if status == "changed" or old is None:
        return status, text
    if new is None:
        return "inconclusive", f"was {estimate_text(old)}, is not measured now"
    if _apart(old, new):
        numbers = f"was {estimate_text(old)}, is {estimate_text(new)} now"
        return "changed", f"{numbers}: the intervals have nothing in common"
    return status, text


def _apart(first: Interval, second: Interval) -> bool:
    """Whether two intervals have nothing in common, by more than rounding; an open end has no bound."""
    bounds = [k for one in (first, second) for k in (one.low, one.high) if k is not None]
    (a, b), (c, d) = (
        (-math.inf if one.low is None else one.low, math.inf if one.high is None else one.high)
        for one in (first, second)
    )
    return max(a - d, c - b) > max(1e-9, 1e-6 * max(map(abs, bounds), default=0.0))


def with_claims(pair: Pair, claims: tuple[ClaimDifference, ...]) -> Pair:
    """A comparison of runs, and what became of the claims that they test, as one result.

    Args:
        pair: From ``compare_sides``.
        claims: From ``compare_claims``.

    Returns:
        The pair with the worse of both results; as it was where there is no claim.
    """
    if not claims:
        return pair
    lines = {
        status: [f"{claim_name(one)} {one.text}" for one in claims if one.status == status]
        for status in ("changed", "inconclusive", "decided_now")
    }
    status, text = pair.status, f"{pair.text} No change of {', '.join(_named(claims))}."
    if lines["changed"]:
        status = "regression"
        text = f"Regression: {_first(lines['changed'])}. Beside the claims: {pair.text}"
    elif lines["inconclusive"]:
        status = "inconclusive" if pair.status == "no_regression" else pair.status
        text = f"Open: {_first(lines['inconclusive'])}. Beside the claims: {pair.text}"
    elif lines["decided_now"]:
        text = f"{pair.text} Decided now: {_first(lines['decided_now'])}."
    return pair.model_copy(update={"status": status, "text": text, "claims": claims})


def _named(claims: Sequence[ClaimDifference]) -> list[str]:
    return list(dict.fromkeys(one.claim for one in claims))


def _first(lines: Sequence[str]) -> str:
    return "; ".join(lines[:3]) + (f" (and {len(lines) - 3} more)" if len(lines) > 3 else "")
