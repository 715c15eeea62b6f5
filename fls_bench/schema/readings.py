"""The regime as it is read from measurements of one net, and the stored model that reads it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from fls_bench.schema.base import Code, Frozen, Interval, Share
from fls_bench.schema.states import Regime

READING_SCHEMA = "fls-bench/reading/1"

Evidence = Literal["T1", "T1-train", "T2", "T2-train"]
"""What the reading rests on: data (T1), data and initial weights (T2); ``-train``: no test points."""


class ReferenceRange(Frozen):
    """Where the middle four fifths of the atlas' nets of one regime lie, of like depth and n."""

    regime: Regime
    low: float
    median: float
    high: float
    n: int
    """Nets of the atlas that it rests on."""
    of: Literal["depth and n", "n", "all"] = "depth and n"
    """What they are like: where too few are, those of all depths stand in, or of all depths and n."""


class Push(Frozen):
    """What one observable did to the verdict."""

    observable: str
    text: str
    """What it is, in words."""
    value: float | None
    """None where it can't be measured on such a net."""
    toward: Regime
    strength: float
    """By how much it raised the log odds of ``toward`` against the mean of the others."""
    ranges: tuple[ReferenceRange, ...] = ()


class OutOfRange(Frozen):
    """An observable that lies where the atlas has no nets."""

    observable: str
    text: str
    value: float
    low: float
    high: float
    """The atlas' nets lie between these."""


class Reading(Frozen):
    """The regime of one trained net, inferred from measurements by a model that saw an atlas."""

    evidence: Evidence
    regime: Regime
    """Inconclusive where the set holds more than one regime, or none, or the net is out of reach."""
    regimes: tuple[Regime, ...]
    """The set of regimes that holds the true one with probability ``level``."""
    level: Annotated[float, Field(gt=0, lt=1)]
    probabilities: dict[str, Share]
    log2_c_ratio: Interval | None
    """log2(c / c*): negative = toward over-aligned; None, and no probabilities, where an observable is
    missing that all nets of the atlas have."""
    distance: float
    """From the middle of the atlas, in measurement space."""
    reach: float
    """The largest distance at which the reading is trusted; facts of the setup have limits, too."""
    out_of_range: tuple[OutOfRange, ...] = ()
    pushes: tuple[Push, ...] = ()
    depth: str
    """The nets that the reference ranges are of, in words."""
    reason: Code
    atlas: dict[str, Any] = {}
    """Suite and number of nets that the model was fitted on."""


class Curve(Frozen):
    """A piecewise linear function of one observable, for each regime and for log2(c/c*)."""

    observable: str
    knots: Annotated[tuple[float, ...], Field(min_length=2)]
    """Ascending; outside, the function keeps its value at the end."""
    scores: tuple[tuple[float, float, float], ...]
    """At each knot, for over-aligned, near-optimal and over-fitted."""
    ratios: tuple[float, ...]
    """At each knot, of log2(c/c*)."""
    absent: tuple[float, float, float, float] | None = None
    """Scores and ratio of nets for which it can't be measured (two classes have no rank of logits);
    None where the atlas has no such nets, so that a net without it is not read."""
    low: float
    high: float
    """The atlas' nets lie between these."""


class RangeGroup(Frozen):
    """Reference ranges of nets of like depth and number of training points."""

    depth: tuple[int, int]
    n_train: tuple[int, int]
    """Both from .. to, inclusive."""
    ranges: dict[str, tuple[ReferenceRange, ...]]
    """Observable -> one range per regime."""


class ReadingModel(Frozen):
    """The model for one kind of evidence.

    The score of a regime is its intercept plus the sum of the curves; the probabilities are their
    softmax. Source: generalised additive models, Hastie, Tibshirani 1986, Statistical Science 1.
    """

    evidence: Evidence
    curves: tuple[Curve, ...]
    intercepts: tuple[float, float, float]
    ratio_intercept: float
    threshold: Share
    """A regime belongs to the set where its probability is at least this."""
    level: Annotated[float, Field(gt=0, lt=1)]
    ratio_width: float | None = None
    """Half-width of the interval of log2(c/c*); None where the atlas has too few tasks to bound it."""
    centre: tuple[float, ...]
    scale: tuple[float, ...]
    correlation: tuple[tuple[float, ...], ...]
    """Of the distance: Mahalanobis of those standardised observables that a net has."""
    reach: float


class ReadingModels(Frozen):
    """The committed file: every kind of evidence, and what it was fitted on."""

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)
    schema_: Annotated[Literal["fls-bench/reading/1"], Field(alias="schema")] = READING_SCHEMA  # type: ignore[assignment]
    atlas: dict[str, Any]
    models: dict[Evidence, ReadingModel]
    groups: tuple[RangeGroup, ...]


class Placed(Frozen):
    """A net of a known regime, and what was read from it."""

    seed: int
    regime: Regime
    probabilities: dict[str, Share]


class PlacedCase(Frozen):
    """Nets at one place of c."""

    id: str
    regime: Regime
    """Where their c puts them, as a sweep shows."""
    nets: tuple[Placed, ...]


_OPPOSITE = {
    (Regime.OVER_ALIGNED, Regime.OVER_FITTED),
    (Regime.OVER_FITTED, Regime.OVER_ALIGNED),
}


MOST_FALSE_ALARMS = 0.1
"""Share of near-optimal nets, and of those that learned nothing, that may be called on a side."""


class SelfTest(Frozen):
    """What became of nets that were placed in each regime."""

    cases: tuple[PlacedCase, ...]

    @property
    def confusion(self) -> dict[Regime, dict[Regime, int]]:
        """Where nets were placed -> what they were called -> how many."""
        places = [one for one in Regime if any(case.regime is one for case in self.cases)]
        counts: dict[Regime, dict[Regime, int]] = {
            place: dict.fromkeys(Regime, 0) for place in places
        }
        for case in self.cases:
            for net in case.nets:
                counts[case.regime][net.regime] += 1
        return counts

    @property
    def opposite(self) -> int:
        """How many were called the opposite of their regime."""
        return sum(
            (case.regime, net.regime) in _OPPOSITE for case in self.cases for net in case.nets
        )

    @property
    def false_alarms(self) -> tuple[int, int]:
        """How many nets without a side were called over-aligned or over-fitted, and of how many.

        Near-optimal ones, and those that learned nothing.
        """
        flat = [
            net.regime
            for case in self.cases
            if case.regime in (Regime.NEAR_OPTIMAL, Regime.INCONCLUSIVE)
            for net in case.nets
        ]
        wrong = sum(one in (Regime.OVER_ALIGNED, Regime.OVER_FITTED) for one in flat)
        return wrong, len(flat)

    @property
    def failures(self) -> tuple[str, ...]:
        """What is wrong with the reading by these nets; empty where it passes."""
        wrong, flat = self.false_alarms
        found = []
        if self.opposite:
            found.append(f"{self.opposite} nets were called the opposite of their regime")
        if wrong > MOST_FALSE_ALARMS * flat:
            found.append(f"{wrong} of {flat} nets without a side were called on one")
        found += [
            f"no {place.label} net was called so"
            for place, counts in self.confusion.items()
            if not counts[place]
        ]
        return tuple(found)
