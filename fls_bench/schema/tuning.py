"""What ``tune`` tried and found."""

from __future__ import annotations

from typing import Literal

from fls_bench.schema.base import Code, Frozen, Measured, PositiveFloat, Share
from fls_bench.schema.judgements import Axis, CStar, Finding, Gain


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
