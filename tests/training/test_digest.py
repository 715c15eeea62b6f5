"""The key under which runs are stored: equal for equal setups, other for whatever changes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import own_nets
import pytest
import torch
from labels import label
from own_nets import Multiplied, Normed, blobs, built_in, own, plain_body
from torch import Tensor, nn

from fls_bench.schema import (
    Adam,
    AdamW,
    Cosine,
    FixedSteps,
    LrRule,
    PerStep,
    Sgd,
    TargetAccuracy,
    TargetLoss,
    ValidationLoss,
)
from fls_bench.training import setup_digest
from fls_bench.training_setup import TrainingSetup

RULE = LrRule(name="homogeneous", depth=4)


def digest(setup: TrainingSetup) -> str:
    return setup_digest(setup, RULE)


def test_equal_setups_have_equal_digests() -> None:
    assert digest(built_in()) == digest(built_in())
    assert digest(own(own_nets.normed)) == digest(own(own_nets.normed))


@pytest.mark.parametrize(
    "changes",
    [
        {"output_multiplier": 0.25},
        {"optimizer": Sgd(lr=0.7)},
        {"centered": True},
        {"init_scale": 0.5},
        {"axis": "init_scale"},
        {"name": "other"},
        {"stop": TargetLoss(target_loss=0.1, max_epochs=99)},
    ],
    ids=label,
)
def test_what_belongs_to_a_run_is_not_part_of_it(changes: dict[str, Any]) -> None:
    assert digest(replace(built_in(), **changes)) == digest(built_in())


@pytest.mark.parametrize(
    "changes",
    [
        {"batch_size": 6},
        {"loss": "logistic", "task": own_nets.two_blobs},
        {"stop": TargetLoss(target_loss=0.2, max_epochs=15)},
        {"stop": TargetAccuracy()},
        {"stop": ValidationLoss()},
        {"stop": FixedSteps(75)},
        {"optimizer": Sgd(momentum=0.9)},
        {"optimizer": Sgd(momentum=0.9, nesterov=True)},
        {"optimizer": Sgd(weight_decay=0.1)},
        {"task": lambda seed: blobs(seed + 1)},
        {"task": lambda seed: blobs(seed if seed == 0 else 7)},
        {"task": lambda seed: blobs(seed, spread=1.1)},
        {"optimizer": Adam()},
        {"optimizer": AdamW()},
        {"optimizer": Sgd(clip_norm=1.0)},
        {"optimizer": Sgd(schedule=Cosine())},
        {"optimizer": Sgd(schedule=PerStep())},
        {"label_smoothing": 0.1},
        {"error": "balanced"},
        {"feature_layer": "layers.0"},
        {"multiplier_route": "wrapper", "make_model": built_in(bias=True).make_model},
    ],
    ids=label,
)
def test_what_changes_the_numbers_changes_it(changes: dict[str, Any]) -> None:
    base = built_in(depth=2)
    assert digest(replace(base, **changes)) != digest(base)


def test_the_new_stops_are_told_apart_by_their_numbers_and_not_by_their_most_epochs() -> None:
    stops = [
        ValidationLoss(5), ValidationLoss(6), FixedSteps(5), FixedSteps(6), TargetLoss(5.0),
        ValidationLoss(5, max_epochs=7), FixedSteps(5, max_epochs=7),
    ]  # fmt: skip
    found = [digest(built_in(stop=stop)) for stop in stops]
    assert len(set(found[:5])) == 5
    assert found[5:] == [found[0], found[2]]


def test_schedules_are_told_apart() -> None:
    schedules = [
        None, Cosine(), PerStep(), PerStep(decay="cosine"), PerStep(decay="constant"),
        PerStep(warmup_steps=1), PerStep(steps=9),
    ]  # fmt: skip
    found = {digest(built_in(optimizer=Sgd(schedule=schedule))) for schedule in schedules}
    assert len(found) == len(schedules)


@pytest.mark.parametrize(
    "base",
    [built_in(optimizer=Sgd(weight_decay=0.1)), built_in(bias=True)],
    ids=["penalty", "rates of biases"],
)
def test_the_multiplier_counts_where_something_refers_to_it(base: TrainingSetup) -> None:
    one, other = (
        setup_digest(setup, own_nets.rule_of(base))
        for setup in (base, replace(base, output_multiplier=0.5))
    )
    assert one != other


class Body(nn.Module):
    def __init__(self, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(5, 8), nn.Linear(8, 3)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.last(self.activation(self.first(x)))
        return logits


def test_another_forward_with_the_same_parameters_changes_it() -> None:
    relu, also_relu, tanh = (
        own(lambda f=f: Body(f)) for f in (torch.relu, nn.functional.relu, torch.tanh)
    )
    assert digest(relu) == digest(also_relu) != digest(tanh)


def test_a_change_that_only_training_shows_changes_it() -> None:
    assert digest(own(lambda: Normed(0.5))) != digest(own(lambda: Normed(0.4)))


def test_a_change_of_a_buffer_changes_it() -> None:
    def counted() -> nn.Module:
        net = Normed(0.5)
        net.register_buffer("unused", torch.tensor(3))
        return net

    assert digest(own(counted)) != digest(own(own_nets.normed))


def test_where_a_factory_puts_its_multiplier_changes_it() -> None:
    def squared(output_multiplier: float = 1.0) -> nn.Module:
        return Multiplied(plain_body(), output_multiplier**2)

    assert digest(own(squared)) != digest(own(own_nets.factory))
    assert digest(own(own_nets.factory)) == digest(own(own_nets.factory))


def test_the_precision_and_the_rule_are_part_of_it() -> None:
    setup = built_in()
    assert setup_digest(setup, RULE, dtype=torch.float64) != digest(setup)
    assert setup_digest(setup, LrRule(name="calibrated", depth=4)) != digest(setup)


def test_training_modes_and_threads_leave_it_alone() -> None:
    setup, before = own(own_nets.normed), torch.get_num_threads()
    expected = digest(setup)
    try:
        torch.set_num_threads(3)
        assert digest(setup) == expected
    finally:
        torch.set_num_threads(before)
