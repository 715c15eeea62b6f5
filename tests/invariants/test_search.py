"""Many draws of an invariant become one finding: what is merged, set aside, shrunk and repeated."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import zoo
from torch import Tensor, nn

from fls_bench.examining import random_points
from fls_bench.invariants import INVARIANTS
from fls_bench.invariants.claims import Draw, decided, measured_exponent, void
from fls_bench.invariants.search import examine, merged
from fls_bench.invariants.twins import MAX_BOUND, Examined
from fls_bench.schema import InvariantFinding, Sgd
from fls_bench.training_setup import TrainingSetup

HELD = ("", "")


def setup(build: Any = zoo.plain_mlp, **changes: Any) -> TrainingSetup:
    values = {
        "task": random_points((zoo.INPUTS,), zoo.CLASSES),
        "optimizer": Sgd(lr=0.05),
        **changes,
    }
    return TrainingSetup(make_model=build, **values)


def only(examined: Examined, name: str, **options: Any) -> InvariantFinding:
    (found,) = examine(examined, names=[name], **{"examples": 8, **options})
    return found


def test_a_deviation_decides_and_nothing_that_is_no_number_passes() -> None:
    wrong = ("code", "Wrong.")
    assert decided("rotation", 1e-13, 1e-12, wrong=wrong).status == "held"
    assert decided("rotation", 1e-11, 1e-12, wrong=wrong).status == "broken"
    assert decided("rotation", 0.0, 0.0, wrong=wrong).status == "held"
    for number in (math.nan, math.inf):
        found = decided("rotation", number, 1e-12, wrong=wrong)
        assert (found.status, found.code, found.deviation) == ("broken", "code", None)
    assert decided("rotation", 1e-13, 1e-12, wrong=wrong, rule="r").rule == "r"
    assert decided("rotation", 1.0, 1e-12, wrong=wrong, rule="r").rule is None
    assert measured_exponent("x", math.nan, 1.0) == ()


def test_findings_are_merged_by_the_draw_that_comes_nearest_to_breaking() -> None:
    near = decided("rotation", 5e-13, 1e-12, wrong=HELD, exponents=measured_exponent("x", 1.0, 1.0))
    far = decided("rotation", 6e-13, 1e-9, wrong=HELD, exponents=measured_exponent("x", 2.0, 1.0))
    aside = void("rotation", "diverged", "No.")
    found = merged([far, near, aside, aside])
    assert (found.status, found.deviation, found.bound) == ("held", 5e-13, 1e-12)
    assert (found.num_examples, found.num_set_aside) == (2, 2)
    (exponent,) = found.exponents
    assert (exponent.value, exponent.n) == (1.5, 2)
    assert exponent.low is not None
    assert exponent.low < 1.5 - 0.5  # Student's t with one degree of freedom
    only_aside = merged([aside, void("rotation", "did_not_move", "Still."), aside])
    assert (only_aside.status, only_aside.code) == ("void", "diverged")
    assert (only_aside.num_examples, only_aside.num_set_aside) == (0, 3)
    drift = void("one_rate", "trained_biases", "Far.", deviation=0.5)
    assert merged([drift, replace_deviation(drift, 0.1)]).deviation == 0.5


def replace_deviation(finding: InvariantFinding, value: float) -> InvariantFinding:
    return finding.model_copy(update={"deviation": value})


def test_the_same_seed_tries_the_same_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[list[Draw]] = []
    row = INVARIANTS["exact_rule"]

    def watched(examined: Examined, draw: Draw) -> InvariantFinding:
        """Nothing is compared."""
        tried[-1].append(draw)
        return decided("exact_rule", 0.0, 1.0, wrong=HELD)

    monkeypatch.setattr(
        "fls_bench.invariants.search.INVARIANTS", {"exact_rule": replace(row, check=watched)}
    )
    for seed in (0, 0, 1):
        tried.append([])
        examine(Examined(setup()), names=["exact_rule"], examples=30, base_seed=seed)
    assert tried[0] == tried[1] != tried[2]
    draws = tried[0]
    assert len(set(draws)) > 25
    assert all(2**-12 <= d.ratio <= 2**12 and d.ratio != 1 for d in draws)
    assert min(d.ratio for d in draws) < 2**-6
    assert max(d.ratio for d in draws) > 2**6
    assert max(d.num_steps for d in draws) > 4


def test_the_smallest_case_is_found_whatever_breaks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    row = INVARIANTS["exact_rule"]

    def broken(examined: Examined, draw: Draw) -> InvariantFinding:
        """Broken far from c on long runs."""
        far = draw.quarter_octaves <= -9 and draw.num_steps >= 3
        return decided("exact_rule", 1.0 if far else 0.0, 0.5, wrong=("x", "Too far."))

    monkeypatch.setattr(
        "fls_bench.invariants.search.INVARIANTS", {"exact_rule": replace(row, check=broken)}
    )
    found = only(Examined(setup()), "exact_rule", examples=60)
    assert found.status == "broken"
    example = found.counter_example
    assert example is not None
    assert example["quarter_octaves"] == -9
    assert example["num_batches"] * example["epochs"] == 3
    assert (example["seed"], example["batch_size"]) == (0, 2)


# --- what can't be seen is not called broken ------------------------------------------------


class Single(nn.Module):
    """Computes in float32, whatever it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.body = zoo.plain_mlp()

    def forward(self, x: Tensor) -> Tensor:
        state = {k: v.float() for k, v in self.body.named_parameters()}
        logits: Tensor = torch.func.functional_call(self.body, state, (x.float(),))
        return logits.double()


