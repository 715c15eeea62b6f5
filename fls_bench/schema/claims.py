"""What became of a claim of the paper here: reproduced or not, by which numbers, on which data."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from fls_bench.schema.base import Frozen, Interval, Measured, PositiveFloat, Seed
from fls_bench.schema.judgements import Axis, Skipped

CLAIMS_SCHEMA = "fls-bench/claims/1"

ClaimName = Literal["C1", "C2", "C3", "C4", "C5", "C6"]
ClaimOutcome = Literal["reproduced", "not_reproduced", "undecided", "not_run"]

OUTCOME_WORDS: dict[str, str] = {
    "reproduced": "reproduced",
    "not_reproduced": "not reproduced here",
    "undecided": "undecided",
    "not_run": "not run here",
}


class ClaimPart(Frozen):
    """One number that a claim is judged by, or one of its settings."""

    name: str
    """What was measured, e.g. ``slope of log2 angle against log2 alpha``."""
    setting: str
    """On which data and net."""
    outcome: ClaimOutcome | None
    """None where it is shown beside the claim and does not decide."""
    estimate: Interval | None
    unit: str = "1"
    expected: str
    """What would reproduce the claim, e.g. ``between 0.4 and 0.6``."""
    n: Annotated[int, Field(ge=0)]
    """Seeds."""
    text: str


class CurvePoint(Frozen):
    """A mean over seeds with its 95 % interval, at a place on the axis."""

    x: Measured
    value: Measured
    low: Measured | None = None
    high: Measured | None = None


class ClaimCurve(Frozen):
    """One line of a panel."""

    name: str
    points: tuple[CurvePoint, ...]


class ClaimPanel(Frozen):
    """One plot: axes with units, and the direction in words."""

    title: str
    x_label: str
    y_label: str
    x_log2: bool = True
    """Whether x is a binary logarithm, shown as 2^x."""
    y_log2: bool = False
    curves: Annotated[tuple[ClaimCurve, ...], Field(min_length=1)]


class ScalingFit(Frozen):
    """log2 c* = intercept + width_exponent·log2 h + n_exponent·log2 n, fitted on one family of cases."""

    family: str
    width_exponent: Interval | None = None
    n_exponent: Interval | None = None
    intercept: float
    samples: Annotated[tuple[tuple[float, float, float], ...], Field(min_length=1)]
    """(intercept, width exponent, n exponent) of resampled seeds; an exponent not fitted is 0."""
    residual: Annotated[float, Field(ge=0)]
    """Root mean square of what the fit leaves, in octaves of c."""
    freedom: Annotated[int, Field(ge=1)]
    """Degrees of freedom of the residual."""
    sizes: Annotated[tuple[tuple[int, int], ...], Field(min_length=1)]
    """(width, training points) of the cases that were fitted."""
    axis: Axis = "output_multiplier"
    """What was swept: where that is the init scale, c = alpha^L."""
    octaves: PositiveFloat = 1.0
    """Octaves of c in one of the axis: L for an init scale."""
    log2_input_dim: float | None = None
    """Of the two-layer net of the theory, whose c is alpha^2/(d·h): log2 d."""
    num_seeds: int


class ClaimResult(Frozen):
    """A claim judged on named data."""

    claim: ClaimName
    statement: str
    """What the authors claim, in one sentence."""
    reported: str
    """The figures that the authors report, said to be theirs."""
    outcome: ClaimOutcome
    text: str
    """Why, with the numbers that decide."""
    data: tuple[str, ...] = ()
    """On which data, in short."""
    num_seeds: int = 0
    parts: tuple[ClaimPart, ...] = ()
    panels: tuple[ClaimPanel, ...] = ()
    cautions: tuple[str, ...] = ()
    """What a reader could take for more, or for less, than it is."""
    fits: tuple[ScalingFit, ...] = ()
    not_run: tuple[Skipped, ...] = ()


class ClaimsRecord(Frozen):
    """The outcomes of one suite, kept to be shown and committed, schema ``fls-bench/claims/1``."""

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)
    schema_: Annotated[Literal["fls-bench/claims/1"], Field(alias="schema")] = CLAIMS_SCHEMA  # type: ignore[assignment]
    suite: dict[str, Any]
    """name, version, digest."""
    recorded: str
    """When it was measured, ISO 8601."""
    environment: dict[str, str]
    seeds: tuple[Seed, Seed] | None = None
    """First and last seed of its runs; None where it is not known."""
    claims: tuple[ClaimResult, ...]
