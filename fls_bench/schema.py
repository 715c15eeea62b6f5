"""Frozen values that are stored or that cross a layer, and their JSON form.

Everything in here is plain data: no tensors, no callables, no file access. Numbers are finite by
construction (``allow_inf_nan=False``): what was not measured is ``None`` with a status and a reason.
"""

from __future__ import annotations

import hashlib
import json
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

REPORT_SCHEMA = "fls-bench/report/1"
BUNDLE_SCHEMA = "fls-bench/bundle/1"

DIRECTION = "smaller c = larger FLS = toward over-aligned"


class Frozen(BaseModel):
    """A value that can't be changed, has no unknown fields and holds finite numbers only."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )


def canonical_digest(value: Any) -> str:
    """SHA-256 of the canonical JSON (sorted keys, no spaces) of a plain value, in hex."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


# --- states ---------------------------------------------------------------------------------


class Outcome(StrEnum):
    """How one training run ended."""

    REACHED_TARGET = "reached_target"
    OUT_OF_BUDGET = "out_of_budget"
    PLATEAU = "plateau"
    DIVERGED = "diverged"
    FAILED = "failed"

    @property
    def sentence(self) -> str:
        """One sentence for a person."""
        return {
            Outcome.REACHED_TARGET: "Training reached its target.",
            Outcome.OUT_OF_BUDGET: "Training was still improving when its epochs ran out.",
            Outcome.PLATEAU: "Training stopped improving before it reached its target.",
            Outcome.DIVERGED: "Training diverged: the loss grew without bound or became NaN.",
            Outcome.FAILED: "Training failed with an error.",
        }[self]


class Regime(StrEnum):
    """On which side of the best feature learning strength a training setup lies."""

    OVER_ALIGNED = "over_aligned"
    NEAR_OPTIMAL = "near_optimal"
    OVER_FITTED = "over_fitted"
    INCONCLUSIVE = "inconclusive"

    @property
    def label(self) -> str:
        """The name with a hyphen, as shown on screen."""
        return self.value.replace("_", "-")

    @property
    def sentence(self) -> str:
        """One sentence for a person."""
        return {
            Regime.OVER_ALIGNED: (
                "Feature learning is too strong (c is too small): a larger output multiplier "
                "generalizes better."
            ),
            Regime.NEAR_OPTIMAL: (
                "The output multiplier is near its optimum: no other c in the range does better by "
                "more than the practical margin."
            ),
            Regime.OVER_FITTED: (
                "Feature learning is too weak (c is too large): a smaller output multiplier "
                "generalizes better."
            ),
            Regime.INCONCLUSIVE: "The evidence can't separate the regimes.",
        }[self]


class Tier(StrEnum):
    """How much evidence there was, from the weights alone up to a recipe that can be re-run."""

    T0 = "T0"
    T1 = "T1"
    T2 = "T2"
    T3 = "T3"

    @property
    def sentence(self) -> str:
        """One sentence for a person."""
        return {
            Tier.T0: "Weights alone: the output scale can't be seen from weights.",
            Tier.T1: "Weights and data.",
            Tier.T2: "Weights, data and the initial weights.",
            Tier.T3: "Weights, data, initial weights and a training recipe: c can be swept.",
        }[self]


# --- training recipes -----------------------------------------------------------------------

PositiveFloat = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Measured = Annotated[float, Field(ge=-1e100, le=1e100)]
"""Nothing that is measured comes near; beyond, squares leave the range of floating point numbers."""
Seed = Annotated[int, Field(ge=0, lt=2**63)]
"""What torch takes as a seed."""


class Cosine(Frozen):
    """Half a cosine from the full rate down to ``final`` times it, one value per epoch."""

    kind: Literal["cosine"] = "cosine"
    epochs: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Its length, after which the rate stays; None: the most epochs of the stopping rule."""
    final: Annotated[float, Field(ge=0, lt=1)] = 0.0


class StepDecay(Frozen):
    """The rate times ``factor`` after every so many epochs."""

    kind: Literal["step"] = "step"
    every: Annotated[int, Field(ge=1, le=1_000_000)]
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1


Schedule = Annotated[Cosine | StepDecay, Field(discriminator="kind")]


class _Optimizer(Frozen):
    """``lr`` is the rate at the setup's own output multiplier."""

    lr: PositiveFloat = 0.1
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    clip_norm: PositiveFloat | None = None
    """The gradient is scaled down to this norm over all parameters where it is longer."""
    schedule: Schedule | None = None


class Sgd(_Optimizer):
    """Stochastic gradient descent; ``weight_decay`` is an L2 penalty."""

    kind: Literal["sgd"] = "sgd"
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    nesterov: bool = False

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Sgd:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs momentum > 0")
        return self


