"""What a suite file may hold, table by table (suite schema 1)."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from fls_bench import scaling
from fls_bench.errors import InputError
from fls_bench.schema import (
    Adam,
    AdamW,
    Augmentation,
    Axis,
    Frozen,
    LabelSmoothing,
    Log2Grid,
    Loss,
    PositiveFloat,
    RankMeasure,
    RankPenalty,
    Regime,
    Seed,
    Sgd,
    StopByKey,
    TargetLoss,
    TheorySpec,
)


def _number(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return scaling.parse_multiplier(value)
    except InputError as error:
        raise ValueError(error.problem.rstrip(".")) from error


def _array(value: Any) -> Any:
    """Strict mode takes no list for a tuple in what a validator of the whole table has seen."""
    return tuple(value) if isinstance(value, list) else value


_ARRAY = BeforeValidator(_array)
_LabelGroup = Annotated[tuple[Annotated[int, Field(ge=0)], ...], _ARRAY]


def _kind_of_optimizer(value: Any) -> str:
    kind = value.get("kind", "sgd") if isinstance(value, Mapping) else getattr(value, "kind", "sgd")
    return f"({kind})"


OptimizerTable = Annotated[
    Annotated[Sgd, Tag("(sgd)")]
    | Annotated[Adam, Tag("(adam)")]
    | Annotated[AdamW, Tag("(adamw)")],
    Discriminator(_kind_of_optimizer),
]
Multiplier = Annotated[float, BeforeValidator(_number), Field(gt=0)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
Mechanism = Literal[
    "class_mean_alignment", "rank_collapse", "initial_function_noise", "lazy", "undetermined"
]


class _Named(Frozen):
    name: Annotated[str, Field(min_length=1)]
    arguments: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _gather_arguments(cls, table: Any) -> Any:
        if not isinstance(table, dict) or "arguments" in table:
            return table
        own = {key: value for key, value in table.items() if key in cls.model_fields}
        rest = {key: value for key, value in table.items() if key not in cls.model_fields}
        # What an argument may be called is for the task or the net to say, but one that is nearly
        # the name of a key of ours would otherwise be lost in the call of a net of the user's.
        for key in rest:
            if near := difflib.get_close_matches(key, cls.model_fields, n=1, cutoff=0.87):
                raise ValueError(f"unknown key {key!r}, did you mean {near[0]!r}?")
        return {**own, "arguments": rest}


class SuiteTask(_Named):
    """A task by name; every other key of its table is an argument of the task."""


class Alteration(Frozen):
    """What is done to every draw of a task; see ``tasks.altered``."""

    label_noise: Annotated[float, Field(ge=0, le=1)] = 0.0
    classes: Annotated[tuple[_LabelGroup, ...], _ARRAY] | None = None
    pool: Annotated[int, Field(ge=1)] = 1
    shape: Annotated[tuple[Annotated[int, Field(ge=1)], ...], _ARRAY] | None = None


class SuiteModel(_Named):
    """A built-in net by name, its multiplier and init scale; other keys are the net's arguments."""

    name: Annotated[str, Field(min_length=1)] = "mlp"
    output_multiplier: Multiplier = 1.0
    init_scale: Multiplier = 1.0
    centered: bool = False


class Expect(Frozen):
    """What a case should be judged to be."""

    regime: Regime
    mechanism: Mechanism | None = None


class Defaults(Frozen):
    """The recipe of every case that doesn't say otherwise."""

    optimizer: OptimizerTable = Sgd()
    stop: StopByKey = TargetLoss()
    loss: Loss = "cross_entropy"
    label_smoothing: LabelSmoothing | None = None
    augmentation: tuple[Augmentation, ...] | None = None
    batch_size: Annotated[int, Field(ge=1, le=1_000_000)] = 25


class RowSpec(Frozen):
    """Nets trained under the same penalties on their ranks, at one c or at both."""

    name: Annotated[str, Field(min_length=1)]
    at: Annotated[tuple[Literal["low", "star"], ...], Field(min_length=1)] = ("low",)
    penalties: Annotated[tuple[RankPenalty, ...], Field(min_length=1)]
    """``hold`` aims at the ranks of the same seed's plain net at c*, ``lower`` at those at ``c_low``."""
    misdirected: bool = False
    """A control: the penalties' gradient goes to other weights."""


