"""Comparing recordings: intervals against slow oracles, and when a difference counts."""

from __future__ import annotations

import itertools
import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats

from fls_bench.gates import REACHED, gates_of, needed_seeds
from fls_bench.schema import (
    Gate,
    Interval,
    MetricDifference,
    Outcome,
    RecordedCase,
    RecordedCell,
    Regime,
    Side,
)
from fls_bench.verdict.comparison import (
    compare_metric,
    compare_regimes,
    compare_sides,
    match_cases,
    sign_flip_interval,
    welch_interval,
)

Values = npt.NDArray[np.float64]
DIFFERENCES = st.lists(st.integers(-20, 20), min_size=2, max_size=8)


def sign_flip_p(differences: Values, theta: float) -> float:
    """The definition: over all sign flips of d - theta, how many means lie as far from 0."""
    centred = differences - theta
    observed = abs(centred.sum())
    flips = itertools.product((-1, 1), repeat=len(centred))
    sums = [abs(sum(s * d for s, d in zip(signs, centred, strict=True))) for signs in flips]
    return sum(one >= observed - 1e-9 for one in sums) / len(sums)


@given(DIFFERENCES, st.sampled_from([0.05, 0.1, 0.3]))
def test_the_interval_holds_what_a_sign_flip_test_cannot_reject(
    listed: list[int], level: float
) -> None:
    differences = np.array(listed, dtype=float)
    found = sign_flip_interval(differences, level)
    if found is None:
        assert 2.0 ** (1 - len(listed)) > level
        return
    low, high = found
    assert low <= differences.mean() <= high
    for theta in np.arange(-25.0, 25.0, 0.5) + 0.125:  # no subset's mean of few whole numbers
        if min(abs(theta - low), abs(theta - high)) > 1e-6:
            # Ties among means make the test keep more; the interval never keeps less than it.
            assert (sign_flip_p(differences, theta) > level) <= (low < theta < high)


def test_one_metric_takes_six_pairs_and_ten_take_nine() -> None:
    assert needed_seeds(1) == 6
    assert needed_seeds(10) == 9
    for tests in (1, 3, 10, 24):
        needed = needed_seeds(tests)
        same = np.ones(needed)
        assert sign_flip_interval(same, 0.05 / tests) is not None
        assert sign_flip_interval(same[1:], 0.05 / tests) is None


@pytest.mark.parametrize("n", [10, 16, 30])
@pytest.mark.parametrize("level", [0.05, 0.3])
def test_the_interval_covers_the_truth_as_often_as_it_says(n: int, level: float) -> None:
    rng = np.random.default_rng(n)
    draws = 300 if n > 10 else 1500
    hits = 0
    for _ in range(draws):
        low, high = sign_flip_interval(rng.standard_normal(n) + 0.5, level) or (9, 9)
        hits += low <= 0.5 <= high
    interval = stats.binomtest(hits, draws).proportion_ci(0.9999)
    assert interval.low <= 1 - level <= interval.high


@given(
    st.lists(st.floats(-5, 5), min_size=3, max_size=12),
    st.lists(st.floats(-5, 5), min_size=3, max_size=12),
)
@example([0.0, 0.0, 0.0], [0.0, 0.0, 1e-100])
@example([0.0, 0.0, 0.0], [0.0, 0.0, 5.25e-260])
@example([0.0, 0.0, 1.0], [1.0, 1.0, 1.0])
@example([0.0, 0.0, 0.0], [1.0, 1.0, 1.0])
@pytest.mark.filterwarnings("ignore:Precision loss")  # scipy's, of a sample that does not vary
def test_welch_is_that_of_scipy_or_a_little_wider(first: list[float], second: list[float]) -> None:
    a, b = np.array(first), np.array(second)
    found = welch_interval(a, b, 0.05)
    if found is None:  # neither varies, and so few could differ by chance
        assert np.ptp(a) == np.ptp(b) == 0
        assert 2 / math.comb(len(a) + len(b), len(a)) > 0.05
        return
    if a.std() + b.std() < 1e-6:
        assert found == pytest.approx([b.mean() - a.mean()] * 2, abs=1e-5)
        return
    wanted = stats.ttest_ind(b, a, equal_var=False).confidence_interval(0.95)
    assert found[0] <= wanted.low + 1e-9
    assert found[1] >= wanted.high - 1e-9
    # Degrees of freedom are rounded down, at most by one.
    assert found[1] - found[0] <= 5 * (wanted.high - wanted.low) + 1e-9


