"""c, alpha and the rates: how numbers are read, written and converted."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

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
    schedule_factors,
)
from fls_bench.schema import (
    AdamW,
    AnyOptimizer,
    Cosine,
    FixedSteps,
    LrRule,
    PerStep,
    Recipe,
    Sgd,
    StepDecay,
    TargetLoss,
    canonical_digest,
)

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


def factors_of(schedule: Any, num: int, per_epoch: int = 1, **changes: Any) -> list[float]:
    """Of the first steps; a run of at most 99 epochs."""
    stop = changes.pop("stop", TargetLoss())
    options = {"per_epoch": per_epoch, "max_epochs": 99, **changes}
    epochs = range(-(-num // per_epoch))
    optimizer = Sgd(schedule=schedule)
    found = [schedule_factors(optimizer, stop, epoch=epoch, **options) for epoch in epochs]
    assert {len(one) for one in found} == {per_epoch}
    return [factor for one in found for factor in one][:num]


def test_some_schedules_go_by_the_epoch() -> None:
    cosine = factors_of(Cosine(epochs=10, final=0.2), 41)
    assert [cosine[k] for k in (0, 5, 10, 40)] == pytest.approx([1.0, 0.6, 0.2, 0.2])
    assert factors_of(Cosine(), 51, max_epochs=100)[50] == pytest.approx(0.5)
    assert factors_of(Cosine(), 101, per_epoch=2, max_epochs=100)[100] == pytest.approx(0.5)
    steps = StepDecay(every=3, factor=0.5)
    assert factors_of(steps, 7) == [1, 1, 1, 0.5, 0.5, 0.5, 0.25]
    assert factors_of(steps, 14, per_epoch=2) == [*[1] * 6, *[0.5] * 6, *[0.25] * 2]
    assert factors_of(None, 7, per_epoch=3) == [1.0] * 7


@pytest.mark.parametrize("decay", ["constant", "linear", "cosine"])
@pytest.mark.parametrize("warmup", [0, 1, 6, 30])
@pytest.mark.parametrize("length", [1, 12, 25])
def test_schedules_per_step_are_those_of_transformers(decay: Any, warmup: int, length: int) -> None:
    optimization = pytest.importorskip("transformers.optimization")
    make = getattr(optimization, f"get_{decay}_schedule_with_warmup")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = make(optimizer, warmup, *([] if decay == "constant" else [length]))
    expected = []
    for _ in range(length if decay == "cosine" else length + 9):  # then their cosine rises again
        expected += theirs.get_last_lr()
        optimizer.step()
        theirs.step()
    schedule, num = PerStep(decay=decay, warmup_steps=warmup), len(expected)
    assert factors_of(schedule, num, per_epoch=4, stop=FixedSteps(length)) == expected
    assert factors_of(schedule, num, per_epoch=1, max_epochs=length) == expected
    assert factors_of(schedule, num, per_epoch=length, max_epochs=1) == expected
    if decay != "constant":
        own = PerStep(decay=decay, warmup_steps=warmup, steps=length)
        assert factors_of(own, num, per_epoch=5, stop=FixedSteps(7)) == expected


def test_a_decay_per_step_ends_at_0_and_stays_there() -> None:
    for decay in ("linear", "cosine"):
        schedule = PerStep(decay=decay, warmup_steps=3, steps=10)
        found = factors_of(schedule, 40, per_epoch=7)
        assert [found[k] for k in (0, 3)] == [0.0, 1.0]
        assert found[9] > 0
        assert set(found[10:]) == {0.0}


def test_a_constant_rate_has_no_length() -> None:
    with pytest.raises(ValidationError, match="a constant rate has no steps"):
        PerStep(decay="constant", steps=10)


@pytest.mark.parametrize(
    ("optimizer", "stored", "digest"),
    [
        (
            Sgd(lr=0.05, momentum=0.9),
            '{"lr":0.05,"weight_decay":0.0,"clip_norm":null,"schedule":null,"kind":"sgd",'
            '"momentum":0.9,"nesterov":false}',
            "b1667e4e23ae875bf500524094a0d592d4039adbebb853267f6561be16c367a6",
        ),
        (
            AdamW(schedule=Cosine(epochs=4, final=0.1)),
            '{"lr":0.001,"weight_decay":0.01,"clip_norm":null,'
            '"schedule":{"kind":"cosine","epochs":4,"final":0.1},"kind":"adamw",'
            '"beta1":0.9,"beta2":0.999,"epsilon":1e-8}',
            "20268596a8653cacd95c743694c990eb750b4feff51cb3d0cd1d71a28f5f0f7c",
        ),
        (
            Sgd(schedule=StepDecay(every=3)),
            '{"lr":0.1,"weight_decay":0.0,"clip_norm":null,'
            '"schedule":{"kind":"step","every":3,"factor":0.1},"kind":"sgd",'
            '"momentum":0.0,"nesterov":false}',
            "a0070b0d63e68fe7a7b369e4bf4093ba6d06bc09787d5ce5483a12615071317d",
        ),
    ],
    ids=["none", "cosine", "step"],
)
def test_recipes_are_stored_as_before_there_were_schedules_per_step(
    optimizer: AnyOptimizer, stored: str, digest: str
) -> None:
    recipe = Recipe(optimizer=optimizer)
    assert optimizer.model_dump_json() == stored
    assert Recipe.model_validate({"optimizer": json.loads(stored)}) == recipe
    assert canonical_digest(recipe.model_dump(mode="json")) == digest


def test_a_schedule_per_step_is_read_as_it_was_stored() -> None:
    recipe = Recipe(optimizer=AdamW(schedule=PerStep(decay="cosine", warmup_steps=7, steps=90)))
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe
