"""Reading one net: from its columns and a stored model to probabilities, a set of regimes and why."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from fls_bench.schema import (
    Code,
    Curve,
    Evidence,
    Interval,
    OutOfRange,
    Push,
    Reading,
    ReadingModel,
    ReadingModels,
    ReferenceRange,
    Regime,
)
from fls_bench.verdict.reading.columns import COLUMNS
from fls_bench.verdict.reading.observables import OBSERVABLES, matrix
from fls_bench.verdict.reading.truth import REGIMES

Values = npt.NDArray[np.float64]

MOST_PUSHES = 8
DOUBTED = (
    "The initial weights that were given are hardly those of this run, and a centred net's outputs rest "
    "on them."
)
_OF_THE_FIT = ("train_loss", "train_error")
NO_SIGNAL = (
    "On test points the net is no better than always answering the commonest class, so there is nothing "
    "to tell the regimes by. A sweep would show whether another c is."
)
_BY_NAME = {one.name: one for one in OBSERVABLES}


def observed(model: ReadingModel, columns: Mapping[str, Values]) -> Values:
    """The observables of a model, ``[R, C]``, NaN where they could not be had.

    Args:
        model: Of a kind of evidence.
        columns: Column -> ``[R]``.

    Returns:
        In the order of the model's curves.
    """
    return matrix(columns, tuple(_BY_NAME[curve.observable] for curve in model.curves))


def contributions(model: ReadingModel, values: Values) -> Values:
    """What each curve adds to the scores and to the ratio, ``[R, C, 4]``.

    Args:
        model: The model.
        values: ``[R, C]`` from ``observed``.

    Returns:
        NaN where a measurement failed: no number stands in for it. What a net can't have by construction
        has scores of its own, and NaN where the atlas has no such nets.
    """
    parts = np.empty((*values.shape, len(REGIMES) + 1))
    for k, curve in enumerate(model.curves):
        heights = np.column_stack([np.array(curve.scores), np.array(curve.ratios)])
        for column in range(heights.shape[1]):
            parts[:, k, column] = np.interp(values[:, k], curve.knots, heights[:, column])
        parts[np.isnan(values[:, k]), k] = math.nan
        lacking = np.isinf(values[:, k])
        parts[lacking, k] = math.nan if curve.absent is None else np.array(curve.absent)
    return parts


def predicted(model: ReadingModel, values: Values) -> tuple[Values, Values]:
    """Probabilities ``[R, 3]`` in the order of ``REGIMES``, and log2(c/c*) ``[R]``.

    Args:
        model: The model.
        values: ``[R, C]`` from ``observed``.

    Returns:
        NaN as in ``contributions``.
    """
    total = contributions(model, values).sum(axis=1)
    scores = total[:, :3] + np.array(model.intercepts)
    scores -= scores.max(axis=1, keepdims=True)
    weights = np.exp(scores)
    return weights / weights.sum(axis=1, keepdims=True), total[:, 3] + model.ratio_intercept


def distances(model: ReadingModel, values: Values) -> Values:
    """How far nets lie from the middle of the atlas, ``[R]``, in deviations per dimension.

    Args:
        model: The model.
        values: ``[R, C]`` from ``observed``.

    Returns:
        sqrt of the squared Mahalanobis distance, over the number of observables that a net has: about
        1 for the nets of the atlas.
    """
    z = (values - np.array(model.centre)) / np.array(model.scale)
    correlation, distance = np.array(model.correlation), np.empty(len(z))
    there = np.isfinite(z)
    patterns, which = np.unique(there, axis=0, return_inverse=True)
    for k, pattern in enumerate(patterns):
        own = z[which == k][:, pattern]
        solved = np.linalg.solve(correlation[np.ix_(pattern, pattern)], own.T)
        squared = (own * solved.T).sum(axis=1)
        distance[which == k] = np.sqrt(np.maximum(squared, 0.0) / max(1, pattern.sum()))
    return distance


FACT_SLACK = 1.0
"""How far a fact of the setup may lie beyond the atlas': octaves, or weight layers."""


def within_reach(model: ReadingModel, values: Values) -> npt.NDArray[np.bool_]:
    """Whether the atlas has nets like these, ``[R]``.

    A distance over many observables hardly sees a single one: a net of far more points, classes or
    parameters than any of the atlas is out of reach by that alone, however it measures.

    Args:
        model: The model.
        values: ``[R, C]`` from ``observed``.

    Returns:
        False where the distance is beyond the reach, or a fact beyond its range.
    """
    near = distances(model, values) <= model.reach
    for k, curve in enumerate(model.curves):
        if _BY_NAME[curve.observable].of_setup:
            x = values[:, k]
            near &= ~(x < curve.low - FACT_SLACK) & ~(x > curve.high + FACT_SLACK)
    return near


