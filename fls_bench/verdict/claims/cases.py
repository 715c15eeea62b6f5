"""What a claim is judged from: the errors of a case's sweep by c and seed, and where they are least."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri, stdtrit

from fls_bench.schema import (
    OUTCOME_WORDS,
    Axis,
    ClaimCurve,
    ClaimName,
    ClaimOutcome,
    ClaimPanel,
    ClaimPart,
    ClaimResult,
    CurvePoint,
    Interval,
    Outcome,
    ScalingFit,
    Skipped,
    Stop,
    Sweep,
)

Values = npt.NDArray[np.float64]

LEVEL = 0.05
NUM_DRAWS = 1000
"""Resamples of the seeds, from a fixed start."""

WINDOW = 2.0
"""Octaves of c on both sides of the least mean error that the parabola through its place sees."""

MIN_RESAMPLED = 5
"""Fewer seeds are not resampled: their few combinations are no picture of a law."""

MAX_EDGE_SHARE = 0.1
"""With more of the resamples at an end of the range, the best c is not known to lie inside of it."""

C_LABEL = "output multiplier c (← larger FLS, smaller FLS →)"
ALPHA_LABEL = "init scale α (← larger FLS, smaller FLS →)"
ERROR_LABEL = "test error (%)"


@dataclass(frozen=True)
class ClaimCase:
    """A finished case of a suite that tests a claim.

    Attributes:
        id: The case's.
        family: Which cases it is judged with; its own id where the suite names none.
        setting: Data and net, for people.
        data: Data alone, for people.
        factors: Numeric arguments of its data and net by name.
        sweep: Its runs.
        own: The setup's own value on the axis, c = 1 as a rule.
        stop: When its nets stop.
        difficulty: Its place on a ladder, or None.
        beside: Whether it is shown and does not decide.
        shift: What is added to log2 c. For the two-layer net of the theory, whose W is drawn with
            entries N(0, 1/(d·h)), c is then that of entries of order one, alpha^2/(d·h).
        control: Whether no c may win: a negative control.
        met: Whether its own verdict was as expected, where something was.
        notes: What a reader should know, e.g. the measured dimension of its data.
    """

    id: str
    family: str
    setting: str
    data: str
    factors: Mapping[str, float]
    sweep: Sweep
    own: float
    stop: Stop
    difficulty: float | None = None
    shift: float = 0.0
    beside: bool = False
    control: bool = False
    met: bool | None = None
    notes: tuple[str, ...] = ()

    @property
    def octaves(self) -> float:
        """Octaves of c per octave of the axis: L for an init scale (c = alpha^L), else 1."""
        return float(self.sweep.lr_rule.depth) if self.sweep.axis == "init_scale" else 1.0


@dataclass(frozen=True)
class Errors:
    """Errors of the c that can be judged, of the seeds that reached the target at each of them.

    Attributes:
        c: [C] values on the axis, ascending.
        val: [C, S] validation errors.
        test: [C, S] test errors.
        loss: [C, S] test losses.
        seeds: [S].
        left_out: What could not be judged, in words.
    """

    c: tuple[float, ...]
    val: Values
    test: Values
    loss: Values
    seeds: tuple[int, ...]
    left_out: tuple[str, ...] = ()
    ends: tuple[bool, bool] = (True, True)
    """Whether the smallest and the largest c of the sweep could be judged."""


def errors_of(sweep: Sweep) -> Errors | None:
    """The table of a sweep; None where fewer than three c, or three seeds, can be judged.

    Args:
        sweep: Its cells that are not usable are left out, and then every seed that missed the target
            at one of the others, so that all means are over the same seeds.
    """
    cells = sorted((cell for cell in sweep.cells if cell.usable), key=lambda cell: cell.c)
    rows = [
        {
            run.seed: (run.val_error, run.test_error, run.test_loss)
            for run in cell.seeds
            if run.outcome is Outcome.REACHED_TARGET
        }
        for cell in cells
    ]
    if len(rows) < 3:
        return None
    seeds = sorted(set.intersection(*(set(row) for row in rows)))
    if len(seeds) < 3:
        return None
    every = np.array([[row[seed] for seed in seeds] for row in rows], dtype=np.float64)
    judged = [cell.usable for cell in sorted(sweep.cells, key=lambda cell: cell.c)]
    unusable = [cell for cell in sweep.cells if not cell.usable]
    words = [f"2^{math.log2(cell.c):.3g}: {cell.reason}" for cell in unusable]
    dropped = len({run.seed for cell in cells for run in cell.seeds}) - len(seeds)
    if dropped:
        words.append(f"{dropped} seeds that missed the target at some c")
    return Errors(
        tuple(cell.c for cell in cells), every[..., 0], every[..., 1], every[..., 2],
        tuple(seeds), tuple(words), (judged[0], judged[-1]),
    )  # fmt: skip


def t_interval(
    values: Sequence[float] | Values, least: float = 0.0, level: float = LEVEL
) -> Interval:
    """Mean with its two-sided Student-t interval.

    Args:
        values: [S], S >= 2.
        least: Standard deviation below which it is not believed, e.g. half a test point: a few equal
            counts are no proof of zero variance.
        level: 1 - the confidence level.
    """
    array = np.asarray(values, np.float64)
    deviation = max(float(array.std(ddof=1)), least)
    half = float(-stdtrit(len(array) - 1, level / 2)) * deviation / math.sqrt(len(array))
    mean = float(array.mean())
    return Interval(value=mean, low=mean - half, high=mean + half, level=1 - level)


def percentiles(value: float, draws: Values, num_seeds: int, level: float = LEVEL) -> Interval:
    """A value with the percentile interval of its resamples, stretched for few seeds.

    Resamples of S seeds vary by sqrt((S - 1)/S) too little, and their percentiles are those of a normal
    law in place of Student's: of 6 seeds a plain one holds the truth in 88 % of cases, not in 95.

    Args:
        value: The estimate from all seeds.
        draws: [B] from resampled seeds.
        num_seeds: S >= 2.
        level: 1 - the confidence level.

    Source: T. C. Hesterberg, "What teachers should know about the bootstrap" (The American
    Statistician 69, 2015), on narrowness bias.
    """
    stretch = float(stdtrit(num_seeds - 1, level / 2) / ndtri(level / 2))
    stretch *= math.sqrt(num_seeds / (num_seeds - 1))
    low, high = np.quantile(draws, (level / 2, 1 - level / 2))
    return Interval(
        value=value, low=value - stretch * (value - float(low)),
        high=value + stretch * (float(high) - value), level=1 - level,
    )  # fmt: skip


def chosen_elsewhere(val: Values) -> npt.NDArray[np.intp]:
    """For each seed, where the mean validation error of the *other* seeds is least.

    What a seed loses or gains by it is then measured on a net that had no part in the choice.

    Args:
        val: [C, S] validation errors, S >= 2.

    Returns:
        [S] indices into C.
    """
    found: npt.NDArray[np.intp] = (val.sum(axis=1, keepdims=True) - val).argmin(axis=0)
    return found


def excess(errors: Errors, at: int, of: Values) -> Values:
    """[S] what ``of`` [C, S] is higher by at one c than at the c that the other seeds choose."""
    best = chosen_elsewhere(errors.val)
    result: Values = of[at] - of[best, np.arange(of.shape[1])]
    return result


def vertex(octaves: Values, errors: Values) -> tuple[float, bool]:
    """Where an error is least, by a parabola through the points around its least value.

    Args:
        octaves: [C] log2 of c, ascending.
        errors: [C].

    Returns:
        (place in octaves, whether it is an end of the range). Where the parabola does not open
        upward, or has its vertex outside of its points, the least value's own place.
    """
    k = int(errors.argmin())
    if k in (0, len(errors) - 1):
        return float(octaves[k]), True
    near = np.abs(octaves - octaves[k]) <= WINDOW + 1e-9
    near[k - 1 : k + 2] = True
    x, y = octaves[near] - octaves[k], errors[near]
    bend, slope, _ = np.polyfit(x, y, 2)
    if bend <= 0:
        return float(octaves[k]), False
    place = -slope / (2 * bend)
    return float(octaves[k] + (place if x[0] <= place <= x[-1] else 0.0)), False


def resamples(num_seeds: int) -> npt.NDArray[np.intp]:
    """[``NUM_DRAWS``, S] indices of seeds, drawn with replacement from a fixed start."""
    return np.random.default_rng(0).integers(0, num_seeds, (NUM_DRAWS, num_seeds))


@dataclass(frozen=True)
class Star:
    """log2 of the best c, and of its resamples [``NUM_DRAWS``]."""

    value: float
    draws: Values
    at_edge: bool
    """At an end of the range, or too often there, or of too few seeds to be told."""


def best_octave(case: ClaimCase, errors: Errors, draws: npt.NDArray[np.intp]) -> Star:
    """log2 c* by mean test error, with resamples of the seeds.

    Args:
        case: For what an octave of its axis is in c.
        errors: Its table.
        draws: [B, S] from :func:`resamples`.
    """
    octaves = case.octaves * np.log2(errors.c) + case.shift
    value, edge = vertex(octaves, errors.test.mean(axis=1))
    edge = edge or len(errors.seeds) < MIN_RESAMPLED
    means = errors.test[:, draws].mean(axis=2)  # [C, B]
    found = [vertex(octaves, means[:, b]) for b in range(len(draws))]
    at_end = float(np.mean([one[1] for one in found]))
    return Star(value, np.array([one[0] for one in found]), edge or at_end > MAX_EDGE_SHARE)


def curve(name: str, errors: Errors, of: Values, factor: float = 100.0) -> ClaimCurve:
    """Means over seeds with their intervals, over log2 of the axis."""
    points = []
    for c, row in zip(errors.c, of, strict=True):
        one = t_interval(factor * row)
        points.append(CurvePoint(x=math.log2(c), value=one.value, low=one.low, high=one.high))
    return ClaimCurve(name=name, points=tuple(points))


@dataclass
class Findings:
    """What the judge of a claim gathers on its way over cases and families.

    Attributes:
        parts: The numbers, those that decide and those that don't.
        outcomes: Of every setting that decides.
        panels: The plots.
        skipped: What could not be judged.
        cautions: What a reader should know.
        data: On which data it was judged.
        seeds: From how many seeds, setting by setting.
    """

    parts: list[ClaimPart] = field(default_factory=list)
    outcomes: list[ClaimOutcome] = field(default_factory=list)
    panels: list[ClaimPanel] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    cautions: list[str] = field(default_factory=list)
    data: list[str] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)

    def show(self, parts: Sequence[ClaimPart], decides: bool) -> None:
        """Add numbers; those of what is beside the claim keep no outcome."""
        self.parts += parts if decides else [
            part.model_copy(update={"outcome": None}) for part in parts
        ]  # fmt: skip

    def result(
        self,
        claim: ClaimName,
        statement: str,
        reported: str,
        text: str,
        fits: Sequence[ScalingFit] = (),
    ) -> ClaimResult:
        """The claim as it is judged by all of them."""
        return ClaimResult(
            claim=claim, statement=statement, reported=reported, outcome=all_of(self.outcomes),
            text=text, data=tuple(dict.fromkeys(self.data)), num_seeds=min(self.seeds, default=0),
            parts=tuple(self.parts), panels=tuple(self.panels), cautions=tuple(self.cautions),
            fits=tuple(fits), not_run=tuple(self.skipped),
        )  # fmt: skip


def axis_label(axis: Axis) -> str:
    """The axis in words, with its direction."""
    return ALPHA_LABEL if axis == "init_scale" else C_LABEL


def within(inner: Interval, low: float, high: float, outer: Interval | None = None) -> ClaimOutcome:
    """An equivalence test: inside of a range, outside of it, or neither.

    Args:
        inner: The 95 % interval: inside of the range it is reproduced. All settings have to say so,
            which needs no correction.
        low: Least value that counts as the claimed one.
        high: Largest.
        outer: The interval at the level that is left after correction over all settings, of which one
            speaks against the claim where this lies outside of the range; None: a single setting.
    """
    outer = outer or inner
    bounds = [inner.low, inner.high, outer.low, outer.high]
    assert None not in bounds
    inner_low, inner_high, outer_low, outer_high = (float(k or 0.0) for k in bounds)
    if low <= inner_low and inner_high <= high:
        return "reproduced"
    if outer_high < low or high < outer_low:
        return "not_reproduced"
    return "undecided"


def corrected(
    inner: Interval, outer: Interval, outcome: ClaimOutcome, low: float, high: float
) -> str:
    """Where the 95 % interval alone would speak against the claim: the one that decides, in words."""
    if outcome != "undecided" or within(inner, low, high) == "undecided":
        return ""
    return f"; at the level that all settings share {shown(outer)}"


def all_of(outcomes: Sequence[ClaimOutcome]) -> ClaimOutcome:
    """The outcome of a claim that has to hold in every setting.

    One setting in which it is shown not to hold is enough against it (at a level that is corrected for
    their number); where none was run it is not run.
    """
    if not outcomes:
        return "not_run"
    for one in ("not_reproduced", "undecided"):
        if one in outcomes:
            return one
    return "reproduced"


def left_out(case: ClaimCase, why: str) -> Skipped:
    """A case that can't be judged."""
    return Skipped(what=case.id, code="not_judged", reason=why)


