"""The reading of one net: from measurements to a regime, a set, and why."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fls_bench.atlas import atlas_folder, load_atlas, load_models
from fls_bench.calibrating import labelled
from fls_bench.schema import (
    Curve,
    Measurement,
    RangeGroup,
    ReadingModel,
    ReadingModels,
    ReferenceRange,
    Regime,
    Tier,
)
from fls_bench.verdict.diagnosis import from_reading, reading_finding
from fls_bench.verdict.reading.columns import COLUMNS, METRICS, PLACES, columns
from fls_bench.verdict.reading.model import distances, observed, predicted, read
from fls_bench.verdict.reading.observables import EVIDENCE, OBSERVABLES, available, matrix
from fls_bench.verdict.reading.truth import REGIMES

A, N, F = REGIMES


def curve(observable, slope, absent=None):
    """Over-fitted where the observable is high, over-aligned where it is low, near-optimal between."""
    return Curve(
        observable=observable,
        knots=(-2.0, 0.0, 2.0),
        scores=((slope, 0.0, -slope), (-slope, slope, -slope), (-slope, 0.0, slope)),
        ratios=(-4.0, 0.0, 4.0),
        absent=absent,
        low=-3.0,
        high=3.0,
    )


def model(*curves, evidence="T2", threshold=0.2, reach=3.0):
    size = len(curves)
    return ReadingModel(
        evidence=evidence,
        curves=curves,
        intercepts=(0.0, 0.0, 0.0),
        ratio_intercept=0.0,
        threshold=threshold,
        level=0.9,
        ratio_width=3.0,
        centre=(0.0,) * size,
        scale=(1.0,) * size,
        correlation=tuple(tuple(float(i == j) for j in range(size)) for i in range(size)),
        reach=reach,
    )


def models(*curves, **settings):
    ranges = tuple(
        ReferenceRange(regime=one, low=k - 1.0, median=float(k), high=k + 1.0, n=50)
        for k, one in enumerate(REGIMES)
    )
    return ReadingModels(
        atlas={"name": "atlas", "nets": 300, "setups": 10, "tasks": 5},
        models={one: model(*curves, evidence=one, **settings) for one in EVIDENCE},
        groups=(
            RangeGroup(
                depth=(1, 5), n_train=(1, 500), ranges={k.observable: ranges for k in curves}
            ),
        ),
    )


FIRST, SECOND = curve("kernel_change", 4.0), curve("gap", 1.0)
SETUP = {"depth": 4.0, "n_train": 200.0, "n_classes": 10.0, "centered": 0.0}


def net(kernel_change=0.0, gap=0.0, **others):
    """Columns at which the two observables have these values."""
    return {
        "kernel.change": kernel_change, "error.test": gap, "error.train": 0.0, **SETUP, **others
    }  # fmt: skip


@pytest.mark.parametrize(("value", "regime"), [(-2.0, A), (0.0, N), (2.0, F)])
def test_a_net_is_read_as_what_its_curves_say(value, regime):
    found = read(models(FIRST, SECOND), "T2", net(value))
    assert found.regime is regime
    assert found.regimes == (regime,)
    assert found.distance <= found.reach
    assert math.isclose(sum(found.probabilities.values()), 1.0, abs_tol=1e-5)
    assert found.log2_c_ratio.value == pytest.approx(2 * value)
    assert found.log2_c_ratio.low == found.log2_c_ratio.value - 3.0
    assert found.pushes[0].observable == "kernel_change"
    assert found.pushes[0].toward is regime
    assert [one.regime for one in found.pushes[0].ranges] == list(REGIMES)


def test_probabilities_are_the_softmax_of_the_sum_of_the_curves():
    one = model(FIRST, SECOND)
    values = np.array([[-1.0, 0.5], [0.0, 3.0]])
    expected = []
    for a, b in values:
        scores = [
            sum(
                np.interp(x, k.knots, [height[j] for height in k.scores])
                for x, k in ((a, FIRST), (b, SECOND))
            )
            for j in range(3)
        ]
        expected.append(np.exp(scores) / np.exp(scores).sum())
    np.testing.assert_allclose(predicted(one, values)[0], expected, rtol=1e-12)


def test_a_set_of_two_regimes_is_inconclusive_and_says_what_would_decide():
    found = read(models(FIRST, SECOND, threshold=0.01), "T2", net(1.0), "the initial weights")
    assert len(found.regimes) > 1
    assert found.regime is Regime.INCONCLUSIVE
    assert found.reason.code == "regimes_not_told_apart"
    assert "the initial weights" in found.reason.text


def test_an_empty_set_is_inconclusive():
    found = read(models(FIRST, threshold=0.9999), "T2", net(1.0))
    assert (found.regime, found.regimes) == (Regime.INCONCLUSIVE, ())
    assert found.reason.code == "no_regime_fits"


def test_beyond_the_atlas_the_answer_is_inconclusive_and_names_what_is_out_of_range():
    found = read(models(FIRST, SECOND), "T2", net(-50.0))
    assert found.regimes == REGIMES
    assert (found.probabilities, found.log2_c_ratio) == ({}, None)
    assert found.regime is Regime.INCONCLUSIVE
    assert found.reason.code == "out_of_reach"
    assert [one.observable for one in found.out_of_range] == ["kernel_change"]
    assert "change of the tangent kernel" in found.reason.text


@pytest.mark.parametrize("evidence", ["T1", "T1-train", "T2", "T2-train"])
@pytest.mark.parametrize(
    ("fact", "factor", "word"),
    [("n_train", 30, "number of training points"), ("n_classes", 10, "number of classes"),
     ("parameters", 200, "parameters per training point"), ("depth", 5, "weight layers")],
)  # fmt: skip
def test_a_fact_far_outside_is_out_of_reach_by_itself(evidence, fact, factor, word):
    """The committed models, and nets of the atlas that they read: one fact is made what no net has."""
    shards = load_atlas(atlas_folder())[:2]
    nets = labelled(shards)
    stored = load_models()
    checked = 0
    for row in range(0, len(nets.case), 97):
        columns = dict(zip(COLUMNS, nets.columns[row].tolist(), strict=True))
        columns = {key: value for key, value in columns.items() if math.isfinite(value)}
        if 2 in (columns["n_classes"], columns["depth"]):
            continue  # what such a net can't have would be missing after the change
        if read(stored, evidence, columns).probabilities == {}:
            continue
        checked += 1
        largest = max(nets.columns[:, COLUMNS.index(fact)])
        many = {**columns, fact: max(columns[fact], largest) * factor}
        if fact == "n_train":
            many["n_train"] = 60_000
        found = read(stored, evidence, many)
        assert (found.reason.code, found.probabilities) == ("out_of_reach", {})
        assert word in found.reason.text
    assert checked > 3


def test_no_number_stands_in_for_what_could_not_be_measured():
    lacking = {k: v for k, v in net(-2.0).items() if k != "kernel.change"}
    found = read(models(FIRST, SECOND), "T2", lacking)
    assert found.regime is Regime.INCONCLUSIVE
    assert found.reason.code == "not_measured"
    assert "change of the tangent kernel" in found.reason.text
    assert found.probabilities == {}
    assert found.log2_c_ratio is None


def test_what_a_net_can_not_have_by_construction_has_scores_of_its_own():
    known = curve("logit_rank", 4.0, absent=(0.0, 0.0, 9.0, 2.5))
    found = read(models(known, SECOND), "T2", net(n_classes=2.0))
    assert found.regime is F
    assert found.log2_c_ratio.value == pytest.approx(2.5)
    failed = read(models(known, SECOND), "T2", net(n_classes=10.0))
    assert (failed.regime, failed.reason.code) == (Regime.INCONCLUSIVE, "not_measured")
    unknown = read(models(curve("logit_rank", 4.0), SECOND), "T2", net(n_classes=2.0))
    assert unknown.reason.code == "not_measured"


def test_without_signal_nothing_is_read():
    found = read(models(FIRST, SECOND), "T2", net(-2.0), has_signal=False)
    assert (found.regime, found.regimes) == (Regime.INCONCLUSIVE, REGIMES)
    assert (found.reason.code, found.probabilities) == ("no_signal", {})


def test_advice_never_takes_its_distance_from_an_estimate_on_the_other_side():
    contrary = FIRST.model_copy(update={"ratios": (9.0, 0.0, -9.0)})
    for value, factor in ((-2.0, 2.0), (2.0, 0.5)):
        found = from_reading(read(models(contrary), "T2", net(value)), Tier.T2, "")
        assert found.regime is (A if value < 0 else F)
        assert found.recommendation.multiply_output_by == factor


def test_the_distance_counts_only_what_a_net_has():
    one = model(FIRST, SECOND)
    both, single = distances(one, np.array([[3.0, 4.0], [3.0, np.nan]]))
    assert both == pytest.approx(math.sqrt((9 + 16) / 2))
    assert single == pytest.approx(3.0)


@given(st.sampled_from(EVIDENCE))
def test_evidence_without_init_or_test_points_reads_nothing_that_needs_them(evidence):
    own = available(evidence)
    assert own
    assert evidence.startswith("T2") or not any(one.init for one in own)
    assert not evidence.endswith("train") or not any(one.test for one in own)


def test_every_observable_comes_from_the_columns_that_it_names():
    full = {name: np.array([0.5, 0.25]) for name in COLUMNS}
    for one in OBSERVABLES:
        assert set(one.sources) <= set(COLUMNS)
        assert np.isfinite(matrix(full, (one,))).all(), one.name
        for source in one.sources:
            lacking = {**full, source: np.array([np.nan, np.nan])}
            assert np.isnan(matrix(lacking, (one,))).all(), (one.name, source)
        if one.lacking is not None:
            told = {"n_classes": 2.0, "depth": 2.0, "centered": 1.0}
            cannot = {**lacking, **{name: np.full(2, value) for name, value in told.items()}}
            assert np.isposinf(matrix(cannot, (one,))).all(), one.name
        others = {
            name: value if name in one.sources else np.array([np.nan] * 2)
            for name, value in full.items()
        }
        np.testing.assert_array_equal(matrix(others, (one,)), matrix(full, (one,)))
    assert len({one.name for one in OBSERVABLES}) == len(OBSERVABLES)


def measured(metric, value, layer=None, **others):
    return Measurement(metric=metric, value=value, layer=layer, **others)


def test_columns_are_the_first_the_last_two_the_mean_and_the_extremes_over_layers():
    found = columns(
        [measured("movement.relative", v, f"fc{k}") for k, v in enumerate((1.0, 4.0, 2.0, 3.0))]
        + [measured("rank.over_classes", 0.7, "logits"), measured("error.test", 0.1)]
        + [measured("probe.ridge", 0.8, "fc0"), measured("probe.ridge", 0.9, "fc2")],
        {"depth": 4, "n_train": 100},
    )
    own = {place: found[f"movement.relative:{place}"] for place in PLACES}
    assert own == {
        "first": 1.0, "before_last": 2.0, "last": 3.0, "mean": 2.5, "least": 1.0, "largest": 4.0,
    }  # fmt: skip
    assert found["rank.over_classes:logits"] == 0.7
    assert found["probe.ridge"] == 0.9
    assert found["depth"] == 4.0
    assert set(found) <= set(COLUMNS)


def lost(metric, layer):
    return measured(metric, None, layer, status="unavailable", reason="Its features do not vary.")


def test_no_other_layer_stands_in_for_one_that_could_not_be_measured():
    measurements = [
        measured("rank.over_classes", 0.5, "fc0"),
        lost("rank.over_classes", "fc1"),
        measured("probe.ridge", 0.8, "fc0"),
        lost("probe.ridge", "fc1"),
        lost("alignment.class_means", "first"),
        measured("alignment.class_means", 0.3, "readout"),
    ]
    found = columns(measurements, {**SETUP, "images": 1})
    assert found["rank.over_classes:first"] == 0.5
    assert not {f"rank.over_classes:{place}" for place in ("last", "mean", "least")} & set(found)
    assert "probe.ridge" not in found
    # A convolution has no value by construction; any other layer without one has failed.
    assert found["alignment.class_means:first"] == 0.3
    dense = columns(measurements, {**SETUP, "images": 0})
    assert "alignment.class_means:first" not in dense
    assert dense["alignment.class_means:last"] == 0.3


def test_what_is_unavailable_is_no_column():
    lost = measured("error.test", None, status="unavailable", reason="There are no test points.")
    assert "error.test" not in columns([lost], SETUP)


def test_every_metric_of_the_reading_is_in_the_table():
    from fls_bench.metrics import METRICS as TABLE

    assert set(METRICS) <= set(TABLE)
    per_layer = {name for name in METRICS if TABLE[name].per_layer}
    assert {name.partition(":")[0] for name in COLUMNS if ":" in name} <= per_layer


# --- the diagnosis ---------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "regime"), [(-2.0, A), (0.0, N), (2.0, F)])
def test_a_diagnosis_by_observation_says_so_and_gives_the_side(value, regime):
    found = from_reading(
        read(models(FIRST, SECOND), "T2", net(value)), Tier.T2, "There is no recipe."
    )
    assert (found.regime, found.method, found.evidence_tier) == (regime, "observation", Tier.T2)
    assert "There is no recipe." in found.reason.text
    multiply = found.recommendation.multiply_output_by
    assert multiply is None if regime is N else (multiply > 1) is (regime is A)


def test_an_inconclusive_reading_recommends_nothing():
    found = from_reading(read(models(FIRST), "T2", net(-50.0)), Tier.T1, "")
    assert found.regime is Regime.INCONCLUSIVE
    assert found.recommendation.multiply_output_by is None
    assert found.mechanism is None


@pytest.mark.parametrize(
    ("value", "swept", "code", "status"),
    [
        (-2.0, A, "reading_confirmed", "info"),
        (-2.0, F, "reading_disagrees", "warning"),
        (-2.0, N, "reading_disagrees", "warning"),
        (-2.0, Regime.INCONCLUSIVE, "reading_not_confirmed", "info"),
        (-50.0, A, "reading_inconclusive", "info"),
    ],
)
def test_a_sweep_wins_over_the_reading_and_a_disagreement_is_said(value, swept, code, status):
    found = reading_finding(read(models(FIRST), "T2", net(value)), swept)
    assert (found.code, found.status) == (code, status)


def test_observables_of_a_model_follow_its_curves():
    one = model(SECOND, FIRST)
    own = {name: np.array([np.nan]) for name in COLUMNS}
    own |= {key: np.array([value]) for key, value in net(0.25, 0.5).items()}
    np.testing.assert_allclose(observed(one, own), [[0.5, 0.25]])