class InterventionSpec(Frozen):
    """What a suite of interventions on ranks does in each of its cases, fixed in advance."""

    measure: RankMeasure = "nuclear"
    first_seed: Seed = 5000
    """Apart from the seeds on which the penalties were chosen."""
    rows: Annotated[tuple[RowSpec, ...], Field(alias="row", min_length=1)]

    @model_validator(mode="after")
    def _distinct(self) -> InterventionSpec:
        alike = [(row.penalties, row.misdirected, at) for row in self.rows for at in row.at]
        if len(set(alike)) < len(alike):
            raise ValueError("two rows have the same penalties at the same c")
        return self


class Case(Frozen):
    """One training setup to judge. Exactly one of ``log2_c``, ``adaptive`` and ``c_low`` holds."""

    id: Name
    task: SuiteTask
    alter: Alteration | None = None
    model: SuiteModel = SuiteModel()
    axis: Axis = "output_multiplier"
    log2_c: Log2Grid | None = None
    """A fixed grid on ``axis``; None where the sweep chooses its own."""
    adaptive: bool = True
    c_low: Multiplier | None = None
    """In a suite of interventions: the small c, beside c* = the model's ``output_multiplier``."""
    optimizer: OptimizerTable | None = None
    stop: StopByKey | None = None
    loss: Loss | None = None
    label_smoothing: LabelSmoothing | None = None
    augmentation: Annotated[tuple[Augmentation, ...], _ARRAY] | None = None
    batch_size: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    lr_rule: Literal["plain"] | None = None
    """The authors' eta/c on all parameters; None: the rule that the net allows."""
    expect: Expect | None = None
    family: Name | None = None
    """Cases that are judged together by the suite's claim."""
    difficulty: Annotated[float, Field(gt=0, le=1e9)] | None = None
    """Where a case of claim C2 stands on its family's ladder."""
    seeds: Annotated[int, Field(ge=3, le=1000)] | None = None
    """In place of the suite's."""
    beside: Literal[True] | None = None
    """Shown beside the claim, which it does not decide."""
    needs_gpu: Literal[True] | None = None
    """Without a GPU the case is listed as not run."""

    @model_validator(mode="before")
    @classmethod
    def _one_kind_of_sweep(cls, table: Any) -> Any:
        if not isinstance(table, dict):
            return table
        if "c_low" in table:
            if {"log2_c", "adaptive", "axis", "expect"} & set(table):
                raise ValueError("c_low goes with no log2_c, adaptive, axis or expect")
            return {**table, "adaptive": False}
        adaptive = table.get("adaptive", "log2_c" not in table)
        if adaptive is ("log2_c" in table):
            raise ValueError("give either log2_c = {...} or adaptive = true")
        return {**table, "adaptive": adaptive}

    @model_validator(mode="after")
    def _ordered(self) -> Case:
        if self.c_low is not None and not self.c_low < self.model.output_multiplier:
            raise ValueError("c_low is not smaller than the model's output_multiplier")
        return self


class AtlasSpec(Frozen):
    """How the runs of a suite become an atlas."""

    shard: Annotated[int, Field(ge=1, le=1000)] = 12
    """Cases of a shard, which is trained and kept as a whole."""
    set_aside_tasks: tuple[str, ...] = ()
    """Tasks that no fit and no choice sees before the last evaluation."""
    set_aside_families: tuple[str, ...] = ()

    def sets_aside(self, case: Case) -> bool:
        """Whether a case is kept for the last evaluation."""
        return case.task.name in self.set_aside_tasks or case.family in self.set_aside_families


class SuiteCost(Frozen):
    """What a whole run of the suite takes on two CPU cores."""

    seconds: PositiveFloat
    memory_mb: PositiveFloat


class ScaleSpec(Frozen):
    """What a smaller run of a suite keeps of it."""

    seeds: Annotated[int, Field(ge=3, le=1000)] | None = None
    cases: Annotated[tuple[Name, ...], Field(min_length=1)] | None = None
    """Ids of cases and names of families; None: all."""
    log2_c: Log2Grid | None = None
    """In place of every case's own grid."""
    theory: TheorySpec | None = None
    """In place of the suite's."""
    cost: SuiteCost | None = None
