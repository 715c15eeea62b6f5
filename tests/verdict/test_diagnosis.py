"""From evidence to words: mechanisms, faces, recommendations, and what forbids a verdict."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fls_bench.metrics import METRICS
from fls_bench.scaling import PLAIN
from fls_bench.schema import (
    AdamW,
    AnyOptimizer,
    Cell,
    Cost,
    Diagnosis,
    Gain,
    LrRule,
    Measurement,
    Outcome,
    RateComparison,
    Regime,
    SeedResult,
    Sgd,
    Sweep,
    Tier,
)
from fls_bench.verdict.diagnosis import DIRECTIONS, diagnose, without_sweep
from fls_bench.verdict.evidence import Advised, Evidence

C0, STAR = 2.0**-4, 2.0**0
GRID = [2.0**k for k in (-8, -6, -4, -2, 0, 2)]
OVER_ALIGNED = dict(zip(GRID, (0.22, 0.19, 0.16, 0.12, 0.10, 0.11), strict=True))
OVER_FITTED = {C0 * C0 / c: error for c, error in OVER_ALIGNED.items()}
OPTIMUM = dict(zip(GRID, (0.20, 0.14, 0.10, 0.13, 0.18, 0.3), strict=True))


def sweep(
    errors: dict[float, float],
    *,
    measured: dict[float, dict[str, float]] | None = None,
    outcomes: dict[float, Outcome] | None = None,
    centered: bool = False,
    val: dict[float, float] | None = None,
    axis: str = "output_multiplier",
    seeds: int = 8,
) -> Sweep:
    rng = np.random.default_rng(0)
    cells = []
    for c, error in errors.items():
        outcome = (outcomes or {}).get(c, Outcome.REACHED_TARGET)
        good = outcome is Outcome.REACHED_TARGET
        runs = tuple(
            SeedResult(
                seed=seed,
                outcome=outcome,
                epochs=10,
                train_loss=0.1,
                test_error=error + 0.002 * rng.standard_normal() if good else None,
                val_error=(val or errors)[c] + 0.002 * rng.standard_normal() if good else None,
                val_loss=error,
                chance_error=0.9,
                measurements={
                    key: value * (1 + 0.01 * rng.standard_normal())
                    for key, value in (measured or {}).get(c, {}).items()
                },
            )
            for seed in range(seeds)
        )
        reason = None if good else f"only 0 of {seeds} runs reached the target"
        cells.append(Cell(c=c, lr=0.1 * c**-0.5, usable=good, reason=reason, seeds=runs))
    return Sweep(
        axis=axis, centered=centered, lr_rule=LrRule(name="homogeneous", depth=4), n_test=1000,
        cells=tuple(cells),
    )  # fmt: skip


GAIN = Gain(value=6.0, low=5.0, high=7.0, num_seeds=10)


def test_recommendation_has_numbers_words_and_a_snippet_that_compiles() -> None:
    found = diagnose(Evidence(sweep(OVER_ALIGNED), C0, GAIN))
    advice = found.recommendation
    assert found.regime is Regime.OVER_ALIGNED
    assert advice.multiply_output_by == 16
    assert advice.learning_rate == pytest.approx((0.4, 0.1))
    assert "Multiply the output by 16" in advice.text
    assert "learning rate 0.4 -> 0.1" in advice.text
    assert advice.snippet is not None
    compile(advice.snippet, "snippet", "exec")
    assert advice.snippet.startswith("logits = 2**0 * model(x)  # was 2**-4 * model(x)")
    assert found.log2_c_ratio is not None
    assert found.log2_c_ratio.value == -4  # negative: toward over-aligned


def test_over_fitted_divides() -> None:
    found = diagnose(Evidence(sweep(OVER_FITTED), C0, GAIN))
    assert found.regime is Regime.OVER_FITTED
    assert found.recommendation.multiply_output_by == 1 / 16
    assert "Multiply the output by 1/16" in found.recommendation.text
    assert found.log2_c_ratio is not None
    assert found.log2_c_ratio.value == 4


def test_init_scale_is_named_as_such() -> None:
    found = diagnose(Evidence(sweep(OVER_ALIGNED, axis="init_scale"), C0, GAIN))
    assert "Multiply the initial weights by 16" in found.recommendation.text
    # The rate in the advice is that for the changed init, not for a changed output.
    assert found.recommendation.multiply_output_by is None
    assert found.recommendation.multiply_init_by == 16
    assert "alpha" in found.reason.text
    assert found.log2_c_ratio is not None
    assert found.log2_c_ratio.value == -4 * 4  # c = alpha^L
    assert found.recommendation.snippet is not None
    assert "parameter.mul_(16)" in found.recommendation.snippet


def test_snippet_is_what_was_trained() -> None:
    """Route, centering, momentum and the penalty at c* are in it: nothing else was measured."""
    sgd = Sgd(lr=0.4, momentum=0.9, nesterov=True, weight_decay=0.01)
    whole = sweep(OVER_ALIGNED)
    advised = Advised(optimizer=sgd, route="factory")
    snippet = diagnose(Evidence(whole, C0, GAIN, advised=advised)).recommendation.snippet
    assert snippet is not None
    compile(snippet, "snippet", "exec")
    assert "build(output_multiplier=2**0)  # was 2**-4" in snippet
    assert "weight_decay=0.04, momentum=0.9, nesterov=True" in snippet  # 0.01 * 16^(2/4)
    centered = sweep(OVER_ALIGNED, centered=True)
    snippet = diagnose(Evidence(centered, C0, GAIN)).recommendation.snippet
    assert "2**0 * (model(x) - initial_model(x))" in str(snippet)


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        (Sgd(lr=0.4), {1.0: {"lr": 0.4}, 2.0: {"lr": 0.1}}),
        (
            Sgd(lr=0.4, weight_decay=0.01),
            {1.0: {"lr": 0.4, "weight_decay": 0.04}, 2.0: {"lr": 0.1, "weight_decay": 0.16}},
        ),
        (
            AdamW(lr=0.4, weight_decay=0.1, epsilon=1e-4),
            {
                1.0: {"lr": 0.4, "weight_decay": 0.2, "eps": 2e-4},
                2.0: {"lr": 0.2, "weight_decay": 0.4, "eps": 4e-4},
            },
        ),
    ],
    ids=["sgd", "penalty", "adamw"],
)
def test_snippet_gives_each_parameter_its_own_settings(
    optimizer: AnyOptimizer, expected: dict[float, dict[str, float]]
) -> None:
    """From 2^-4 to 2^0 with L = 4: a = 2, so rates by a^-e and a^-2e, decay by a^e and a^2e."""
    whole = sweep(OVER_ALIGNED)
    rule = whole.lr_rule.model_copy(update={"exponents": {"1.bias": 2.0}})
    cells = tuple(cell.model_copy(update={"lr": 0.4}) for cell in whole.cells)
    whole = whole.model_copy(update={"lr_rule": rule, "cells": cells})
    advised = Advised(optimizer=optimizer)
    snippet = diagnose(Evidence(whole, C0, GAIN, advised=advised)).recommendation.snippet
    assert snippet is not None
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    known = {"torch": torch, "model": model, "x": torch.ones(1, 2)}
    exec(snippet, known)
    groups = known["optimizer"].param_groups  # type: ignore[attr-defined]
    names = [name for name, _ in model.named_parameters()]
    assert len(groups) == len(names)
    for name, group in zip(names, groups, strict=True):
        wanted = expected[2.0 if name == "1.bias" else 1.0]
        assert {key: group[key] for key in wanted} == pytest.approx(wanted)


def both_rules(normalised: dict[float, float], plain: dict[float, float] | None) -> Diagnosis:
    rule = LrRule(name="normalised", depth=2, exponents={"head.weight": 1.0})
    whole = sweep(normalised).model_copy(update={"lr_rule": rule})
    other = None if plain is None else sweep(plain).model_copy(update={"lr_rule": PLAIN})
    advised = Advised(normalised=True)
    return diagnose(Evidence(whole, C0, GAIN, advised=advised, plain=other))


def test_normalised_nets_are_judged_by_the_exact_rule_and_shown_by_the_plain_one() -> None:
    found = both_rules(OVER_ALIGNED, OPTIMUM)
    assert found.regime is Regime.OVER_ALIGNED
    texts = {finding.code: finding for finding in found.findings}
    assert "head.weight" in texts["normalised_rule"].text
    assert "judged near-optimal, without fresh seeds" in texts["both_rules"].text
    assert {"exact 2^-4", "plain 2^-4"} <= set(texts["both_rules"].evidence)


def test_where_c_has_no_effect_the_report_says_so_and_why() -> None:
    flat = {c: 0.1 + 0.0002 * k for k, c in enumerate(GRID)}
    found = both_rules(flat, None)
    assert found.regime is Regime.NEAR_OPTIMAL
    (text,) = [f.text for f in found.findings if f.code == "c_hardly_matters"]
    assert "hardly matters" in text
    assert "how the read-out starts" in text
    sharp = [f.code for f in both_rules(OPTIMUM, None).findings]
    assert "c_hardly_matters" not in sharp


def test_advice_says_where_the_learning_rate_alone_may_do() -> None:
    def advice(low: float) -> str:
        one = RateComparison(
            c=C0, c_star=STAR, lr_at_c=3.2, lr_at_c_star=0.1, rates_tried=(1.0, 8.0), text="",
            gain=Gain(value=0.3, low=low, high=1.0, num_seeds=10),
        )  # fmt: skip
        return diagnose(Evidence(sweep(OVER_ALIGNED), C0, GAIN, rates=(one,))).recommendation.text

    assert "the learning rate alone may do as much: at the present c with a rate of 3.2" in advice(
        -0.4
    )
    assert "learning rate alone" not in advice(0.1)


def test_near_optimal_promises_no_gain() -> None:
    loss = Gain(value=-0.4, low=-0.9, high=0.1, num_seeds=10)
    errors = {**OPTIMUM, 2.0**-3: 0.099}
    found = diagnose(Evidence(sweep(errors), C0, loss))
    assert found.regime is Regime.NEAR_OPTIMAL
    assert found.recommendation.expected_gain is None
    assert [f.text for f in found.findings if f.code == "gain_at_c_star"]


class TestNoVerdict:
    def test_handful_of_test_points(self) -> None:
        for errors in (OVER_ALIGNED, OPTIMUM):
            small = sweep(errors).model_copy(update={"n_test": 20})
            found = diagnose(Evidence(small, C0, GAIN))
            assert (found.regime, found.reason.code) == (
                Regime.INCONCLUSIVE,
                "test_part_too_small",
            )

    def test_near_optimal_needs_the_whole_search(self) -> None:
        cost = Cost(budget_replica_epochs=10, budget_bound=True)
        found = diagnose(Evidence(sweep(OPTIMUM), C0, None, cost=cost, complete=False))
        assert (found.regime, found.reason.code) == (Regime.INCONCLUSIVE, "budget")
        assert "budget_bound" in [f.code for f in found.findings]

    def test_gain_not_confirmed_on_fresh_seeds(self) -> None:
        weak = Gain(value=0.5, low=-0.1, high=1.1, num_seeds=10)
        found = diagnose(Evidence(sweep(OVER_ALIGNED), C0, weak))
        assert (found.regime, found.reason.code) == (Regime.INCONCLUSIVE, "not_confirmed")
        assert found.recommendation.multiply_output_by is None

    def test_gain_not_measured(self) -> None:
        cost = Cost(budget_replica_epochs=10, budget_bound=True)
        found = diagnose(Evidence(sweep(OVER_ALIGNED), C0, None, cost=cost))
        assert (found.regime, found.reason.code) == (Regime.INCONCLUSIVE, "not_confirmed")
        assert "budget" in found.reason.text

    def test_validation_disagrees(self) -> None:
        upside_down = dict(zip(GRID, (0.10, 0.12, 0.15, 0.2, 0.2, 0.2), strict=True))
        found = diagnose(Evidence(sweep(OVER_ALIGNED, val=upside_down), C0, GAIN))
        assert (found.regime, found.reason.code) == (Regime.INCONCLUSIVE, "validation_disagrees")

    def test_no_signal(self) -> None:
        found = diagnose(Evidence(sweep(dict.fromkeys(GRID, 0.9)), C0, GAIN))
        assert (found.regime, found.reason.code) == (Regime.INCONCLUSIVE, "no_signal")

    def test_own_c_did_not_reach_the_target(self) -> None:
        stuck = {C0: Outcome.PLATEAU}
        found = diagnose(Evidence(sweep(OVER_ALIGNED, outcomes=stuck), C0, GAIN))
        assert (found.regime, found.reason.code) == (Regime.INCONCLUSIVE, "target_not_reached")

    def test_failed_arms_are_no_bad_generalization_and_are_said(self) -> None:
        """A whole side that failed leaves the verdict open: it was not shown to be worse."""
        failed = {c: Outcome.DIVERGED for c in GRID if c > C0}
        found = diagnose(Evidence(sweep(OPTIMUM, outcomes=failed), C0, GAIN))
        assert (found.regime, found.reason.code) == (Regime.INCONCLUSIVE, "one_side_missing")
        assert len([f for f in found.findings if f.code == "not_judged"]) == len(failed)

    def test_below_t3(self) -> None:
        for tier in (Tier.T0, Tier.T1, Tier.T2):
            found = without_sweep(tier, "Because.")
            assert (found.regime, found.method) == (Regime.INCONCLUSIVE, "none")
            assert "Because." in found.reason.text


RANKS = {"rank.effective:logits": 4.0, "rank.effective:last": 7.0}
AGREE = "agreement.nearest_class_mean"


def aligned(value: float, at_init: float, null: float) -> list[Measurement]:
    name = "alignment.class_means"
    return [
        Measurement(metric=name, layer="a", value=value),
        Measurement(metric=f"{name}_at_init", layer="a", value=at_init),
        Measurement(metric=f"{name}_permutation_null", layer="a", value=null, low=0, high=null),
    ]


class TestMechanism:
    def of(
        self, at_c: dict[str, float], at_star: dict[str, float], alignment: list[Measurement]
    ) -> str:
        whole = sweep(OVER_ALIGNED, measured={C0: at_c, STAR: at_star})
        found = diagnose(Evidence(whole, C0, GAIN, measurements=alignment))
        assert found.mechanism is not None
        return found.mechanism.code

    def test_rank_collapse(self) -> None:
        low = {key: value / 2 for key, value in RANKS.items()}
        assert self.of({**low, AGREE: 0.8}, {**RANKS, AGREE: 0.9}, []) == "rank_collapse"

    def test_small_loss_of_rank_is_no_collapse(self) -> None:
        low = {key: 0.95 * value for key, value in RANKS.items()}
        assert self.of({**low, AGREE: 0.8}, {**RANKS, AGREE: 0.9}, []) == "undetermined"

    def test_class_mean_alignment_needs_both_nulls(self) -> None:
        at_c, at_star = {**RANKS, AGREE: 0.95}, {**RANKS, AGREE: 0.85}
        assert self.of(at_c, at_star, aligned(0.8, 0.2, 0.4)) == "class_mean_alignment"
        assert self.of(at_c, at_star, aligned(0.8, 0.2, 0.9)) == "undetermined"
        assert self.of(at_c, at_star, aligned(0.8, 0.85, 0.4)) == "undetermined"
        assert self.of(at_c, at_star, []) == "undetermined"

    def test_alignment_without_more_agreement_is_not_claimed(self) -> None:
        at_c, at_star = {**RANKS, AGREE: 0.85}, {**RANKS, AGREE: 0.95}
        assert self.of(at_c, at_star, aligned(0.8, 0.2, 0.4)) == "undetermined"

    def test_both_at_once_single_out_neither(self) -> None:
        low = {key: value / 2 for key, value in RANKS.items()}
        code = self.of({**low, AGREE: 0.95}, {**RANKS, AGREE: 0.85}, aligned(0.8, 0.2, 0.4))
        assert code == "undetermined"

    def test_nothing_measured(self) -> None:
        assert self.of({}, {}, []) == "undetermined"


class TestFace:
    def of(self, centered_error: float, **options: object) -> str:
        plain = sweep(OVER_FITTED)
        without = sweep({C0: centered_error, 2.0**-8: 0.10}, centered=True, **options)  # type: ignore[arg-type]
        found = diagnose(Evidence(plain, C0, GAIN, centered=without))
        assert found.regime is Regime.OVER_FITTED
        assert found.mechanism is not None
        return found.mechanism.code

    def test_initial_function_noise(self) -> None:
        assert self.of(0.105) == "initial_function_noise"

    def test_lazy(self) -> None:
        assert self.of(0.158) == "lazy"

    def test_half_and_half(self) -> None:
        assert self.of(0.13) == "undetermined"

    def test_centered_runs_failed(self) -> None:
        assert self.of(0.105, outcomes={C0: Outcome.DIVERGED}) == "undetermined"

    def test_centered_setup_has_no_initial_function(self) -> None:
        found = diagnose(Evidence(sweep(OVER_FITTED, centered=True), C0, GAIN))
        assert found.mechanism is not None
        assert found.mechanism.code == "lazy"


def test_verdict_can_be_repeated_from_a_file() -> None:
    whole = sweep(OVER_ALIGNED)
    stored = Sweep.model_validate_json(whole.model_dump_json())
    assert diagnose(Evidence(stored, C0, GAIN)) == diagnose(Evidence(whole, C0, GAIN))


def test_small_test_part_is_said() -> None:
    small = sweep(OPTIMUM).model_copy(update={"n_test": 171})
    assert "small_test_part" in [f.code for f in diagnose(Evidence(small, C0)).findings]


def test_directions_agree_with_the_table_of_metrics() -> None:
    for metric, direction in DIRECTIONS.items():
        assert METRICS[metric].direction == direction
