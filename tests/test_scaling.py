"""c, alpha and the rates: how numbers are read, written and converted."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fls_bench.errors import InputError
from fls_bench.scaling import (
    PLAIN,
    Factors,
    effective_multiplier,
    factors,
    format_multiplier,
    parse_multiplier,
    relative_rate,
    scaled_rate,
    schedule_factor,
)
from fls_bench.schema import Cosine, LrRule, Sgd, StepDecay

positive = st.floats(2.0**-12, 2.0**12)
depths = st.integers(1, 8)


def rule(depth: int) -> LrRule:
    return LrRule(name="homogeneous", depth=depth)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.002", 0.002),
        ("2^-9", 2.0**-9),
        ("2**-9", 2.0**-9),
        ("2 ^ 3", 8.0),
        (" 1/16 ", 0.0625),
        ("1e-3", 0.001),
        (".5", 0.5),
        ("+4", 4.0),
        ("2^0.5", math.sqrt(2)),
        (3, 3.0),
        (1e-5, 1e-5),
    ],
)
def test_multipliers_are_read(text: str | float, value: float) -> None:
    assert parse_multiplier(text) == value


@pytest.mark.parametrize(
    "text",
    ["", "0", "-1", "-2^2", "-1/-2", "1/-2", "1/0", "0/1", "0^-1", "1e999", "2^99999", "nan", "inf",
     "2^", "^2", "1/2/3", "two", "True", "2^3^4", "1 2", "٣", "0x10", "1_000", "__import__('os')"],
)  # fmt: skip
def test_what_is_no_positive_number_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"such as 0.002, 2\^-9 or 1/16"):
        parse_multiplier(text)


def test_endless_input_is_refused_at_once_and_not_repeated_in_full() -> None:
    with pytest.raises(InputError) as caught:
        parse_multiplier("9" * 20_000 + "x")
    assert len(str(caught.value)) < 200


@given(st.integers(-40, 40))
def test_powers_of_two_survive_being_written_and_read(exponent: int) -> None:
    text = format_multiplier(2.0**exponent)
    assert text == f"2^{exponent}"
    assert parse_multiplier(text) == 2.0**exponent


@given(positive)
def test_any_multiplier_survives_to_four_digits(c: float) -> None:
    assert parse_multiplier(format_multiplier(c)) == pytest.approx(c, rel=5.1e-4)


@given(positive, st.floats(0.1, 10), depths)
def test_the_multiplier_of_scaled_weights(c: float, alpha: float, depth: int) -> None:
    assert effective_multiplier(c, alpha, depth) == pytest.approx(c * alpha**depth)


@pytest.mark.parametrize("power", [1, 2], ids=["Adam", "SGD"])
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize("c", [2.0**-9, 2.0**-2, 1.0])
def test_towards_over_aligned_the_rate_is_the_exact_one(c: float, depth: int, power: int) -> None:
    assert relative_rate(rule(depth), power, c) == pytest.approx(c ** (-power / depth))


def test_the_rate_of_the_paper_is_that_of_two_layers() -> None:
    assert relative_rate(rule(2), 2, 1 / 16) == pytest.approx(16)
    assert relative_rate(PLAIN, 2, 1 / 16) == pytest.approx(16)


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_towards_lazy_the_rate_falls_with_the_square_and_for_adam_in_proportion(depth: int) -> None:
    for c in (2.0**4, 2.0**6):
        assert relative_rate(rule(depth), 2, c) == pytest.approx(4 / c**2)
        assert relative_rate(rule(depth), 1, c) == pytest.approx(2 / c)


@given(st.floats(0.05, 1.0), depths, st.sampled_from([1, 2]))
def test_scaled_weights_at_multiplier_one_keep_their_rate(
    alpha: float, depth: int, power: int
) -> None:
    assert relative_rate(rule(depth), power, 1.0, alpha) == pytest.approx(1.0)


@given(positive, positive, st.floats(0.1, 10), depths, st.sampled_from([1, 2]))
def test_rates_carried_there_and_back_are_the_same(
    c: float, other: float, alpha: float, depth: int, power: int
) -> None:
    here, there = (c, alpha), (other, 1.0)
    carried = scaled_rate(0.1, rule(depth), power, at=here, to=there)
    assert carried > 0
    assert scaled_rate(carried, rule(depth), power, at=there, to=here) == pytest.approx(0.1)
    assert scaled_rate(0.1, rule(depth), power, at=here, to=here) == 0.1


@pytest.mark.parametrize(
    ("c", "text"), [(0.0, "0"), (-0.25, "-0.25"), (math.inf, "inf"), (math.nan, "nan")]
)
def test_a_number_that_is_no_multiplier_is_written_as_it_is(c: float, text: str) -> None:
    assert format_multiplier(c) == text


@pytest.mark.parametrize(
    ("at", "to"),
    [
        ((1.0, 1.0), (1e-300, 1.0)),  # above the largest number
        ((1.0, 1.0), (1e300, 1.0)),  # below the smallest
        ((1.0, 1.0), (1.0, 1e200)),
        ((1e-300, 1.0), (1.0, 1.0)),
        ((1.0, 1.0), (1e-320, 1e-320)),
    ],
)
def test_a_rate_out_of_range_is_refused(at: tuple[float, float], to: tuple[float, float]) -> None:
    with pytest.raises(InputError, match="leaves the range") as caught:
        scaled_rate(0.1, rule(1), 2, at=at, to=to)
    assert f"At c = {format_multiplier(to[0])} and alpha = " in str(caught.value)
    assert "Choose values nearer to 1." in str(caught.value)


@pytest.mark.parametrize("c", [2.0**-200, 2.0**200])
def test_far_from_1_rates_within_range_are_numbers(c: float) -> None:
    rate = scaled_rate(0.1, rule(2), 2, at=(1.0, 1.0), to=(c, 1.0))
    assert rate == pytest.approx(0.1 * min(1 / c, 4 / c**2))


def test_biases_of_layer_l_need_the_rate_eta_c_to_the_minus_2l_over_depth() -> None:
    eta, depth, c = 0.1, 3, 2.0**-6
    biases = LrRule(name="homogeneous", depth=depth, exponents={"b2": 2.0, "b3": 3.0})
    weights = eta * relative_rate(biases, 2, c)
    for layer in (1, 2, 3):
        rate = weights * factors(biases, 2, f"b{layer}", c).lr
        assert rate == pytest.approx(eta * c ** (-2 * layer / depth))


@pytest.mark.parametrize("c", [2.0**-6, 2.0**-1])
def test_behind_a_normalisation_only_what_is_listed_follows_c(c: float) -> None:
    normalised = LrRule(name="normalised", depth=2, exponents={"head": 1.0, "shift": 1.0})
    assert relative_rate(normalised, 2, c) == 1.0
    assert factors(normalised, 2, "convolution", c) == Factors()
    assert factors(normalised, 2, "head", c).lr == pytest.approx(1 / c)
    assert factors(normalised, 1, "head", c).lr == pytest.approx(c**-0.5)


@given(positive, depths)
def test_a_step_shrinks_the_weights_alike_at_every_multiplier(c: float, depth: int) -> None:
    sgd, adam = factors(rule(depth), 2, "w", c), factors(rule(depth), 1, "w", c)
    assert sgd.l2 * c ** (-2 / depth) == pytest.approx(1)
    assert adam.decay * c ** (-1 / depth) == pytest.approx(1)
    assert adam.epsilon * c ** (-1 / depth) == pytest.approx(1)
    assert sgd.clip * c ** (1 / depth) == pytest.approx(1)


def test_schedules_go_by_the_epoch() -> None:
    cosine = Sgd(schedule=Cosine(epochs=10, final=0.2))
    assert [schedule_factor(cosine, k, 99) for k in (0, 5, 10, 40)] == pytest.approx(
        [1.0, 0.6, 0.2, 0.2]
    )
    assert schedule_factor(Sgd(schedule=Cosine()), 50, 100) == pytest.approx(0.5)
    steps = Sgd(schedule=StepDecay(every=3, factor=0.5))
    assert [schedule_factor(steps, k, 99) for k in range(7)] == [1, 1, 1, 0.5, 0.5, 0.5, 0.25]
    assert schedule_factor(Sgd(), 7, 9) == 1.0