def rows(values: Values | list[float], start: int = 0) -> dict[int, float]:
    return {start + k: float(value) for k, value in enumerate(values)}


NOISE = np.random.default_rng(3).standard_normal(10)
LOWER = Gate(min_effect=0.01, better="lower")


def compared(shift: float, spread: float, gate: Gate | None = LOWER) -> MetricDifference:
    before = 0.10 + 0.01 * NOISE
    return compare_metric(
        "case", "test_error", rows(before), rows(before + shift + spread * NOISE[::-1]), gate, 0.05
    )


@pytest.mark.parametrize(
    ("shift", "spread", "status"),
    [
        (0.03, 0.001, "regressed"),  # clear, and beyond the minimum
        (0.005, 0.001, "held"),  # clear, but of no practical interest
        (-0.005, 0.001, "held"),
        (-0.03, 0.001, "improved"),
        (0.0, 0.001, "held"),
        (0.0, 0.0, "held"),
        (0.0, 0.1, "inconclusive"),  # noise hides whatever there is
        (0.03, 0.1, "inconclusive"),
        (0.009, 0.004, "inconclusive"),  # a difference is there, but is it beyond the minimum?
    ],
)  # fmt: skip
def test_a_regression_needs_both_the_interval_and_the_practical_minimum(
    shift: float, spread: float, status: str
) -> None:
    found = compared(shift, spread)
    assert found.status == status, found
    assert found.paired
    assert found.n == 10


@pytest.mark.parametrize(
    ("n", "tests", "paired", "minimum"),
    [
        (10, 1, True, 0.01), (10, 18, True, 0.01), (16, 18, True, 0.01), (20, 6, True, 0.01),
        (10, 1, True, 0.2), (12, 6, False, 0.01), (10, 1, False, 0.3),
    ],
)  # fmt: skip
def test_what_is_undecided_says_what_would_be_found_in_four_of_five_cases(
    n: int, tests: int, paired: bool, minimum: float
) -> None:
    rng = np.random.default_rng(n + tests)
    gate, level, start = Gate(min_effect=minimum, better="lower"), 0.05 / tests, 0 if paired else 99

    def look(shift: float) -> MetricDifference:
        before = 0.5 + 0.1 * rng.standard_normal(n)
        if paired:
            after = before + shift + 0.1 * rng.standard_normal(n)
        else:
            after = 0.5 + shift + 0.1 * rng.standard_normal(n)
        return compare_metric("case", "test_error", rows(before), rows(after, start), gate, level)

    claims = [one.detectable for one in (look(0.9 * minimum) for _ in range(25)) if one.detectable]
    claimed = float(np.median(claims))
    assert claimed > minimum
    hits = sum(look(claimed).status == "regressed" for _ in range(200))
    assert 0.68 <= hits / 200 <= 0.92


def test_nothing_is_said_to_be_detectable_where_too_few_seeds_can_find_nothing() -> None:
    found = compare_metric("case", "test_error", rows([0.1] * 5), rows([0.2] * 5), LOWER, 0.05)
    assert found.detectable is None


def test_higher_may_be_better_and_a_change_may_be_bad_either_way() -> None:
    higher = Gate(min_effect=0.01, better="higher")
    either = Gate(min_effect=0.01, better="unchanged")
    assert compared(0.03, 0.001, higher).status == "improved"
    assert compared(-0.03, 0.001, higher).status == "regressed"
    assert compared(0.03, 0.001, either).status == "regressed"
    assert compared(-0.03, 0.001, either).status == "regressed"
    assert compared(0.002, 0.001, either).status == "held"
    assert compared(0.03, 0.001, None).status == "shown"


