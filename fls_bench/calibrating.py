"""The reading is fitted to the atlas, and judged on what it was not fitted to."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from threadpoolctl import threadpool_limits

from fls_bench.atlas import ERRORS, OUTCOMES, Shard
from fls_bench.schema import (
    Curve,
    Evidence,
    Outcome,
    RangeGroup,
    ReadingModel,
    ReadingModels,
    ReferenceRange,
)
from fls_bench.verdict.reading.columns import COLUMNS, POINTS
from fls_bench.verdict.reading.model import distances, observed, predicted, within_reach
from fls_bench.verdict.reading.observables import EVIDENCE, OBSERVABLES, available, matrix
from fls_bench.verdict.reading.truth import NOTHING_KNOWN, REGIMES, truth

Values = npt.NDArray[np.float64]
Labels = npt.NDArray[np.intp]

UNKNOWN = -1


@dataclass(frozen=True, eq=False)
class Labelled:
    """The nets of an atlas that reached their stop, with what is known of them.

    Attributes:
        columns: ``[R, len(COLUMNS)]``, NaN where nothing was measured.
        case: ``[R]`` which setup.
        regime: ``[R]`` index into ``REGIMES``, or ``UNKNOWN``.
        grey: ``[R]`` whether the setup lies too near the margin to be truth.
        log2_ratio: ``[R]`` log2(c / c*), NaN where c* is not known.
        signal: ``[R]`` whether it is better than chance on test points.
        facts: Of each setup, as the shards tell them.
    """

    columns: Values
    case: Labels
    regime: Labels
    grey: npt.NDArray[np.bool_]
    log2_ratio: Values
    signal: npt.NDArray[np.bool_]
    facts: Sequence[dict[str, Any]]

    def of_case(self, key: str) -> npt.NDArray[Any]:
        """A fact of each net's setup, ``[R]``."""
        return np.array([fact[key] for fact in self.facts])[self.case]

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """Nets whose regime is truth."""
        known: npt.NDArray[np.bool_] = (self.regime != UNKNOWN) & ~self.grey
        return known

    @property
    def fitted_to(self) -> Labels:
        """Rows that models are fitted to: the regime is truth, and the setup not set aside."""
        return np.flatnonzero(self.known & ~self.of_case("set_aside"))

    def by_column(self, rows: npt.NDArray[Any]) -> dict[str, Values]:
        """Column -> ``[len(rows)]``."""
        return {name: self.columns[rows, k] for k, name in enumerate(COLUMNS)}


def labelled(shards: Sequence[Shard]) -> Labelled:
    """Judge every setup of an atlas at each c, and put its nets together.

    Args:
        shards: The atlas.

    Returns:
        All nets that reached their stop.
    """
    parts: dict[str, list[Any]] = {
        name: [] for name in ("columns", "case", "regime", "grey", "ratio", "signal")
    }
    facts: list[dict[str, Any]] = []
    for shard in shards:
        for k, about in enumerate(shard.header["cases"]):
            rows = np.flatnonzero(shard.case == k)
            outcomes = [OUTCOMES[o] for o in shard.outcome[rows]]
            log2_c = shard.log2_c[rows].astype(float)
            cells = truth(
                log2_c, shard.seed[rows], outcomes, shard.errors[rows].astype(float),
                about["n_test"],
            )  # fmt: skip
            for row, log, outcome in zip(rows, log2_c, outcomes, strict=True):
                if outcome is not Outcome.REACHED_TARGET:
                    continue
                cell = cells.get(log, NOTHING_KNOWN)
                regime, ratio = cell.regime, cell.log2_ratio
                parts["columns"].append(shard.values[row])
                parts["signal"].append(_beats_chance(shard, int(row), about["n_test"]))
                parts["case"].append(len(facts))
                parts["regime"].append(UNKNOWN if regime is None else REGIMES.index(regime))
                parts["grey"].append(cell.grey)
                parts["ratio"].append(np.nan if ratio is None else ratio)
            facts.append(about)
    return Labelled(
        columns=np.array(parts["columns"], dtype=float),
        case=np.array(parts["case"]),
        regime=np.array(parts["regime"]),
        grey=np.array(parts["grey"], dtype=bool),
        log2_ratio=np.array(parts["ratio"], dtype=float),
        signal=np.array(parts["signal"], dtype=bool),
        facts=facts,
    )


