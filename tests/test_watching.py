"""Looks at a net in training: what they measure, when they are due, and what they leave alone."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
import watch_survey
from torch import nn

from fls_bench import watching
from fls_bench.atlas import atlas_folder, load_atlas, load_shard, load_watch_models
from fls_bench.calibrating import labelled
from fls_bench.errors import InputError
from fls_bench.schema import Regime, RunConfig, Sgd, TargetLoss
from fls_bench.subject.observing import look_at, part_of_task
from fls_bench.suite import load_suite
from fls_bench.tasks import Task, digits, make_task
from fls_bench.training import resolve_lr_rule, train_one
from fls_bench.training_setup import TrainingSetup
from fls_bench.watching import STAGES, Watch, chance_loss, stage_of, state_of, watched_columns


def blobs(n: int = 60, seed: int = 0) -> Task:
    rng = np.random.default_rng(seed)
    parts = []
    for size in (n, 80, 30):
        y = rng.integers(0, 3, size)
        parts.append(((rng.normal(size=(size, 6)) + 1.5 * np.eye(6)[y]).astype(np.float32), y))
    return make_task("blobs", *parts)


def build(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(6, 20), nn.ReLU(), nn.Dropout(0.3), nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 3)
    )


def test_the_loss_of_class_frequencies_is_their_entropy() -> None:
    assert chance_loss(torch.tensor([0, 1, 2, 3] * 5)) == pytest.approx(math.log(4))
    assert chance_loss(torch.tensor([0, 0, 0, 1])) == pytest.approx(
        -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    )
    assert chance_loss(torch.zeros(5, dtype=torch.long)) == 0


@pytest.mark.parametrize(
    ("loss", "stage"),
    [(9.0, "start"), (0.81, "start"), (0.8, "early"), (0.51, "early"), (0.5, "half"),
     (0.26, "half"), (0.25, "late"), (0.0, "late"), (math.inf, "start")],
)  # fmt: skip
def test_a_stage_begins_where_its_loss_is_reached(loss: float, stage: str) -> None:
    assert stage_of(loss, 1.0) == stage
    assert stage_of(2 * loss, 2.0) == stage


def test_a_diverged_loss_is_no_progress() -> None:
    assert stage_of(math.nan, 1.0) == "start"


def test_a_look_leaves_the_net_and_its_randomness_alone() -> None:
    task, net = blobs(), build().train()
    net[0].eval()  # frozen on purpose by its owner
    before = {k: v.clone() for k, v in net.state_dict().items()}
    random = torch.get_rng_state()
    state_of(net, torch.tensor(task.x_train))
    assert torch.equal(torch.get_rng_state(), random)
    assert [m.training for m in net.modules()] == [True, False, True, True, True, True, True]
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])
    assert not net[0]._forward_pre_hooks
    assert not net[0]._forward_hooks


class Restless(nn.Module):
    """Draws and counts whenever it is called, evaluated or not."""

    def __init__(self) -> None:
        super().__init__()
        self.net = build()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.net(nn.functional.dropout(x, 0.5, training=True))


def test_what_a_net_draws_and_counts_in_a_look_is_taken_back() -> None:
    task, net = blobs(), Restless()
    watch = Watch(net, torch.tensor(task.x_train), torch.tensor(task.y_train))
    random = torch.get_rng_state()
    watch.look()
    assert torch.equal(torch.get_rng_state(), random)
    assert net.calls == 0


def test_a_look_is_in_full_precision_whatever_the_training_is() -> None:
    task, net = blobs(), build().eval()
    x = torch.tensor(task.x_train)
    with torch.autocast("cpu", torch.bfloat16):
        state = state_of(net, x)
    with torch.no_grad():
        assert torch.equal(state.train_outputs, net(x))


def test_a_look_knows_the_multiplier_and_all_points(monkeypatch: pytest.MonkeyPatch) -> None:
    task, net, seen = blobs(), build().eval(), []
    real = watching.read_stage
    monkeypatch.setattr(watching, "read_stage", lambda *args: seen.append(args[1]) or real(*args))
    x, y = torch.tensor(task.x_train), torch.tensor(task.y_train)
    look = Watch(net, x, y, n_train=5000, output_multiplier=8.0).look()
    with torch.no_grad():
        loss = nn.functional.cross_entropy(8 * net(x), y)
    assert look.numbers["loss"] == pytest.approx(float(loss), rel=1e-5)
    assert seen[0]["n_train"] == 5000


def test_each_stage_is_read_by_its_own_model() -> None:
    task, net = blobs(), build().eval()
    watch = Watch(net, torch.tensor(task.x_train), torch.tensor(task.y_train))
    found = {
        f"{one.metric}:{one.layer}" if one.layer else one.metric: one.value
        for one in watch.look().measurements
    }
    readings = [watching.read_stage(stage, found) for stage in STAGES]
    assert len({one.reach for one in readings}) == len(STAGES)


def test_nets_with_layers_that_the_atlas_lacks_are_never_read() -> None:
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(10, 6)
            self.net = build()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(self.words(x.long()).mean(1))

    rng = np.random.default_rng(0)
    x = torch.tensor(rng.integers(0, 10, (60, 5)).astype(np.float32))
    look = Watch(Words(), x, torch.arange(60) % 3).look()
    assert look.stage == "start"
    assert look.reading.regime is Regime.INCONCLUSIVE
    assert look.reading.reason.code == "out_of_reach"
    assert "Embedding" in look.text
    assert look.numbers["movement"] == 0


def test_a_state_is_a_copy_and_of_evaluation_mode() -> None:
    task, net = blobs(), build().train()
    x = torch.tensor(task.x_train)
    state = state_of(net, x)
    with torch.no_grad():
        expected = net.eval()(x)
        assert torch.equal(state.train_outputs, expected)
        kept = {name: value.clone() for name, value in state.weights.items()}
        for parameter in net.parameters():
            parameter.add_(1.0)
    for name, value in state.weights.items():
        assert torch.equal(value, kept[name])


def test_a_net_that_returns_no_logits_is_refused() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = build()

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, int]:
            return self.net(x), 1

    task = blobs()
    with pytest.raises(InputError, match=r"does not return logits \[n, K\]"):
        Watch(Pair(), torch.tensor(task.x_train), torch.tensor(task.y_train))


def test_what_a_look_measures_is_what_the_reading_of_the_finished_net_measures() -> None:
    """The same numbers by two ways: of the net as it is, and of its stored weights."""
    task = blobs(n=700)  # more than are looked at
    plain = nn.Sequential(
        nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 3)
    )

    def make_model() -> nn.Module:
        return nn.Sequential(*(type(m)(m.in_features, m.out_features)
                               if isinstance(m, nn.Linear) else nn.ReLU() for m in plain))  # fmt: skip

    setup = TrainingSetup(
        make_model=make_model, task=task, optimizer=Sgd(lr=0.1), stop=TargetLoss(0.5, max_epochs=30),
        output_multiplier=0.5,
    )  # fmt: skip
    rule = resolve_lr_rule(setup, task)
    config = RunConfig(
        setup_digest="x", c=0.5, init_scale=1.0, lr=0.1, seed=0, centered=False, max_epochs=30
    )
    run, _ = train_one(setup, rule, config)
    expected = look_at(setup, task, run.final, run.init).columns

    net = make_model()
    net.load_state_dict(dict(run.init))
    watch = Watch(
        net, torch.tensor(task.x_train), torch.tensor(task.y_train), output_multiplier=0.5
    )
    net.load_state_dict(dict(run.final))
    part = part_of_task(task)
    stored = watched_columns(
        make_model(), run.init, run.final, part.x_train, part.y_train, c=0.5, centered=False,
        n_classes=3, n_train=700,
    )  # fmt: skip
    numbers = watch.look().numbers
    assert numbers["loss"] == pytest.approx(stored["loss.train"])
    assert numbers["movement"] == pytest.approx(stored["movement.relative:mean"])
    assert numbers["rank_of_logits"] == pytest.approx(stored["rank.over_classes_train:logits"])
    shared = set(stored) & set(expected)
    assert len(shared) > 30
    for name in shared - {"share.initial_function"}:  # that one is of other points
        assert stored[name] == pytest.approx(expected[name], rel=1e-4), name
    assert stored["share.initial_function"] == numbers["share_of_initial_function"]


def test_a_look_is_due_once_for_each_stage() -> None:
    task, net = blobs(), build().eval()
    x, y = torch.tensor(task.x_train), torch.tensor(task.y_train)
    watch = Watch(net, x, y)
    chance = chance_loss(y)
    assert watch.due(5.0)
    first = watch.look()
    assert first.stage == "start"
    assert not watch.due(5.0)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.2)
    seen = ["start"]
    for _ in range(400):
        loss = nn.functional.cross_entropy(net(x), y)
        if watch.due(float(loss.detach())):
            seen.append(watch.look().stage)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if float(loss.detach()) < 0.1 * chance:
            break
    assert seen == list(STAGES)
    assert [look.stage for look in watch.looks] == seen


def test_a_loss_that_is_not_that_of_the_points_asks_no_more_often() -> None:
    task, net = blobs(), build().eval()
    watch = Watch(net, torch.tensor(task.x_train), torch.tensor(task.y_train))
    watch.look()
    due = [watch.due(loss) for loss in (0.0, 0.0, 0.01, 5.0)]
    assert due == [True, False, False, False]


@pytest.mark.parametrize(("log2_c", "side"), [(-10, Regime.OVER_ALIGNED), (6, Regime.OVER_FITTED)])
def test_a_run_far_from_the_optimum_is_never_said_to_head_the_other_way(
    log2_c: int, side: Regime
) -> None:
    """Digits: c* lies near 2^-4 for this net, and both ends are worse by many points."""
    from fls_bench.models import build as build_named

    task = digits(n_train=150, seed=0)
    net = build_named("mlp", {"input_dim": 64, "n_outputs": 10, "depth": 4, "width": 64}, seed=0)
    c = 2.0**log2_c
    x, y = torch.tensor(task.x_train), torch.tensor(task.y_train)
    rate = 0.1 * min(c ** (-2 / 4), 4 * c**-2)
    watch = Watch(net, x, y, output_multiplier=c)
    watch.look()
    optimizer = torch.optim.SGD(net.parameters(), lr=rate)
    generator = torch.Generator().manual_seed(0)
    for _, batch in itertools.product(range(300), range(6)):
        if batch == 0:
            order = torch.randperm(150, generator=generator)
            with torch.no_grad():
                loss = float(nn.functional.cross_entropy(c * net(x), y))
            if watch.due(loss):
                watch.look()
            if loss < 0.1:
                break
        part = order[25 * batch : 25 * batch + 25]
        optimizer.zero_grad()
        nn.functional.cross_entropy(c * net(x[part]), y[part]).backward()
        optimizer.step()
    regimes = [look.reading.regime for look in watch.looks]
    assert watch.looks[-1].stage == "late"
    assert set(regimes) <= {side, Regime.INCONCLUSIVE}
    assert side in regimes
    last = watch.looks[-1]
    assert max(last.reading.probabilities, key=last.reading.probabilities.__getitem__) == side


def test_the_stored_models_are_of_all_stages_and_their_observables() -> None:
    models = load_watch_models()
    assert set(models.stages) == set(STAGES) == set(models.figures)
    for stage, model in models.stages.items():
        own = {curve.observable for curve in model.curves}
        assert own <= set(watching.AT_START if stage == "start" else watching.OBSERVABLES)
        assert "initial_logits" in own
        assert 0 < model.threshold < 1


def test_a_look_without_what_every_net_has_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    measure = watching.measure

    def without(snapshot: Any, names: Any) -> Any:
        return tuple(
            one.model_copy(update={"value": None, "status": "unavailable", "reason": "no"})
            if one.metric == "scale.logits_at_init"
            else one
            for one in measure(snapshot, names)
        )

    monkeypatch.setattr(watching, "measure", without)
    task = blobs()
    look = Watch(build(), torch.tensor(task.x_train), torch.tensor(task.y_train)).look()
    assert look.reading.regime is Regime.INCONCLUSIVE
    assert look.reading.probabilities == {}
    assert "could not be measured" in look.text


def test_the_page_tells_the_stored_figures() -> None:
    text = watch_survey.PAGE.read_text("utf-8")
    found = watch_survey.page(load_watch_models())
    assert f"{watch_survey.BEGIN}\n\n{found}\n\n{watch_survey.END}" in text


def test_setups_without_nets_at_a_stage_are_those_that_might_stop_before_it() -> None:
    suite = load_suite("atlas")
    cases = {case.id: case for case in suite.cases}
    for path in watch_survey.stored_stages():
        shard = load_shard(path)
        share = watching.STAGES[shard.header["stage"]]
        trained = {shard.header["cases"][k]["id"] for k in shard.case}
        assert trained == {
            one["id"]
            for one in shard.header["cases"]
            if watch_survey.staged(suite, cases[one["id"]], share * one["chance_loss"])
        }
        assert watch_survey.setups_trained([path]) == {shard.header["stage"]: len(trained)}


@pytest.mark.slow
def test_a_refit_reproduces_the_stored_models() -> None:
    paths = sorted(atlas_folder().glob("stage-*.npz"))
    shards = load_atlas(atlas_folder())
    staged = watch_survey.staged_nets(shards, labelled(shards), paths)
    refit, stored = watch_survey.models_of(staged), load_watch_models().stages
    for stage, model in refit.items():
        own = [float(x) for x in (model.threshold, model.reach, *model.intercepts)]
        kept = stored[stage]
        assert own == pytest.approx(
            [kept.threshold, kept.reach, *kept.intercepts], rel=1e-3, abs=1e-4
        )
        assert [k.observable for k in model.curves] == [k.observable for k in kept.curves]