def test_a_relative_minimum_is_a_share_of_the_mean_before() -> None:
    gate = Gate(min_effect=0.2, relative=True, better="lower")
    found = compared(0.015, 0.001, gate)
    assert found.min_effect == pytest.approx(0.2 * (0.10 + 0.01 * NOISE.mean()))
    assert found.status == "held"
    assert compared(0.03, 0.001, gate).status == "regressed"


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=6, max_size=10))
def test_swapping_the_sides_negates_the_difference_and_seeds_have_no_order(
    pairs: list[tuple[float, float]],
) -> None:
    before, after = ([pair[k] for pair in pairs] for k in (0, 1))
    args = ("case", "test_error"), (None, 0.05)
    one = compare_metric(*args[0], rows(before), rows(after), *args[1]).difference
    other = compare_metric(*args[0], rows(after), rows(before), *args[1]).difference
    mixed = compare_metric(*args[0], rows(before[::-1]), rows(after[::-1]), *args[1]).difference
    assert one is not None
    assert other is not None
    assert mixed is not None
    assert one.low is not None
    assert other.high is not None
    assert one.value == pytest.approx(-other.value, abs=1e-12)
    assert one.low == pytest.approx(-other.high, abs=1e-12)
    assert (mixed.value, mixed.low) == pytest.approx((one.value, one.low), abs=1e-12)


def test_pairs_are_the_seeds_that_both_have_and_other_seeds_are_independent_samples() -> None:
    before, after = rows([0.1] * 10), rows([0.2] * 10, start=4)
    found = compare_metric("case", "test_error", before, after, LOWER, 0.05)
    assert (found.paired, found.n, found.status) == (True, 6, "regressed")
    apart = compare_metric(
        "case", "test_error", rows(0.1 + 0.001 * NOISE), rows(0.2 + 0.001 * NOISE, 50), LOWER, 0.05
    )
    assert (apart.paired, apart.status) == (False, "regressed")


def test_too_few_pairs_say_how_many_would_do() -> None:
    found = compare_metric("case", "test_error", rows([0.1] * 5), rows([0.9] * 5), LOWER, 0.05)
    assert found.status == "inconclusive"
    assert "5 pairs of seeds can't decide at this level; 6 could" in found.text


@pytest.mark.parametrize(
    ("before", "after"), [({}, rows([0.0] * 9)), (rows([0.0] * 9), {}), ({}, {})]
)
def test_nothing_measured_is_never_zero(before: dict[int, float], after: dict[int, float]) -> None:
    found = compare_metric("case", "test_error", before, after, LOWER, 0.05)
    assert found.status == "inconclusive"
    assert found.difference is None
    assert "nothing was measured" in found.text


def test_means_are_of_the_pairs_that_the_difference_is_of() -> None:
    before, after = rows([0.1] * 10), rows([0.2] * 10, start=4)
    before[0] = 0.9
    found = compare_metric("case", "test_error", before, after, LOWER, 0.05)
    assert found.before is not None
    assert found.after is not None
    assert (found.before.value, found.before.n) == (pytest.approx(0.1), 6)
    assert found.difference is not None
    assert found.difference.value == pytest.approx(found.after.value - found.before.value)


def test_a_few_equal_values_of_other_seeds_prove_nothing() -> None:
    before, after = rows([0.0] * 3), rows([1.0] * 3, start=9)
    found = compare_metric("case", "test_error", before, after, LOWER, 0.05)
    assert found.status == "inconclusive"
    many = compare_metric(
        "case", "test_error", rows([0.0] * 6), rows([1.0] * 6, start=9), LOWER, 0.05
    )
    assert many.status == "regressed"


def test_exact_identities_are_compared_seed_by_seed_and_by_no_statistics() -> None:
    gate = Gate(tolerance=1e-6)
    same = compare_metric("case", "chance_error", rows([0.9] * 3), rows([0.9] * 3), gate, 0.05)
    assert same.status == "held"
    assert same.exact
    one_off = compare_metric(
        "case", "chance_error", rows([0.9] * 30), rows([0.9] * 29 + [0.90001]), gate, 0.05
    )
    assert one_off.status == "regressed"
    assert "1 of 30 seeds" in one_off.text
    apart = compare_metric("case", "chance_error", rows([0.9]), rows([0.8], start=7), gate, 0.05)
    assert (apart.status, apart.gated) == ("shown", False)


