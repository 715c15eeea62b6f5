"""How runs end, and what their records say."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import own_nets
import pytest
import torch
from labels import label
from own_nets import blobs, built_in, config, distance, in_one_batch, own, records
from torch.func import functional_call
from torch.nn import functional

from fls_bench.errors import InputError
from fls_bench.schema import (
    FixedSteps,
    LrRule,
    Outcome,
    RunRecord,
    Sgd,
    TargetAccuracy,
    TargetLoss,
    ValidationLoss,
)
from fls_bench.sweep import SweepPlan, prepare
from fls_bench.sweep.sweeper import Sweeper
from fls_bench.tasks import Task, make_task
from fls_bench.training import (
    epochs_trained,
    make_net,
    recording,
    resolve_stop,
    single,
    time_training,
    train_one,
)
from fls_bench.training.engines import Engine
from fls_bench.training.runs import (
    TrainedRun,
    batch_order,
    progress,
    sample_losses,
    validation_losses,
)
from fls_bench.training.single import train_single
from fls_bench.training_setup import TrainingSetup

RULE = LrRule(name="homogeneous", depth=4)
ENGINES = pytest.mark.parametrize("engine", ["batched", "single"])


def end(setup: TrainingSetup, engine: str, dtype: Any = torch.float64, **changes: Any) -> RunRecord:
    one = config(setup, **changes)
    if engine == "batched":
        return records(setup, [one], dtype=dtype)[0]
    return train_one(setup, RULE, one, dtype=dtype)[1]


def curve(setup: TrainingSetup, epochs: int, lr: float, c: float) -> list[tuple[float, float]]:
    """(training loss, accuracy) after each epoch, by a loop that shares nothing but the order."""
    task, net = setup.task_for(0), make_net(setup, 0, 1.0, torch.float64)
    x, y = torch.as_tensor(task.x_train).double(), torch.as_tensor(task.y_train)
    order, found = batch_order(0, len(y)), []
    for _ in range(epochs):
        for picked in next(order).split(setup.batch_size):
            loss = functional.cross_entropy(c * net(x[picked]), y[picked])
            gradients = torch.autograd.grad(loss, list(net.parameters()))
            with torch.no_grad():
                for parameter, gradient in zip(net.parameters(), gradients, strict=True):
                    parameter -= lr * gradient
        with torch.no_grad():
            logits = c * net(x)
        accuracy = float((logits.argmax(1) == y).double().mean())
        found.append((float(functional.cross_entropy(logits, y)), accuracy))
    return found


@ENGINES
def test_training_stops_the_first_time_the_loss_is_at_the_target(engine: str) -> None:
    losses = [loss for loss, _ in curve(built_in(), 12, 0.05, 0.7)]
    assert losses == sorted(losses, reverse=True)
    for wanted, target in ((4, losses[3] + 1e-9), (5, losses[3] - 1e-9), (9, losses[8] + 1e-9)):
        setup = built_in(stop=TargetLoss(target_loss=target, max_epochs=12))
        record = end(setup, engine, c=0.7, lr=0.05)
        assert (record.outcome, record.epochs) == (Outcome.REACHED_TARGET, wanted)
        assert record.steps == 5 * wanted
        assert record.train_loss == pytest.approx(losses[wanted - 1], rel=1e-9)


@ENGINES
def test_training_stops_the_first_time_the_accuracy_is_at_the_target(engine: str) -> None:
    accuracies = [accuracy for _, accuracy in curve(built_in(), 12, 0.05, 0.7)]
    target = accuracies[5]
    wanted = 1 + next(i for i, accuracy in enumerate(accuracies) if accuracy >= target)
    assert 1 < wanted < 12
    setup = built_in(stop=TargetAccuracy(target_accuracy=target, max_epochs=12))
    record = end(setup, engine, c=0.7, lr=0.05)
    assert (record.outcome, record.epochs) == (Outcome.REACHED_TARGET, wanted)


@ENGINES
@pytest.mark.parametrize("epochs", [1, 2, 3, 8])
def test_a_run_that_still_improves_is_out_of_budget(engine: str, epochs: int) -> None:
    setup = built_in(stop=TargetLoss(target_loss=1e-6, max_epochs=epochs))
    record = end(setup, engine, lr=0.1)
    assert (record.outcome, record.epochs) == (Outcome.OUT_OF_BUDGET, epochs)
    assert own_nets.is_finite(record)


def contradiction(seed: int) -> Task:
    """Every point occurs once with each label: no net is better than log 3."""
    x = np.tile(np.eye(5, dtype=np.float32), (6, 1))
    y = np.repeat(np.arange(3), 10)
    return make_task("contradiction", (x, y), (x, y), (x, y))


@ENGINES
@pytest.mark.parametrize("epochs", [1, 3, 60])
def test_a_run_that_no_longer_improves_is_on_a_plateau(engine: str, epochs: int) -> None:
    still = built_in(stop=TargetLoss(target_loss=1e-6, max_epochs=epochs))
    assert end(still, engine, lr=1e-9).outcome is Outcome.PLATEAU
    if epochs == 60:
        stop = TargetLoss(target_loss=0.5, max_epochs=epochs)
        record = end(built_in(task=contradiction, stop=stop, batch_size=30), engine, lr=0.2)
        assert record.outcome is Outcome.PLATEAU
        assert record.train_loss == pytest.approx(math.log(3), rel=0.05)


@ENGINES
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "changes",
    [
        {"lr": 1e30},
        {"lr": 1e30, "centered": True},
        {"c": 1e30},
        {"init_scale": 1e12},
    ],
    ids=label,
)
def test_a_diverged_run_carries_no_numbers(
    engine: str, dtype: torch.dtype, changes: dict[str, Any]
) -> None:
    record = end(built_in(), engine, dtype, **changes)
    assert record == RunRecord(
        config=record.config, outcome=Outcome.DIVERGED, epochs=record.epochs, steps=record.steps,
        chance_error=record.chance_error,
    )  # fmt: skip
    assert record.epochs >= 1
    json.loads(record.model_dump_json(), parse_constant=pytest.fail)


@ENGINES
def test_a_loss_that_is_infinite_from_the_start_has_diverged(engine: str) -> None:
    setup = built_in(loss="logistic")
    record = end(setup, engine, c=1e298, init_scale=1e3, lr=1e-306)
    assert (record.outcome, record.train_loss) == (Outcome.DIVERGED, None)


@ENGINES
def test_a_diverged_run_with_an_accuracy_to_reach_has_diverged_too(engine: str) -> None:
    setup = built_in(stop=TargetAccuracy(target_accuracy=0.3, max_epochs=5))
    assert end(setup, engine, lr=1e30).outcome is Outcome.DIVERGED


# --- the validation loss --------------------------------------------------------------------


def noisy(seed: int) -> Task:
    return blobs(seed, spread=2.0)


def trained(setup: TrainingSetup, engine: str, kind: Any = "fused", **changes: Any) -> TrainedRun:
    one = config(setup, **changes)
    if engine == "batched":
        other = config(setup, **{**changes, "lr": 0.01, "seed": 1})  # it has another best epoch
        return in_one_batch(setup, [other, one], rule=RULE, kind=kind)[1]
    return train_single(setup, RULE, setup.task_for(one.seed), one, dtype=torch.float64)


def every_epoch(
    setup: TrainingSetup, epochs: int, lr: float
) -> list[tuple[float, float, dict[str, torch.Tensor]]]:
    """(validation loss, training loss, weights) after each epoch, by a loop that saves them all."""
    task, net = setup.task_for(0), make_net(setup, 0, 1.0, torch.float64)
    x, y, x_val, y_val = (
        torch.as_tensor(part) for part in (task.x_train, task.y_train, task.x_val, task.y_val)
    )
    order, found, optimizer = batch_order(0, len(y)), [], torch.optim.SGD(net.parameters(), lr=lr)
    for _ in range(epochs):
        for picked in next(order).split(setup.batch_size):
            optimizer.zero_grad()
            functional.cross_entropy(net(x[picked].double()), y[picked]).backward()
            optimizer.step()
        with torch.no_grad():
            losses = [
                float(functional.cross_entropy(net(points.double()), labels))
                for points, labels in ((x_val, y_val), (x, y))
            ]
        state = {name: value.clone() for name, value in net.state_dict().items()}
        found.append((losses[0], losses[1], state))
    return found


LR = 0.2
"""The rate at which the validation loss falls, rises a little, falls again, and then rises."""


@ENGINES
@pytest.mark.parametrize("patience", [1, 2, 3, 8])
def test_the_net_of_the_lowest_validation_loss_is_kept(engine: str, patience: int) -> None:
    setup = built_in(depth=3, task=noisy, stop=ValidationLoss(patience, max_epochs=40))
    saved = every_epoch(setup, 40, LR)
    losses = [loss for loss, _, _ in saved]
    best = ended = 0
    while ended - best < patience:
        ended += 1
        best = ended if losses[ended] < losses[best] else best
    assert best > 0
    run = trained(setup, engine, lr=LR)
    assert (run.outcome, run.epochs, run.steps) == (Outcome.REACHED_TARGET, best + 1, 5 * best + 5)
    assert run.train_loss == pytest.approx(saved[best][1], rel=1e-9)
    assert distance(dict(run.final), saved[best][2]) < 1e-9
    assert distance(dict(run.final), saved[best + 1][2]) > 1e-3
    record = end(setup, engine, lr=LR)
    assert (record.epochs, record.train_loss) == (run.epochs, pytest.approx(run.train_loss))
    assert record.val_loss == pytest.approx(losses[best], rel=1e-9)


def test_more_patience_finds_a_later_epoch() -> None:
    first, later = (
        built_in(depth=3, task=noisy, stop=ValidationLoss(patience, max_epochs=40))
        for patience in (1, 8)
    )
    assert trained(first, "single", lr=LR).epochs < trained(later, "single", lr=LR).epochs


@pytest.mark.parametrize(
    ("engine", "dropout"), [("batched", 0.0), ("single", 0.0), ("single", 0.1)]
)
def test_the_kept_net_has_the_buffers_of_its_epoch(engine: str, dropout: float) -> None:
    """Those of a run that makes just as many steps."""

    def make() -> own_nets.Normed:
        return own_nets.Normed(dropout)

    stop = ValidationLoss(4, max_epochs=40)
    kept = trained(own(make, task=noisy, stop=stop), engine, "vmapped", lr=LR)
    assert 1 < kept.epochs < 36
    assert int(kept.final["body.1.num_batches_tracked"]) == kept.steps == 5 * kept.epochs
    just_so = own(make, task=noisy, stop=FixedSteps(kept.steps))
    assert (
        distance(dict(kept.final), dict(trained(just_so, engine, "vmapped", lr=LR).final)) < 1e-12
    )


@ENGINES
def test_out_of_epochs_the_best_net_so_far_is_kept(engine: str) -> None:
    falling = built_in(depth=3, task=noisy, stop=ValidationLoss(10, max_epochs=3))
    run = trained(falling, engine, lr=0.02)
    assert (run.outcome, run.epochs) == (Outcome.OUT_OF_BUDGET, 3)
    assert trained(falling, engine, lr=1e-9).outcome is Outcome.OUT_OF_BUDGET, "by however little"
    losses = [loss for loss, _, _ in every_epoch(falling, 30, LR)]
    lows = [int(np.argmin(losses[:n])) + 1 for n in range(1, 31)]
    ends = {}
    for most in (1, 5, 7, 13, 15, 16, 21, 22, 30):
        short = built_in(depth=3, task=noisy, stop=ValidationLoss(29, max_epochs=most))
        run = trained(short, engine, lr=LR)
        new = lows[most - 1] > 3 * most // 4
        assert run.epochs == lows[most - 1]
        assert run.outcome is (Outcome.OUT_OF_BUDGET if new else Outcome.PLATEAU)
        ends[most] = run.outcome
    assert len(set(ends.values())) == 2


@ENGINES
def test_a_run_that_diverges_on_its_way_has_diverged_whatever_it_kept(engine: str) -> None:
    setup = built_in(task=noisy, stop=ValidationLoss(5, max_epochs=40))
    run = trained(setup, engine, lr=1e30)
    assert (run.outcome, run.train_loss) == (Outcome.DIVERGED, None)

    def beyond(seed: int) -> Task:  # the training loss is fine
        task = noisy(seed)
        x_val = task.x_val.copy()
        x_val[0] = 3e38
        return replace(task, x_val=x_val)

    float32 = config(built_in(task=beyond, stop=setup.stop), lr=0.01, c=1e3)
    if engine == "batched":
        (run,) = in_one_batch(built_in(task=beyond, stop=setup.stop), [float32], torch.float32)
    else:
        run = train_single(built_in(task=beyond, stop=setup.stop), RULE, beyond(0), float32)
    assert (run.outcome, run.train_loss) == (Outcome.DIVERGED, None)


@pytest.mark.parametrize(("patience", "most"), [(1, 40), (4, 40), (30, 12)])
def test_the_epochs_beyond_the_kept_net_are_counted_as_cost(
    patience: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = 0
    real = single.validation_losses

    def counted(*arguments: Any) -> torch.Tensor:
        nonlocal looked
        looked += 1
        return real(*arguments)

    monkeypatch.setattr(single, "validation_losses", counted)
    setup = built_in(depth=3, task=noisy, stop=ValidationLoss(patience, max_epochs=most))
    run = trained(setup, "single", lr=LR)
    assert looked == epochs_trained(setup.stop, run.outcome, run.epochs, most)
    assert looked > run.epochs
    assert epochs_trained(setup.stop, Outcome.DIVERGED, 3, most) == 3


class Silent:
    def plan(self, total_runs: int, text: str) -> None: ...
    def done(self, runs: int, text: str) -> None: ...
    def note(self, text: str) -> None: ...


@pytest.mark.parametrize(
    ("stop", "most", "spent"), [(ValidationLoss(4, max_epochs=40), 40, 4), (FixedSteps(7), 2, 0)]
)
def test_a_sweep_plans_and_pays_for_all_epochs(stop: Any, most: int, spent: int) -> None:
    setup = built_in(depth=3, task=noisy, stop=stop, optimizer=Sgd(lr=LR))
    prepared = prepare(setup, SweepPlan(), stores=lambda _: None, offsets=[0.0])
    sweeper = Sweeper.of(prepared, lambda _: None, Silent(), 1)
    assert sweeper.expected_epochs(sweeper.config(1.0, 0, False)) == most
    sweeper.visit([1.0], 2, False, "")
    runs = sweeper.sweep([1.0], False).cells[0].seeds
    assert [run.outcome for run in runs] == [Outcome.REACHED_TARGET] * 2
    assert sweeper.replica_epochs == sum(run.epochs + spent for run in runs)
    nearby = sweeper.expected_epochs(sweeper.config(2.0, 0, False))
    assert nearby == max(run.epochs + spent for run in runs)


@pytest.mark.parametrize("kind", ["fused", "single"])
def test_the_time_of_looking_at_validation_points_counts(kind: Any) -> None:
    """Epochs are counted whole, though the net of an earlier one is kept."""
    setup = built_in(depth=3, task=noisy, stop=ValidationLoss(1), optimizer=Sgd(lr=LR))
    epochs, _ = time_training(setup, RULE, Engine(kind, replicas=4), 5, 30)
    assert epochs == (120 if kind == "fused" else 30)


def test_label_smoothing_is_no_part_of_a_validation_loss() -> None:
    logits, labels = (
        torch.randn(4, 7, 3, generator=torch.Generator().manual_seed(0)),
        torch.arange(7) % 3,
    )
    found = validation_losses(replace(built_in(), label_smoothing=0.3), logits, labels.expand(4, 7))
    for own_logits, value in zip(logits.double(), found, strict=True):
        assert value == pytest.approx(
            functional.cross_entropy(own_logits, labels).item(), rel=1e-12
        )


def test_seeds_with_validation_parts_of_different_size_are_refused() -> None:
    def uneven(seed: int) -> Task:
        task = noisy(seed)
        return replace(task, x_val=task.x_val[: 12 + seed], y_val=task.y_val[: 12 + seed])

    setup = built_in(task=uneven, stop=ValidationLoss(2, max_epochs=5))
    with pytest.raises(InputError, match="12 points for one seed and 13 for another"):
        in_one_batch(setup, [config(setup, seed=seed) for seed in (0, 1)])


# --- a number of steps ----------------------------------------------------------------------


@ENGINES
@pytest.mark.parametrize("steps", [1, 4, 5, 7, 10, 13])
def test_training_makes_exactly_so_many_steps(engine: str, steps: int) -> None:
    """Five are an epoch, the last of three points; by a loop that knows no epochs."""
    setup = built_in(stop=FixedSteps(steps))
    task, net = setup.task_for(0), make_net(setup, 0, 1.0, torch.float64)
    x, y, order = torch.as_tensor(task.x_train).double(), torch.as_tensor(task.y_train), None
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    order = batch_order(0, len(y))
    batches = [picked for _ in range(3) for picked in next(order).split(5)]
    for picked in batches[:steps]:
        optimizer.zero_grad()
        functional.cross_entropy(net(x[picked]), y[picked]).backward()
        optimizer.step()
    run = trained(setup, engine, lr=0.1)
    assert (run.outcome, run.steps) == (Outcome.REACHED_TARGET, steps)
    assert run.epochs == math.ceil(steps / 5)
    assert distance(dict(run.final), net.state_dict()) < 1e-12
    loss = functional.cross_entropy(net(x), y).item()
    assert run.train_loss == pytest.approx(loss, rel=1e-9)


@ENGINES
def test_the_most_epochs_bound_a_number_of_steps_too(engine: str) -> None:
    setup = built_in(stop=FixedSteps(7))
    run = trained(setup, engine, max_epochs=1)
    assert (run.outcome, run.epochs, run.steps) == (Outcome.OUT_OF_BUDGET, 1, 5)
    assert trained(setup, engine, max_epochs=1, lr=1e-9).outcome is Outcome.PLATEAU
    assert trained(setup, engine, max_epochs=2).outcome is Outcome.REACHED_TARGET
    assert trained(setup, engine, lr=1e30).outcome is Outcome.DIVERGED


@pytest.mark.parametrize(
    ("stop", "most"),
    [
        (FixedSteps(7), 2),
        (FixedSteps(10), 2),
        (FixedSteps(11), 3),
        (FixedSteps(11, max_epochs=2), 2),
        (FixedSteps(1, max_epochs=2), 1),
        (TargetLoss(0.1, max_epochs=300), 300),
        (ValidationLoss(3, max_epochs=300), 300),
    ],
    ids=label,
)
def test_no_more_epochs_are_planned_than_the_steps_take(stop: Any, most: int) -> None:
    setup = built_in(stop=stop)
    resolved = resolve_stop(setup, setup.task_for(0))
    assert resolved.stop == stop.model_copy(update={"max_epochs": most})


# --- centering ------------------------------------------------------------------------------


@ENGINES
@pytest.mark.parametrize("name", ["mlp", "two_layer"])
def test_a_centered_net_is_exactly_zero_at_init(engine: str, name: str) -> None:
    other = {"loss": "logistic"} if name == "two_layer" else {"activation": "tanh"}
    setup = built_in(name, **other, stop=TargetLoss(target_loss=1e-6, max_epochs=2))
    record = end(setup, engine, lr=1e-40, c=64.0, centered=True)
    K = 2 if name == "two_layer" else 3
    assert [record.train_loss, record.test_loss] == pytest.approx([math.log(K)] * 2, rel=1e-14)
    assert record.test_ties == 1
    assert record.test_error == pytest.approx(1 - 1 / K)
    assert end(setup, engine, lr=1e-40, c=64.0).test_ties == 0


@ENGINES
@pytest.mark.parametrize("name", ["mlp", "two_layer"])
def test_the_function_at_init_stays_frozen(engine: str, name: str) -> None:
    loss = "logistic" if name == "two_layer" else "cross_entropy"
    setup = built_in(name, loss=loss, stop=TargetLoss(target_loss=1e-6, max_epochs=5))
    one = config(setup, c=2.0, lr=0.1, init_scale=1.5, centered=True)
    (run,) = in_one_batch(setup, [one])
    net, task = make_net(setup, 0, 1.0, torch.float64), setup.task_for(0)
    start = {k: 1.5 * v for k, v in net.state_dict().items()}

    def logits(x: Any) -> torch.Tensor:
        x = torch.as_tensor(x).double()
        return 2 * (functional_call(net, dict(run.final), x) - functional_call(net, start, x))

    record = end(setup, engine, c=2.0, lr=0.1, init_scale=1.5, centered=True)
    y_train, y_test = torch.as_tensor(task.y_train), torch.as_tensor(task.y_test)
    for measured, x, y in (
        (record.train_loss, task.x_train, y_train), (record.test_loss, task.x_test, y_test),
    ):  # fmt: skip
        assert measured == pytest.approx(float(sample_losses(logits(x), y, loss).mean()), rel=1e-9)
    moved = sum(float((run.final[k] - start[k]).norm() ** 2) for k in start)
    size = sum(float(start[k].norm() ** 2) for k in start)
    relative = record.measurements["movement.relative"]
    assert relative == pytest.approx((moved / size) ** 0.5, rel=1e-9)


# --- records --------------------------------------------------------------------------------


def test_a_record_is_what_the_net_says_on_validation_and_test_points(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task = blobs(0, spread=2.0)
    stop = TargetLoss(target_loss=1e-6, max_epochs=10)
    setup = built_in(task=task, stop=stop, activation="tanh")
    run, record = train_one(setup, RULE, config(setup, c=0.5, lr=0.3), dtype=torch.float64)
    net = make_net(setup, 0, 1.0, torch.float64)
    net.load_state_dict(dict(run.final))
    for x, y, error, loss in (
        (task.x_val, task.y_val, record.val_error, record.val_loss),
        (task.x_test, task.y_test, record.test_error, record.test_loss),
    ):
        logits = 0.5 * net(torch.as_tensor(x).double()).detach().numpy()
        assert 0 < error < 0.6
        assert error == pytest.approx(np.mean(logits.argmax(1) != y), abs=1e-12)
        odds = np.exp(logits)[np.arange(len(y)), y] / np.exp(logits).sum(1)
        assert loss == pytest.approx(-np.log(odds).mean(), rel=1e-9)
    assert record.chance_error == pytest.approx(np.mean(task.y_test != 0))
    assert record.test_ties == 0
    monkeypatch.setattr(recording, "POINTS_AT_ONCE", 7)
    again = train_one(setup, RULE, record.config, dtype=torch.float64)[1]
    assert again.measurements == pytest.approx(record.measurements, rel=1e-9)
    assert again.test_loss == pytest.approx(record.test_loss, rel=1e-12)


def test_movement_counts_parameters_and_no_running_statistics() -> None:
    setup = own(own_nets.normed, stop=TargetLoss(target_loss=1e-6, max_epochs=3))
    run, record = train_one(setup, RULE, config(setup, lr=1e-9))
    assert any((run.final[key] != run.init[key]).any() for key in run.init if "running" in key)
    assert record.measurements["movement.relative"] < 1e-6


def test_the_features_are_those_of_the_layer_that_was_asked_for() -> None:
    stop = TargetLoss(target_loss=1e-6, max_epochs=2)
    ranks = []
    for layer in (None, "layers.0", "layers.2"):
        setup = built_in(depth=4, stop=stop)
        object.__setattr__(setup, "feature_layer", layer)
        ranks.append(end(setup, "batched").measurements["rank.effective:last"])
    assert ranks[0] == ranks[2] != ranks[1]


def test_an_accuracy_is_reached_exactly_where_it_is_met() -> None:
    for n in (7, 10, 23, 400):
        logits = torch.tensor([[0.0, 1.0]]).expand(n, 2)
        for k in range(1, n + 1):
            labels, stop = (torch.arange(n) < k).long(), TargetAccuracy(target_accuracy=k / n)
            assert bool(progress(logits, labels, built_in(stop=stop))[1])
            fewer = (torch.arange(n) < k - 1).long()
            assert not bool(progress(logits, fewer, built_in(stop=stop))[1])


@pytest.mark.parametrize("size", [0.1, 5.0, 21.0, 600.0])
def test_losses_are_exact_for_large_logits(size: float) -> None:
    right = math.log1p(math.exp(-size))
    expected = torch.tensor([right, size + right], dtype=torch.float64)
    logit = torch.tensor([[size], [size]], dtype=torch.float64)
    labels = torch.tensor([1, 0])
    found = sample_losses(logit, labels, "logistic")
    torch.testing.assert_close(found, expected, rtol=1e-14, atol=0)
    both = torch.cat([torch.zeros_like(logit), logit], 1)
    found = sample_losses(both, labels, "cross_entropy")
    torch.testing.assert_close(found, expected, rtol=1e-14, atol=1e-13)


def test_the_order_of_points_depends_on_the_seed_alone() -> None:
    first, again, other = (batch_order(seed, 9) for seed in (3, 3, 4))
    epochs = [next(first).tolist() for _ in range(3)]
    assert epochs == [next(again).tolist() for _ in range(3)]
    assert epochs != [next(other).tolist() for _ in range(3)]
    assert all(sorted(order) == list(range(9)) for order in epochs)
    assert epochs[0] != epochs[1]


def test_momentum_is_that_of_torch() -> None:
    """Heavy ball by hand, two steps on the whole training part."""
    stop = TargetLoss(target_loss=1e-6, max_epochs=2)
    setup = built_in(depth=1, batch_size=23, stop=stop, optimizer=Sgd(momentum=0.5))
    run = train_one(setup, RULE, config(setup, lr=0.1), dtype=torch.float64)[0]
    task = setup.task_for(0)
    x, labels = task.x_train.astype(float), np.eye(3)[task.y_train]
    weight, velocity = run.init["layers.0.weight"].numpy().copy(), 0.0
    for _ in range(2):
        odds = np.exp(x @ weight.T)
        odds /= odds.sum(1, keepdims=True)
        velocity = 0.5 * velocity + (odds - labels).T @ x / len(x)
        weight -= 0.1 * velocity
    np.testing.assert_allclose(run.final["layers.0.weight"].numpy(), weight, rtol=1e-12)
