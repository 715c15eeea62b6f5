"""What a suite measured, kept to be compared with: per seed, never only means."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from fls_bench.schema.base import Frozen, Interval, Measured, PositiveFloat, Seed
from fls_bench.schema.claims import ClaimName, ClaimOutcome
from fls_bench.schema.judgements import Axis, CStar, Gain
from fls_bench.schema.states import Outcome, Regime

BASELINE_SCHEMA = "fls-bench/baseline/1"

Better = Literal["lower", "higher", "unchanged"]
"""``unchanged``: a change in either direction is one for the worse."""


class Gate(Frozen):
    """What of a metric's change makes a comparison call it a regression.

    Either a practical minimum, judged by statistics over seeds, or a ``tolerance`` for what must be the
    same number in every run of a seed.
    """

    min_effect: Annotated[float, Field(ge=0)] | None = None
    """A mean difference up to this one is of no practical interest."""
    relative: bool = False
    """Whether ``min_effect`` is a share of the baseline's mean."""
    better: Better | None = None
    tolerance: Annotated[float, Field(ge=0)] | None = None
    """An exact identity: each seed's value is the baseline's up to this share of it."""

    @model_validator(mode="after")
    def _one_kind(self) -> Gate:
        if self.tolerance is None and (self.min_effect is None or self.better is None):
            raise ValueError("give min_effect and better, or tolerance alone")
        if self.tolerance is not None and (self.min_effect, self.better) != (None, None):
            raise ValueError("tolerance goes with neither min_effect nor better")
        return self


class RecordedCell(Frozen):
    """All runs at one value on the axis. Values of runs that missed the target are not kept."""

    c: PositiveFloat
    """The value on the sweep's axis: the output multiplier, or the init scale."""
    lr: PositiveFloat
    usable: bool = True
    seeds: tuple[Seed, ...]
    missed: dict[Seed, Outcome] = {}
    """Seed -> how its run ended, of those that missed the target."""
    values: dict[str, tuple[Measured | None, ...]]
    """Metric -> one value for each seed; None where it was not measured."""

    @model_validator(mode="after")
    def _one_for_each_seed(self) -> RecordedCell:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("a seed stands twice in a cell")
        if any(len(row) != len(self.seeds) for row in self.values.values()):
            raise ValueError("a row of a cell has not one value for each seed")
        if not set(self.missed) <= set(self.seeds):
            raise ValueError("a seed that missed the target is not among the cell's seeds")
        return self

    @property
    def num_reached(self) -> int:
        """How many runs reached the target."""
        return len(self.seeds) - len(self.missed)


class RecordedCase(Frozen):
    """The verdict on one setup and the runs that it rests on."""

    id: str
    regime: Regime
    c: PositiveFloat | None = None
    """The setup's own value on the axis."""
    c_star: CStar | None = None
    log2_c_ratio: Interval | None = None
    gain: Gain | None = None
    """What c* was verified to gain over ``c``."""
    axis: Axis = "output_multiplier"
    error: Literal["error", "balanced_error"] = "error"
    n_test: Annotated[int, Field(ge=0)] = 0
    setup: dict[str, Any] = {}
    cells: tuple[RecordedCell, ...] = ()

    @property
    def own(self) -> RecordedCell | None:
        """The cell of the setup as it is."""
        return next((cell for cell in self.cells if cell.c == self.c), None)


class RecordedPart(Frozen):
    """One number that a claim was judged by, or one that was shown beside it."""

    name: str
    setting: str
    outcome: ClaimOutcome | None
    """None where it did not decide."""
    estimate: Interval | None


class RecordedClaim(Frozen):
    """What became of a claim of the paper."""

    claim: ClaimName
    outcome: ClaimOutcome
    parts: tuple[RecordedPart, ...] = ()


class Baseline(Frozen):
    """A committed reference, schema ``fls-bench/baseline/1``."""

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)
    schema_: Annotated[Literal["fls-bench/baseline/1"], Field(alias="schema")] = BASELINE_SCHEMA  # type: ignore[assignment]
    suite: dict[str, Any] | None
    """name, version, digest; None for what was diagnosed alone."""
    setup: str | None = None
    """The user's setup that stood in for the suite's cases, by its ``name``."""
    recorded: str
    """When it was measured, ISO 8601."""
    environment: dict[str, str]
    """What rounding may depend on: versions, BLAS, threads, device, instruction set."""
    cases: Annotated[tuple[RecordedCase, ...], Field(min_length=1)]
    claims: tuple[RecordedClaim, ...] = ()
    """Of a suite that tests claims of the paper."""

    @model_validator(mode="after")
    def _distinct_ids(self) -> Baseline:
        if len({case.id for case in self.cases}) < len(self.cases):
            raise ValueError("a case stands twice in a baseline")
        if len({one.claim for one in self.claims}) < len(self.claims):
            raise ValueError("a claim stands twice in a baseline")
        return self
