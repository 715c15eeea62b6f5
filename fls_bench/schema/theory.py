"""The suite of the two-layer theory: what is swept, and how finely its flow was followed."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from fls_bench.schema.base import Frozen, Measured, PositiveFloat
from fls_bench.schema.claims import ClaimOutcome

MIN_SCALES = 3
RUNS_DIFFER = "which runs reach the target"
"""What changed most where the runs that can be judged are not the same at both steps."""

NOT_BY_DEGREES = 1e6
"""The change of what either changes or does not, as an outcome: no halving that shows it suffices."""

DIFFERENCE_SHARE = 0.25
"""Of C5's margin: what a halved step may move a difference between two scales, paired by seed, by."""
LARGE_SHARE = 0.05
"""Of the difference itself, which a halved step may move it by as well."""


class Log2Grid(Frozen):
    """A fixed grid over log2 of the swept axis, both ends included where the step meets them."""

    from_: Annotated[float, Field(alias="from", ge=-60, le=60)]
    to: Annotated[float, Field(ge=-60, le=60)]
    step: Annotated[float, Field(ge=0.125)]

    @model_validator(mode="after")
    def _ordered(self) -> Log2Grid:
        if self.to < self.from_:
            raise ValueError(f"'to' = {self.to:g} is smaller than 'from' = {self.from_:g}")
        return self

    @property
    def values(self) -> tuple[float, ...]:
        """The values 2^from, 2^(from + step), ..., up to 2^to."""
        num_steps = int((self.to - self.from_) / self.step + 1e-9)
        return tuple(2.0 ** (self.from_ + k * self.step) for k in range(num_steps + 1))


class Log2Scales(Log2Grid):
    """A grid over log2 alpha of which a trend can be seen."""

    from_: Annotated[float, Field(alias="from", ge=-30, le=6)]
    to: Annotated[float, Field(ge=-30, le=6)]
    """Far in the lazy regime a flow must undo initial outputs of the size alpha^2 first: slow."""
    step: Annotated[float, Field(ge=0.125, le=8)] = 1.0

    @model_validator(mode="after")
    def _enough(self) -> Log2Scales:
        if len(self.values) < MIN_SCALES:
            raise ValueError(
                f"it holds {len(self.values)} init scales; a trend needs at least {MIN_SCALES}"
            )
        return self


class TheorySpec(Frozen):
    """How the gradient flow of the two-layer theory is swept and how finely it is followed."""

    log2_alpha: Log2Scales = Log2Scales.model_validate({"from": -12, "to": 4})
    step: Annotated[float, Field(ge=1e-4, le=1)] = 0.1
    """The first step at alpha <= 1, in units of the flow on the mean loss; alpha^-2 of it beyond."""
    max_halvings: Annotated[int, Field(ge=1, le=8)] = 5
    tolerance: Annotated[float, Field(gt=0, le=1)] = 0.1
    """A halved step may move a mean by this share of its 95 % half-width over seeds."""


class FlowLevel(Frozen):
    """All runs at one step."""

    step: PositiveFloat
    num_runs: Annotated[int, Field(ge=0)]
    num_reached: Annotated[int, Field(ge=0)]
    replica_steps: Annotated[int, Field(ge=0)]
    """Steps taken by all of them together."""
    slope: Measured | None = None
    """Of log2 angle at the end of phase 1 against log2 alpha, mean over seeds."""
    change: Measured | None = None
    """The largest change against the step before, 1 = just allowed; None at the first step."""
    changed: str | None = None
    """What changed most."""

    @property
    def sentence(self) -> str:
        """What changed most against the step before, and by how much."""
        if self.changed is None or self.change is None:
            return "there is no step before"
        if self.change >= NOT_BY_DEGREES:
            return f"{self.changed} changed"
        return f"{self.changed} moved most, by {self.change:.2g} times what is allowed"


class FlowFacts(Frozen):
    """What a sweep of the theory rests on beside its runs."""

    levels: Annotated[tuple[FlowLevel, ...], Field(min_length=1)]
    """From the first step to the one that is reported."""
    settled: bool
    """Whether the last halving left both outcomes, and moved nothing by more than was allowed."""
    tolerance: PositiveFloat
    n_train: Annotated[int, Field(ge=1)]
    input_dim: Annotated[int, Field(ge=1)]
    width: Annotated[int, Field(ge=1)]
    kappa: Measured
    sigma: PositiveFloat
    bayes_error: Annotated[float, Field(ge=0, le=0.5)]
    target_loss: PositiveFloat

    @property
    def step(self) -> float:
        """The step that is reported."""
        return self.levels[-1].step

    @property
    def num_runs(self) -> int:
        """Runs at all steps."""
        return sum(level.num_runs for level in self.levels)

    @property
    def replica_steps(self) -> int:
        """Steps taken by all of these."""
        return sum(level.replica_steps for level in self.levels)

    def decided(self, outcome: ClaimOutcome) -> ClaimOutcome:
        """An outcome of the runs; undecided where they still depend on their step."""
        return outcome if self.settled else "undecided"

    @property
    def sentence(self) -> str:
        """What step sufficed and why, or that none did."""
        last = self.levels[-1]
        if self.settled and len(self.levels) > 1:
            return (
                f"A step of {last.step:g} (alpha^-2 of it beyond alpha = 1) suffices: halving to it "
                f"left both outcomes as they were, moved no mean by more than {self.tolerance:g} of its "
                f"95 % half-width (and a floor), and no difference between two scales, paired by seed, "
                f"by more than {DIFFERENCE_SHARE:g} of C5's margin and {LARGE_SHARE:g} of itself "
                f"({last.sentence})."
            )
        return f"No step sufficed: at the last halving, to {last.step:g}, {last.sentence}."
