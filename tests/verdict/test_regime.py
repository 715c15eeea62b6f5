"""The verdict's statistics: what each judgement needs, and how often it is wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fls_bench.schema import Outcome, Regime
from fls_bench.verdict.contrasts import (
    FAMILY,
    LEVEL,
    Table,
    beats_chance,
    contrast,
    holm,
    practical_margin,
    usable,
)
from fls_bench.verdict.regime import best_multiplier, c_star, decide, gain, loss_disagrees

N_TEST = 1000
GRID = [2.0**k for k in (-8, -6, -4, -2, 0)]
C = 2.0**-4


def rows(means: list[float], noise: float, seeds: int, seed: int = 0) -> dict[float, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {c: m + noise * rng.standard_normal(seeds) for c, m in zip(GRID, means, strict=True)}


def as_table(errors: dict[float, np.ndarray], chance: float = 0.9) -> Table:
    seeds = len(next(iter(errors.values())))
    return Table(errors, errors, errors, np.full(seeds, chance), {}, N_TEST)


class TestDecide:
    def test_larger_c_better_is_over_aligned(self) -> None:
        # Smaller c = larger FLS: a net whose better multipliers are LARGER learns features too much.
        found = decide(rows([0.20, 0.18, 0.16, 0.12, 0.11], 0.003, 8), C, N_TEST)
        assert found.regime is Regime.OVER_ALIGNED
        assert set(found.better) == {2.0**-2, 2.0**0}

    def test_smaller_c_better_is_over_fitted(self) -> None:
        found = decide(rows([0.11, 0.12, 0.16, 0.18, 0.20], 0.003, 8), C, N_TEST)
        assert found.regime is Regime.OVER_FITTED
        assert set(found.better) == {2.0**-8, 2.0**-6}

    def test_optimum_is_near_optimal(self) -> None:
        found = decide(rows([0.20, 0.15, 0.12, 0.15, 0.20], 0.003, 8), C, N_TEST)
        assert found.regime is Regime.NEAR_OPTIMAL

    def test_better_on_both_sides_is_inconclusive(self) -> None:
        found = decide(rows([0.10, 0.15, 0.20, 0.15, 0.10], 0.003, 8), C, N_TEST)
        assert (found.regime, found.reason.code) == (Regime.INCONCLUSIVE, "two_optima")

    def test_one_side_without_runs_is_inconclusive(self) -> None:
        errors = rows([0.10, 0.15, 0.20, 0.15, 0.10], 0.003, 8)
        upper = {c: row for c, row in errors.items() if c >= C}
        found = decide(upper, C, N_TEST)
        assert (found.regime, found.reason.code) == (Regime.INCONCLUSIVE, "one_side_missing")

    def test_noise_is_inconclusive_and_says_how_many_seeds_would_decide(self) -> None:
        found = decide(rows([0.12, 0.12, 0.14, 0.12, 0.12], 0.03, 5), C, N_TEST)
        assert (found.regime, found.reason.code) == (Regime.INCONCLUSIVE, "too_few_seeds")
        assert found.open
        assert found.seeds_needed is None or found.seeds_needed > 5

    def test_two_seeds_decide_nothing(self) -> None:
        found = decide(rows([0.5, 0.4, 0.3, 0.1, 0.05], 0.0001, 2), C, N_TEST)
        assert found.regime is Regime.INCONCLUSIVE

    def test_gain_below_the_margin_is_not_called(self) -> None:
        # 0.3 points better, certain beyond any doubt, but below delta = 1 point.
        found = decide(rows([0.13, 0.125, 0.12, 0.117, 0.13], 0.0001, 20), C, N_TEST)
        assert found.regime is Regime.NEAR_OPTIMAL

    def test_failed_seeds_leave_their_pairs(self) -> None:
        errors = rows([0.20, 0.18, 0.16, 0.12, 0.11], 0.003, 10)
        errors[2.0**-2][:4] = np.nan
        assert decide(errors, C, N_TEST).contrasts[2.0**-2].num_seeds == 6

    @given(st.permutations(range(8)), st.integers(0, 1000))
    def test_order_of_seeds_and_mirror(self, order: list[int], seed: int) -> None:
        errors = rows([0.20, 0.18, 0.16, 0.12, 0.11], 0.02, 8, seed)
        one = decide(errors, C, N_TEST)
        assert decide({c: r[order] for c, r in errors.items()}, C, N_TEST).regime is one.regime
        # Swapping the sides swaps over-aligned and over-fitted, and nothing else.
        mirrored = {C * C / c: row for c, row in errors.items()}
        swap = {
            Regime.OVER_ALIGNED: Regime.OVER_FITTED,
            Regime.OVER_FITTED: Regime.OVER_ALIGNED,
        }
        assert decide(mirrored, C, N_TEST).regime is swap.get(one.regime, one.regime)


class TestContrast:
    def test_agrees_with_scipy(self) -> None:
        rng = np.random.default_rng(1)
        first, second = 0.2 + 0.01 * rng.random(9), 0.19 + 0.01 * rng.random(9)
        found = contrast(first, second, 1e-9)
        assert found is not None
        oracle = stats.ttest_rel(first, second, alternative="greater")
        assert found.p_value == pytest.approx(oracle.pvalue, rel=1e-9)
        interval = stats.ttest_rel(first, second).confidence_interval(0.9)
        assert found.mean - found.half_width(0.05) == pytest.approx(interval.low, rel=1e-9)

    def test_a_few_equal_counts_do_not_prove_zero_variance(self) -> None:
        found = contrast(np.full(3, 0.11), np.full(3, 0.10), 0.01)
        assert found is not None
        assert found.p_value > 0.01

    def test_equal_errors_are_no_certainty_either(self) -> None:
        found = contrast(np.full(5, 0.1), np.full(5, 0.1), 0.001)
        assert found is not None
        assert (found.mean, found.p_value) == (0.0, 0.5)
        assert found.half_width(0.01) > 0

    def test_too_few(self) -> None:
        assert contrast(np.array([0.1, np.nan, 0.2]), np.array([0.1, 0.1, 0.1]), 0.001) is None


def test_holm_agrees_with_a_plain_reading() -> None:
    p = {1.0: 0.001, 2.0: 0.012, 3.0: 0.02, 4.0: 0.2}
    # 0.05/4, then 0.05/3, then 0.05/2: all three pass; with 24 hypotheses only the first does.
    assert holm(p, 0.05, 4) == {1.0, 2.0, 3.0}
    assert holm(p, 0.05, 24) == {1.0}
    assert holm({1.0: 0.003}, 0.05, 24) == set()


def test_margin() -> None:
    assert practical_margin(0.2, 1000) == 0.01
    assert practical_margin(0.003, 20_000) == pytest.approx(0.0003)
    assert practical_margin(0.0, 500) == pytest.approx(1 / 500)


def test_usable_needs_nine_in_ten() -> None:
    good, bad = Outcome.REACHED_TARGET, Outcome.DIVERGED
    assert usable([good] * 9 + [bad]) is None
    assert "4 of 5" in str(usable([good] * 4 + [bad]))
    assert usable([]) is not None


class TestCStar:
    def test_interior(self) -> None:
        star = c_star(as_table(rows([0.20, 0.15, 0.12, 0.15, 0.20], 0.002, 8)), 2.0**0)
        assert (star.value, star.low, star.high, star.at_edge) == (C, C, C, "none")

    def test_end_of_range_is_said(self) -> None:
        star = c_star(as_table(rows([0.10, 0.15, 0.18, 0.20, 0.25], 0.002, 8)), C)
        assert (star.value, star.at_edge) == (2.0**-8, "low")
        star = c_star(as_table(rows([0.25, 0.20, 0.18, 0.15, 0.10], 0.002, 8)), C)
        assert (star.value, star.at_edge) == (2.0**0, "high")

    def test_best_stays_in_the_interval(self) -> None:
        """The true best of the grid is inside in at least 95 % of 400 simulated sweeps."""
        means = [0.130, 0.124, 0.120, 0.122, 0.126]
        inside = 0
        for seed in range(400):
            star = c_star(as_table(rows(means, 0.008, 6, seed)), C)
            assert star.low is not None
            assert star.high is not None
            inside += star.low <= C <= star.high
        # 95 % by construction; 0.92 is more than three standard errors of the simulation below.
        assert inside / 400 >= 0.92

    def test_ties_stay_near_c(self) -> None:
        flat = {c: np.full(6, 0.1) for c in GRID}
        assert best_multiplier(as_table(flat), C) == C


def test_loss_on_the_other_side() -> None:
    errors = rows([0.20, 0.15, 0.14, 0.12, 0.13], 0.001, 6)
    losses = rows([0.9, 0.5, 0.6, 0.7, 0.8], 0.001, 6)
    data = Table(errors, errors, losses, np.full(6, 0.9), {}, N_TEST)
    assert loss_disagrees(data, C, 2.0**-2) == 2.0**-6
    assert loss_disagrees(data, C, 2.0**-6) is None


def test_chance_level() -> None:
    assert beats_chance(as_table(rows([0.6] * 5, 0.05, 6), chance=0.9))
    flags = [beats_chance(as_table(rows([0.9] * 5, 0.01, 6, s), chance=0.9)) for s in range(300)]
    assert np.mean(flags) <= LEVEL + 3 * math.sqrt(LEVEL / 300)


def test_gain_is_a_plain_paired_interval() -> None:
    rng = np.random.default_rng(0)
    before, after = 0.2 + 0.01 * rng.random(10), 0.15 + 0.01 * rng.random(10)
    found = gain(before, after, N_TEST)
    assert found is not None
    oracle = stats.ttest_rel(before, after).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((100 * oracle.low, 100 * oracle.high))


# --- error rates ----------------------------------------------------------------------------


def false_calls(noise: np.ndarray, seeds: int, runs: int, seed: int) -> float:
    """Share of flat truths called over-aligned or over-fitted in one look at the whole level."""
    rng = np.random.default_rng(seed)
    calls = 0
    for _ in range(runs):
        errors = {
            c: 0.12 + sd * rng.standard_normal(seeds) for c, sd in zip(GRID, noise, strict=True)
        }
        found = decide(errors, C, N_TEST, level=LEVEL)
        calls += found.regime in (Regime.OVER_ALIGNED, Regime.OVER_FITTED)
    return calls / runs


EQUAL = np.full(5, 0.01)
UNEQUAL = np.array([0.05, 0.02, 0.01, 0.003, 0.001])


@pytest.mark.parametrize("noise", [EQUAL, UNEQUAL, UNEQUAL[::-1]], ids=["equal", "down", "up"])
@pytest.mark.parametrize("seeds", [3, 5, 10, 20])
def test_flat_truth_is_rarely_called(noise: np.ndarray, seeds: int) -> None:
    # The bound is LEVEL = 5 %; 500 runs have a standard error of 1 %.
    assert false_calls(noise, seeds, runs=500, seed=seeds) <= LEVEL + 0.02


def test_family_covers_every_multiplier_that_a_sweep_can_reach() -> None:
    from fls_bench.sweep import SweepPlan

    plan = SweepPlan()
    reachable = 2 * plan.limit / (plan.step / 2)
    assert reachable <= FAMILY
