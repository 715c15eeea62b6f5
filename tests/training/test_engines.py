"""Which engine trains what, and why: told by the setup, or found in a trial that leaves no trace."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import own_nets
import pytest
import torch
from labels import label
from own_nets import INPUT_DIM, Normed, built_in, config, images, own, plain_body, records
from torch import Tensor, nn

from fls_bench.errors import InputError
from fls_bench.schema import (
    Adam,
    AdamW,
    Cosine,
    LrRule,
    Outcome,
    PerStep,
    Sgd,
    StepDecay,
    TargetLoss,
)
from fls_bench.training import (
    Engine,
    choose_device,
    choose_engine,
    engines,
    make_net,
    resolve_lr_rule,
    setup_digest,
)
from fls_bench.training.checks import exact_arithmetic
from fls_bench.training.runs import batch_order
from fls_bench.training_setup import Custom, TrainingSetup

RULE = LrRule(name="calibrated", depth=2)


def chosen(setup: TrainingSetup) -> Engine:
    return choose_engine(setup, RULE)


@pytest.fixture(autouse=True)
def short_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "TRIAL_SECONDS", 0.01)


# --- by hand --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "optimizer",
    [Sgd(schedule=one) for one in (None, Cosine(), StepDecay(every=3), PerStep(warmup_steps=9))],
)
@pytest.mark.parametrize(
    "changes",
    [{}, {"bias": True, "activation": "tanh"}, {"activation": "gelu"}, {"loss": "logistic"}],
)
def test_mlps_under_plain_sgd_train_by_hand(optimizer: Sgd, changes: dict[str, Any]) -> None:
    assert chosen(built_in(optimizer=optimizer, **changes)).kind == "fused"


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": Sgd(momentum=0.1)},
        {"optimizer": Sgd(weight_decay=0.1)},
        {"optimizer": Sgd(clip_norm=1.0)},
        {"optimizer": Adam()},
        {"optimizer": AdamW()},
        {"optimizer": Custom(lambda groups: torch.optim.SGD(groups), lr=0.1)},
        {"label_smoothing": 0.1},
        {"loss": "mse"},
        {"architecture": None},
        {"task": lambda seed: images(seed, shape=(1, 5)), "augmentation": ("flip",)},
    ],
    ids=label,
)
def test_what_the_steps_by_hand_do_not_know_trains_otherwise(changes: dict[str, Any]) -> None:
    assert chosen(replace(built_in(), **changes)).kind != "fused"


# --- told by the setup ----------------------------------------------------------------------


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.again = nn.Linear(INPUT_DIM, INPUT_DIM), nn.Linear(INPUT_DIM, INPUT_DIM)
        self.again.weight = self.first.weight
        self.head = nn.Linear(INPUT_DIM, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.relu(self.again(torch.relu(self.first(x)))))
        return logits


def rmsprop(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    return torch.optim.RMSprop(groups, alpha=0.9)


@pytest.mark.parametrize(
    ("setup", "reason"),
    [
        (own(own_nets.normed), "dropout"),
        (own(Tied), "shared"),
        (own(own_nets.factory), "wired inside"),
        (own(plain_body, optimizer=Custom(rmsprop, lr=0.01)), "optimizer of its own"),
    ],
    ids=["dropout", "tied", "factory", "custom"],
)  # fmt: skip
def test_some_setups_train_one_by_one_and_say_why(
    setup: TrainingSetup, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "_by_trial", lambda *_: pytest.fail("nothing has to be tried"))
    engine = chosen(setup)
    assert (engine.kind, engine.ratio) == ("single", None)
    assert reason in engine.why
    assert all(map(own_nets.is_finite, records(setup, [config(setup)], dtype=torch.float32)))


def test_dropout_that_drops_nothing_does_not_count() -> None:
    assert "dropout" not in chosen(own(lambda: Normed(0.0))).why


# --- found in a trial -----------------------------------------------------------------------


class Branching(Normed):
    def __init__(self) -> None:
        super().__init__(0.0)

    def forward(self, x: Tensor) -> Tensor:
        f = super().forward(x)
        return 2 * f if f.mean() > 0 else f


class Reading(Normed):
    def __init__(self) -> None:
        super().__init__(0.0)

    def forward(self, x: Tensor) -> Tensor:
        f = super().forward(x)
        return f * (1 + f.abs().max().item())


class Noisy(Normed):
    def __init__(self) -> None:
        super().__init__(0.0)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + torch.rand(x.shape))


@pytest.mark.parametrize("make", [Branching, Reading, Noisy])
def test_what_does_not_batch_trains_one_by_one(make: Any) -> None:
    state = torch.get_rng_state()
    engine = chosen(own(make))
    assert engine.kind == "single"
    assert engine.why.startswith("As one batch it fails with ")
    assert "\n" not in engine.why
    assert torch.equal(state, torch.get_rng_state())


class OfItsSeed(nn.Module):
    """Keeps what was drawn for its seed where no state dict shows it."""

    def __init__(self) -> None:
        super().__init__()
        self.directions = torch.randn(INPUT_DIM, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.relu(x @ self.directions.to(x)))
        return logits


class OfItsHistory(Normed):
    """Behaves by how often any net of its kind was called."""

    calls = 0

    def __init__(self) -> None:
        super().__init__(0.0)

    def forward(self, x: Tensor) -> Tensor:
        OfItsHistory.calls += 1
        return super().forward(x) * (1 + OfItsHistory.calls)


class Indirect(Normed):
    """Counts its steps in a buffer that the replicas of a batch would see only once."""

    steps: Tensor

    def __init__(self) -> None:
        super().__init__(0.0)
        self.register_buffer("steps", torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        self._buffers["steps"] = torch.tensor(int(OfItsHistory.calls))
        OfItsHistory.calls += 1
        return super().forward(x)


@pytest.mark.parametrize("make", [OfItsSeed, OfItsHistory, Indirect])
def test_what_batches_but_then_trains_otherwise_trains_one_by_one(make: Any) -> None:
    engine = chosen(own(make, optimizer=Sgd(lr=0.1)))
    assert engine.kind == "single"
    assert "trains otherwise" in engine.why
    assert engine.ratio is not None


def test_a_trial_leaves_out_the_warm_up_in_which_nothing_trains() -> None:
    schedule = PerStep(warmup_steps=10**8)
    assert "trains otherwise" in chosen(own(OfItsSeed, optimizer=Sgd(schedule=schedule))).why


def test_a_model_that_fails_in_the_trial_is_left_to_the_runs_to_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise ArithmeticError("no luck")

    monkeypatch.setattr(engines, "train_single", fails)
    engine = chosen(own(lambda: Normed(0.0)))
    assert engine.kind == "single"
    assert engine.why == "In a trial it fails with ArithmeticError: no luck."


@pytest.mark.parametrize(("least", "kind"), [(0.0, "vmapped"), (1e9, "single")])
def test_the_faster_way_is_taken_and_its_lead_said(
    least: float, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "MIN_RATIO", least)
    engine = chosen(own(lambda: Normed(0.0)))
    assert engine.kind == kind
    assert engine.ratio is not None
    assert engine.ratio > 0
    assert "times as fast as one by one" in engine.why


def test_a_setup_that_diverges_is_no_disagreement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "MIN_RATIO", 0.0)
    assert chosen(own(plain_body, optimizer=Sgd(lr=1e30))).kind == "vmapped"


def test_a_trial_leaves_no_trace() -> None:
    before, state = torch.get_num_threads(), torch.get_rng_state()
    try:
        torch.set_num_threads(2)
        for make in (lambda: Normed(0.0), OfItsSeed, Branching):
            chosen(own(make))
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert torch.equal(state, torch.get_rng_state())


# --- devices --------------------------------------------------------------------------------


def test_a_device_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == "cpu"
    with pytest.raises(InputError, match="no CUDA device"):
        choose_device("cuda")
    with pytest.raises(InputError, match="no device 'tpu'"):
        choose_device("tpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto") == choose_device("cuda") == "cuda"
    assert choose_device("cpu") == "cpu"


@pytest.mark.parametrize("user", ["highest", "high"])
def test_single_precision_on_a_gpu_is_asked_for_and_given_back(user: str) -> None:
    """The switches exist in builds for CPUs too."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    original = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(user)

        def now() -> tuple[Any, ...]:
            return cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic, matmul.fp32_precision

        before = now()
        with exact_arithmetic("cuda"):
            assert now() == (False, False, True, "ieee")
        assert now() == before
        with pytest.raises(ZeroDivisionError), exact_arithmetic("cuda"):
            _ = 1 / 0
        assert now() == before
        with exact_arithmetic("cpu"):
            assert now() == before
    finally:
        torch.set_float32_matmul_precision(original)


