"""Any nets as one batch: what the plain loop gives, whatever the recipe and whoever shares it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import own_nets
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from labels import label
from own_nets import INPUT_DIM, built_in, config, distance, images, in_one_batch, own, two_blobs
from profiles import FEW
from torch import Tensor, nn

from fls_bench.schema import (
    Adam,
    AdamW,
    AnyOptimizer,
    Cosine,
    FixedSteps,
    LrRule,
    Outcome,
    PerStep,
    RunConfig,
    Sgd,
    StepDecay,
    TargetAccuracy,
    TargetLoss,
    ValidationLoss,
)
from fls_bench.training.runs import TrainedRun
from fls_bench.training.single import train_single
from fls_bench.training_setup import TrainingSetup

TOLERANCE = 1e-9
RULE = LrRule(name="homogeneous", depth=2, exponents={"first.bias": 1.0, "head.bias": 2.0})
EPSILON = 1e-4
"""The gradient of a bias in front of a BatchNorm is rounding alone: a small epsilon of Adam's would
make steps of it."""
STOP = TargetLoss(target_loss=0.5, max_epochs=10)


class Small(nn.Module):
    """Two layers with a BatchNorm between them."""

    def __init__(self, n_outputs: int = 3, inputs: int = INPUT_DIM) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(inputs, 8), nn.BatchNorm1d(8)
        self.head = nn.Linear(8, n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.relu(self.norm(self.first(x.flatten(1)))))
        return logits


class PartlyFrozen(Small):
    def __init__(self) -> None:
        super().__init__()
        self.first.weight.requires_grad_(False)


class WithUnused(Small):
    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Linear(3, 2)


class Counting(Small):
    """Changes a whole number in place, and puts an average in the place of another buffer."""

    calls: Tensor
    average: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.tensor(0))
        self.register_buffer("average", torch.zeros(INPUT_DIM))
        self.register_buffer("hidden", torch.ones(()), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.calls += 1
            self.average = 0.9 * self.average + 0.1 * x.mean(0)
            self.hidden = self.hidden * 1.01
        return super().forward(x - self.average) * self.hidden


def configs(setup: TrainingSetup, lr: float = 0.05) -> list[RunConfig]:
    """Plain and centered, two seeds, several multipliers, rates, scales and budgets."""
    return [
        config(setup, c=0.5, lr=4 * lr),
        config(setup, c=1.0, lr=lr, seed=1, init_scale=0.7),
        config(setup, c=2.0, lr=lr, centered=True, max_epochs=7),
        config(setup, c=0.5, lr=2 * lr, seed=1, centered=True, init_scale=1.3, max_epochs=3),
    ]


def same(run: TrainedRun, wanted: TrainedRun, tolerance: float = TOLERANCE) -> None:
    assert run.config == wanted.config
    assert (run.outcome, run.epochs, run.steps) == (wanted.outcome, wanted.epochs, wanted.steps)
    assert distance(dict(run.init), dict(wanted.init)) == 0
    if wanted.outcome is not Outcome.DIVERGED:
        assert run.train_loss == pytest.approx(wanted.train_loss, rel=tolerance)
        assert distance(dict(run.final), dict(wanted.final)) < tolerance


def alone(setup: TrainingSetup, one: RunConfig) -> TrainedRun:
    return train_single(setup, RULE, setup.task_for(one.seed), one, dtype=torch.float64)


def agree(setup: TrainingSetup, lr: float = 0.05) -> list[TrainedRun]:
    runs = in_one_batch(setup, configs(setup, lr), rule=RULE, kind="vmapped")
    for run in runs:
        same(run, alone(setup, run.config))
        assert distance(dict(run.init), dict(run.final)) > 1e-3
    return runs


OPTIMIZERS: dict[str, AnyOptimizer] = {
    "sgd": Sgd(),
    "momentum": Sgd(momentum=0.9),
    "nesterov": Sgd(momentum=0.9, nesterov=True),
    "penalty": Sgd(weight_decay=0.05),
    "clipped": Sgd(clip_norm=0.1),
    "adam": Adam(epsilon=EPSILON),
    "adam with penalty": Adam(weight_decay=0.05, beta1=0.8, beta2=0.99, epsilon=EPSILON),
    "adamw": AdamW(weight_decay=0.1, epsilon=EPSILON),
    "adamw, clipped, cosine": AdamW(
        weight_decay=0.1, clip_norm=0.1, epsilon=EPSILON, schedule=Cosine()
    ),
    "cosine": Sgd(schedule=Cosine()),  # as long as each run, and runs differ
    "cosine of a length": Sgd(momentum=0.5, schedule=Cosine(epochs=4, final=0.1)),
    "steps": Sgd(weight_decay=0.05, schedule=StepDecay(every=2, factor=0.5)),
    "linear per step": Sgd(momentum=0.5, schedule=PerStep(warmup_steps=3)),  # as long as each run
    "adamw, cosine per step": AdamW(
        weight_decay=0.1, epsilon=EPSILON,
        schedule=PerStep(decay="cosine", warmup_steps=7, steps=22),
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [{"name": "resmlp"}, {"name": "resmlp", "norm": "none"}, {"activation": "gelu", "bias": True}],
    ids=["layer norm", "no norm", "gelu"],
)
def test_built_in_nets_batch(changes: dict[str, Any]) -> None:
    agree(own_nets.built_in(**changes))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_batch_of_any_nets_is_the_plain_loop_with_every_optimizer(optimizer: str) -> None:
    runs = agree(own(Small, optimizer=OPTIMIZERS[optimizer], stop=STOP))
    assert len({run.epochs for run in runs}) > 1, "no replica leaves the batch before another"


@pytest.mark.parametrize(
    ("make", "changes"),
    [
        (Small, {"loss": "mse", "stop": TargetLoss(target_loss=0.05, max_epochs=8)}),
        (Small, {"label_smoothing": 0.2}),
        (lambda: Small(1), {"loss": "logistic", "task": two_blobs}),
        (Small, {"stop": TargetAccuracy(target_accuracy=0.9, max_epochs=10)}),
        (Small, {"stop": ValidationLoss(2, max_epochs=10)}),
        (Counting, {"stop": ValidationLoss(2, max_epochs=10), "optimizer": Sgd(momentum=0.9)}),
        (Counting, {"stop": FixedSteps(17), "optimizer": Sgd(momentum=0.9)}),
        (Small, {"stop": FixedSteps(17), "optimizer": Sgd(schedule=PerStep(warmup_steps=4))}),
        (Small, {"label_smoothing": 0.2, "stop": ValidationLoss(1, max_epochs=10)}),
        (lambda: Small(1), {"loss": "logistic", "task": two_blobs, "stop": ValidationLoss(2)}),
        (Small, {"batch_size": 1000}),
        (PartlyFrozen, {"optimizer": AdamW(weight_decay=0.1, clip_norm=0.1, epsilon=EPSILON)}),
        (WithUnused, {"optimizer": AdamW(weight_decay=0.1, clip_norm=0.1, epsilon=EPSILON)}),
        (Counting, {"optimizer": Sgd(momentum=0.9)}),
    ],
    ids=[
        "mse",
        "smoothing",
        "logistic",
        "accuracy",
        "validation",
        "validation with buffers",
        "steps with buffers",
        "steps, linear per step",
        "validation with smoothing",
        "validation, logistic",
        "full batch",
        "frozen",
        "unused",
        "buffers",
    ],
)
def test_so_it_is_with_every_loss_and_module(
    make: Callable[[], nn.Module], changes: dict[str, Any]
) -> None:
    agree(own(make, **{"stop": STOP, **changes}))


@pytest.mark.parametrize(
    ("names", "shape"),
    [
        ((), (2, 6, 8)),
        (("flip",), (2, 6, 8)),
        (("crop",), (2, 6, 8)),
        (("flip", "crop"), (2, 6, 8)),
        (("flip", "crop"), (6, 8)),
    ],
    ids=label,
)
def test_so_it_is_on_images_that_are_disturbed(names: Any, shape: tuple[int, ...]) -> None:
    pixels = 96 if len(shape) == 3 else 48
    runs = agree(
        own(
            lambda: Small(inputs=pixels), task=lambda seed: images(seed, shape=shape),
            augmentation=names, stop=TargetLoss(target_loss=0.05, max_epochs=4),
        )
    )  # fmt: skip
    if names:
        plain = own(lambda: Small(inputs=pixels), task=lambda seed: images(seed, shape=shape))
        other = alone(plain, runs[0].config)
        assert distance(dict(runs[0].final), dict(other.final)) > 1e-3


def test_running_statistics_and_counts_are_those_of_each_replica() -> None:
    setup = own(Counting, stop=TargetLoss(target_loss=1e-9, max_epochs=4))
    first, second = in_one_batch(
        setup, [config(setup), config(setup, seed=1, max_epochs=2)], rule=RULE, kind="vmapped"
    )
    for run, steps in ((first, 20), (second, 10)):
        assert int(run.final["norm.num_batches_tracked"]) == int(run.final["calls"]) == steps
        assert run.final["norm.num_batches_tracked"].dtype == torch.int64
        wanted = alone(setup, run.config).final
        for name in ("norm.running_mean", "norm.running_var", "average"):
            torch.testing.assert_close(run.final[name], wanted[name], rtol=1e-9, atol=1e-12)
        assert not torch.equal(run.final["norm.running_var"], run.init["norm.running_var"])
        assert "hidden" not in run.final
    assert not torch.equal(first.final["average"], second.final["average"])


def test_frozen_and_unused_parameters_stay_as_they_are() -> None:
    recipe = {"optimizer": AdamW(weight_decay=0.5), "stop": STOP}
    for make, names in (
        (PartlyFrozen, ["first.weight"]),
        (WithUnused, ["unused.weight", "unused.bias"]),
    ):
        setup = own(make, **recipe)
        (run,) = in_one_batch(setup, [config(setup)], rule=RULE, kind="vmapped")
        assert all(torch.equal(run.init[name], run.final[name]) for name in names)
        assert not torch.equal(run.init["head.weight"], run.final["head.weight"])


@pytest.mark.parametrize("optimizer", ["momentum", "adamw, clipped, cosine"])
def test_a_replica_that_diverges_disturbs_no_other(optimizer: str) -> None:
    setup = own(Small, optimizer=OPTIMIZERS[optimizer], stop=STOP)
    fine = configs(setup)
    broken = [config(setup, lr=lr, c=c, seed=1) for lr, c in ((1e30, 1.0), (0.1, 1e38))]
    mixed = [broken[0], *fine[:2], broken[1], *fine[2:]]
    runs = in_one_batch(setup, mixed, rule=RULE, kind="vmapped")
    assert [run.outcome for run in runs].count(Outcome.DIVERGED) >= 1
    for run in runs:
        if run.config in fine:
            same(run, alone(setup, run.config))


@st.composite
def setups(draw: st.DrawFn) -> tuple[TrainingSetup, list[RunConfig]]:
    number = st.floats(0.5, 2.0)
    schedules = [None, Cosine(), StepDecay(every=2, factor=0.5), PerStep(warmup_steps=2)]
    schedule = draw(st.sampled_from(schedules))
    clip = draw(st.sampled_from([None, 0.3]))
    decay = draw(st.sampled_from([0.0, 0.1]))
    momentum = draw(st.sampled_from([0.0, 0.8]))
    optimizer = draw(
        st.sampled_from(
            [
                Sgd(momentum=momentum, weight_decay=decay, clip_norm=clip, schedule=schedule),
                Adam(weight_decay=decay, clip_norm=clip, schedule=schedule, epsilon=EPSILON),
                AdamW(weight_decay=decay, clip_norm=clip, schedule=schedule, epsilon=EPSILON),
            ]
        )
    )
    setup = built_in(
        depth=draw(st.integers(1, 4)),
        bias=draw(st.booleans()),
        activation=draw(st.sampled_from(["relu", "tanh", "gelu"])),
        batch_size=draw(st.integers(1, 30)),
        optimizer=optimizer,
        stop=TargetLoss(target_loss=0.4, max_epochs=4),
    )
    runs = [
        config(
            setup, c=draw(number), init_scale=draw(number), lr=0.02 * draw(number), seed=seed,
            centered=draw(st.booleans()), max_epochs=draw(st.integers(1, 4)),
        )
        for seed in draw(st.lists(st.integers(0, 2), min_size=1, max_size=4))
    ]  # fmt: skip
    return setup, list({run.digest: run for run in runs}.values())


@FEW
@given(setups())
def test_any_recipe_gives_the_same_nets_singly_and_as_a_batch(
    drawn: tuple[TrainingSetup, list[RunConfig]],
) -> None:
    setup, wanted = drawn
    rule = own_nets.rule_of(setup)
    for run in in_one_batch(setup, wanted, rule=rule, kind="vmapped"):
        task = setup.task_for(run.config.seed)
        same(run, train_single(setup, rule, task, run.config, dtype=torch.float64))


# --- the fused engine -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "schedule",
    [
        Cosine(), Cosine(epochs=4), StepDecay(every=2, factor=0.5), PerStep(),
        PerStep(decay="cosine", warmup_steps=3), PerStep(decay="constant", warmup_steps=30),
        PerStep(steps=12),
    ],
    ids=label,
)  # fmt: skip
def test_mlps_by_hand_follow_schedules_too(schedule: Any) -> None:
    setup = built_in(depth=3, bias=True, optimizer=Sgd(schedule=schedule), stop=STOP)
    shortest_first = configs(setup)[::-1]  # so that those that stay are others than the first
    for run in in_one_batch(setup, shortest_first, rule=RULE, kind="fused"):
        same(run, alone(setup, run.config))
