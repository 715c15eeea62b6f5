"""Claims C5 and C6: OA falls and OF rises with alpha; the angle to the class mean goes as its root."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri, stdtrit

from fls_bench.schema import (
    ClaimCurve,
    ClaimOutcome,
    ClaimPanel,
    ClaimPart,
    ClaimResult,
    CurvePoint,
    Interval,
    Outcome,
    Sweep,
)
from fls_bench.schema.theory import FlowFacts
from fls_bench.verdict.claims.cases import (
    LEVEL,
    NUM_DRAWS,
    Values,
    all_of,
    shown,
    t_interval,
    within,
)

C5_STATEMENT = (
    "As the init scale alpha grows, over-alignment OA falls and over-fitting OF rises; their sum is the "
    "excess error of the effective predictor."
)
C5_REPORTED = (
    "Reported by the authors: opposite monotonicity of OA and OF, numerically; OA + OF = excess."
)
C6_STATEMENT = (
    "At the end of the alignment phase the angle to the class mean goes like the root of alpha."
)
C6_REPORTED = "Reported by the authors: angle ~ sqrt(alpha), a slope of 1/2 in log-log."

SLOPE_RANGE = (0.4, 0.6)
"""Within which a slope counts as 1/2, fixed in advance."""

MARGIN_SHARE = 0.02
"""A change the wrong way below this share of the least mean excess is no practical one."""

ROUNDING = 1e-12
"""By how much OA + OF may differ from the excess: a few roundings of error rates."""

CONE_SHARE = 0.95
"""From this share of its v_j > 0 neurons in the positive cone on, a seed is as the theory assumes."""

MIN_SCALES = 3
MIN_SEEDS = 3
SEEDS_FOR_SIGNS = 10
SHOWN_FACTOR = 5.0
"""A second panel leaves out the scales whose excess is more than so many times the least."""

ALPHA_LABEL = "init scale α (c = α²; ← larger FLS, smaller FLS →)"
_AS_ASSUMED = "the same, of seeds whose neurons are as the theory assumes: at least"
_PERCENT = "error above the Bayes error (%)"
_ANGLE = "angle to the class mean x₊ (radians)"


@dataclass(frozen=True)
class Table:
    """Measurements of the runs that reached the target at every scale that can be judged.

    Attributes:
        alphas: [A], ascending.
        seeds: [S].
        runs: [A][S] measurements by name, without ``theory.``.
    """

    alphas: tuple[float, ...]
    seeds: tuple[int, ...]
    runs: tuple[tuple[Mapping[str, float], ...], ...]

    def only(self, chosen: npt.NDArray[np.bool_]) -> Table:
        """The same of some of the seeds, [S] bool."""
        keep = [int(k) for k in np.flatnonzero(chosen)]
        return Table(
            self.alphas,
            tuple(self.seeds[k] for k in keep),
            tuple(tuple(row[k] for k in keep) for row in self.runs),
        )

    def of(self, name: str) -> Values:
        """[A, S] of one measurement; NaN where a run has none."""
        rows = [[run.get(name, math.nan) for run in row] for row in self.runs]
        return np.array(rows, dtype=np.float64)

    @property
    def log2(self) -> Values:
        """[A] log2 alpha."""
        return np.log2(self.alphas)


def table_of(sweep: Sweep) -> Table | None:
    """The table of a sweep, over the seeds that reached the target at all of its usable scales.

    Args:
        sweep: Of the theory, over alpha.

    Returns:
        The table; None with fewer than three scales or seeds.
    """
    cells = sorted((cell for cell in sweep.cells if cell.usable), key=lambda cell: cell.c)
    rows = [
        {run.seed: run for run in cell.seeds if run.outcome is Outcome.REACHED_TARGET}
        for cell in cells
    ]
    seeds = sorted(set.intersection(*(set(row) for row in rows))) if rows else []
    if len(rows) < MIN_SCALES or len(seeds) < MIN_SEEDS:
        return None
    prefix = "theory."
    return Table(
        tuple(cell.c for cell in cells),
        tuple(seeds),
        tuple(
            tuple(
                {k.removeprefix(prefix): v for k, v in row[seed].measurements.items()}
                for seed in seeds
            )
            for row in rows
        ),
    )


# --- slopes ---------------------------------------------------------------------------------


def where_positive(table: Table, zeta: str) -> list[int]:
    """The scales at which zeta > 0, and phase 1 was seen, for every seed."""
    usable = (table.of(zeta) > 0).all(axis=1) & np.isfinite(table.of("phase1_angle")).all(axis=1)
    return [int(k) for k in np.flatnonzero(usable)]


def slopes(table: Table, name: str, at: Sequence[int]) -> Values | None:
    """[S'] least-squares slope of log2 of a measurement against log2 alpha, one for each seed.

    Args:
        table: The table.
        name: The measurement, > 0.
        at: Indices of scales.

    Returns:
        Of the seeds that have it at all of these scales; None with fewer than three of either.
    """
    if len(at) < MIN_SCALES:
        return None
    x, values = table.log2[list(at)], table.of(name)[list(at)]
    known = (values > 0).all(axis=0)  # false for NaN as well
    if int(known.sum()) < MIN_SEEDS:
        return None
    found: Values = np.polyfit(x, np.log2(values[:, known]), 1)[0]
    return found


def phase1_slope(sweep: Sweep) -> Interval | None:
    """The slope that decides C6, with its interval over seeds; None where it can't be measured."""
    table = table_of(sweep)
    if table is None:
        return None
    found = slopes(table, "phase1_angle", where_positive(table, "zeta_sum"))
    return None if found is None else t_interval(found)


# --- trends ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trend:
    """Whether a quantity moves one way only over the scales.

    Attributes:
        outcome: As a claim's.
        total: Its change from the first scale to the last.
        worst: The largest mean change the wrong way between two scales, or None where there is none.
        between: The indices of these scales.
        back: Pairs of scales between which it certainly moves the wrong way, by however little.
    """

    outcome: ClaimOutcome
    total: Interval
    worst: Interval | None
    between: tuple[int, int]
    back: tuple[tuple[int, int], ...]


def trend(values: Values, rising: bool, margin: float) -> Trend:
    """Test over all pairs of scales, paired by seed, whether a quantity moves one way only.

    Against it: some pair moves the wrong way by more than the margin, by intervals that hold for all
    pairs at once. For it: no pair does by its own 95 % interval (an intersection-union test, which needs
    no correction), and the total change has the right sign.

    Args:
        values: [A, S].
        rising: Which way it should move.
        margin: Change that is no practical one, >= 0.

    Returns:
        The trend.
    """
    num, num_seeds = values.shape
    pairs = [(i, j) for i in range(num) for j in range(i + 1, num)]
    sign = -1.0 if rising else 1.0
    wrong = np.array([sign * (values[j] - values[i]) for i, j in pairs])  # [P, S]
    means, errors = wrong.mean(axis=1), wrong.std(axis=1, ddof=1) / math.sqrt(num_seeds)
    each = -float(stdtrit(num_seeds - 1, LEVEL / 2))
    least = means - _joint_quantile(wrong - means[:, None], errors) * errors
    total = t_interval(values[-1] - values[0])
    assert total.low is not None
    assert total.high is not None
    right = total.low > 0 if rising else total.high < 0
    outcome: ClaimOutcome = "undecided"
    if (least > margin).any():
        outcome = "not_reproduced"
    elif right and bool((means + each * errors <= margin).all()):
        outcome = "reproduced"
    k = int(means.argmax())
    worst = t_interval(wrong[k]) if means[k] > 0 else None
    back = tuple(pair for pair, one in zip(pairs, least, strict=True) if one > 0)
    return Trend(outcome, total, worst, pairs[k], back)


def _joint_quantile(centred: Values, errors: Values) -> float:
    """By how many standard errors all means at once stay below themselves, in all but 2.5 % of cases.

    Neighbouring pairs of scales say nearly the same, so Bonferroni's correction would give most of the
    power away: the largest t under random signs of the seeds is used in its place, with the tail of
    Student's t over the normal one. Too few seeds have too few signs; there it is Bonferroni's.

    Args:
        centred: [P, S] differences minus their means.
        errors: [P] standard errors of these means.

    Returns:
        The quantile, at least that of a single mean.

    Source: Westfall and Young, "Resampling-based multiple testing" (1993), section 2.
    """
    num_pairs, num_seeds = centred.shape
    single = -float(stdtrit(num_seeds - 1, LEVEL / 2))
    if num_seeds < SEEDS_FOR_SIGNS:
        return -float(stdtrit(num_seeds - 1, LEVEL / 2 / num_pairs))
    varying = errors > 0
    if not varying.any():
        return single
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (NUM_DRAWS, num_seeds))
    largest = (signs @ centred[varying].T / num_seeds / errors[varying]).max(axis=1)
    tail = single / -float(ndtri(LEVEL / 2))
    return max(single, tail * float(np.quantile(largest, 1 - LEVEL / 2)))


