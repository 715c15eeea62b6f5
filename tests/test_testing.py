"""The public module for users' tests, and the pytest plugin: strategies, contract, fixtures."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import zoo
from hypothesis import find, given
from hypothesis import strategies as st

import fls_bench.testing as public
from fls_bench import InputError, PerStep, Sgd
from fls_bench.schema import AdamW, ArchitectureSpec
from fls_bench.tasks import Task
from fls_bench.testing import (
    NAMES,
    Draw,
    architectures,
    data_sets,
    diagnosed,
    draws,
    findings,
    initial_states,
    multipliers,
    optimizers,
    setups,
)
from fls_bench.training import check_setup
from fls_bench.training_setup import TrainingSetup

pytest_plugins = ["pytester"]

ROOT = Path(__file__).resolve().parents[1]


# --- strategies -----------------------------------------------------------------------------


@given(setups(architecture=architectures(kinds=("mlp", "cnn"), bias=None)))
def test_every_drawn_setup_can_be_trained(setup: TrainingSetup) -> None:
    task = check_setup(setup)
    assert task.n_train >= 10
    assert set(task.y_train.tolist()) == set(range(task.n_classes))


@given(multipliers(), multipliers(-2, 3))
def test_multipliers_lie_in_their_range(c: float, near: float) -> None:
    assert 2**-12 <= c <= 2**12
    assert 2**-2 <= near <= 2**3


def test_failing_cases_end_at_the_smallest() -> None:
    assert find(multipliers(), lambda c: True) == 1.0
    assert find(multipliers(), lambda c: c < 0.6) == pytest.approx(2**-0.75)
    assert find(draws(), lambda d: True) == Draw(quarter_octaves=-1)
    assert find(optimizers(), lambda o: True) == Sgd(lr=0.05)
    assert isinstance(find(optimizers(), lambda o: isinstance(o, AdamW)), AdamW)
    task = find(data_sets(), lambda t: True)
    assert (task.n_train, task.n_classes, task.input_dim) == (10, 2, 1)
    setup = find(setups(), lambda s: s.architecture.arguments["depth"] >= 3)
    assert setup.architecture is not None
    assert setup.architecture.arguments | {"width": 1} == setup.architecture.arguments
    assert setup.architecture.arguments["depth"] == 3
    assert setup.optimizer == Sgd(lr=0.05)


def test_limits_of_strategies_are_kept() -> None:
    assert find(draws(max_octaves=1), lambda d: d.ratio == 2).quarter_octaves == 4
    kinds = {find(optimizers(("adam",), decay=True, clipping=True), lambda o: True).kind}
    assert kinds == {"adam"}
    decayed = find(optimizers(decay=True), lambda o: True)
    assert decayed.weight_decay > 0
    assert find(optimizers(schedule=True), lambda o: True).schedule is not None
    biased = find(architectures(bias=True, max_depth=2), lambda a: a.arguments["depth"] == 2)
    assert biased.arguments["bias"] is True


@given(st.data())
def test_initial_states_fit_their_net_and_leave_nothing_at_zero(data: st.DataObject) -> None:
    spec = ArchitectureSpec(
        name="mlp", arguments={"input_dim": 3, "n_outputs": 2, "width": 4, "bias": True}
    )
    state = data.draw(initial_states(spec))
    assert {value.dtype for value in state.values()} == {torch.float64}
    assert state["layers.0.weight"].shape == (4, 3)


# --- functions ------------------------------------------------------------------------------


def test_findings_take_a_builder_a_setup_or_a_function_of_one() -> None:
    for target in (zoo.plain_mlp, zoo.setup, zoo.setup()):
        found = findings(target, names=["rotation", "exact-rule"], examples=3)
        assert {name: one.status for name, one in found.items()} == {
            "exact_rule": "held", "rotation": "held"
        }  # fmt: skip
    own = findings(zoo.biased_mlp, names=["own_optimizer"], optimizer=zoo.bias_unscaled, examples=3)
    assert own["own_optimizer"].code == "bias_rate"
    task: Task = zoo.random_points((zoo.INPUTS,), zoo.CLASSES)(0)
    found = findings(zoo.plain_mlp, names=["routes", "temperature"], task=task, examples=2)
    assert [one.status for one in found.values()] == ["void", "held"]
    with pytest.raises(InputError, match="no invariant"):
        findings(zoo.plain_mlp, names=["all"])
    with pytest.raises(InputError, match="output_multiplier"):
        findings(zoo.plain_mlp, optimizer=lambda net: None)


def test_findings_leave_out_a_warm_up_in_which_nothing_would_move() -> None:
    slow = replace(zoo.setup(), optimizer=Sgd(lr=0.05, schedule=PerStep(warmup_steps=10**8)))
    found = findings(slow, names=["exact-rule"], examples=3)
    assert found["exact_rule"].status == "held"


def test_a_public_name_is_there_or_says_so() -> None:
    for name in public.__all__:
        assert getattr(public, name) is not None
    for name in NAMES:
        assert f"check_{name}" in public.__all__
    with pytest.raises(AttributeError, match="check_everything"):
        public.check_everything  # noqa: B018


def test_diagnosed_is_the_verdict_of_the_command() -> None:
    from own_nets import built_in

    made = diagnosed(built_in(), max_seeds=3, budget_seconds=20, store=False, jobs=1)
    assert made.evidence_tier.value == "T3"


LIGHT = """
import sys
import fls_bench.pytest_plugin, fls_bench.testing
heavy = [name for name in ("torch", "numpy", "scipy", "sklearn") if name in sys.modules]
assert not heavy, heavy
"""


def test_neither_the_plugin_nor_the_module_loads_torch() -> None:
    subprocess.run([sys.executable, "-c", LIGHT], check=True, cwd=ROOT)


# --- in a user's test files -----------------------------------------------------------------

CONTRACT = """
    from fls_bench.testing import ScalingContract
    import zoo

    class TestRight(ScalingContract):
        build = staticmethod(zoo.wired_mlp)
        options = {"examples": 3}
        must_hold = ("routes",)

    class TestTwice(ScalingContract):
        build = staticmethod(zoo.twice)
        options = {"examples": 3}

    class TestPlain(ScalingContract):
        build = staticmethod(zoo.plain_mlp)
        options = {"examples": 3}
        must_hold = ("routes",)
