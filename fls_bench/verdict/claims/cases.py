"""What a claim is judged from: the errors of a case's sweep by c and seed, and where they are least."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from fls_bench.schema import (
    Axis,
    ClaimCurve,
    ClaimOutcome,
    CurvePoint,
    Interval,
    Outcome,
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
    unusable = [cell for cell in sweep.cells if not cell.usable]
    words = [f"2^{math.log2(cell.c):.3g}: {cell.reason}" for cell in unusable]
    dropped = len({run.seed for cell in cells for run in cell.seeds}) - len(seeds)
    if dropped:
        words.append(f"{dropped} seeds that missed the target at some c")
    return Errors(
        tuple(cell.c for cell in cells), every[..., 0], every[..., 1], every[..., 2],
        tuple(seeds), tuple(words),
    )  # fmt: skip


def t_interval(values: Sequence[float] | Values, least: float = 0.0) -> Interval:
    """Mean with its two-sided 95 % Student-t interval.

    Args:
        values: [S], S >= 2.
        least: Standard deviation below which it is not believed, e.g. half a test point: a few equal
            counts are no proof of zero variance.
    """
    array = np.asarray(values, np.float64)
    deviation = max(float(array.std(ddof=1)), least)
    half = float(-stdtrit(len(array) - 1, LEVEL / 2)) * deviation / math.sqrt(len(array))
    mean = float(array.mean())
    return Interval(value=mean, low=mean - half, high=mean + half)


def percentiles(value: float, draws: Values) -> Interval:
    """A value with the 95 % percentile interval of its resamples."""
    low, high = np.quantile(draws, (LEVEL / 2, 1 - LEVEL / 2))
    return Interval(value=value, low=float(low), high=float(high))


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
    """At an end of the range, or too often there."""


def best_octave(case: ClaimCase, errors: Errors, draws: npt.NDArray[np.intp]) -> Star:
    """log2 c* by mean test error, with resamples of the seeds.

    Args:
        case: For what an octave of its axis is in c.
        errors: Its table.
        draws: [B, S] from :func:`resamples`.
    """
    octaves = case.octaves * np.log2(errors.c) + case.shift
    value, edge = vertex(octaves, errors.test.mean(axis=1))
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


def axis_label(axis: Axis) -> str:
    """The axis in words, with its direction."""
    return ALPHA_LABEL if axis == "init_scale" else C_LABEL


def within(interval: Interval, low: float, high: float) -> ClaimOutcome:
    """An equivalence test: inside of a range, outside of it, or neither."""
    assert interval.low is not None
    assert interval.high is not None
    if low <= interval.low and interval.high <= high:
        return "reproduced"
    if interval.high < low or high < interval.low:
        return "not_reproduced"
    return "undecided"


def all_of(outcomes: Sequence[ClaimOutcome]) -> ClaimOutcome:
    """The outcome of a claim that has to hold in every setting.

    One setting in which it is shown not to hold is enough against it; where none was run it is not run.
    """
    if not outcomes:
        return "not_run"
    for one in ("not_reproduced", "undecided", "not_run"):
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


def counted(outcomes: Sequence[ClaimOutcome]) -> str:
    """How many settings had which outcome: ``3 of 5 reproduced, 1 not reproduced, 1 undecided``."""
    total = len(outcomes)
    words = {
        "reproduced": "reproduced",
        "not_reproduced": "not reproduced",
        "undecided": "undecided",
    }
    parts = [f"{n} {text}" for key, text in words.items() if (n := outcomes.count(key))]
    return f"of {total} settings: " + ", ".join(parts)
