"""A user's own nets: one by one, in this process or in others, errors and randomness contained."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import own_nets
import pytest
import torch
from labels import label
from own_nets import (
    blobs,
    built_in,
    config,
    distance,
    in_one_batch,
    is_finite,
    own,
    records,
    rule_of,
)
from torch import nn

from fls_bench.errors import InputError, RunFailedError
from fls_bench.schema import (
    Adam,
    AdamW,
    FixedSteps,
    LrRule,
    Outcome,
    PerStep,
    RunRecord,
    Sgd,
    TargetLoss,
)
from fls_bench.tasks import Task
from fls_bench.training import (
    Engine,
    check_setup,
    choose_engine,
    make_net,
    resolve_lr_rule,
    setup_digest,
    train_all,
    train_one,
)
from fls_bench.training.optimizers import settings
from fls_bench.training.recording import record
from fls_bench.training.runs import TrainedRun, batch_order
from fls_bench.training_setup import TrainingSetup

RULE = LrRule(name="calibrated", depth=2)


# --- the plain loop -------------------------------------------------------------------------

PER_STEP: dict[str, Callable[[int], float]] = {  # of 17 steps 6 warm up
    "constant": lambda step: min(1.0, step / 6),
    "linear": lambda step: min(step / 6, (17 - step) / 11),
    "cosine": lambda step: (
        step / 6 if step < 6 else 0.5 + 0.5 * math.cos((step - 6) * math.pi / 11)
    ),
}


@pytest.mark.parametrize("optimizer", [Sgd(momentum=0.9), AdamW(weight_decay=0.1)], ids=label)
@pytest.mark.parametrize("decay", PER_STEP)
def test_a_schedule_per_step_is_the_lambda_of_a_loop_with_torch(
    decay: Any, optimizer: Sgd | AdamW
) -> None:
    follows = optimizer.model_copy(update={"schedule": PerStep(decay=decay, warmup_steps=6)})
    setup = own(own_nets.plain_body, optimizer=follows, stop=FixedSteps(17))
    (ended,) = records(setup, [config(setup, lr=0.05)], rule=RULE, engine=Engine("single"))
    assert (ended.epochs, ended.steps) == (4, 17)

    net, task = make_net(setup, 0, 1.0, torch.float64), setup.task_for(0)
    x, y = torch.as_tensor(task.x_train).double(), torch.as_tensor(task.y_train)
    plain = (
        torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
        if isinstance(optimizer, Sgd)
        else torch.optim.AdamW(net.parameters(), lr=0.05, weight_decay=0.1)
    )
    scheduler = torch.optim.lr_scheduler.LambdaLR(plain, PER_STEP[decay])
    order = batch_order(0, len(y))
    picked = [part for _ in range(4) for part in next(order).split(setup.batch_size)]
    for part in picked[:17]:
        plain.zero_grad()
        nn.functional.cross_entropy(net(x[part]), y[part]).backward()
        plain.step()
        scheduler.step()
    loss = nn.functional.cross_entropy(net(x), y).item()
    assert ended.train_loss == pytest.approx(loss, rel=1e-9)


# --- processes ------------------------------------------------------------------------------


def test_processes_give_the_records_of_this_process_and_an_error_is_a_failed_run() -> None:
    setup = own(own_nets.failing)
    assert not choose_engine(setup, RULE).batched
    configs = [config(setup, seed=seed, c=c, lr=0.05) for seed in (0, 1, 2) for c in (0.5, 2.0)]
    here, there = (records(setup, configs, jobs=jobs, dtype=torch.float32) for jobs in (1, 2))
    assert here == there
    fine = [record for record in here if record.config.seed != 1]
    assert all(is_finite(record) for record in fine)
    assert len({record.test_loss for record in fine}) == 4
    assert here[2] == RunRecord(
        config=configs[2], outcome=Outcome.FAILED, epochs=0, steps=0,
        message="ArithmeticError: no luck today",
    )  # fmt: skip


def test_a_process_that_dies_is_said() -> None:
    setup = own(own_nets.dying)
    configs = [config(setup, seed=seed) for seed in (0, 1)]
    with pytest.raises(RunFailedError, match="process died"):
        records(setup, configs, jobs=2, engine=Engine("single"))


def test_a_setup_that_can_not_travel_is_the_users_to_correct() -> None:
    lock = threading.Lock()

    def build() -> nn.Module:
        with lock:
            return own_nets.normed()

    setup = own(build)
    with pytest.raises(InputError, match="--jobs 1"):
        records(setup, [config(setup, seed=seed) for seed in (0, 1)], jobs=2)
    assert all(map(is_finite, records(setup, [config(setup)], jobs=2)))


@pytest.mark.parametrize(
    "make",
    [built_in, pytest.param(lambda: own(own_nets.normed), marks=pytest.mark.slow)],
    ids=["built in", "own"],
)
def test_an_error_while_saving_a_record_ends_training_and_no_record_follows(
    make: Callable[[], TrainingSetup], monkeypatch: pytest.MonkeyPatch
) -> None:
    setup, seen = make(), 0

    def late(own_setup: TrainingSetup, task: Task, run: TrainedRun, *others: Any) -> RunRecord:
        if run.config.seed >= 3:  # the second batch is at work when the first one's record fails
            time.sleep(0.3)
        return record(own_setup, task, run, *others)

    def keep(_: RunRecord) -> None:
        nonlocal seen
        seen += 1
        raise OSError("disk full")

    monkeypatch.setattr("fls_bench.training.jobs.record", late)
    engine = choose_engine(setup, RULE)
    configs = [config(setup, seed=seed) for seed in range(6)]
    with pytest.raises(OSError, match="disk full"):
        train_all(setup, RULE, configs, keep, engine=engine, jobs=2)
    time.sleep(0.5)
    assert seen == 1


def test_no_runs_are_no_work() -> None:
    train_all(own(own_nets.normed), RULE, [], pytest.fail, engine=Engine("single"), jobs=2)


def test_the_number_of_threads_is_given_back() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for setup in (own(own_nets.failing), built_in()):
            records(setup, [config(setup, seed=seed) for seed in (0, 1)])
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


# --- randomness -----------------------------------------------------------------------------


def test_a_net_with_dropout_is_reproducible_per_seed() -> None:
    setup = own(own_nets.normed)
    first = train_one(setup, RULE, config(setup))[0]
    torch.rand(7)  # the global random state is elsewhere by now
    again, other = (train_one(setup, RULE, config(setup, seed=s))[0] for s in (0, 1))
    assert distance(dict(first.final), dict(again.final)) == 0
    assert distance(dict(first.final), dict(other.final)) > 0


@pytest.mark.parametrize("make", [lambda: own(own_nets.normed), built_in], ids=["own", "built in"])
def test_nothing_touches_the_global_random_state(make: Callable[[], TrainingSetup]) -> None:
    setup = make()
    state = torch.get_rng_state()
    task = check_setup(setup)
    rule = resolve_lr_rule(setup, task)
    setup_digest(setup, rule)
    make_net(setup, 3, 1.0, torch.float32)
    train_one(setup, rule, config(setup, centered=True))
    jobs = (
        2 if choose_engine(setup, rule).batched else 1
    )  # threads share the state, processes do not
    records(setup, [config(setup, seed=seed) for seed in range(8)], jobs=jobs)
    assert torch.equal(state, torch.get_rng_state())


def test_nets_built_in_threads_are_those_of_their_seeds() -> None:
    def slow() -> nn.Module:
        first = nn.Linear(5, 4)
        time.sleep(0.005)
        return nn.Sequential(first, nn.ReLU(), nn.Linear(4, 3))

    setup, state = own(slow), torch.get_rng_state()

    def build(seed: int) -> dict[str, torch.Tensor]:
        return dict(make_net(setup, seed, 1.0, torch.float32).state_dict())

    wanted = [build(seed) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        built = list(pool.map(build, range(8)))
    assert all(distance(a, b) == 0 for a, b in zip(built, wanted, strict=True))
    assert torch.equal(state, torch.get_rng_state())


# --- the multiplier's two routes ------------------------------------------------------------


@pytest.mark.parametrize("centered", [False, True], ids=["plain", "centered"])
@pytest.mark.parametrize("c", [0.125, 3.0])
def test_factory_and_wrapper_train_alike(c: float, centered: bool) -> None:
    ended = []
    for builder, route in ((own_nets.wrapped, "wrapper"), (own_nets.factory, "factory")):
        setup = own(builder)
        assert setup.route == route
        one = config(setup, c=c, lr=0.1, centered=centered)
        run, record = train_one(setup, RULE, one, dtype=torch.float64)
        body = {key.removeprefix("body."): value for key, value in run.final.items()}
        ended.append((body, record))
    (left, record), (right, other) = ended
    assert distance(left, right) < 1e-12
    assert (record.outcome, record.epochs) == (other.outcome, other.epochs)
    for name in ("train_loss", "val_error", "val_loss", "test_error", "test_loss"):
        assert getattr(record, name) == pytest.approx(getattr(other, name), rel=1e-12)
    assert record.measurements == pytest.approx(other.measurements, rel=1e-9)


def test_a_factory_needs_its_parameter() -> None:
    setup = own(own_nets.wrapped, multiplier_route="factory")
    with pytest.raises(InputError, match="has no output_multiplier"):
        check_setup(setup)


def test_a_factory_of_built_in_nets_is_not_batched() -> None:
    plain = built_in()
    assert choose_engine(plain, RULE).kind == "fused"
    assert choose_engine(own(own_nets.factory), RULE).kind == "single"
    for other in (Sgd(momentum=0.5), Sgd(weight_decay=0.5), Adam()):
        assert choose_engine(replace(plain, optimizer=other), RULE).kind != "fused"


# --- a setup that can't work ----------------------------------------------------------------


def returns(value: Any) -> Callable[..., Any]:
    return lambda: value


def raises(*_: Any) -> Any:
    raise AssertionError


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> Any:
        return self.inner(x), x


class Exploding(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) / 0.0


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"make_model": lambda width: None}, "make_model failed with TypeError"),
        ({"make_model": raises}, "make_model failed with AssertionError"),
        ({"make_model": returns(3)}, "returned a int"),
        ({"make_model": nn.ReLU}, "no parameters"),
        ({"make_model": lambda: nn.Linear(7, 3)}, "inputs of shape"),
        ({"make_model": lambda: nn.Linear(5, 4)}, "needs \\[4, 3\\]"),
        ({"make_model": Pair}, "returns a tuple"),
        ({"make_model": lambda: Exploding(5, 3)}, "NaN or infinite"),
        ({"make_model": lambda: nn.Linear(5, 1), "loss": "logistic"}, "has 3 classes"),
        ({"task": raises}, "task function failed"),
        ({"task": returns(3)}, "task function failed"),
        ({"feature_layer": "body.9"}, "no features of a layer 'body.9'"),
    ],
)
def test_a_mistake_shows_before_training(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError, match=problem) as caught:
        check_setup(own(own_nets.normed, **changes))
    assert "\n" not in str(caught.value)


def test_a_right_setup_gives_its_task() -> None:
    setup = own(own_nets.normed, feature_layer="body.0")
    assert check_setup(setup, 5).fingerprint == blobs(5).fingerprint


# --- the rule -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setup", "rule"),
    [
        (built_in(depth=3), LrRule(name="homogeneous", depth=3)),
        (
            built_in(depth=3, bias=True),
            LrRule(
                name="homogeneous", depth=3, exponents={"layers.1.bias": 2.0, "layers.2.bias": 3.0}
            ),
        ),
        (built_in(depth=3, activation="tanh"), LrRule(name="calibrated", depth=3)),
        (own(own_nets.wrapped), LrRule(name="homogeneous", depth=2)),
        (own(own_nets.factory), LrRule(name="homogeneous", depth=2)),
        (
            own(own_nets.normed),
            LrRule(
                name="normalised",
                depth=2,
                exponents={
                    "body.1.weight": 1.0,
                    "body.1.bias": 1.0,
                    "head.weight": 1.0,
                    "head.bias": 2.0,
                },
            ),
        ),
        (
            own(own_nets.normed, lr_rule=LrRule(name="homogeneous", depth=7)),
            LrRule(name="calibrated", depth=7),
        ),
    ],
)
def test_the_rule_follows_the_net(setup: TrainingSetup, rule: LrRule) -> None:
    assert resolve_lr_rule(setup, setup.task_for(0)) == rule


def test_a_net_that_can_not_run_in_double_precision_gets_no_exact_rule() -> None:
    class Single(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert x.dtype == torch.float32
            return super().forward(x)

    setup = own(lambda: Single(5, 3, bias=False))
    assert resolve_lr_rule(setup, setup.task_for(0)) == LrRule(name="calibrated", depth=1)


def test_a_step_shrinks_biases_as_it_shrinks_weights() -> None:
    for own_c, c in ((1.0, 0.25), (1.0, 1.0), (0.25, 8.0)):
        setup = built_in(bias=True, optimizer=Sgd(weight_decay=0.1))
        setup = replace(setup, output_multiplier=own_c)
        one = config(setup, c=c, lr=0.5 * c**-0.5)
        rule = rule_of(setup)
        names = [f"layers.{k}.{kind}" for k in range(4) for kind in ("weight", "bias")]
        found = {settings(setup, rule, one, name) for name in names}
        assert {round(each.lr * each.weight_decay, 12) for each in found} == {
            round(0.05 * own_c**-0.5, 12)
        }
        assert (len(found) == 1) == (c == own_c)


@pytest.mark.parametrize("own_c", [0.25, 1.0])
def test_at_its_own_multiplier_a_net_with_biases_trains_as_any_loop_would(own_c: float) -> None:
    setup = built_in(bias=True, batch_size=23, stop=TargetLoss(target_loss=1e-6, max_epochs=1))
    setup = replace(setup, output_multiplier=own_c)
    net, task = make_net(setup, 0, 1.0, torch.float64), setup.task_for(0)
    logits = own_c * net(torch.as_tensor(task.x_train).double())
    loss = nn.functional.cross_entropy(logits, torch.as_tensor(task.y_train))
    gradients = torch.autograd.grad(loss, list(net.parameters()))
    expected = {
        name: (value - 0.1 * gradient).detach()
        for (name, value), gradient in zip(net.named_parameters(), gradients, strict=True)
    }
    one = config(setup, c=own_c, lr=0.1)
    for run in (train_one(setup, RULE, one, dtype=torch.float64)[0], *in_one_batch(setup, [one])):
        assert distance(dict(run.final), expected) < 1e-12
