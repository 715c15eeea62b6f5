"""The batched engine gives what the plain loop gives, whoever shares the batch."""

from __future__ import annotations

from functools import cache
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from own_nets import built_in, config, distance, in_one_batch, records, rule_of
from profiles import FEW

from fls_bench.schema import (
    FixedSteps,
    Outcome,
    RunConfig,
    RunRecord,
    TargetAccuracy,
    TargetLoss,
    ValidationLoss,
)
from fls_bench.training import choose_engine
from fls_bench.training.runs import TrainedRun
from fls_bench.training.single import train_single
from fls_bench.training_setup import TrainingSetup

STOPS = {
    "loss": TargetLoss(target_loss=0.35, max_epochs=12),
    "accuracy": TargetAccuracy(target_accuracy=0.9, max_epochs=12),
    "validation": ValidationLoss(2, max_epochs=12),
    "steps": FixedSteps(37, max_epochs=12),
}


def mixed(setup: TrainingSetup) -> list[RunConfig]:
    """Plain and centered, three seeds, several multipliers, rates, scales and budgets."""
    return [
        config(setup, c=0.5, lr=0.3),
        config(setup, c=0.5, lr=0.3, centered=True, seed=1),
        config(setup, c=1.0, lr=0.1, seed=2),
        config(setup, c=1.0, lr=0.5, centered=True, init_scale=0.5),
        config(setup, c=4.0, lr=0.02, seed=1, init_scale=1.5),
        config(setup, c=4.0, lr=0.05, centered=True, seed=2, max_epochs=5),
    ]


def same(left: TrainedRun, right: TrainedRun, tolerance: float) -> None:
    assert left.config == right.config
    assert (left.outcome, left.epochs, left.steps) == (right.outcome, right.epochs, right.steps)
    assert distance(dict(left.init), dict(right.init)) < tolerance
    if left.outcome is not Outcome.DIVERGED:
        assert left.train_loss == pytest.approx(right.train_loss, rel=tolerance)
        assert distance(dict(left.final), dict(right.final)) < tolerance


@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("loss", ["cross_entropy", "logistic"])
@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu"])
def test_a_batch_is_the_plain_loop_many_times(
    activation: str, bias: bool, loss: str, stop: str
) -> None:
    setup = built_in(activation=activation, bias=bias, loss=loss, stop=STOPS[stop], depth=3)
    assert choose_engine(setup, rule_of(setup)).kind == "fused"
    runs = in_one_batch(setup, mixed(setup))
    assert len({run.epochs for run in runs}) > 1, "no replica leaves the batch before another"
    for run in runs:
        same(run, train_single(setup, rule_of(setup), setup.task_for(run.config.seed), run.config,
                               dtype=torch.float64), 1e-10)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("mlp", {"batch_size": 23}),
        ("mlp", {"batch_size": 1000}),
        ("mlp", {"depth": 1}),
        ("mlp", {"width": 1}),
        ("mlp", {"init": "torch", "bias": True, "activation": "gelu"}),
        ("two_layer", {"loss": "logistic"}),
    ],
    ids=["full batch", "batch beyond n", "one layer", "one unit", "torch init", "two_layer"],
)
def test_so_it_is_for_full_batches_and_other_shapes(name: str, changes: dict[str, Any]) -> None:
    setup = built_in(name, **changes)
    for run in in_one_batch(setup, mixed(setup)):
        task = setup.task_for(run.config.seed)
        same(run, train_single(setup, rule_of(setup), task, run.config, dtype=torch.float64), 1e-10)


# --- a replica does not see who shares its batch --------------------------------------------

SETUP = built_in(depth=3, bias=True, stop=TargetLoss(target_loss=0.2, max_epochs=12))
POOL = (
    config(SETUP, c=0.5, lr=0.3),
    config(SETUP, c=1.0, lr=0.3, seed=1),  # reaches the target early
    config(SETUP, c=1.0, lr=0.001, seed=2),  # runs out of epochs
    config(SETUP, c=2.0, lr=0.05, seed=1, centered=True),
    config(SETUP, c=1.0, lr=0.1, max_epochs=3),
    config(SETUP, c=4.0, lr=1e4),  # diverges
    config(SETUP, c=64.0, lr=3e3, seed=1, centered=True),  # diverges
)


@cache
def alone(which: int, dtype: torch.dtype) -> TrainedRun:
    return in_one_batch(SETUP, [POOL[which]], dtype)[0]


def test_the_pool_holds_every_way_to_end() -> None:
    ends = [alone(which, torch.float64) for which in range(len(POOL))]
    assert {run.outcome for run in ends} >= {
        Outcome.REACHED_TARGET, Outcome.OUT_OF_BUDGET, Outcome.DIVERGED,
    }  # fmt: skip
    assert len({run.epochs for run in ends}) >= 4


@FEW
@given(st.lists(st.sampled_from(range(len(POOL))), min_size=2, unique=True))
def test_a_replica_does_not_depend_on_its_company(chosen: list[int]) -> None:
    for which, run in zip(chosen, in_one_batch(SETUP, [POOL[i] for i in chosen]), strict=True):
        same(run, alone(which, torch.float64), 1e-10)
    single = in_one_batch(SETUP, [POOL[i] for i in chosen], torch.float32)
    for which, run in zip(chosen, single, strict=True):
        expected = alone(which, torch.float32)
        assert run.outcome is expected.outcome
        assert abs(run.epochs - expected.epochs) <= 1
        if run.epochs == expected.epochs and run.outcome is not Outcome.DIVERGED:
            assert distance(dict(run.final), dict(expected.final)) < 1e-3


def test_single_precision_ends_as_double_precision_does() -> None:
    for which in range(len(POOL)):
        rough, fine = alone(which, torch.float32), alone(which, torch.float64)
        assert rough.outcome is fine.outcome
        assert abs(rough.epochs - fine.epochs) <= 1


def test_weights_at_init_are_not_touched_by_training() -> None:
    setup = built_in("two_layer", loss="logistic")
    (run,) = in_one_batch(setup, [config(setup)])
    initial = setup.make_model(seed=0).state_dict()
    assert distance(dict(run.init), {k: v.double() for k, v in initial.items()}) < 1e-15
    assert all(not torch.equal(run.init[key], run.final[key]) for key in run.init)


@pytest.mark.parametrize("num", [1, 2, 5, 40])
def test_records_do_not_depend_on_the_number_of_jobs(num: int) -> None:
    configs = [
        config(SETUP, c=c, seed=seed, lr=0.1, max_epochs=4 + seed)
        for c, seed in product((0.25, 0.5, 1.0, 2.0), range(10))
    ][:num]
    one, two = records(SETUP, configs, jobs=1), records(SETUP, configs, jobs=2)
    for left, right in zip(one, two, strict=True):
        assert left.outcome is right.outcome
        assert numbers(left) == pytest.approx(numbers(right), rel=1e-9)


def numbers(record: RunRecord) -> dict[str, float]:
    values = record.model_dump(exclude={"config", "outcome", "message", "measurements"})
    return {**values, **record.measurements}
