"""How well the reading does on what it was not fitted to."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fls_bench.schema.base import Frozen, Interval, Share
from fls_bench.schema.readings import Evidence
from fls_bench.schema.states import Regime

LeftOut = Literal["task", "family", "optimizer"]


class EvaluationSpec(Frozen):
    """What an evaluation leaves out, and what it compares with."""

    evidence: Annotated[tuple[Evidence, ...], Field(min_length=1)] = (
        "T2",
        "T1",
        "T2-train",
        "T1-train",
    )
    leave_out: Annotated[tuple[LeftOut, ...], Field(min_length=1)] = ("task", "family", "optimizer")
    set_aside: bool = False
    """Whether what was set aside is judged too, by a model of all the rest: once, at the end."""
    single: dict[str, str] = Field(default_factory=dict)
    """Baselines: name -> the one observable that is fitted in place of all."""


class GroupResult(Frozen):
    """What became of the nets of one group that was left out."""

    group: str
    n: int
    auc_over_aligned: Share | None
    auc_over_fitted: Share | None
    balanced_accuracy: Share | None
    coverage: Share | None
    opposite: int
    """Nets whose verdict was the opposite of their regime."""
    emitted: int
    """Nets that got a verdict; the others are inconclusive."""
    read: int
    """Nets that were given probabilities; the figures but those of verdicts are of them."""


class RegimeResult(Frozen):
    """What became of the nets of one regime, and of those that were called so."""

    regime: Regime
    n: int
    """Nets of this regime that were read."""
    coverage: Share | None
    """Share of them whose set of regimes held it."""
    called: int
    """Verdicts that say this regime, whatever is true."""
    right: Share | None
    """Share of these verdicts that were right."""


class EvaluationRow(Frozen):
    """One kind of evidence, one kind of group left out at a time.

    A net that is out of reach, no better than chance, or lacks a measurement is given no probabilities:
    it counts as one without a verdict, and all that is said of probabilities and sets is of the others.
    """

    evidence: Evidence
    left_out: str
    """task, family or optimizer; ``set aside`` for what no fit and no choice had seen; ``task, grey``
    for nets of left-out tasks whose regime is no truth, since it lies near the margin."""
    n: int
    num_read: int
    """So many of them were given probabilities."""
    num_groups: int
    """Groups that are drawn again for the intervals; for ``set aside``, tasks."""
    auc_over_aligned: Interval | None
    auc_over_fitted: Interval | None
    balanced_accuracy: Interval | None
    opposite: Interval | None
    """Share of the verdicts that were the opposite of the regime; None where there was no verdict."""
    num_verdicts: int
    """So many nets got a verdict."""
    emitted_accuracy: Interval | None
    """Share of the verdicts that were right; None where there was no verdict."""
    abstained: Interval
    """Share of nets without a verdict."""
    coverage: Interval | None
    """Share of nets whose set of regimes held the true one; wanted: ``level``."""
    level: float
    set_size: float | None
    num_ratios: int = 0
    """Nets that were read, whose log2(c/c*) is known and whose interval of it has bounds."""
    ratio_coverage: Share | None
    """Share of them whose interval of log2(c/c*) held it."""
    ratio_width: float | None
    """Median width of that interval, octaves."""
    calibration_error: Interval | None
    """Of the largest probability, 15 bins of equal counts."""
    regimes: tuple[RegimeResult, ...] = ()
    groups: tuple[GroupResult, ...]


class BaselineRow(Frozen):
    """What one number alone does, on the nets that the reading (T2) reads, and what the reading does."""

    name: str
    left_out: str
    n: int
    auc_over_aligned: Share | None
    auc_over_fitted: Share | None
    raw_over_aligned: Share | None = None
    """Without any fit: area of the number itself, in whichever direction is better."""
    raw_over_fitted: Share | None = None
    opposite: Share
    """Share of nets whose likeliest regime is the opposite."""


class Evaluation(Frozen):
    """The evaluation of the reading, out of sample throughout."""

    rows: tuple[EvaluationRow, ...]
    baselines: tuple[BaselineRow, ...] = ()
    truth: dict[str, int] = {}
    """Regime -> nets of the atlas whose regime is truth, without those that were set aside."""
    nets: int = 0
    """All of them."""
    setups: int = 0
    """Of so many setups."""
    models_sha256: str = ""
    """Of the stored models that were fitted in the same way to all of these nets."""