def places(atlas: Labelled, shards: Sequence[Shard]) -> dict[tuple[str, float, int], int]:
    """Where each net stands.

    Args:
        atlas: All nets.
        shards: What it was put together from.

    Returns:
        (id of the setup, log2 c, seed) -> row.
    """
    reached = OUTCOMES.index(Outcome.REACHED_TARGET)
    keys = [
        (about["id"], float(shard.log2_c[row]), int(shard.seed[row]))
        for shard in shards
        for k, about in enumerate(shard.header["cases"])
        for row in np.flatnonzero(shard.case == k)
        if shard.outcome[row] == reached
    ]
    assert len(keys) == len(atlas.case)
    return {key: row for row, key in enumerate(keys)}


def _beats_chance(shard: Shard, row: int, n_test: int) -> bool:
    """As a look tells it: by more than two standard errors on the test points that are looked at."""
    error, chance = (
        float(shard.errors[row, ERRORS.index(k)]) for k in ("test_error", "chance_error")
    )
    return error < chance - 2 * math.sqrt(chance * (1 - chance) / min(n_test, POINTS["test"]))


# --- fitting --------------------------------------------------------------------------------

KNOTS = 6
"""Of each curve, at quantiles of the observable."""

STRENGTH = 0.001
"""Inverse strength of the ridge on the curves of the scores."""

RIDGE = 1000.0
"""Strength of the ridge on the curves of log2(c/c*)."""

LEVEL = 0.9
EDGES = 0.002
"""This share of the atlas' nets lies beyond each end of an observable's range."""


@dataclass(frozen=True, eq=False)
class Fitted:
    """A model before it is calibrated, and its predictions for other nets.

    Attributes:
        names: Observables with values to fit on.
        knots: Of each observable.
        absent: ``[4]`` of each, or None.
        low: Lower end of the range of each.
        high: Upper end.
        scores: ``[C, knots, 3]`` heights of the curves.
        ratios: ``[C, knots]``.
        intercepts: ``[3]``.
        ratio_intercept: Of the ratio.
        centre: Mean of each filled observable.
        scale: Deviation of each.
        correlation: ``[C, C]`` shrunk.
    """

    names: tuple[str, ...]
    knots: list[Values]
    absent: list[Values | None]
    low: Values
    high: Values
    scores: list[Values]
    ratios: list[Values]
    intercepts: Values
    ratio_intercept: float
    centre: Values
    scale: Values
    correlation: Values

    def model(
        self,
        evidence: Evidence,
        *,
        temperature: float = 1.0,
        threshold: float = 0.0,
        width: float = math.inf,
        reach: float = math.inf,
    ) -> ReadingModel:
        """As a stored model, its scores divided by a temperature."""

        def plain(values: Any) -> tuple[float, ...]:
            return tuple(_short(value) for value in np.asarray(values).tolist())

        curves = [
            Curve(
                observable=name,
                knots=plain(self.knots[k]),
                scores=tuple(
                    (_short(a / temperature), _short(b / temperature), _short(c / temperature))
                    for a, b, c in self.scores[k].tolist()
                ),
                ratios=plain(self.ratios[k]),
                absent=self._absent(k, temperature),
                low=_short(self.low[k]),
                high=_short(self.high[k]),
            )
            for k, name in enumerate(self.names)
        ]
        first, second, third = (_short(one / temperature) for one in self.intercepts.tolist())
        return ReadingModel(
            evidence=evidence, curves=tuple(curves), intercepts=(first, second, third),
            ratio_intercept=_short(self.ratio_intercept), threshold=_short(threshold), level=LEVEL,
            ratio_width=_short(width) if math.isfinite(width) else None,
            centre=plain(self.centre), scale=plain(self.scale),
            correlation=tuple(plain(row) for row in self.correlation),
            reach=min(_short(reach), 1e6),
        )  # fmt: skip

    def _absent(self, k: int, temperature: float) -> tuple[float, float, float, float] | None:
        found = self.absent[k]
        if found is None:
            return None
        first, second, third, ratio = found.tolist()
        return (
            _short(first / temperature), _short(second / temperature), _short(third / temperature),
            _short(ratio),
        )  # fmt: skip