class Restless(nn.Module):
    """Gives another answer each time."""

    calls = 0

    def __init__(self) -> None:
        super().__init__()
        self.body = zoo.plain_mlp()

    def forward(self, x: Tensor) -> Tensor:
        Restless.calls += 1
        logits: Tensor = self.body(x) * (1 + 1e-3 * Restless.calls)
        return logits


def test_a_net_that_rounds_inside_is_not_called_broken() -> None:
    examined = Examined(setup(Single))
    assert examined.low_precision
    for name in (
        "routes",
        "tangent_kernel",
        "parameter_scale",
        "exact_rule",
        "rotation",
        "duplication",
    ):
        found = only(examined, name)
        expected = "wrapper_only" if name == "routes" else "too_sensitive"
        assert (found.status, found.code) == ("void", expected), found
    assert not Examined(setup()).low_precision


def test_rates_that_diverge_or_do_nothing_are_set_aside() -> None:
    wild = only(Examined(setup(optimizer=Sgd(lr=1e200))), "duplication")
    assert (wild.status, wild.code) == ("void", "diverged")
    assert (wild.num_examples, wild.num_set_aside) == (0, 8)
    still = only(Examined(setup(optimizer=Sgd(lr=1e-15))), "duplication")
    assert (still.status, still.code) == ("void", "did_not_move")


def test_the_bound_follows_the_arithmetic() -> None:
    examined = Examined(setup())
    draw = Draw(batch_size=4, num_batches=2, epochs=2)
    bound = examined.bound(draw, 1.0, draw.num_steps)
    # 16 · 2^-53 · (64 + 8 points of 6 numbers + fan-in 6 + 8 + 8) · (4 steps + 1)
    assert bound == pytest.approx(16 * 2**-53 * (64 + 48 + 22) * 5)
    assert examined.bound(draw, 10.0, draw.num_steps) == pytest.approx(10 * bound)
    assert examined.bound(draw, 0.1, draw.num_steps) == bound
    assert bound < 1e-11 < MAX_BOUND


def test_amplification_is_measured() -> None:
    """A net under a large rate turns a small disturbance into a larger one, and the bound follows."""
    draw = Draw(seed=2, quarter_octaves=-1, batch_size=4, num_batches=3, epochs=3)
    slow, fast = (
        Examined(setup(optimizer=Sgd(lr=lr))).base(draw, full_batch=False)[1] for lr in (0.01, 2.0)
    )
    assert 0.1 < slow < 20
    assert fast > 2 * slow


def test_a_net_that_is_not_reproducible_is_said_to_be() -> None:
    found = only(Examined(setup(Restless)), "duplication")
    assert found.status in ("void", "broken")
    if found.status == "broken":  # every call differs: even equal runs do
        assert found.deviation is None or found.deviation > 1e-6
