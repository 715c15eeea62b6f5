"""The verdict on a training setup, and everything that it rests on."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from fls_bench.schema.base import Code, Frozen, Interval, Measured, PositiveFloat, Share
from fls_bench.schema.readings import Reading
from fls_bench.schema.recipes import LrRule, RankMeasure, RankPenalty
from fls_bench.schema.runs import Measurement
from fls_bench.schema.states import Outcome, Regime, Tier

Axis = Literal["output_multiplier", "init_scale"]


class CStar(Interval):
    """The best output multiplier; ``low`` and ``high`` bound the set of c that may be the best."""

    value: PositiveFloat
    low: PositiveFloat | None
    high: PositiveFloat | None
    at_edge: Literal["none", "low", "high"] = "none"


class Gain(Frozen):
    """Expected change of test accuracy, in points of percent, from following the recommendation."""

    value: float
    low: float
    high: float
    unit: str = "percentage points of test accuracy"
    num_seeds: int
    split: Literal["test"] = "test"
    level: float = 0.95


class Finding(Frozen):
    """Something that the evidence says, beside the regime."""

    code: str
    status: Literal["info", "warning", "problem"]
    text: str
    evidence: dict[str, Any] = {}


class Recommendation(Frozen):
    """What to change, in numbers and in words; ``snippet`` is code to paste."""

    multiply_output_by: PositiveFloat | None = None
    multiply_init_by: PositiveFloat | None = None
    """Where the init scale was swept: the factor on the initial weights, in place of the output."""
    learning_rate: tuple[float, float] | None = None
    """(rate now, rate after the recommended change); for nets with parameter groups that of most."""
    expected_gain: Gain | None = None
    text: str
    snippet: str | None = None


class Diagnosis(Frozen):
    """The verdict on one training setup."""

    regime: Regime
    evidence_tier: Tier
    method: Literal["intervention", "observation", "none"]
    mechanism: Code | None = None
    """Over-aligned: class_mean_alignment, rank_collapse or undetermined. Over-fitted: the face,
    initial_function_noise, lazy or undetermined."""
    reason: Code
    probabilities: dict[str, float] | None = None
    log2_c_ratio: Interval | None = None
    """log2(c / c*): negative = toward over-aligned. For an init scale, c = alpha^L."""
    c: PositiveFloat | None = None
    c_star: CStar | None = None
    recommendation: Recommendation
    findings: tuple[Finding, ...] = ()


class SeedResult(Frozen):
    """One run as listed in a sweep's cell."""

    seed: int
    outcome: Outcome
    epochs: int
    train_loss: Measured | None = None
    val_error: Share | None = None
    val_loss: Measured | None = None
    test_error: Share | None = None
    test_loss: Measured | None = None
    test_ties: Share | None = None
    chance_error: Share | None = None
    measurements: dict[str, Measured] = {}
    message: str | None = None


class Cell(Frozen):
    """All runs at one output multiplier and learning rate."""

    c: PositiveFloat
    """The value on the sweep's axis: the output multiplier, or the init scale."""
    lr: PositiveFloat
    lr_calibrated: bool = False
    """True where the rule's rate failed and another was chosen on training behaviour."""
    usable: bool = True
    """False where too few runs reached the target to judge this c; then ``reason`` says so."""
    reason: str | None = None
    seeds: tuple[SeedResult, ...]


class Sweep(Frozen):
    """Runs over the output multiplier (or the init scale), paired by seed."""

    axis: Axis = "output_multiplier"
    centered: bool = False
    lr_rule: LrRule
    error: Literal["error", "balanced_error"] = "error"
    """What ``val_error`` and ``test_error`` are: balanced, the mean over classes of the error in each,
    where the classes are of very different size."""
    n_test: int
    level: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Family-wise error rate at which this sweep's regime was decided (its last look's share)."""
    cells: tuple[Cell, ...]


class RateComparison(Frozen):
    """c* at its best learning rate against another c at its own best rate: is it only the rate?"""

    c: PositiveFloat
    c_star: PositiveFloat
    lr_at_c: PositiveFloat
    lr_at_c_star: PositiveFloat
    rates_tried: tuple[float, ...]
    """Factors on the rule's rate that were tried at both."""
    gain: Gain
    text: str


class Skipped(Frozen):
    """What was not done, and why."""

    what: str
    code: str
    reason: str


class Cost(Frozen):
    """What the verdict cost; ``budget_bound`` says whether the budget cut it short."""

    replica_epochs: int = 0
    num_runs: int = 0
    budget_replica_epochs: int | None = None
    budget_bound: bool = False


class Provenance(Frozen):
    """Times and machine facts: the only part of a report that may differ between two equal runs."""

    version: str
    torch: str | None = None
    blas: str | None = None
    threads: int | None = None
    device: str = "cpu"
    started: str
    seconds: float
    extra: dict[str, str] = {}


class InterventionRow(Frozen):
    """Nets trained alike: at one c, under the same penalties on their ranks."""

    name: str
    c: PositiveFloat
    penalties: tuple[RankPenalty, ...] = ()
    misdirected: bool = False
    num_seeds: int
    num_reached: int
    """Runs that reached the target; the others are listed in ``seeds`` and judged nowhere."""
    accuracy: Interval | None = None
    """Mean test accuracy over seeds, in 0 .. 1."""
    share: Interval | None = None
    """(accuracy - that at the small c) / (that at c* - that at the small c), all without penalty but
    the first; for a row at c*, what it takes: (that at c* - accuracy) / the same gap. Bounds are
    None where the gap itself is not told from 0."""
    gap_closed: Interval | None = None
    """1 - (the gap between this row and the row under the same penalties at c*) / (the plain gap)."""
    ranks: tuple[float, ...] = ()
    """Rank of each hidden layer on minibatches at the stop, geometric mean over seeds."""
    targets: tuple[float | None, ...] = ()
    """What the penalties aim at, likewise; None where a layer is left alone."""
    held: bool | None = None
    """Whether every penalised layer ended within a tenth of its target, or beyond it; None where
    nothing was to be held."""
    seeds: tuple[SeedResult, ...] = ()
    text: str


class Intervention(Frozen):
    """What a penalty on the rank of hidden layers does to the error that a small c costs."""

    measure: RankMeasure
    c_star: PositiveFloat
    c_low: PositiveFloat
    rows: tuple[InterventionRow, ...]
    text: str


class Judgement(Frozen):
    """A diagnosis with everything that it rests on."""

    diagnosis: Diagnosis | None = None
    measurements: tuple[Measurement, ...] = ()
    reading: Reading | None = None
    """The regime as it is read from the model that was given, before any sweep."""
    sweep: Sweep | None = None
    centered_sweep: Sweep | None = None
    plain_sweep: Sweep | None = None
    """For nets with normalisation layers: the same c under YHL's plain eta/c on all parameters."""
    rate_comparisons: tuple[RateComparison, ...] = ()
    intervention: Intervention | None = None
    """For the case of a suite that intervenes on ranks."""
    skipped: tuple[Skipped, ...] = ()
    setup: dict[str, Any] = {}
    """What was judged, as plain values: name, model, task, optimizer, stop, ..."""
    input: dict[str, Any] = {}
    """The file that was read: path, sha256, num_parameters, train_loss (measured by us), ..."""
    cost: Cost = Cost()


class CaseResult(Judgement):
    """One case of a suite."""

    id: str
    expect: dict[str, str] = {}
    met: bool | None = None
    """Whether the expectation held; None where there was none."""