# --- whole recordings -----------------------------------------------------------------------


def case(
    id_: str = "case",
    regime: Regime = Regime.NEAR_OPTIMAL,
    ratio: tuple[float | None, float | None] | None = (-1.0, 1.0),
    errors: Values | list[float] | None = None,
    missed: dict[int, Outcome] | None = None,
    task: str = "digits",
) -> RecordedCase:
    found = 0.1 + 0.001 * NOISE if errors is None else errors
    values = tuple(None if k in (missed or {}) else float(value) for k, value in enumerate(found))
    cell = RecordedCell(
        c=1.0, lr=0.1, seeds=tuple(range(len(values))), missed=missed or {},
        values={"test_error": values, "test_loss": values},
    )  # fmt: skip
    interval = None if ratio is None else Interval(value=0.0, low=ratio[0], high=ratio[1])
    return RecordedCase(
        id=id_, regime=regime, c=1.0, log2_c_ratio=interval, setup={"task": task}, cells=(cell,)
    )


def side(*cases: RecordedCase, name: str = "now", **environment: str) -> Side:
    return Side(name=name, kind="suite", recorded="-", environment=environment, cases=tuple(cases))


@pytest.mark.parametrize(
    ("old", "new", "control", "status"),
    [
        ((Regime.NEAR_OPTIMAL, (-1, 1)), (Regime.NEAR_OPTIMAL, (-2, 1)), False, "same"),
        ((Regime.NEAR_OPTIMAL, (-1, 1)), (Regime.OVER_ALIGNED, (-6, -3)), False, "changed"),
        ((Regime.NEAR_OPTIMAL, (-2, 1)), (Regime.OVER_ALIGNED, (-4, -1)), False, "within_noise"),
        ((Regime.NEAR_OPTIMAL, (-2, 1)), (Regime.OVER_ALIGNED, (None, -3)), False, "changed"),
        ((Regime.NEAR_OPTIMAL, (None, 1)), (Regime.OVER_ALIGNED, (-6, -3)), False, "within_noise"),
        ((Regime.OVER_ALIGNED, (-5, -3)), (Regime.NEAR_OPTIMAL, (-1, 1)), False, "improved"),
        ((Regime.OVER_ALIGNED, (-5, -3)), (Regime.OVER_FITTED, (2, None)), False, "changed"),
        ((Regime.OVER_ALIGNED, (-5, -3)), (Regime.INCONCLUSIVE, (-5, 5)), False, "inconclusive"),
        ((Regime.INCONCLUSIVE, (-5, 5)), (Regime.OVER_ALIGNED, (-5, -3)), False, "decided_now"),
        ((Regime.INCONCLUSIVE, (-5, 5)), (Regime.OVER_ALIGNED, (-5, -3)), True, "changed"),
        ((Regime.INCONCLUSIVE, None), (Regime.INCONCLUSIVE, None), True, "same"),
    ],
)  # fmt: skip
def test_a_regime_changes_only_where_the_intervals_are_apart(
    old: tuple[Regime, tuple[float | None, float | None] | None],
    new: tuple[Regime, tuple[float | None, float | None] | None],
    control: bool,
    status: str,
) -> None:
    before, after = (case(regime=regime, ratio=ratio) for regime, ratio in (old, new))
    assert compare_regimes(before, after, control).status == status


GATES = gates_of(dict.fromkeys(("test_error", "test_loss"), LOWER))


def test_equal_sides_have_no_regression_and_share_the_level() -> None:
    one = side(case("a"), case("b"))
    found = compare_sides(one, one, GATES)
    assert found.status == "no_regression"
    assert found.num_tests == 4
    gated = [k for k in found.metrics if k.gated]
    assert len(gated) == 6
    for metric in gated:
        assert metric.difference is not None
        # Reaching the target has a level of its own, shared by the cases alone.
        shared = 2 if metric.metric == REACHED else 4
        assert metric.difference.level == pytest.approx(1 - 0.05 / shared)


def test_one_bad_case_is_a_regression_of_the_whole() -> None:
    before = side(case("a"), case("b"))
    after = side(case("a"), case("b", errors=0.2 + 0.001 * NOISE))
    found = compare_sides(before, after, GATES)
    assert found.status == "regression"
    assert "b: test_error worse by 10 points" in found.text