# --- the claims -----------------------------------------------------------------------------


def judge_theory(sweep: Sweep, facts: FlowFacts) -> tuple[ClaimResult, ClaimResult]:
    """Judge C5 and C6 from one sweep over alpha.

    Args:
        sweep: With the measurements ``theory.*`` of ``fls_bench.flow_sweep``.
        facts: How the flow was followed, and on which data.

    Returns:
        (C5, C6). Both undecided where the flow still moved at the last halving, or where fewer than
        three scales or seeds can be judged.
    """
    table = table_of(sweep)
    data = (
        f"two Gaussian classes, d = {facts.input_dim}, n = {facts.n_train}, kappa = {facts.kappa:g}, "
        f"sigma = {facts.sigma:g} (Bayes error {facts.bayes_error:.2g}); two-layer ReLU net, "
        f"h = {facts.width}, to a mean logistic loss of {facts.target_loss:g}",
    )
    if table is None:
        why = "Fewer than three init scales, or three seeds, have runs that reached the target."
        shared = {"outcome": "undecided", "text": why, "data": data}
        return (
            ClaimResult.model_validate(
                {"claim": "C5", "statement": C5_STATEMENT, "reported": C5_REPORTED, **shared}
            ),
            ClaimResult.model_validate(
                {"claim": "C6", "statement": C6_STATEMENT, "reported": C6_REPORTED, **shared}
            ),
        )
    return _c5(table, facts, data), _c6(table, facts, data)