def points(value: float) -> str:
    """A difference of error rates in points, signed."""
    return f"{100 * value:+.2f}"


def shown(interval: Interval, factor: float = 1.0, digits: int = 2) -> str:
    """A value with its interval, for people."""
    if interval.low is None or interval.high is None:
        return f"{factor * interval.value:.{digits}f}"
    texts = [f"{factor * k:.{digits}f}" for k in (interval.value, interval.low, interval.high)]
    return f"{texts[0]} [{texts[1]}, {texts[2]}]"


def counted(outcomes: Sequence[ClaimOutcome], what: str = "settings") -> str:
    """How many had which outcome: ``of 5 settings: 3 reproduced, 2 undecided``."""
    words = ", ".join(
        f"{n} {text}" for key, text in OUTCOME_WORDS.items() if (n := outcomes.count(key))
    )
    return f"of {len(outcomes)} {what}: {words}"


def of_seeds(errors: Errors, seeds: Sequence[int]) -> Errors:
    """The table of some of its seeds."""
    at = [errors.seeds.index(seed) for seed in seeds]
    return Errors(
        errors.c, errors.val[:, at], errors.test[:, at], errors.loss[:, at], tuple(seeds),
        errors.left_out, errors.ends,
    )  # fmt: skip


def read_with_care(case: ClaimCase, errors: Errors | None) -> list[str]:
    """What a reader should know of a case: its notes, and what of it was left out."""
    words = [f"left out {one}." for one in errors.left_out] if errors is not None else []
    return [f"{case.id}: {one}" for one in (*case.notes, *words)]