def _short(value: float) -> float:
    """Six significant digits: what the last bits of a fit say is the machine's."""
    return float(f"{value:.6g}")


def fit(
    values: Values,
    names: Sequence[str],
    regime: Labels,
    ratio: Values,
) -> Fitted:
    """Fit curves to observables of nets whose regime is known.

    Args:
        values: ``[R, C]`` observables, NaN where there is none.
        names: Their names.
        regime: ``[R]`` index into ``REGIMES``.
        ratio: ``[R]`` log2(c / c*), NaN where not known.

    Returns:
        The model.

    Source: generalised additive models, Hastie, Tibshirani 1986; linear splines with knots at
    quantiles, multinomial logistic and ridge regression of scikit-learn; Ledoit, Wolf 2004 for the
    shrunk covariance.
    """
    from sklearn.covariance import LedoitWolf
    from sklearn.linear_model import LogisticRegression, Ridge

    kept = [k for k in range(values.shape[1]) if np.isfinite(values[:, k]).mean() > MIN_MEASURED]
    values = values[:, kept]
    lacks = np.isinf(values)
    values = np.where(lacks, np.nan, values)
    low, high = np.nanquantile(values, [EDGES, 1 - EDGES], axis=0)
    centre, spread = np.nanmean(values, axis=0), np.nanstd(values, axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    knots = [_knots(values[:, k]) for k in range(values.shape[1])]
    lacking = lacks.sum(axis=0) >= MIN_ABSENT
    basis = [
        _basis(values[:, k], knots[k], lacks[:, k] if lacking[k] else None)
        for k in range(values.shape[1])
    ]
    design = np.concatenate(basis, axis=1)
    mean, scale = design.mean(axis=0), design.std(axis=0)
    scale[scale == 0] = 1.0
    standard = (design - mean) / scale
    with threadpool_limits(limits=1):
        logistic = LogisticRegression(C=STRENGTH, max_iter=5000, tol=1e-8)
        logistic.fit(standard, regime)
        known = np.isfinite(ratio)
        ridge = Ridge(alpha=RIDGE).fit(standard[known], ratio[known])
        # For the correlation alone, what is missing counts as uncorrelated.
        z = np.nan_to_num((values - centre) / spread)
        correlation = LedoitWolf(assume_centered=True).fit(z).covariance_
        deviation = np.sqrt(np.diag(correlation))
        correlation = correlation / deviation[:, None] / deviation[None, :]
    heights = logistic.coef_ / scale
    slopes = ridge.coef_ / scale
    # Each curve is 0 on average over the atlas, so that what it adds is against a usual net.
    first = 0
    for part in basis:
        own = slice(first, first + part.shape[1])
        heights[:, own] -= (heights[:, own] @ mean[own])[:, None]
        slopes[own] -= slopes[own] @ mean[own]
        first = own.stop
    bounds = np.cumsum([0, *(part.shape[1] for part in basis)])
    ends = [b - 1 if one else b for b, one in zip(bounds[1:], lacking, strict=True)]
    spans = list(zip(bounds[:-1], ends, strict=True))
    return Fitted(
        names=tuple(names[k] for k in kept),
        knots=knots,
        absent=[
            np.append(heights[:, b], slopes[b]) if one else None
            for (_, b), one in zip(spans, lacking, strict=True)
        ],
        low=low,
        high=high,
        scores=[heights[:, a:b].T for a, b in spans],
        ratios=[slopes[a:b] for a, b in spans],
        intercepts=logistic.intercept_,
        ratio_intercept=float(ridge.intercept_),
        centre=centre,
        scale=spread,
        correlation=correlation,
    )


MIN_MEASURED = 0.2
"""An observable that fewer of the nets have is left out."""


MIN_ABSENT = 20
"""From so many nets that can't have an observable on, their lacking it is learned as well."""


def _knots(x: Values) -> Values:
    knots = np.unique(np.nanquantile(x, np.linspace(0.01, 0.99, KNOTS)))
    return knots if len(knots) > 1 else np.array([knots[0], knots[0] + 1.0])


def _basis(x: Values, knots: Values, lacks: npt.NDArray[np.bool_] | None) -> Values:
    """Linear B-splines: 1 at a knot and 0 at its neighbours, constant beyond the ends.

    All are 0 where x is missing; with ``lacks`` one more column is 1 where the net can't have it.
    """
    missing = np.isnan(x)
    columns = [np.interp(x, knots, one) for one in np.eye(len(knots))]
    columns = [np.where(missing, 0.0, column) for column in columns]
    return np.stack(columns if lacks is None else [*columns, lacks.astype(float)], axis=1)


# --- out of sample --------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Held:
    """What models that did not see a net's group say of it.

    Attributes:
        rows: ``[R]`` nets, as indices into the atlas.
        groups: ``[R]`` what was left out at a time.
        probabilities: ``[R, 3]``.
        ratio: ``[R]`` log2(c / c*).
        distance: ``[R]``.
        facts: ``[R]`` whether facts of the setup lie where the other groups have nets.
    """

    rows: Labels
    groups: npt.NDArray[Any]
    probabilities: Values
    ratio: Values
    distance: Values
    facts: npt.NDArray[np.bool_]

    def read(self, reach: float) -> npt.NDArray[np.bool_]:
        """Which nets are given probabilities, ``[R]``: the others need no threshold and no width."""
        found: npt.NDArray[np.bool_] = (
            np.isfinite(self.probabilities).all(axis=1) & (self.distance <= reach) & self.facts
        )
        return found


def hold_out(
    atlas: Labelled,
    rows: Labels,
    groups: npt.NDArray[Any],
    evidence: Evidence,
    only: Sequence[str] | None = None,
) -> Held:
    """Leave one group out at a time: fit on the others, predict it.

    A group may be a fold of several tasks.

    Args:
        atlas: All nets.
        rows: Nets whose regime is truth.
        groups: ``[len(rows)]`` task, family or optimizer of each.
        evidence: What the reading rests on.
        only: Names of observables; None: all that the evidence allows.

    Returns:
        Predictions for all rows.
    """
    observables = tuple(k for k in available(evidence) if only is None or k.name in only)
    values = matrix(atlas.by_column(rows), observables)
    names = [one.name for one in observables]
    regime, ratio = atlas.regime[rows], atlas.log2_ratio[rows]
    probabilities = np.full((len(rows), len(REGIMES)), np.nan)
    ratios, distance = np.full(len(rows), np.nan), np.full(len(rows), np.nan)
    facts = np.zeros(len(rows), dtype=bool)
    for group in np.unique(groups):
        out = groups == group
        fitted = fit(values[~out], names, regime[~out], ratio[~out])
        model = fitted.model(evidence)
        own = observed(model, atlas.by_column(rows[out]))
        probabilities[out], ratios[out] = predicted(model, own)
        distance[out] = distances(model, own)
        facts[out] = within_reach(model, own)  # a model that is not calibrated reaches everywhere
    return Held(rows, groups, probabilities, ratios, distance, facts)


def temperature_of(probabilities: Values, regime: Labels) -> float:
    """The temperature at which held-out probabilities are most likely.

    Source: Guo et al. 2017, arXiv 1706.04599, section 4.2.
    """
    logs = np.log(np.maximum(probabilities, 1e-300))

    def loss(log_temperature: float) -> float:
        scaled = logs / math.exp(log_temperature)
        scaled -= scaled.max(axis=1, keepdims=True)
        norm = np.log(np.exp(scaled).sum(axis=1))
        own = scaled[np.arange(len(regime)), regime] - norm
        return float(-own.mean())

    found = minimize_scalar(loss, bounds=(-2.0, 3.0), method="bounded")
    return float(math.exp(found.x))


def tempered(probabilities: Values, temperature: float) -> Values:
    """Probabilities at another temperature."""
    logs = np.log(np.maximum(probabilities, 1e-300)) / temperature
    logs -= logs.max(axis=1, keepdims=True)
    weights = np.exp(logs)
    result: Values = weights / weights.sum(axis=1, keepdims=True)
    return result


def group_quantile(scores: Values, groups: npt.NDArray[Any], level: float) -> float:
    """The value that a score of a net of a new group exceeds with probability at most 1 - level.

    Each of the K groups has the mass 1/(K + 1), shared by its scores, and the rest lies at infinity.

    Args:
        scores: ``[R]``, larger = stranger.
        groups: ``[R]``.
        level: Wanted coverage.

    Returns:
        The quantile; infinite where K is too small for the level.

    Source: Lee, Barber, Willett, "Distribution-free inference with hierarchical data" (arXiv
    2306.06342), section 3; Dunn, Wasserman, Ramdas 2022.
    """
    if np.isnan(scores).any():
        raise ValueError("a score is NaN")
    num = len(np.unique(groups))
    _, inverse, counts = np.unique(groups, return_inverse=True, return_counts=True)
    mass = 1.0 / (counts[inverse] * (num + 1))
    order = np.argsort(scores)
    reached = np.cumsum(mass[order])
    place = int(np.searchsorted(reached, level - 1e-12))
    return float(scores[order[place]]) if place < len(scores) else math.inf


# --- the committed file ---------------------------------------------------------------------


def calibrate(
    atlas: Labelled,
    evidence: Evidence,
    rows: Labels,
    only: Sequence[str] | None = None,
) -> tuple[ReadingModel, Held]:
    """Fit a model, and calibrate it on tasks that were left out, ``FOLDS`` parts of them.

    The threshold is of new setups: each setup counts alike. The width of log2(c/c*) is of new tasks, on
    which it errs by far more.

    Args:
        atlas: All nets.
        evidence: What the reading rests on.
        rows: Nets whose regime is truth.
        only: Names of observables; None: all that the evidence allows.

    Returns:
        (the model, what was held out, at the model's temperature).
    """
    regime, ratio, setups = atlas.regime[rows], atlas.log2_ratio[rows], atlas.case[rows]
    _, places = np.unique(atlas.of_case("task")[rows], return_inverse=True)
    held = hold_out(atlas, rows, places % FOLDS, evidence, only)
    reach = float(np.quantile(held.distance, REACHED))
    read = held.read(reach)
    temperature = temperature_of(held.probabilities[read], regime[read])
    probabilities = tempered(held.probabilities, temperature)
    own = probabilities[np.arange(len(rows)), regime]
    threshold = max(0.0, -group_quantile(-own[read], setups[read], LEVEL))
    known = read & np.isfinite(ratio)
    width = group_quantile(np.abs(held.ratio - ratio)[known], places[known], LEVEL)
    observables = tuple(k for k in available(evidence) if only is None or k.name in only)
    values = matrix(atlas.by_column(rows), observables)
    fitted = fit(values, [one.name for one in observables], regime, ratio)
    model = fitted.model(
        evidence, temperature=temperature, threshold=threshold, width=width, reach=reach
    )
    return model, replace(held, probabilities=probabilities)


FOLDS = 5
"""Tasks are left out in so many parts where a model is calibrated."""

REACHED = 0.98
"""Share of nets of tasks that were left out that lie within reach."""


def reference_groups(atlas: Labelled, rows: Labels) -> tuple[RangeGroup, ...]:
    """Where nets of each regime lie, by depth and number of training points.

    Args:
        atlas: All nets.
        rows: Nets whose regime is truth.

    Returns:
        One group per part of depth and n; a part with too few nets of a regime takes all depths.
    """
    columns = atlas.by_column(rows)
    values = matrix(columns, OBSERVABLES)
    depth, n, regime = columns["depth"], columns["n_train"], atlas.regime[rows]
    groups = []
    for depths in DEPTHS:
        for sizes in SIZES:
            near = (n >= sizes[0]) & (n <= sizes[1])
            like = near & (depth >= depths[0]) & (depth <= depths[1])
            ranges: dict[str, list[ReferenceRange]] = {}
            for k, one in enumerate(REGIMES):
                every = np.ones_like(near)
                scope, mine = next(
                    (name, part & (regime == k))
                    for name, part in (("depth and n", like), ("n", near), ("all", every))
                    if name == "all" or (part & (regime == k)).sum() >= MIN_NETS
                )
                for j, observable in enumerate(OBSERVABLES):
                    own = values[mine, j]
                    own = own[np.isfinite(own)]
                    if len(own) < MIN_NETS:
                        continue
                    low, median, high = (_short(q) for q in np.quantile(own, [0.1, 0.5, 0.9]))
                    ranges.setdefault(observable.name, []).append(
                        ReferenceRange(
                            regime=one, low=low, median=median, high=high, n=len(own), of=scope
                        )
                    )
            groups.append(
                RangeGroup(
                    depth=depths, n_train=sizes,
                    ranges={name: tuple(found) for name, found in ranges.items()},
                )
            )  # fmt: skip
    return tuple(groups)


DEPTHS = ((1, 3), (4, 5), (6, 10**6))
SIZES = ((1, 149), (150, 499), (500, 10**6))
MIN_NETS = 20


def calibrated(shards: Sequence[Shard]) -> ReadingModels:
    """The committed file, from the atlas alone.

    Args:
        shards: The atlas.

    Returns:
        Models of all kinds of evidence, fitted on what is not set aside.
    """
    atlas = labelled(shards)
    rows = atlas.fitted_to
    models = {evidence: calibrate(atlas, evidence, rows)[0] for evidence in EVIDENCE}
    about = {
        **shards[0].header["suite"],
        "nets": len(rows),
        "setups": len(np.unique(atlas.case[rows])),
        "tasks": len(np.unique(atlas.of_case("task")[rows])),
    }
    return ReadingModels(atlas=about, models=models, groups=reference_groups(atlas, rows))


TOLERANCE = 1e-4
"""Machines round differently, and a solver stops where its tolerance lets it."""


def differences(stored: ReadingModels, refit: ReadingModels) -> tuple[str, ...]:
    """Where a refit differs from a stored file by more than rounding.

    Args:
        stored: The file.
        refit: Of the same atlas.

    Returns:
        One line for each difference.
    """
    return tuple(_unlike("", stored.model_dump(), refit.model_dump()))


def _unlike(place: str, old: Any, new: Any) -> Iterator[str]:
    """Where two plain values differ, numbers by more than ``TOLERANCE``."""
    if isinstance(old, dict) and isinstance(new, dict) and old.keys() == new.keys():
        for key in old:
            yield from _unlike(f"{place}.{key}" if place else str(key), old[key], new[key])
    elif isinstance(old, list | tuple) and isinstance(new, list | tuple) and len(old) == len(new):
        for k, pair in enumerate(zip(old, new, strict=True)):
            yield from _unlike(f"{place}[{k}]", *pair)
    elif isinstance(old, float) and isinstance(new, float):
        if not math.isclose(old, new, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
            yield f"{place}: {old:g}, the refit has {new:g}"
    elif old != new:
        yield f"{place}: {str(old)[:60]}, the refit has {str(new)[:60]}"
