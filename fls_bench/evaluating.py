"""The reading on nets of tasks, architectures and optimizers that it was not fitted to.

Models, temperature, threshold and reach of every prediction come from the other groups alone: for each
group that is left out the whole calibration is done again, with folds of tasks inside.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import beta
from sklearn.metrics import roc_auc_score

from fls_bench.calibrating import LEVEL, UNKNOWN, Labelled, calibrate
from fls_bench.schema import (
    BaselineRow,
    Evaluation,
    EvaluationRow,
    EvaluationSpec,
    Evidence,
    GroupResult,
    Interval,
    LeftOut,
    ReadingModel,
    Regime,
    RegimeResult,
)
from fls_bench.verdict.reading.model import observed, predicted, within_reach
from fls_bench.verdict.reading.observables import OBSERVABLES, matrix
from fls_bench.verdict.reading.truth import REGIMES

Values = npt.NDArray[np.float64]
Labels = npt.NDArray[np.intp]

RESAMPLES = 1000
MIN_GROUPS = 8
"""With fewer groups to draw again an interval is much too narrow: none is given."""
BINS = 15
MIN_OF_REGIME = 5
"""A group with fewer nets of a regime has no area under the curve of its own."""

_OVER_ALIGNED, _OVER_FITTED = (
    REGIMES.index(one) for one in (Regime.OVER_ALIGNED, Regime.OVER_FITTED)
)


@dataclass(frozen=True, eq=False)
class Judged:
    """Held-out verdicts.

    Attributes:
        groups: ``[R]`` what was left out.
        clusters: ``[R]`` what is drawn again for intervals: nets of one err together.
        setups: ``[R]`` of which setup the net is: nets of one differ in c and seed alone.
        regime: ``[R]`` truth.
        ratio: ``[R]`` true log2(c/c*), NaN where not known.
        probabilities: ``[R, 3]``.
        inside: ``[R, 3]`` which regimes are in the set.
        read: ``[R]`` whether the net is given probabilities: measured, within reach, better than chance.
        estimate: ``[R]`` of log2(c/c*).
        width: ``[R]`` half-width of its interval.
    """

    groups: npt.NDArray[Any]
    clusters: npt.NDArray[Any]
    setups: Labels
    regime: Labels
    ratio: Values
    probabilities: Values
    inside: npt.NDArray[np.bool_]
    read: npt.NDArray[np.bool_]
    estimate: Values
    width: Values

    def part(self, rows: npt.NDArray[Any]) -> Judged:
        """Some of the nets."""
        return Judged(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    @property
    def emitted(self) -> npt.NDArray[np.bool_]:
        """Nets with a verdict."""
        emitted: npt.NDArray[np.bool_] = (self.inside.sum(axis=1) == 1) & self.read
        return emitted

    @property
    def called(self) -> Labels:
        """The regime of the verdict, where there is one."""
        called: Labels = self.inside.argmax(axis=1)
        return called

    @property
    def covered(self) -> npt.NDArray[np.bool_]:
        """Whether the set holds the true regime."""
        covered: npt.NDArray[np.bool_] = self.inside[np.arange(len(self.regime)), self.regime]
        return covered

    @property
    def opposite(self) -> npt.NDArray[np.bool_]:
        """Verdicts that are the opposite of the truth."""
        return self.emitted & _opposite(self.called, self.regime)


def _opposite(called: Labels, regime: Labels) -> npt.NDArray[np.bool_]:
    opposite: npt.NDArray[np.bool_] = ((called == _OVER_ALIGNED) & (regime == _OVER_FITTED)) | (
        (called == _OVER_FITTED) & (regime == _OVER_ALIGNED)
    )
    return opposite


def group_of(atlas: Labelled, rows: Labels, left_out: LeftOut) -> npt.NDArray[Any]:
    """Task, architecture family or optimizer of each net."""
    if left_out == "optimizer":
        kinds = np.array([_optimizer(fact["optimizer"]) for fact in atlas.facts])
        return kinds[atlas.case[rows]]
    return atlas.of_case(left_out)[rows]


def _optimizer(optimizer: dict[str, Any]) -> str:
    if optimizer["kind"] == "sgd" and optimizer.get("momentum"):
        return "momentum"
    return str(optimizer["kind"])


def judge(
    atlas: Labelled,
    evidence: Evidence,
    fit_on: Labels,
    rows: Labels,
    groups: npt.NDArray[Any],
    only: Sequence[str] | None = None,
    clusters: npt.NDArray[Any] | None = None,
) -> Judged:
    """Calibrate on some nets and judge others.

    Args:
        atlas: All nets.
        evidence: What the reading rests on.
        fit_on: Nets to calibrate on.
        rows: Nets to judge.
        groups: ``[len(rows)]`` kept with them.
        only: Names of observables; None: all.
        clusters: ``[len(rows)]`` what is drawn again for intervals; None: the groups.

    Returns:
        Verdicts.
    """
    model, _ = calibrate(atlas, evidence, fit_on, only)
    return judge_by(model, atlas, evidence, rows, groups, clusters)


def judge_by(
    model: ReadingModel,
    atlas: Labelled,
    evidence: Evidence,
    rows: Labels,
    groups: npt.NDArray[Any],
    clusters: npt.NDArray[Any] | None = None,
) -> Judged:
    """Judge nets by a model that is there.

    Args:
        model: For this evidence.
        atlas: All nets.
        evidence: What the reading rests on.
        rows: Nets to judge.
        groups: ``[len(rows)]`` kept with them.
        clusters: ``[len(rows)]`` what is drawn again for intervals; None: the groups.

    Returns:
        Verdicts.
    """
    values = observed(model, atlas.by_column(rows))
    probabilities, estimate = predicted(model, values)
    lacking = np.asarray(np.isnan(probabilities).any(axis=1))
    width = math.inf if model.ratio_width is None else model.ratio_width
    return Judged(
        groups=groups,
        clusters=groups if clusters is None else clusters,
        setups=atlas.case[rows],
        regime=atlas.regime[rows],
        ratio=atlas.log2_ratio[rows],
        probabilities=probabilities,
        inside=probabilities >= model.threshold,
        read=~lacking
        & within_reach(model, values)
        & (atlas.signal[rows] | evidence.endswith("train")),
        estimate=estimate,
        width=np.full(len(rows), width),
    )


def leave_out(
    atlas: Labelled,
    evidence: Evidence,
    rows: Labels,
    left_out: LeftOut,
    only: Sequence[str] | None = None,
    others: Labels | None = None,
) -> tuple[Judged, Judged]:
    """Leave one group out at a time, and judge it by what the others say.

    Args:
        atlas: All nets.
        evidence: What the reading rests on.
        rows: Nets whose regime is truth.
        left_out: What makes a group.
        only: Names of observables; None: all.
        others: Nets that nothing is fitted to, and that are judged where their group is left out.

    Returns:
        (verdicts of the rows, of the others).
    """
    groups = group_of(atlas, rows, left_out)
    others = np.empty(0, dtype=rows.dtype) if others is None else others
    other_groups = group_of(atlas, others, left_out)
    parts, more = [], []
    for group in np.unique(groups):
        out, also = groups == group, other_groups == group
        both = np.concatenate([rows[out], others[also]])
        names = np.concatenate([groups[out], other_groups[also]])
        judged = judge(atlas, evidence, rows[~out], both, names, only)
        parts.append(judged.part(np.arange(out.sum())))
        more.append(judged.part(np.arange(out.sum(), len(both))))
    return _joined(parts), _joined(more)


def _joined(parts: Sequence[Judged]) -> Judged:
    return Judged(
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in Judged.__dataclass_fields__
        )
    )


# --- figures --------------------------------------------------------------------------------


def auc(judged: Judged, regime: int) -> float:
    """Area under the curve of one regime against the others; NaN without nets of both."""
    mine = judged.regime == regime
    if not MIN_OF_REGIME <= mine.sum() <= len(mine) - MIN_OF_REGIME:
        return math.nan
    return float(roc_auc_score(mine, judged.probabilities[:, regime]))


def balanced_accuracy(judged: Judged) -> float:
    """Mean over regimes of the share of nets whose likeliest regime is the true one."""
    called = judged.probabilities.argmax(axis=1)
    shares = [
        (called[judged.regime == k] == k).mean()
        for k in range(len(REGIMES))
        if (judged.regime == k).any()
    ]
    return float(np.mean(shares))


def calibration_error(judged: Judged) -> float:
    """Expected calibration error of the largest probability, bins of equal counts.

    Source: Guo et al. 2017, arXiv 1706.04599, equation 3; equal counts as in Nguyen, O'Connor 2015.
    """
    top = judged.probabilities.max(axis=1)
    right = judged.probabilities.argmax(axis=1) == judged.regime
    order = np.argsort(top, kind="stable")
    bins = [part for part in np.array_split(order, BINS) if len(part)]
    return float(
        sum(len(part) * abs(top[part].mean() - right[part].mean()) for part in bins) / len(top)
    )


def _interval(judged: Judged, figure: Callable[[Judged], float]) -> Interval | None:
    """A figure with its interval: groups are drawn again with replacement.

    Source: cluster bootstrap, Davison, Hinkley 1997, section 3.8.
    """
    value = figure(judged)
    if not math.isfinite(value):
        return None
    names = np.unique(judged.clusters)
    places = [np.flatnonzero(judged.clusters == name) for name in names]
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(RESAMPLES if len(names) >= MIN_GROUPS else 0):
        chosen = rng.integers(len(names), size=len(names))
        drawn.append(figure(judged.part(np.concatenate([places[k] for k in chosen]))))
    found = np.array([one for one in drawn if math.isfinite(one)])
    if len(found) < RESAMPLES / 2:
        return Interval(value=_digits(value), low=None, high=None)
    low, high = np.quantile(found, [0.025, 0.975])
    return Interval(value=_digits(value), low=_digits(low), high=_digits(high))


def _opposite_share(judged: Judged) -> Interval | None:
    """Share of opposite verdicts.

    No resampling shows how many there might be of what is hardly ever seen. The upper bound is at least
    that of the setups with an opposite verdict among those that got one, for nets of one setup err
    together (Clopper, Pearson 1934).
    """
    found = _interval(judged, lambda k: _share(k.opposite, k.emitted))
    if found is None:
        return None
    num = len(np.unique(judged.setups[judged.emitted]))
    bad = len(np.unique(judged.setups[judged.opposite]))
    high = 1.0 if bad == num else float(beta.ppf(0.975, bad + 1, num - bad))
    return Interval(
        value=found.value, low=found.low or 0.0, high=_digits(max(high, found.high or 0.0))
    )


def _digits(value: float) -> float:
    return round(float(value), 5)


def _share(numerator: npt.NDArray[np.bool_], of: npt.NDArray[np.bool_]) -> float:
    return float(numerator[of].mean()) if of.any() else math.nan


def row_of(judged: Judged, evidence: Evidence, left_out: str, level: float) -> EvaluationRow:
    """All figures of one evaluation."""
    abstained = _interval(judged, lambda k: float(1 - k.emitted.mean()))
    assert abstained is not None  # a share of all nets, of which there are some
    read = judged.part(np.flatnonzero(judged.read))
    # An interval without bounds holds everything and says nothing.
    known = np.isfinite(read.ratio) & np.isfinite(read.width)
    width = float(np.median(2 * read.width[known])) if known.any() else math.inf
    held = np.abs(read.estimate - read.ratio) <= read.width

    def of_read(figure: Callable[[Judged], float]) -> Interval | None:
        return _interval(read, figure) if len(read.regime) else None

    return EvaluationRow(
        evidence=evidence,
        left_out=left_out,
        n=len(judged.regime),
        num_read=len(read.regime),
        num_groups=len(np.unique(judged.clusters)),
        auc_over_aligned=of_read(lambda k: auc(k, _OVER_ALIGNED)),
        auc_over_fitted=of_read(lambda k: auc(k, _OVER_FITTED)),
        balanced_accuracy=of_read(balanced_accuracy),
        opposite=_opposite_share(judged),
        num_verdicts=int(judged.emitted.sum()),
        emitted_accuracy=_interval(judged, lambda k: _share(k.called == k.regime, k.emitted)),
        abstained=abstained,
        coverage=of_read(lambda k: float(k.covered.mean())),
        level=level,
        set_size=_digits(read.inside.sum(axis=1).mean()) if len(read.regime) else None,
        num_ratios=int(known.sum()),
        ratio_coverage=_digits(held[known].mean()) if known.any() else None,
        ratio_width=None if not math.isfinite(width) else _digits(width),
        calibration_error=of_read(calibration_error),
        regimes=tuple(_of_regime(judged, k) for k in range(len(REGIMES))),
        groups=tuple(_group(judged, name) for name in np.unique(judged.groups)),
    )


def _of_regime(judged: Judged, k: int) -> RegimeResult:
    mine, said = judged.read & (judged.regime == k), judged.emitted & (judged.called == k)
    coverage, right = _share(judged.covered, mine), _share(judged.regime == k, said)
    return RegimeResult(
        regime=REGIMES[k],
        n=int(mine.sum()),
        coverage=_digits(coverage) if math.isfinite(coverage) else None,
        called=int(said.sum()),
        right=_digits(right) if math.isfinite(right) else None,
    )


def _group(judged: Judged, name: Any) -> GroupResult:
    own = judged.part(np.flatnonzero(judged.groups == name))
    read = own.part(np.flatnonzero(own.read))

    def known(figure: Callable[[Judged], float]) -> float | None:
        value = figure(read) if len(read.regime) else math.nan
        return _digits(value) if math.isfinite(value) else None

    return GroupResult(
        group=str(name),
        n=len(own.regime),
        read=len(read.regime),
        auc_over_aligned=known(lambda k: auc(k, _OVER_ALIGNED)),
        auc_over_fitted=known(lambda k: auc(k, _OVER_FITTED)),
        balanced_accuracy=known(balanced_accuracy),
        coverage=known(lambda k: float(k.covered.mean())),
        opposite=int(own.opposite.sum()),
        emitted=int(own.emitted.sum()),
    )


def raw_auc(value: Values, mine: npt.NDArray[np.bool_]) -> float:
    """Area under the curve of a number as it is, in whichever direction is better; NaN without both.

    Args:
        value: ``[R]``; nets without the number are left out.
        mine: ``[R]`` nets of the regime.

    Returns:
        At least 1/2.
    """
    there = np.isfinite(value)
    if not MIN_OF_REGIME <= mine[there].sum() <= there.sum() - MIN_OF_REGIME:
        return math.nan
    area = float(roc_auc_score(mine[there], value[there]))
    return max(area, 1 - area)


def _baseline(name: str, left_out: str, judged: Judged, value: Values | None) -> BaselineRow:
    regimes = (_OVER_ALIGNED, _OVER_FITTED)
    areas = [auc(judged, k) for k in regimes]
    raw = [math.nan if value is None else raw_auc(value, judged.regime == k) for k in regimes]
    first, second, third, fourth = (
        _digits(a) if math.isfinite(a) else None for a in (*areas, *raw)
    )
    called = judged.probabilities.argmax(axis=1)
    return BaselineRow(
        name=name, left_out=left_out, n=len(judged.regime), auc_over_aligned=first,
        auc_over_fitted=second, raw_over_aligned=third, raw_over_fitted=fourth,
        opposite=_digits(_opposite(called, judged.regime).mean()),
    )  # fmt: skip


def evaluate(
    atlas: Labelled,
    spec: EvaluationSpec,
    *,
    models_sha256: str = "",
    tell: Callable[[str], None] = lambda _: None,
) -> Evaluation:
    """Evaluate the reading out of sample.

    Args:
        atlas: All nets.
        spec: What is left out, and what it is compared with.
        models_sha256: Of the stored models whose recipe is judged; kept with the figures.
        tell: Told before each part.

    Returns:
        The evaluation.
    """
    aside = atlas.of_case("set_aside")
    rows = atlas.fitted_to
    grey = np.flatnonzero(atlas.grey & (atlas.regime != UNKNOWN) & ~aside)
    found, baselines = [], []
    whole: dict[LeftOut, Judged] = {}
    for evidence in spec.evidence:
        for left_out in spec.leave_out:
            tell(f"{evidence}: one {left_out} out at a time")
            judged, others = leave_out(
                atlas, evidence, rows, left_out, others=grey if left_out == "task" else None
            )
            found.append(row_of(judged, evidence, left_out, LEVEL))
            if len(others.regime):
                found.append(row_of(others, evidence, f"{left_out}, grey", LEVEL))
            if evidence == "T2":
                whole[left_out] = judged
        if spec.set_aside:
            tell(f"{evidence}: what was set aside")
            held = np.flatnonzero(atlas.known & aside)
            tasks, families = atlas.of_case("task")[held], atlas.of_case("family")[held]
            groups = np.array([f"{a}, {b}" for a, b in zip(tasks, families, strict=True)])
            judged = judge(atlas, evidence, rows, held, groups, clusters=tasks)
            found.append(row_of(judged, evidence, "set aside", LEVEL))
    for left_out in spec.leave_out[:2]:
        if left_out in whole:
            read = whole[left_out].part(np.flatnonzero(whole[left_out].read))
            baselines.append(_baseline("the reading (T2)", left_out, read, None))
        for name, observable in spec.single.items():
            tell(f"{name} alone: one {left_out} out at a time")
            judged, _ = leave_out(atlas, "T2", rows, left_out, only=(observable,))
            # On the same nets: those that the reading reads, as far as they have this number.
            kept = ~np.isnan(judged.probabilities).any(axis=1)
            if left_out in whole:
                kept &= whole[left_out].read
            order = np.concatenate(
                [rows[group_of(atlas, rows, left_out) == one] for one in np.unique(judged.groups)]
            )
            chosen = np.flatnonzero(kept)
            value = matrix(
                atlas.by_column(order[chosen]),
                tuple(k for k in OBSERVABLES if k.name == observable),
            )[:, 0]
            baselines.append(_baseline(name, left_out, judged.part(chosen), value))
    regimes = {one.value: int((atlas.regime[rows] == k).sum()) for k, one in enumerate(REGIMES)}
    setups = len(np.unique(atlas.case[rows]))
    return Evaluation(
        rows=tuple(found), baselines=tuple(baselines), truth=regimes, nets=len(rows), setups=setups,
        models_sha256=models_sha256,
    )  # fmt: skip