class Adam(_Optimizer):
    """Adam (arXiv 1412.6980); ``weight_decay`` is an L2 penalty, part of the gradient."""

    kind: Literal["adam"] = "adam"
    lr: PositiveFloat = 1e-3
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    epsilon: PositiveFloat = 1e-8


class AdamW(_Optimizer):
    """Adam with decoupled weight decay (arXiv 1711.05101): W -= lr·decay·W beside the step."""

    kind: Literal["adamw"] = "adamw"
    lr: PositiveFloat = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    epsilon: PositiveFloat = 1e-8


AnyOptimizer = Sgd | Adam | AdamW
Optimizer = Annotated[AnyOptimizer, Field(discriminator="kind")]


class TargetLoss(Frozen):
    """Stop the first time the loss on the whole training set, after an epoch, is <= the target."""

    target_loss: PositiveFloat = 0.1
    max_epochs: Annotated[int, Field(ge=1, le=1_000_000)] = 300

    def __init__(self, target_loss: float = 0.1, **others: Any) -> None:
        super().__init__(**{"target_loss": target_loss, **others})


class TargetAccuracy(Frozen):
    """Stop the first time the training accuracy, after an epoch, is >= the target."""

    target_accuracy: Annotated[float, Field(gt=0, le=1)] = 0.99
    max_epochs: Annotated[int, Field(ge=1, le=1_000_000)] = 300

    def __init__(self, target_accuracy: float = 0.99, **others: Any) -> None:
        super().__init__(**{"target_accuracy": target_accuracy, **others})


Stop = TargetLoss | TargetAccuracy
Loss = Literal["cross_entropy", "logistic", "mse"]
Augmentation = Literal["flip", "crop"]
"""``flip``: left to right in half of the cases. ``crop``: by up to four pixels, zeros come in."""
Axis = Literal["output_multiplier", "init_scale"]
MultiplierRoute = Literal["auto", "wrapper", "factory"]
LrRuleName = Literal["homogeneous", "normalised", "plain", "calibrated"]
LabelSmoothing = Annotated[float, Field(ge=0, lt=1)]


RankMeasure = Literal["nuclear", "participation"]
"""``nuclear``: (sum sigma)^2 / sum sigma^2, which sees the tail. ``participation``: of sigma^2."""
RankSide = Literal["hold", "lower"]


class RankPenalty(Frozen):
    """A loss term, strength · sum over layers of the squared logarithm of rank missed.

    ``hold``: max(0, log target - log rank), ``lower``: max(0, log rank - log target); the rank is that
    of the minibatch's centred features. It does not look at their scale, so the identity between c
    and the scale of the parameters holds with the strength unchanged.
    """

    layers: Literal["hidden", "last", "earlier"] = "hidden"
    """Every hidden layer, the last one, or all but the last."""
    side: RankSide = "hold"
    strength: PositiveFloat = 1.0
    offset: Annotated[float, Field(ge=-5, le=5)] = 0.0
    """Added to the logarithm of the target: beyond it, a penalty also acts on the net at c*."""


class RankTerm(Frozen):
    """Which ranks a run measures, and which penalties with which targets are added to its loss."""

    measure: RankMeasure = "nuclear"
    penalties: tuple[RankPenalty, ...] = ()
    """Empty: the ranks are only measured."""
    targets: dict[RankSide, dict[int, tuple[float, ...]]] = {}
    """Side -> seed -> log rank of each hidden layer: of another net of the same seed."""
    misdirected: bool = False
    """A control: the same gradient of the penalties, each weight's given to another weight."""


class LrRule(Frozen):
    """How the rates follow the output multiplier; formulas in ``fls_bench.scaling``.

    A net is quasi-homogeneous if parameters times alpha^e, each with an exponent e of its own, give
    alpha^L times the output (Kunin et al., arXiv 2210.03820). Then a rule is exact.
    """

    name: LrRuleName
    """``homogeneous``: exact; e = 1 for weights. ``normalised``: exact; e = 0 but for the read-out
    and what follows the last normalisation. ``plain``: one rate for all parameters as if L = 2
    (YHL's eta/c), exact only where that is true. ``calibrated``: no rule is exact; a first guess
    per c, changed where training fails."""
    depth: Annotated[int, Field(ge=1, le=1000)]
    """L: the degree of homogeneity, or the number of weight layers for ``calibrated``."""
    exponents: dict[str, float] = {}
    """Parameter name -> e, where that is not the rule's usual one (1; for ``normalised`` 0)."""