def read(
    models: ReadingModels,
    evidence: Evidence,
    columns: Mapping[str, float],
    missing: str = "",
    *,
    has_signal: bool = True,
    too_few: Sequence[str] = (),
    trusted: bool = True,
    foreign: Sequence[str] = (),
) -> Reading:
    """Read the regime of one net.

    Args:
        models: The committed models.
        evidence: What there was.
        columns: From ``columns``.
        missing: What the reading was not given, for its reason: words such as "initial weights".
        has_signal: Whether the net is better than chance on test points.
        too_few: Of what there were too few points: words such as "100 test points (there are 98)".
        trusted: Whether the measurements are of this net; False: nothing is said.
        foreign: Kinds of layers that the net has and no net of the atlas: nothing is said.

    Returns:
        The reading; inconclusive wherever the set does not hold exactly one regime, or the atlas has
        no nets like this one.
    """
    model = models.models[evidence]
    own = {name: np.array([columns.get(name, math.nan)]) for name in COLUMNS}
    values = observed(model, own)
    absent = tuple(
        curve.observable
        for curve, value in zip(model.curves, values[0], strict=True)
        if math.isnan(value) or (math.isinf(value) and curve.absent is None)
    )
    probabilities, ratio = predicted(model, values)
    distance = float(distances(model, values)[0])
    chosen = tuple(
        regime for regime, p in zip(REGIMES, probabilities[0], strict=True) if p >= model.threshold
    )
    outside = tuple(
        OutOfRange(
            observable=curve.observable, text=_BY_NAME[curve.observable].words,
            value=float(value), low=curve.low, high=curve.high,
        )
        for curve, value in zip(model.curves, values[0], strict=True)
        if math.isfinite(value) and _is_outside(value, curve)
    )  # fmt: skip
    near = bool(within_reach(model, values)[0])
    unread = _unread(absent, distance, near, model, outside, has_signal, too_few)
    if foreign:
        unread = Code(
            code="out_of_reach",
            text="The atlas has no nets like this one: it has nets of linear, convolutional and "
            f"normalisation layers, and none with {', '.join(foreign[:4])}. A sweep would decide.",
        )
    if not trusted:
        unread = Code(code="init_doubted", text=DOUBTED + (f" Give {missing}." if missing else ""))
    if unread is not None:
        return Reading(
            evidence=evidence, regime=Regime.INCONCLUSIVE, regimes=REGIMES, level=model.level,
            probabilities={}, log2_c_ratio=None, distance=round(distance, 6), reach=model.reach,
            out_of_range=outside, depth="no nets", reason=unread, atlas=models.atlas,
        )  # fmt: skip
    likeliest = REGIMES[int(probabilities[0].argmax())]
    value, width = round(float(ratio[0]), 6), model.ratio_width
    group, ranges = _ranges(models, own)
    regime = chosen[0] if len(chosen) == 1 else Regime.INCONCLUSIVE
    return Reading(
        evidence=evidence,
        regime=regime,
        regimes=chosen,
        level=model.level,
        probabilities={
            one.value: round(float(p), 6) for one, p in zip(REGIMES, probabilities[0], strict=True)
        },
        log2_c_ratio=Interval(
            value=value, low=None if width is None else value - width,
            high=None if width is None else value + width, level=model.level,
        ),
        distance=round(distance, 6),
        reach=model.reach,
        out_of_range=outside,
        pushes=_pushes(model, values[0], contributions(model, values)[0], likeliest, ranges),
        depth=group,
        reason=_reason(chosen, model.level, likeliest, float(probabilities[0].max()), missing),
        atlas=models.atlas,
    )  # fmt: skip


def _is_outside(value: float, curve: Curve) -> bool:
    """Whether a value lies beyond the atlas', whose ends are stored with six digits."""
    slack = 1e-4 * (curve.high - curve.low)
    return not curve.low - slack <= value <= curve.high + slack