def _power(table: Table, k: int) -> str:
    return f"2^{table.log2[k]:.3g}"


def _settled(outcome: ClaimOutcome, facts: FlowFacts) -> ClaimOutcome:
    """A flow that still depends on its step decides nothing."""
    return outcome if facts.settled else "undecided"


def _c5(table: Table, facts: FlowFacts, data: tuple[str, ...]) -> ClaimResult:
    oa, of, excess = (table.of(k) for k in ("over_alignment", "over_fitting", "excess_effective"))
    margin = MARGIN_SHARE * float(excess.mean(axis=1).min())
    falls, rises = trend(oa, False, margin), trend(of, True, margin)
    setting, n = data[0], len(table.seeds)
    gap = float(np.abs(oa + of - excess).max())
    identity: ClaimOutcome = "reproduced" if gap <= ROUNDING else "not_reproduced"
    expected = f"no change the wrong way by more than {100 * margin:.2g} points"
    parts = [
        ClaimPart(
            name=f"{name} {way} with alpha", setting=setting, outcome=_settled(one.outcome, facts),
            estimate=_percent(one.total), unit="points of error, last scale minus first",
            expected=expected, n=n, text=_trend_text(table, name, one),
        )
        for name, way, one in (("OA", "falls", falls), ("OF", "rises", rises))
    ]  # fmt: skip
    parts.append(
        ClaimPart(
            name="OA + OF = excess error of the effective predictor", setting=setting,
            outcome=identity, estimate=Interval(value=gap, low=None, high=None),
            unit="largest difference in any run", expected=f"at most {ROUNDING:g}: rounding", n=n,
            text="An identity of the definitions: it can only fail by a mistake.",
        )
    )  # fmt: skip
    least = int(of.mean(axis=1).argmin())
    if len(table.alphas) - least >= MIN_SCALES and least > 0:
        beyond = trend(of[least:], True, margin)
        parts.append(
            ClaimPart(
                name=f"OF rises from {_power(table, least)} on, where its mean is least",
                setting=setting, outcome=None, estimate=_percent(beyond.total),
                unit="points of error, last scale minus that one", expected=expected, n=n,
                text="Beside the claim, since the range was chosen on the same runs: by that test it "
                f"{_verb(beyond.outcome)}.",
            )
        )  # fmt: skip
    outcome = _settled(all_of([falls.outcome, rises.outcome, identity]), facts)
    return ClaimResult(
        claim="C5", statement=C5_STATEMENT, reported=C5_REPORTED, outcome=outcome,
        text=f"OA falling: {_words(falls.outcome)}. OF rising: {_words(rises.outcome)}. "
        f"{_trend_text(table, 'OA', falls)} {_trend_text(table, 'OF', rises)} "
        f"The sum is the excess in every run (largest difference {gap:.1g}). {facts.sentence}",
        data=data, num_seeds=n, parts=tuple(parts), panels=_c5_panels(table),
        cautions=_cautions(table, rises),
    )  # fmt: skip


