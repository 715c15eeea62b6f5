import numpy as np
import pytest
from planted import GRID, bowl, planted_case, planted_sweep

from fls_bench.schema import ClaimOutcome, Interval
from fls_bench.verdict.claims.cases import (
    all_of,
    best_octave,
    chosen_elsewhere,
    errors_of,
    excess,
    percentiles,
    resamples,
    vertex,
    within,
)


def test_a_seed_has_no_part_in_the_choice_that_it_is_measured_at() -> None:
    val = np.random.default_rng(3).random((5, 7))
    slow = [np.delete(val, seed, axis=1).mean(axis=1).argmin() for seed in range(7)]
    assert chosen_elsewhere(val).tolist() == slow


def test_an_error_is_least_where_its_parabola_is() -> None:
    octaves = np.arange(-6.0, 4.0)
    for at in (-2.3, 0.0, 1.4):
        place, edge = vertex(octaves, (octaves - at) ** 2)
        assert place == pytest.approx(at)
        assert not edge
    assert vertex(octaves, octaves) == (-6.0, True)
    assert vertex(octaves, -octaves) == (3.0, True)
    # A flat floor with a wall: the parabola must not leave the points that it is drawn through.
    walled = np.where(octaves > 0, 1.0, 0.1)
    walled[3] = 0.09
    assert octaves[1] <= vertex(octaves, walled)[0] <= octaves[5]


def test_what_missed_the_target_is_left_out_and_said() -> None:
    sweep = planted_sweep(bowl(-2), missed=(-8.0, 4.0))
    errors = errors_of(sweep)
    assert errors is not None
    assert [float(np.log2(c)) for c in errors.c] == list(GRID[1:-1])
    assert "2^-8: no run reached the target" in errors.left_out
    assert errors_of(planted_sweep(bowl(-2), missed=GRID[2:])) is None


def test_excess_is_against_the_best_of_the_other_seeds() -> None:
    errors = errors_of(planted_sweep(bowl(-2, 0.01), noise=0.0))
    assert errors is not None
    np.testing.assert_allclose(excess(errors, 0, errors.test), 0.36)


def test_an_octave_of_the_init_scale_is_so_many_octaves_of_c_as_the_net_has_layers() -> None:
    sweep = planted_sweep(bowl(-2), noise=0.0, axis="init_scale", depth=3)
    case = planted_case("a", sweep, shift=1.5)
    errors = errors_of(sweep)
    assert errors is not None
    star = best_octave(case, errors, resamples(len(errors.seeds)))
    assert star.value == pytest.approx(3 * -2 + 1.5)
    assert not star.at_edge
    np.testing.assert_allclose(star.draws, star.value)


def test_against_a_claim_the_corrected_interval_has_to_speak() -> None:
    inner, outer = Interval(value=0.8, low=0.7, high=0.9), Interval(value=0.8, low=0.5, high=1.1)
    assert within(inner, 0.4, 0.6) == "not_reproduced"
    assert within(inner, 0.4, 0.6, outer) == "undecided"


@pytest.mark.parametrize("num_seeds", [6, 12])
def test_the_interval_of_resampled_seeds_holds_the_truth_as_often_as_it_says(
    num_seeds: int,
) -> None:
    """Of 200 draws 90 % or more: fewer would be under 1 % likely at 95 %. Plain percentiles: 88."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(200):
        sample = rng.standard_normal(num_seeds)
        means = sample[resamples(num_seeds)].mean(axis=1)
        one = percentiles(float(sample.mean()), means, num_seeds)
        assert one.low is not None
        assert one.high is not None
        held += one.low <= 0 <= one.high
    assert held >= 180


def test_equivalence_needs_the_whole_interval() -> None:
    def judged(low: float, high: float) -> ClaimOutcome:
        return within(Interval(value=(low + high) / 2, low=low, high=high), 0.4, 0.6)

    assert judged(0.45, 0.55) == "reproduced"
    assert judged(0.7, 0.9) == "not_reproduced"
    assert judged(0.1, 0.3) == "not_reproduced"
    assert judged(0.5, 0.7) == "undecided"
    assert judged(0.0, 1.0) == "undecided"


def test_a_claim_holds_only_where_every_setting_says_so() -> None:
    assert all_of([]) == "not_run"
    assert all_of(["reproduced", "reproduced"]) == "reproduced"
    assert all_of(["reproduced", "undecided"]) == "undecided"
    assert all_of(["undecided", "not_reproduced", "reproduced"]) == "not_reproduced"
