"""The claim behind every sweep: c and init scale are one axis if the learning rate follows.

W(0) = alpha·W at multiplier 1, rate eta, is the same function at every step as W at c = alpha^L
with the rates of ``scaling``. Tolerance: every step rounds its products of at most 8 terms in
float64 (1.1e-16 each, some 1e-15 a step); 75 steps add up to 1e-13, and 1e-11 leaves two digits for
the growth of a deviation by the training itself.
"""

from __future__ import annotations

import pytest
import torch
from own_nets import built_in, config, in_one_batch
from torch.func import functional_call

from fls_bench.scaling import scaled_rate
from fls_bench.schema import LrRule, Sgd, TargetLoss
from fls_bench.training import single, train_one
from fls_bench.training.runs import TrainedRun, make_net
from fls_bench.training_setup import TrainingSetup

TOLERANCE = 1e-11
ALPHA = 0.3
OPTIMIZERS = {
    "sgd": Sgd(lr=0.2),
    "momentum": Sgd(lr=0.05, momentum=0.9),
    "nesterov": Sgd(lr=0.05, momentum=0.9, nesterov=True),
    "penalty": Sgd(lr=0.2, weight_decay=0.05),
    "all": Sgd(lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.05),
}


def make(depth: int, epochs: int, optimizer: Sgd, bias: bool) -> TrainingSetup:
    stop = TargetLoss(target_loss=1e-9, max_epochs=epochs)
    return built_in(depth=depth, bias=bias, stop=stop, optimizer=optimizer)


def pair(setup: TrainingSetup, depth: int, compensated: bool = True) -> tuple[TrainedRun, ...]:
    """The run at init scale alpha, and the run at c = alpha^L."""
    rule = LrRule(name="homogeneous", depth=depth)
    lr, c = setup.optimizer.lr, ALPHA**depth
    rate = scaled_rate(lr, rule, at=(1.0, ALPHA), to=(c, 1.0)) if compensated else lr
    configs = config(setup, init_scale=ALPHA, lr=lr), config(setup, c=c, lr=rate)
    return tuple(train_one(setup, rule, one, dtype=torch.float64)[0] for one in configs)


def drift(setup: TrainingSetup, runs: tuple[TrainedRun, ...]) -> float:
    """Largest difference of the two functions on test points, relative to their size."""
    x = torch.as_tensor(setup.task_for(0).x_test, dtype=torch.float64)
    net = make_net(setup, 0, 1.0, torch.float64)
    scaled, multiplied = (
        run.config.c * functional_call(net, dict(run.final), (x,)).detach() for run in runs
    )
    return float((scaled - multiplied).abs().max() / scaled.abs().max())


@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("depth", [2, 3, 4])
def test_init_scale_and_multiplier_give_one_function_at_every_step(
    depth: int, optimizer: str, bias: bool
) -> None:
    for epochs in (1, 15):
        setup = make(depth, epochs, OPTIMIZERS[optimizer], bias)
        runs = pair(setup, depth)
        assert runs[0].steps == 5 * epochs
        assert drift(setup, runs) < TOLERANCE
        assert runs[0].train_loss == pytest.approx(runs[1].train_loss, rel=TOLERANCE)


def test_the_batched_engine_keeps_the_identity_too() -> None:
    rule = LrRule(name="homogeneous", depth=3)
    setup = make(3, 15, Sgd(lr=0.2), bias=True)
    rate = scaled_rate(0.2, rule, at=(1.0, ALPHA), to=(ALPHA**3, 1.0))
    configs = config(setup, init_scale=ALPHA, lr=0.2), config(setup, c=ALPHA**3, lr=rate)
    assert drift(setup, tuple(in_one_batch(setup, configs))) < TOLERANCE


def test_it_breaks_without_compensation() -> None:
    setup = make(3, 15, Sgd(lr=0.2), bias=False)
    assert drift(setup, pair(setup, 3, compensated=False)) > 0.1


def test_it_breaks_with_one_rate_for_all_biases(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = make(3, 15, Sgd(lr=0.2), bias=True)
    assert drift(setup, pair(setup, 3)) < TOLERANCE
    monkeypatch.setattr(single, "bias_rate_factor", lambda *_: 1.0)
    assert drift(setup, pair(setup, 3)) > 1e-3


def test_it_breaks_with_one_penalty_for_all_multipliers(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = make(3, 15, OPTIMIZERS["penalty"], bias=False)
    assert drift(setup, pair(setup, 3)) < TOLERANCE
    monkeypatch.setattr("fls_bench.training.scaled_weight_decay", lambda decay, *_: decay)
    assert drift(setup, pair(setup, 3)) > 1e-3
