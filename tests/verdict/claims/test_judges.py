"""Each judge on planted sweeps: what it must find, and what it must not."""

import math

import pytest
from planted import GRID, Curve, bowl, planted_case, planted_sweep

from fls_bench.errors import InputError
from fls_bench.schema import (
    ClaimOutcome,
    FixedSteps,
    ScalingFit,
    TargetAccuracy,
    TargetLoss,
    ValidationLoss,
)
from fls_bench.verdict.claims.cases import ClaimCase
from fls_bench.verdict.claims.difficulty import judge_difficulty
from fls_bench.verdict.claims.prediction import choose_fit, predict
from fls_bench.verdict.claims.scaling_law import judge_scaling_law, mixture_angle
from fls_bench.verdict.claims.stopping import judge_stopping
from fls_bench.verdict.claims.universality import judge_universality

# --- C1 ---------------------------------------------------------------------------------------


def optimum(error: Curve, **how: int) -> ClaimOutcome:
    return judge_universality([planted_case("a", planted_sweep(error, **how))]).outcome


def test_an_optimum_inside_is_found_and_a_monotone_curve_has_none() -> None:
    assert optimum(bowl(-2)) == "reproduced"
    assert optimum(lambda k: 0.2 + 0.01 * k) == "not_reproduced"
    assert optimum(lambda k: 0.2 - 0.01 * k) == "not_reproduced"
    assert optimum(lambda k: 0.2 + 0.01 * max(k, 0.0)) == "not_reproduced"  # flat, then rising


def test_few_noisy_seeds_leave_it_undecided() -> None:
    found = judge_universality(
        [planted_case("a", planted_sweep(bowl(-2, 0.0006), seeds=3, noise=0.05))]
    )
    assert found.outcome == "undecided"


@pytest.mark.parametrize("slope", [0.0, 0.0005, -0.0005])
def test_flat_and_monotone_curves_are_rarely_taken_for_an_optimum(slope: float) -> None:
    """At most 5 % may be; of 100 draws more than 11 would be under 1 % likely at that rate."""
    alarms = sum(
        judge_universality(
            [
                planted_case(
                    "a", planted_sweep(lambda k: 0.2 + slope * k, seeds=6, noise=0.02, rng=r)
                )
            ]
        ).outcome
        == "reproduced"
        for r in range(100)
    )
    assert alarms <= 11


def test_one_setting_without_an_optimum_speaks_against_the_claim_a_control_does_not() -> None:
    good = planted_case("good", planted_sweep(bowl(-2)))
    bad = planted_sweep(lambda k: 0.2 - 0.01 * k)
    assert judge_universality([good, planted_case("bad", bad)]).outcome == "not_reproduced"
    for aside in (planted_case("bad", bad, beside=True), planted_case("bad", bad, control=True)):
        found = judge_universality([good, aside])
        assert found.outcome == "reproduced"
        assert all(part.outcome is None for part in found.parts if part.setting.startswith("bad"))


def test_a_case_that_can_not_be_judged_is_listed() -> None:
    found = judge_universality([planted_case("a", planted_sweep(bowl(-2), missed=GRID[2:]))])
    assert found.outcome == "undecided"
    assert [one.what for one in found.not_run] == ["a"]
    assert found.data == ()


# --- C2 ---------------------------------------------------------------------------------------


def ladder(*depths: float, noise: float = 0.005, own: float = 1.0) -> ClaimOutcome:
    cases = [
        planted_case(
            f"a{k}", planted_sweep(bowl(-3, depth), noise=noise, rng=k), family="a",
            difficulty=32.0 * 2**k,
        )
        for k, depth in enumerate(depths)
    ]  # fmt: skip
    return judge_difficulty(cases).outcome


def test_a_gain_that_grows_with_the_dimension_is_told_from_one_that_does_not() -> None:
    assert ladder(0.001, 0.004, 0.008) == "reproduced"
    assert ladder(0.004, 0.004, 0.004, noise=0.001) == "not_reproduced"
    assert ladder(0.008, 0.004, 0.001) == "not_reproduced"
    assert ladder(0.004, 0.004, 0.0045, noise=0.08) == "undecided"


# --- C3 ---------------------------------------------------------------------------------------

STOPS = (TargetLoss(0.1), TargetAccuracy(0.99), ValidationLoss(20), FixedSteps(100))


def test_the_same_best_c_is_told_from_another() -> None:
    def judged(*places: float) -> ClaimOutcome:
        cases = [
            planted_case(f"a{k}", planted_sweep(bowl(at), rng=k), family="a", stop=stop)
            for k, (at, stop) in enumerate(zip(places, STOPS, strict=False))
        ]
        return judge_stopping(cases).outcome

    assert judged(-2, -2, -2.5, -1.5) == "reproduced"
    assert judged(-2, -2, -6, -2) == "not_reproduced"
    assert judged(-2, -4) == "undecided"  # its interval reaches over the margin on both sides