def _verb(outcome: ClaimOutcome) -> str:
    return {"reproduced": "holds", "not_reproduced": "does not hold"}.get(outcome, "is undecided")


def _words(outcome: ClaimOutcome) -> str:
    return {"reproduced": "reproduced", "not_reproduced": "not reproduced here"}.get(
        outcome, "undecided"
    )


def _percent(interval: Interval) -> Interval:
    low, high = interval.low, interval.high
    return Interval(
        value=100 * interval.value,
        low=None if low is None else 100 * low,
        high=None if high is None else 100 * high,
    )


def _trend_text(table: Table, name: str, one: Trend) -> str:
    way = "fall" if name == "OF" else "rise"
    total = (
        f"From {_power(table, 0)} to {_power(table, -1)} {name} changes by {_points(one.total)}."
    )
    if one.back:
        first, last = _range(one)
        assert one.worst is not None
        i, j = one.between
        return (
            f"{total} It is certainly not monotone within {_power(table, first)} .. "
            f"{_power(table, last)}: from {_power(table, i)} to {_power(table, j)} it "
            f"{way}s by {_points(one.worst)}."
        )
    if one.worst is None:
        return f"{total} No pair of scales has a mean change the wrong way."
    i, j = one.between
    return (
        f"{total} The largest {way} is {_points(one.worst)}, from {_power(table, i)} to "
        f"{_power(table, j)}."
    )


def _range(one: Trend) -> tuple[int, int]:
    """From the first to the last scale of the pairs between which it certainly moves the wrong way."""
    return min(i for i, _ in one.back), max(j for _, j in one.back)


def _points(interval: Interval) -> str:
    return f"{shown(interval, 100, 4)} points"


def _cautions(table: Table, rises: Trend) -> tuple[str, ...]:
    net, effective, linear = (
        table.of(f"excess_{name}").mean(axis=1) for name in ("net", "effective", "linear")
    )
    of = table.of("over_fitting")
    least = int(of.mean(axis=1).argmin())
    ties, theta = table.of("ties"), table.of("theta").mean(axis=1)
    half = t_interval(50 * ties[0])
    best, best_linear = int(net.argmin()), int(linear.argmin())
    u_shape = t_interval(table.of("excess_linear")[0] - table.of("excess_linear")[best_linear])
    assert u_shape.low is not None
    shape = (
        f"no U: its least excess is at {_power(table, best_linear)}, {_points(u_shape)} below that at "
        f"{_power(table, 0)}"
        if best_linear == 0 or u_shape.low <= 0
        else f"{_points(u_shape)} less excess at {_power(table, best_linear)} than at {_power(table, 0)}"
    )
    falling = (
        "no fall is certain"
        if not rises.back
        else "it certainly falls within " + " .. ".join(_power(table, k) for k in _range(rises))
    )
    return (
        f"Ties: at {_power(table, 0)} the net is exactly 0 on {shown(t_interval(100 * ties[0]), 1, 3)} "
        f"% of the test points. Each counts half an error, {shown(half, 1, 3)} points of the net's "
        f"excess of {100 * net[0]:.3f} there.",
        f"The effective predictor is not the net: their least excess is {100 * effective.min():.3f} and "
        f"{100 * net.min():.3f} points (at {_power(table, int(effective.argmin()))} and "
        f"{_power(table, best)}). The linear direction, of all neurons, shows {shape}: OA that falls "
        "and OF that rises do not by themselves imply an optimum in between.",
        f"Where OF does not rise: {falling}. Its mean is least at {_power(table, least)}, by "
        f"{_points(t_interval(of[0] - of[least]))} less than at {_power(table, 0)}.",
        f"The angle at the stop has a floor, {theta.min():.4f} radians (at "
        f"{_power(table, int(theta.argmin()))}), which the second phase adds: the angle of the theory "
        "is that at the end of the first (C6).",
    )