def test_a_change_after_which_nothing_trains_is_a_regression() -> None:
    stuck = dict.fromkeys(range(10), Outcome.DIVERGED)
    found = compare_sides(side(case()), side(case(missed=stuck)), GATES)
    assert found.status == "regression"
    (bad,) = [k for k in found.metrics if k.status == "regressed"]
    assert bad.metric == REACHED
    assert "of 10 runs 10 diverged" in bad.text


@pytest.mark.parametrize(("missed", "status"), [(5, "inconclusive"), (6, "regression")])
def test_half_of_the_runs_stuck_is_a_regression_however_many_gates_there_are(
    missed: int, status: str
) -> None:
    """Six of ten lost and none won is 2/2^6 = 3 % by the exact test; five are 6 %."""
    gates = gates_of(dict.fromkeys(("test_error", "test_loss", "val_error", "val_loss"), LOWER))
    stuck = dict.fromkeys(range(missed), Outcome.OUT_OF_BUDGET)
    found = compare_sides(side(case()), side(case(missed=stuck)), gates)
    assert found.status == status
    assert [k.metric for k in found.metrics if k.status == "regressed"] == (
        [REACHED] if status == "regression" else []
    )


def test_where_everything_has_to_be_compared_a_missing_case_leaves_it_open() -> None:
    before, after = side(case("a"), case("b")), side(case("a"))
    assert compare_sides(before, after, GATES).status == "no_regression"
    found = compare_sides(before, after, GATES, whole=True)
    assert found.status == "inconclusive"
    assert "b: before" not in found.text
    assert "b: now has it" in found.text


def test_no_gated_comparison_is_no_success() -> None:
    empty = case().model_copy(update={"cells": ()})
    found = compare_sides(side(case()), side(empty), GATES)
    assert found.status == "inconclusive"
    assert "Nothing that is gated could be compared" in found.text


def test_what_can_not_be_compared_is_named_with_its_reason() -> None:
    found = compare_sides(
        side(case("a"), case("b"), name="before"), side(case("a"), case("c"), name="now"), GATES
    )
    assert {(one.what, one.code) for one in found.skipped} == {
        ("b", "no_counterpart"), ("c", "no_counterpart"),
    }  # fmt: skip
    other = compare_sides(side(case()), side(case(task="noise")), GATES)
    assert other.status == "not_comparable"
    assert "digits and noise" in other.skipped[-1].reason


def test_a_model_is_matched_to_the_case_of_a_baseline_on_the_same_data() -> None:
    baseline = side(case("digits-mlp"), case("no-signal", task="noise"))
    pairs, skipped = match_cases(baseline, side(case("mine")))
    assert [(one.id, other.id) for one, other in pairs] == [("digits-mlp", "mine")]
    assert [one.what for one in skipped] == ["no-signal"]


def test_differences_of_setup_and_environment_are_listed() -> None:
    before = case().model_copy(update={"setup": {"task": "digits", "optimizer": {"lr": 0.1}}})
    after = case().model_copy(update={"setup": {"task": "digits", "optimizer": {"lr": 0.4}}})
    found = compare_sides(side(before, torch="2.10"), side(after, torch="2.13"), GATES)
    assert [(k.name, k.before, k.after) for k in found.environment] == [("torch", "2.10", "2.13")]
    assert [(k.name, k.before, k.after) for k in found.setup] == [("optimizer.lr", "0.1", "0.4")]


def test_a_flat_truth_seldom_raises_an_alarm() -> None:
    rng = np.random.default_rng(1)
    alarms = 0
    free = {"test_error": Gate(min_effect=0.0, better="unchanged")}
    for _ in range(400):
        before, after = (case(errors=0.1 + 0.01 * rng.standard_normal(10)) for _ in range(2))
        alarms += compare_sides(side(before), side(after), free).status == "regression"
    # Without a practical minimum, at the level of 5 %: the bound of that many draws.
    assert alarms <= stats.binom.ppf(0.9999, 400, 0.05)
    assert alarms >= 1
    assert not math.isnan(alarms)