def test_what_the_other_choice_costs_is_shown_beside() -> None:
    cases = [
        planted_case("a", planted_sweep(bowl(-2, 0.01), noise=0.0), family="a"),
        planted_case(
            "b", planted_sweep(bowl(-5, 0.01), noise=0.0), family="a", stop=ValidationLoss(20)
        ),
    ]
    regret = next(part for part in judge_stopping(cases).parts if "costs" in part.name)
    assert regret.outcome is None
    assert regret.estimate is not None
    assert regret.estimate.value == pytest.approx(100 * 0.01 * 3**2)


# --- C4 ---------------------------------------------------------------------------------------


def family(
    n_exponent: float, h_exponent: float, *, name: str = "a", beside: bool = False
) -> list[ClaimCase]:
    cases = []
    for k, n in enumerate((20, 40, 80)):
        for i, h in enumerate((16, 64)):
            at = -2 + n_exponent * math.log2(n / 40) + h_exponent * math.log2(h / 32)
            sweep = planted_sweep(bowl(at), noise=0.002, rng=10 * k + i)
            factors = {"n_train": float(n), "width": float(h)}
            cases.append(
                planted_case(f"{name}{n}-{h}", sweep, family=name, factors=factors, beside=beside)
            )
    return cases


def test_planted_exponents_are_recovered() -> None:
    found = judge_scaling_law(family(-2.0, -1.0))
    assert found.outcome == "reproduced"
    (fit,) = found.fits
    assert fit.n_exponent is not None
    assert fit.n_exponent.value == pytest.approx(-2, abs=0.1)
    assert fit.width_exponent is not None
    assert fit.width_exponent.value == pytest.approx(-1, abs=0.1)
    assert fit.sizes == tuple((h, n) for n in (20, 40, 80) for h in (16, 64))
    assert judge_scaling_law(family(-0.3, -1.0)).outcome == "not_reproduced"


def test_a_family_beside_the_claim_decides_nothing() -> None:
    found = judge_scaling_law([*family(-2, -1), *family(0, 0, name="b", beside=True)])
    assert found.outcome == "reproduced"
    assert [fit.family for fit in found.fits] == ["a"]


def test_a_best_c_at_an_end_is_left_out_of_the_fit() -> None:
    cases = family(-2, -1)
    away = planted_case(
        "far", planted_sweep(lambda k: 0.2 - 0.01 * k), family="a",
        factors={"n_train": 160.0, "width": 64.0},
    )  # fmt: skip
    found = judge_scaling_law([*cases, away])
    assert found.outcome == "reproduced"
    assert [one.what for one in found.not_run] == ["far"]


def test_copies_and_noise_are_fitted_by_what_they_vary() -> None:
    copies = [
        planted_case(
            f"m{m}", planted_sweep(bowl(-2), rng=1), family="copies", beside=True,
            factors={"n_train": 20.0 * m, "copies": float(m)},
        )
        for m in (1, 2, 8)
    ]  # fmt: skip
    (part,) = judge_scaling_law(copies).parts
    assert part.name.startswith("exponent of m")
    assert part.estimate is not None
    assert part.estimate.value == pytest.approx(0, abs=1e-9)
    mixture = {"kappa": 1.0, "input_dim": 101.0, "n_train": 50.0}
    assert mixture_angle({**mixture, "sigma": 0.5}) == pytest.approx(math.pi / 4)
    angles = [
        planted_case(
            f"s{sigma}", planted_sweep(bowl(3 * math.log2(phi)), noise=0.001), family="sigma",
            factors={**mixture, "sigma": sigma}, beside=True,
        )
        for sigma in (0.25, 0.5, 1.0)
        if (phi := mixture_angle({**mixture, "sigma": sigma})) is not None
    ]  # fmt: skip
    (part,) = judge_scaling_law(angles).parts
    assert part.name.startswith("exponent of phi")
    assert part.estimate is not None
    assert part.estimate.value == pytest.approx(3, abs=0.2)


# --- transfer ---------------------------------------------------------------------------------


def fitted() -> ScalingFit:
    return judge_scaling_law(family(-1.5, -0.5)).fits[0]


def test_a_prediction_inside_covers_what_was_planted() -> None:
    star = predict(fitted(), 32, 60).setting
    wanted = -2 - 1.5 * math.log2(60 / 40)
    assert star.low is not None
    assert star.high is not None
    assert math.log2(star.low) < wanted < math.log2(star.high)
    assert abs(math.log2(star.value) - wanted) < 0.2


@pytest.mark.parametrize(
    ("width", "n_train", "named"),
    [(15, 40, "--width"), (128, 40, "--width"), (32, 81, "--n-train")],
)
def test_a_size_that_was_not_measured_is_refused(width: int, n_train: int, named: str) -> None:
    with pytest.raises(InputError, match="lies outside"):
        predict(fitted(), width, n_train)


def test_several_fits_have_to_be_told_apart() -> None:
    one = fitted()
    other = one.model_copy(update={"family": "b"})
    assert choose_fit([one], None) is one
    assert choose_fit([one, other], "b") is other
    with pytest.raises(InputError, match="a, b"):
        choose_fit([one, other], None)
    with pytest.raises(InputError, match="no fit named 'c'"):
        choose_fit([one, other], "c")