def _c6(table: Table, facts: FlowFacts, data: tuple[str, ...]) -> ClaimResult:
    setting, n = data[0], len(table.seeds)
    at, narrow = where_positive(table, "zeta_sum"), where_positive(table, "zeta_mean")
    low, high = SLOPE_RANGE
    expected = f"between {low:g} and {high:g}"
    aligned = table.only(_cone_shares(table, at) >= CONE_SHARE)
    parts, main = [], None
    for name, angle, scales, decides in (
        ("the effective predictor at the end of phase 1", "phase1_angle", at, True),
        ("the same, where zeta > 0 with x_+ the class mean", "phase1_angle", narrow, False),
        (f"{_AS_ASSUMED} {100 * CONE_SHARE:g} % in the cone", "phase1_angle", at, False),
        (
            "the neurons in the positive cone at the end of phase 1",
            "phase1_neuron_angle",
            at,
            False,
        ),
        ("the largest neuron at the end of phase 1", "phase1_largest_angle", at, False),
        ("the effective predictor at the explicit phase-1 time", "time_angle", at, False),
        ("the effective predictor when the loss gradient has moved", "gradient_angle", at, False),
        ("the effective predictor at the stop", "theta", at, False),
    ):
        of = aligned if name.startswith(_AS_ASSUMED) else table
        found = slopes(of, angle, scales)
        interval = None if found is None else t_interval(found)
        outcome: ClaimOutcome | None = None
        if decides:
            main = interval
            outcome = "undecided" if interval is None else within(interval, low, high)
            outcome = _settled(outcome, facts)
        parts.append(
            ClaimPart(
                name=f"slope of log2 angle against log2 alpha: {name}", setting=setting,
                outcome=outcome, estimate=interval, unit="1", expected=expected,
                n=0 if found is None else len(found), text=_slope_text(of, angle, scales),
            )
        )  # fmt: skip
    outcome = parts[0].outcome or "undecided"
    span = f"{_power(table, at[0])} .. {_power(table, at[-1])}" if at else "no scale"
    slope = "can't be measured" if main is None else f"is {shown(main, 1, 3)}"
    vacuous = [_power(table, k) for k in range(len(table.alphas)) if k not in at]
    missing = f" The alignment bound is vacuous at {', '.join(vacuous)}." if vacuous else ""
    return ClaimResult(
        claim="C6", statement=C6_STATEMENT, reported=C6_REPORTED, outcome=outcome,
        text=f"Over {span}, where zeta > 0 for every seed (x_+ the class sum), the slope of log2 angle "
        f"against log2 alpha at the end of phase 1 {slope}; a half is claimed, and {expected} counts as "
        f"one.{missing} {facts.sentence}",
        data=data, num_seeds=n, parts=tuple(parts), panels=_c6_panels(table),
        cautions=_c6_cautions(table, at),
    )  # fmt: skip


def _slope_text(table: Table, name: str, at: Sequence[int]) -> str:
    if len(at) < MIN_SCALES:
        return "Fewer than three init scales have zeta > 0 for every seed."
    values = table.of(name)[list(at)]
    known = (values > 0).all(axis=0)
    if int(known.sum()) < MIN_SEEDS:
        return "Fewer than three seeds have this angle at every scale."
    logs = np.log2(values[:, known]).mean(axis=1)
    local = np.diff(logs) / np.diff(table.log2[list(at)])
    return (
        f"Over {_power(table, at[0])} .. {_power(table, at[-1])}; between neighbouring scales the slope "
        f"is {local.min():.2f} to {local.max():.2f}; the angle goes from {2 ** logs[0]:.4f} to "
        f"{2 ** logs[-1]:.4f} radians."
    )


def _cone_shares(table: Table, at: Sequence[int]) -> Values:
    """[S] share of v_j > 0 neurons in the positive cone at the end of phase 1, mean over scales."""
    shares = table.of("phase1_cone_share")[list(at)]
    found: Values = shares.mean(axis=0) if at else np.zeros(len(table.seeds))
    return found