def _unread(
    absent: tuple[str, ...],
    distance: float,
    near: bool,
    model: ReadingModel,
    outside: tuple[OutOfRange, ...],
    has_signal: bool,
    too_few: Sequence[str],
) -> Code | None:
    """Why nothing can be said of a net at all, or None."""
    if too_few and absent:
        return Code(
            code="too_few_points",
            text=f"What every net of the atlas has takes at least {' and '.join(too_few)} to measure. "
            "Give more, or let a sweep decide.",
        )
    if absent:
        names = "; ".join(_BY_NAME[name].words for name in absent[:4])
        more = f"; and {len(absent) - 4} more" if len(absent) > 4 else ""
        return Code(
            code="not_measured",
            text=f"What every such net of the atlas has could not be measured here: {names}{more}. The "
            "measurements say why. A sweep would decide.",
        )
    if not has_signal:
        return Code(code="no_signal", text=NO_SIGNAL)
    if not near:
        far = not distance <= model.reach
        named = [one for one in outside if far or _BY_NAME[one.observable].of_setup]
        which = "; ".join(
            f"{one.text}: {one.value:.3g}, there {one.low:.3g} to {one.high:.3g}"
            for one in named[:4]
        )
        which = which or "no single measurement is out of range, but together they are"
        how = (
            f"its distance is {distance:.2f}, and beyond {model.reach:.2f} the reading is not trusted"
            if far
            else "what it is lies too far outside"
        )
        fitted = "" if all(one.observable not in _OF_THE_FIT for one in named) else (
            " Its training loss or error is unlike that of a trained net: does the net that was built "
            "hold the multiplier c, and are the inputs scaled as it saw them?"
        )  # fmt: skip
        return Code(
            code="out_of_reach",
            text=f"The atlas has no nets like this one: {how} ({which}).{fitted} A sweep would decide.",
        )
    return None


def _reason(
    chosen: tuple[Regime, ...], level: float, likeliest: Regime, probability: float, missing: str
) -> Code:
    more = " Give " + missing + ", or let a sweep decide." if missing else " A sweep would decide."
    share = f"{100 * level:.0f} %"
    if not chosen:
        return Code(
            code="no_regime_fits",
            text=f"No regime is likely enough to belong to the set that holds the true one in {share} "
            f"of cases.{more}",
        )
    if len(chosen) > 1:
        names = " or ".join(one.label for one in chosen)
        return Code(
            code="regimes_not_told_apart",
            text=f"By what was measured the net is {names}: in {share} of cases that six seeds can "
            f"settle the true regime is one of these. The likeliest is {likeliest.label} "
            f"({100 * probability:.0f} %).{more}",
        )
    return Code(
        code="one_regime_fits",
        text=f"By what was measured only {likeliest.label} is likely: sets of regimes chosen like this "
        f"one hold the true regime of {share} of new setups, where six seeds can settle it. No net was "
        "trained at another c: a sweep would confirm it.",
    )


def _ranges(
    models: ReadingModels, own: Mapping[str, Values]
) -> tuple[str, Mapping[str, tuple[ReferenceRange, ...]]]:
    """The reference ranges of nets of like depth and n."""
    depth, n = float(own["depth"][0]), float(own["n_train"][0])
    for group in models.groups:
        if group.depth[0] <= depth <= group.depth[1] and group.n_train[0] <= n <= group.n_train[1]:
            depths, sizes = _span(group.depth), _span(group.n_train)
            words = f"nets of {depths} weight layers and {sizes} training points"
            return words, group.ranges
    return "no nets", {}


def _span(span: tuple[int, int]) -> str:
    return f"{span[0]} to {span[1]}" if span[1] < 10**6 else f"{span[0]} or more"


def _pushes(
    model: ReadingModel,
    raw: Values,
    parts: Values,
    regime: Regime,
    ranges: Mapping[str, tuple[ReferenceRange, ...]],
) -> tuple[Push, ...]:
    """The observables that moved the verdict most, either way, the strongest first."""
    own = REGIMES.index(regime)
    found = []
    for k, curve in enumerate(model.curves):
        others = [parts[k, j] for j in range(len(REGIMES)) if j != own]
        strength = float(parts[k, own] - np.mean(others))
        toward = regime if strength > 0 else REGIMES[
            max((j for j in range(len(REGIMES)) if j != own), key=lambda j: parts[k, j])
        ]  # fmt: skip
        value = float(raw[k])
        found.append(
            Push(
                observable=curve.observable,
                text=_BY_NAME[curve.observable].words,
                value=value if math.isfinite(value) else None,
                toward=toward,
                strength=round(abs(strength), 4),
                ranges=ranges.get(curve.observable, ()),
            )
        )
    measured = [
        one for one in found if one.value is not None and not _BY_NAME[one.observable].of_setup
    ]
    return tuple(sorted(measured, key=lambda one: -one.strength)[:MOST_PUSHES])
