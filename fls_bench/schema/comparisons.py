"""What two or more recordings differ in, and which of the differences matter."""

from __future__ import annotations

from typing import Literal

from fls_bench.schema.base import Frozen, Interval
from fls_bench.schema.baselines import Better, RecordedCase
from fls_bench.schema.claims import ClaimName, ClaimOutcome
from fls_bench.schema.judgements import Skipped
from fls_bench.schema.states import Regime

DifferenceStatus = Literal["regressed", "improved", "held", "inconclusive", "shown"]
PairStatus = Literal["regression", "no_regression", "inconclusive", "not_comparable"]


class SampleMean(Frozen):
    """A mean over seeds with its own 95 % Student-t interval; None for a single seed."""

    value: float
    low: float | None
    high: float | None
    n: int


class MetricDifference(Frozen):
    """One metric at the setup's own c: after - before, over seeds."""

    case: str
    metric: str
    unit: str
    better: Better | None
    gated: bool
    """Whether it counts; the others are shown, each with an interval of its own."""
    exact: bool = False
    """Whether it is compared seed by seed, by tolerance."""
    paired: bool
    """Over seeds that both have; else two independent samples."""
    before: SampleMean | None
    """Over the pairs where there are any, else over all seeds of that side."""
    after: SampleMean | None
    difference: Interval | None
    """``level`` is what is left of 95 % after correction over everything that is gated."""
    n: int
    """Pairs of seeds; of independent samples the smaller number."""
    min_effect: float | None = None
    """Practical minimum, in the metric's unit."""
    detectable: float | None = None
    """Of an inconclusive one: the smallest true difference that is found in four of five cases."""
    status: DifferenceStatus
    text: str


class RegimeDifference(Frozen):
    """The verdict of a case before and after.

    A change needs two decided verdicts whose intervals of log2(c/c*) have nothing in common: a
    setup at the border of two regimes may fall on either side by chance.
    """

    case: str
    before: Regime
    after: Regime
    ratio_before: Interval | None
    ratio_after: Interval | None
    status: Literal["same", "changed", "improved", "within_noise", "inconclusive", "decided_now"]
    text: str


class ClaimDifference(Frozen):
    """A claim of the paper, or a number that it was judged by, before and after.

    A change is an outcome that turned to its contrary, or an interval that has nothing in common with
    the recorded one.
    """

    claim: ClaimName
    part: str = ""
    """What was measured; empty for the claim as a whole."""
    setting: str = ""
    before: ClaimOutcome | None
    """None where that side has no such claim or number, or it did not decide there."""
    after: ClaimOutcome | None
    estimate_before: Interval | None = None
    estimate_after: Interval | None = None
    status: Literal["same", "changed", "inconclusive", "decided_now"]
    text: str


class Different(Frozen):
    """A fact that differs."""

    name: str
    before: str
    after: str


class Side(Frozen):
    """One of the recordings that are compared."""

    name: str
    """How it is called: a file's name, or ``this run``."""
    kind: str
    """baseline, or the kind of report."""
    suite: str | None = None
    """Name, version and digest in short."""
    recorded: str
    environment: dict[str, str] = {}
    cases: tuple[RecordedCase, ...] = ()


class Pair(Frozen):
    """One side against the first."""

    name: str
    """The side's name."""
    status: PairStatus
    text: str
    level: float
    """Chance of any false alarm over everything that is gated, both directions taken together."""
    num_tests: int
    """How many intervals shared it."""
    matched: tuple[tuple[str, str], ...] = ()
    """Ids of the cases that were compared: (of the first side, of this one)."""
    regimes: tuple[RegimeDifference, ...] = ()
    metrics: tuple[MetricDifference, ...] = ()
    claims: tuple[ClaimDifference, ...] = ()
    """For a check of a suite that tests claims."""
    skipped: tuple[Skipped, ...] = ()
    """What is not comparable, and why."""
    environment: tuple[Different, ...] = ()
    setup: tuple[Different, ...] = ()


class Comparison(Frozen):
    """Setups side by side; the first is what the others are compared with."""

    status: Literal["regression", "no_regression", "inconclusive", "not_comparable", "no_baseline"]
    text: str
    baseline: str | None = None
    """For a check: the file that it was compared with."""
    target: str | None = None
    """For a check: the suite, setup and file as a command line takes them."""
    sides: tuple[Side, ...] = ()
    pairs: tuple[Pair, ...] = ()