def _c6_cautions(table: Table, at: Sequence[int]) -> tuple[str, ...]:
    cautions = [
        "The end of phase 1 is the first time that the squared norm of some neuron exceeds "
        "2·alpha·W_max^2/sqrt(h), the bound of Min, Mallada and Vidal. Other definitions give other "
        "slopes, shown beside it: their explicit time is a lower bound, at which little is aligned yet.",
        "The angle at the stop has a floor that the second phase adds, so no slope is read there: "
        f"{shown(t_interval(table.of('theta')[0]), 1, 4)} radians at {_power(table, 0)}.",
    ]
    if at:
        shares = _cone_shares(table, at)
        assumed = int((shares >= CONE_SHARE).sum())
        cautions.append(
            f"Of the neurons with v_j > 0, {100 * shares.mean():.1f} % are in the positive cone at the "
            "end of phase 1 (active on all positive, no negative points; mean over seeds and scales). "
            "The theory assumes that those that see the positive class get there, which noise does not "
            f"grant: {assumed} of {len(shares)} seeds have at least {100 * CONE_SHARE:g} %, and their "
            "slope stands beside that of all."
        )
        slack = table.of("psi_slack")[list(at)]
        broken = int((slack < 0).sum())
        cautions.append(
            f"The bound on psi_j was broken in {broken} of {int(np.isfinite(slack).sum())} runs in "
            f"which it says something; the least psi_j - bound of a run is {np.nanmin(slack):.3f} to "
            f"{np.nanmax(slack):.3f}."
            if np.isfinite(slack).any()
            else "The bound on psi_j could be compared with no neuron."
        )
    return tuple(cautions)


# --- panels ---------------------------------------------------------------------------------


def _curve(
    table: Table, name: str, values: Values, at: Sequence[int], log2: bool = False
) -> ClaimCurve | None:
    points = []
    for k in at:
        row = values[k][np.isfinite(values[k])]
        if log2:
            row = np.log2(row[row > 0])
        if len(row) < MIN_SEEDS:
            continue
        one = t_interval(row)
        points.append(
            CurvePoint(x=float(table.log2[k]), value=one.value, low=one.low, high=one.high)
        )
    return ClaimCurve(name=name, points=tuple(points)) if points else None


def _panel(
    title: str, y_label: str, curves: Sequence[ClaimCurve | None], y_log2: bool = False
) -> tuple[ClaimPanel, ...]:
    known = tuple(one for one in curves if one is not None)
    if not known:
        return ()
    return (
        ClaimPanel(title=title, x_label=ALPHA_LABEL, y_label=y_label, y_log2=y_log2, curves=known),
    )


def _c5_panels(table: Table) -> tuple[ClaimPanel, ...]:
    every = range(len(table.alphas))
    excess = table.of("excess_effective").mean(axis=1)
    near = [k for k in every if excess[k] <= SHOWN_FACTOR * excess.min()]
    parts = {
        "OA": "over_alignment", "OF": "over_fitting", "OA + OF": "excess_effective",
    }  # fmt: skip
    errors = {
        "effective predictor": "excess_effective",
        "net itself, ties half an error": "excess_net",
        "linear direction": "excess_linear",
    }
    panels: list[ClaimPanel] = []
    for words, at in (("", list(every)), (", where the excess is small", near)):
        for title, names in (("Over-alignment and over-fitting", parts), ("Excess error", errors)):
            panels += _panel(
                f"{title}{words}", _PERCENT,
                [_curve(table, label, 100 * table.of(name), at) for label, name in names.items()],
            )  # fmt: skip
    panels += _panel(
        "Test points on which the net is exactly 0", "share of test points (%)",
        [_curve(table, "ties", 100 * table.of("ties"), every)],
    )  # fmt: skip
    return tuple(panels)


def _c6_panels(table: Table) -> tuple[ClaimPanel, ...]:
    every = range(len(table.alphas))
    angles = {
        "effective predictor, end of phase 1": "phase1_angle",
        "neurons in the cone, end of phase 1": "phase1_neuron_angle",
        "effective predictor, explicit phase-1 time": "time_angle",
        "effective predictor, loss gradient moved": "gradient_angle",
        "effective predictor, at the stop": "theta",
        "x₊ to the Bayes direction (φ)": "phi",
    }
    cosines = {"least ψ of a neuron in the cone": "psi_min", "its bound": "psi_bound"}
    return (
        *_panel(
            "Angle to the class mean", _ANGLE,
            [_curve(table, label, table.of(name), every, log2=True)
             for label, name in angles.items()],
            y_log2=True,
        ),
        *_panel(
            "Alignment of neurons at the end of phase 1, where the bound says something",
            "cosine with the class mean (1)",
            [_curve(table, label, table.of(name), every) for label, name in cosines.items()],
        ),
    )  # fmt: skip