# --- an optimizer of the user's -------------------------------------------------------------


def heavy_rmsprop(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    return torch.optim.RMSprop([{**group, "momentum": 0.5} for group in groups], alpha=0.9)


def test_an_optimizer_of_the_users_trains() -> None:
    setup = own(
        plain_body,
        optimizer=Custom(rmsprop, lr=0.01, like="adam"),
        stop=TargetLoss(0.3, max_epochs=30),
    )
    rule = resolve_lr_rule(setup, setup.task_for(0))
    assert rule == LrRule(name="calibrated", depth=2)
    engine = choose_engine(setup, rule)
    assert engine.kind == "single"
    one, other = records(
        setup, [config(setup, lr=0.01, seed=seed) for seed in (0, 1)], rule=rule, engine=engine
    )
    assert one.outcome is other.outcome is Outcome.REACHED_TARGET
    assert one.train_loss != other.train_loss
    # By hand: the same steps with torch alone.
    net, task = make_net(setup, 0, 1.0, torch.float64), setup.task_for(0)
    x, y = torch.as_tensor(task.x_train).double(), torch.as_tensor(task.y_train)
    optimizer = torch.optim.RMSprop(net.parameters(), lr=0.01, alpha=0.9)
    order = batch_order(0, len(y))
    for _ in range(one.epochs):
        for picked in next(order).split(setup.batch_size):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x[picked]), y[picked]).backward()
            optimizer.step()
    loss = nn.functional.cross_entropy(net(x), y).item()
    assert one.train_loss == pytest.approx(loss, rel=1e-9)


def test_the_digest_tells_optimizers_of_the_users_apart() -> None:
    def digest(make: Any, lr: float = 0.01) -> str:
        return setup_digest(own(plain_body, optimizer=Custom(make, lr=lr)), RULE)

    assert digest(rmsprop) == digest(rmsprop, lr=0.5)
    others = [
        heavy_rmsprop,  # differs in its groups alone
        lambda groups: torch.optim.RMSprop(groups, alpha=0.8),
        lambda groups: torch.optim.Adagrad(groups),
    ]
    assert len({digest(make) for make in (rmsprop, *others)}) == 4


def test_an_optimizer_that_can_not_be_made_is_the_users_to_correct() -> None:
    setup = own(plain_body, optimizer=Custom(lambda groups: torch.optim.SGD(), lr=0.1))  # type: ignore[call-arg]
    with pytest.raises(InputError, match="The optimizer's make failed with TypeError"):
        setup_digest(setup, RULE)