"""


def test_the_contract_has_a_test_for_each_invariant(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(CONTRACT)
    light = "routes or temperature or duplication or own"
    result = pytester.runpytest_inprocess("-p", "no:randomly", "-rA", "-k", light)
    outcomes = result.parseoutcomes()
    assert outcomes == {"passed": 6, "failed": 3, "skipped": 6, "deselected": 3 * (len(NAMES) - 5)}
    text = result.stdout.str()
    assert "TestRight::test_invariant[routes]" in text
    assert "The multiplier is applied twice: the output goes as c^2." in text
    assert "smallest counter-example: seed 0, c times 0.5" in text
    assert "It has to hold, but: routes is void" in text


FIXTURES = """
    import pytest
    import zoo
    from own_nets import built_in
    from fls_bench.schema import Code, Diagnosis, Recommendation, Regime, Tier

    def made(regime, monkeypatch):
        diagnosis = Diagnosis(
            regime=regime, evidence_tier=Tier.T3, method="none", reason=Code(code="x", text="Why."),
            recommendation=Recommendation(text="Do it."),
        )
        monkeypatch.setattr("fls_bench.testing.diagnosed", lambda setup, **_: diagnosis)

    def test_right(fls_invariants):
        found = fls_invariants(zoo.wired_mlp, names=["routes", "rotation"], examples=3)
        assert found["routes"].status == "held"

    def test_twice(fls_invariants):
        fls_invariants(zoo.twice, names=["routes"], examples=3)

    def test_expected(fls_regime, monkeypatch):
        made(Regime.NEAR_OPTIMAL, monkeypatch)
        assert fls_regime(None, expect="near_optimal").regime == "near_optimal"

    def test_other(fls_regime, monkeypatch):
        made(Regime.OVER_FITTED, monkeypatch)
        fls_regime(None, expect="near-optimal")

    def test_open(fls_regime, monkeypatch):
        made(Regime.INCONCLUSIVE, monkeypatch)
        fls_regime(None, expect="near-optimal")

    def test_open_strictly(fls_regime, monkeypatch):
        made(Regime.INCONCLUSIVE, monkeypatch)
        fls_regime(None, expect="near-optimal", strict=True)

    def test_mistyped(fls_regime):
        with pytest.raises(pytest.UsageError, match="near-optimal"):
            fls_regime(None, expect="optimal")

    def test_real(fls_regime):
        made = fls_regime(built_in(), max_seeds=3, budget_seconds=20, store=False, jobs=1)
        assert made.method in ("intervention", "none")
"""


def test_fixtures_pass_fail_and_skip(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(FIXTURES)
    result = pytester.runpytest_inprocess("-p", "no:randomly", "-rA")
    result.assert_outcomes(passed=4, failed=3, skipped=1)
    result.stdout.fnmatch_lines(
        [
            "routes is broken: The multiplier is applied twice*",
            "the setup is over-fitted, expected near-optimal: Why. Do it.",
            "PASSED*test_right*", "PASSED*test_expected*", "SKIPPED*inconclusive*Why.*",
            "FAILED*test_twice*", "FAILED*test_other*", "FAILED*test_open_strictly*",
        ]
    )  # fmt: skip