class Recipe(Frozen):
    """How a net was trained; with it, and the data, c can be swept."""

    loss: Loss = "cross_entropy"
    label_smoothing: LabelSmoothing = 0.0
    optimizer: Optimizer = Sgd()
    lr_rule: LrRule | None = None
    batch_size: Annotated[int, Field(ge=1, le=1_000_000)] = 25
    augmentation: tuple[Augmentation, ...] = ()
    stop: Stop = TargetLoss()
    seed: Seed = 0
    data_seed: Seed = 0


# --- model files ----------------------------------------------------------------------------


class ArchitectureSpec(Frozen):
    """A built-in architecture by name with its arguments, or only a hint at a user's builder."""

    name: str | None = None
    """Name of a built-in architecture (see ``models.ARCHITECTURES``), or None."""
    arguments: dict[str, Any] = {}
    hint: str | None = None
    """``module:function`` of the user's builder: printed, never imported from the file."""


class TaskSpec(Frozen):
    """Data by name, or arrays embedded in the file."""

    name: str
    arguments: dict[str, Any] = {}
    seed: Seed = 0
    fingerprint: str | None = None
    n_train: int | None = None
    n_classes: int | None = None
    """K; None: one more than the largest training label."""
    embedded: bool = False


class BundleOutcome(Frozen):
    """How the file's author says that training ended (the loss is measured again by us)."""

    status: Outcome
    epochs: Annotated[int, Field(ge=0)]
    steps: Annotated[int, Field(ge=0)]
    train_loss: float | None


class BundleHeader(Frozen):
    """The JSON header of a model file, schema 1."""

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)
    schema_: Annotated[Literal["fls-bench/bundle/1"], Field(alias="schema")] = BUNDLE_SCHEMA  # type: ignore[assignment]
    architecture: ArchitectureSpec
    output_multiplier: PositiveFloat = 1.0
    init_scale: PositiveFloat = 1.0
    centered: bool = False
    multiplier_route: MultiplierRoute = "wrapper"
    recipe: Recipe | None = None
    outcome: BundleOutcome | None = None
    task: TaskSpec | None = None
    feature_layer: str | None = None
    versions: dict[str, str] = {}


# --- runs -----------------------------------------------------------------------------------


class RunConfig(Frozen):
    """One training run of a sweep; its digest is its key in the store."""

    setup_digest: str
    c: PositiveFloat
    init_scale: PositiveFloat
    lr: PositiveFloat
    seed: int
    centered: bool
    max_epochs: int

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON of this value."""
        return canonical_digest(self.model_dump())


class Measurement(Frozen):
    """One measured number, or the reason why there is none."""

    metric: str
    subject: Literal["model", "at_c", "at_c_star"] = "model"
    """The model that was given, or nets that were trained again at its c, or at c*."""
    layer: str | None = None
    split: Literal["train", "validation", "test"] | None = None
    value: float | None = None
    unit: str = "1"
    direction: Regime | None = None
    """The side that higher values go with; None where they go with neither or with both."""
    n: int | None = None
    """How many samples (or seeds) the value rests on."""
    low: float | None = None
    high: float | None = None
    status: Literal["ok", "unavailable"] = "ok"
    reason: str | None = None


class RunRecord(Frozen):
    """What one run left behind. Saved at once, judged later."""

    config: RunConfig
    outcome: Outcome
    epochs: int
    steps: int
    train_loss: Measured | None = None
    val_error: Share | None = None
    val_loss: Measured | None = None
    test_error: Share | None = None
    test_loss: Measured | None = None
    test_ties: Share | None = None
    """Share of test points whose largest logits tie (f = 0 for one logit); each counts half an error."""
    chance_error: Share | None = None
    """Test error of always answering the commonest training class."""
    measurements: dict[str, Measured] = {}
    """Cheap measurements on test data that tell mechanisms apart, ``metric`` or ``metric:layer``."""
    message: str | None = None
    """For ``failed``: the error in one line."""


# --- judgement ------------------------------------------------------------------------------


class Interval(Frozen):
    """A value with its confidence interval."""

    value: float
    low: float | None
    high: float | None
    level: Annotated[float, Field(gt=0, lt=1)] = 0.95


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


class Code(Frozen):
    """A code for programs and a sentence for people."""

    code: str
    text: str


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


# --- reports --------------------------------------------------------------------------------


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


class Trial(Frozen):
    """One (c, learning rate) of a tuning's search: means over the runs that reached the target."""

    c: PositiveFloat
    """The value on the axis: the output multiplier, or the init scale."""
    lr: PositiveFloat
    num_seeds: int
    num_reached: int
    val_error: Share | None
    val_loss: Measured | None
    kept: bool
    """Whether it was compared to the last round, with the most seeds of its kind."""


class Tuning(Frozen):
    """What ``tune`` found: chosen on validation data, verified on fresh seeds and test data.

    A change is recommended only where the interval of its gain lies above 0.
    """

    change: Literal["multiplier", "rate", "none"]
    """``multiplier``: c* at its best rate. ``rate``: the setup's own c at another rate."""
    reason: Code
    axis: Axis = "output_multiplier"
    c: PositiveFloat
    lr: PositiveFloat
    c_star: CStar | None = None
    lr_at_c: PositiveFloat | None = None
    """Best rate at the setup's own c."""
    lr_at_c_star: PositiveFloat | None = None
    """Best rate at c*."""
    gain: Gain | None = None
    """Of c* over c, each at its best rate: what the multiplier does."""
    gain_of_rate: Gain | None = None
    """Of the best rate over the setup's own, both at c: what the learning rate does alone."""
    gain_at_rule: Gain | None = None
    """Of c* at the rate of the rule over the setup as it is: what the multiplier does alone."""
    gain_in_all: Gain | None = None
    """Of c* at its best rate over the setup as it is."""
    tuned_c: PositiveFloat | None = None
    tuned_lr: PositiveFloat | None = None
    trials: tuple[Trial, ...] = ()
    search_replica_epochs: int = 0
    rates_replica_epochs: int = 0
    verification_replica_epochs: int = 0
    text: str
    snippet: str | None = None
    findings: tuple[Finding, ...] = ()
    """What a reader should know of the data."""
    model_file: str | None = None
    """The tuned model that was written."""


InvariantName = Literal[
    "routes", "temperature", "tangent_kernel", "parameter_scale", "one_rate", "exact_rule", "own_rule",
    "own_optimizer", "movement", "relu_rescaling", "permutation", "rotation", "duplication",
    "sample_order", "label_names", "batching", "balance", "lazy_limit",
]  # fmt: skip
"""The scaling invariants, in the order in which they are shown."""


class MeasuredExponent(Frozen):
    """How a quantity was measured to follow another: as a power of it."""

    what: str
    value: float
    """Mean over the draws."""
    low: float | None = None
    high: float | None = None
    """Bounds of its 95 % Student-t interval; None for a single draw."""
    wanted: float | None = None
    """What the invariant says; None where it says nothing for this net."""
    n: int = 1


class InvariantFinding(Frozen):
    """What became of one scaling invariant on one net: on a single draw, or over all of them."""

    invariant: InvariantName
    statement: str = ""
    """The identity, in one line."""
    status: Literal["held", "broken", "void"]
    """``void``: its condition does not hold for this net, so it says nothing here."""
    code: str | None = None
    """For programs: why it is void, or what was measured to be wrong."""
    text: str
    rule: str | None = None
    """The changed rule under which it holds, where that is not the plain one."""
    deviation: float | None = None
    """Largest relative deviation seen; of a broken one that at the counter-example. None where
    nothing was compared, or the deviation was not finite."""
    bound: float | None = None
    """What rounding can account for, at the draw of that deviation."""
    exponents: tuple[MeasuredExponent, ...] = ()
    num_examples: int = 1
    """Draws on which it was decided."""
    num_set_aside: int = 0
    """Draws on which it could not be: training diverged, or rounding grew too large."""
    counter_example: dict[str, Any] | None = None
    """Of a broken one: the smallest draw that shows it."""


class Invariants(Frozen):
    """What the scaling invariants say of a net and its optimizer."""

    findings: tuple[InvariantFinding, ...]
    seed: int
    """The same seed and number of examples give the same findings."""
    examples: int
    net: dict[str, Any] = {}
    """What was examined: inputs, outputs, parameters, route, optimizer, measured exponents."""
    command: str | None = None
    """What gives the same findings again."""


class Report(Judgement):
    """The product: everything else is a view of it (schema ``fls-bench/report/1``)."""

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)
    schema_: Annotated[Literal["fls-bench/report/1"], Field(alias="schema")] = REPORT_SCHEMA  # type: ignore[assignment]
    kind: Literal["diagnose", "suite", "tune", "invariants"]
    suite: dict[str, Any] | None = None
    """For kind ``suite``: name, version, digest."""
    cases: tuple[CaseResult, ...] = ()
    tuning: Tuning | None = None
    """For kind ``tune``; ``sweep`` then holds the runs of its search at the rule's rates."""
    invariants: Invariants | None = None
    """For kind ``invariants``."""
    provenance: Provenance
