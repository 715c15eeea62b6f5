"""``fls_bench.record`` around loops of any kind: what the file then says, and what it costs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import foreign_nets
import pytest
import torch
from torch import nn

import fls_bench
from fls_bench import load_bundle, record, state_digest
from fls_bench.errors import InputError
from fls_bench.facts import loss_facts
from fls_bench.schema import Outcome, Tier
from fls_bench.subject import NOTHING, Given, from_bundle
from fls_bench.subject.files import evidence_tier

Cli = Callable[..., Any]
STOP = fls_bench.TargetLoss(0.2, max_epochs=60)
LOSS: Literal["cross_entropy"] = "cross_entropy"


def train(
    run: fls_bench.Recorder | None,
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    epochs: int = 60,
) -> int:
    """Somebody's loop; returns the steps that it made."""
    task, steps = foreign_nets.blobs(), 0
    x, y = torch.as_tensor(task.x_train), torch.as_tensor(task.y_train)
    for _ in range(epochs):
        for part in torch.arange(60).split(10):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x[part]), y[part]).backward()
            optimizer.step()
            steps += 1
        with torch.no_grad():
            loss = float(nn.functional.cross_entropy(net(x), y))
        if run is not None:
            run.log(loss)
        if loss <= STOP.target_loss:
            break
    return steps


def net_and_optimizer(seed: int = 5) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    net = foreign_nets.plain()
    return net, torch.optim.Adam(net.parameters(), lr=0.05)


def test_a_context_around_a_loop_keeps_init_stop_and_recipe(tmp_path: Path) -> None:
    net, optimizer = net_and_optimizer()
    init = {k: v.clone() for k, v in net.state_dict().items()}
    with record(
        net, tmp_path / "m.pt", task=foreign_nets.blobs(), optimizer=optimizer, batch_size=10,
        stop=STOP, loss=LOSS, seed=5, builder_hint="foreign_nets:plain",
    ) as run:  # fmt: skip
        steps = train(run, net, optimizer)
        assert not (tmp_path / "m.pt").exists()
    found = load_bundle(tmp_path / "m.pt")
    header = found.header
    assert found.init is not None
    assert all(torch.equal(found.init[k], v) for k, v in init.items())
    assert all(torch.equal(found.final[k], v) for k, v in net.state_dict().items())
    assert header.recipe is not None
    assert header.outcome is not None
    assert header.recipe.optimizer == fls_bench.Adam(lr=0.05)
    assert (header.recipe.batch_size, header.recipe.stop, header.recipe.seed) == (10, STOP, 5)
    assert header.outcome.status is Outcome.REACHED_TARGET
    assert (header.outcome.epochs, header.outcome.steps) == (steps // 6, steps)
    assert header.outcome.train_loss == run.train_loss
    assert header.init_digest == state_digest(init)
    # With the builder that the user repeats it can be swept.
    subject = from_bundle(found, Given(builder="foreign_nets:plain"))
    assert subject.tier is Tier.T3
    assert subject.claim == (run.train_loss, "outcome.train_loss")


@pytest.mark.parametrize(
    ("steps", "status"), [(12, Outcome.REACHED_TARGET), (13, Outcome.OUT_OF_BUDGET)]
)
def test_whether_a_number_of_steps_was_made_is_known(steps: int, status: Outcome) -> None:
    net, optimizer = net_and_optimizer()
    stop = fls_bench.FixedSteps(steps)
    run = record(net, optimizer=optimizer, batch_size=10, stop=stop, loss=LOSS)
    assert train(run, net, optimizer, epochs=2) == 12
    outcome = run.outcome()
    assert outcome is not None
    assert outcome.status is status
    # Of a validation loss nothing was logged.
    run = record(
        net, optimizer=optimizer, batch_size=10, stop=fls_bench.ValidationLoss(), loss=LOSS
    )
    train(run, net, optimizer, epochs=1)
    outcome = run.outcome()
    assert outcome is not None
    assert outcome.status is None


def test_two_calls_do_the_same(tmp_path: Path) -> None:
    net, optimizer = net_and_optimizer()
    run = record(net, optimizer=optimizer, batch_size=10, stop=STOP, loss=LOSS)
    steps = train(run, net, optimizer)
    assert run.save(tmp_path / "a.safetensors") == tmp_path / "a.safetensors"
    found = load_bundle(tmp_path / "a.safetensors").header
    assert found.outcome is not None
    assert found.outcome.steps == steps == run.steps
    # A file may be saved after every epoch: steps go on being counted.
    more = train(run, net, optimizer, epochs=1)
    run.save(tmp_path / "a.safetensors", force=True)
    again = load_bundle(tmp_path / "a.safetensors").header.outcome
    assert again is not None
    assert again.steps == steps + more
    with pytest.raises(InputError, match="no path"):
        record(net).save()
    with pytest.raises(InputError, match="exists already"):
        record(net, tmp_path / "a.safetensors")


def test_an_init_that_was_noted_too_late_is_noticed(tmp_path: Path) -> None:
    net, optimizer = net_and_optimizer()
    train(None, net, optimizer, epochs=3)
    run = record(
        net, task=foreign_nets.blobs(), optimizer=optimizer, batch_size=10, stop=STOP, loss=LOSS
    )
    with pytest.warns(UserWarning, match="made steps already"):
        run.save(tmp_path / "late.pt")
    subject = from_bundle(load_bundle(tmp_path / "late.pt"), Given(builder="foreign_nets:plain"))
    assert "init_is_final" in {one.code for one in subject.findings}


def test_a_loop_that_fails_leaves_no_file_and_its_error(tmp_path: Path) -> None:
    net, optimizer = net_and_optimizer()
    run = record(net, tmp_path / "m.pt", optimizer=optimizer)

    def failing() -> None:
        with run:
            train(run, net, optimizer, epochs=1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        failing()
    assert "wrote no" in caught.value.__notes__[0]
    assert list(tmp_path.iterdir()) == []
    before = run.steps
    optimizer.step()
    assert run.steps == before, "the optimizer is left as it was"


def test_recording_changes_nothing_of_the_training() -> None:
    ends = []
    for recorded in (False, True):
        net, optimizer = net_and_optimizer()
        run = record(net, optimizer=optimizer) if recorded else None
        train(run, net, optimizer, epochs=3)
        ends.append(state_digest(net.state_dict()))
    assert ends[0] == ends[1]


def test_an_init_that_is_not_kept_is_built_again_and_proved(tmp_path: Path) -> None:
    for seed in (5, 6):
        net, optimizer = net_and_optimizer(5)
        with record(
            net, tmp_path / f"{seed}.pt", task=foreign_nets.blobs(), optimizer=optimizer,
            batch_size=10, stop=STOP, loss=LOSS, seed=seed, keep_init=False,
        ) as run:  # fmt: skip
            train(run, net, optimizer, epochs=2)
        found = load_bundle(tmp_path / f"{seed}.pt")
        assert found.init is None
        subject = from_bundle(found, Given(builder="foreign_nets:plain"))
        if seed == 5:
            assert subject.tier is Tier.T3
            assert subject.snapshot is not None
            assert subject.snapshot.init is not None
            (told,) = [one.text for one in subject.findings if one.code == "init_from_seed"]
            assert "seed 5" in told
        else:  # the seed that was noted is not the one that was used
            assert subject.tier is Tier.T1
            (told,) = [one.text for one in subject.findings if one.code == "init_not_known"]
            assert "its digest differs" in told
    assert from_bundle(found, NOTHING).tier is Tier.T0


SGD = torch.optim.SGD


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (
            lambda p: SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-3),
            fls_bench.Sgd(lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-3),
        ),
        (
            lambda p: torch.optim.Adam(p, lr=0.01, betas=(0.8, 0.99), eps=1e-6, weight_decay=0.1),
            fls_bench.Adam(lr=0.01, beta1=0.8, beta2=0.99, epsilon=1e-6, weight_decay=0.1),
        ),
        (
            lambda p: torch.optim.AdamW(p, lr=0.01),
            fls_bench.AdamW(lr=0.01),
        ),
        (lambda p: SGD(p, lr=0.1, momentum=0.9, dampening=0.5), "dampening = 0.5"),
        (lambda p: torch.optim.Adam(p, amsgrad=True), "amsgrad = True"),
        (lambda p: torch.optim.RMSprop(p), "is a RMSprop"),
        (
            lambda p: SGD(
                [{"params": [k]} | ({"lr": 0.3} if k.ndim > 1 else {}) for k in p], lr=0.1
            ),
            "groups of parameters",
        ),
        (lambda p: SGD(list(p)[:2], lr=0.1), "others than just the parameters"),
        (
            lambda p: SGD(foreign_nets.plain().parameters(), lr=0.1),
            "others than just the parameters",
        ),
        (lambda p: SGD(p, lr=0.0), "The recipe can't say lr"),
    ],
)
def test_the_recipe_is_read_off_the_optimizer_or_said_to_be_unknown(
    make: Callable[[Any], torch.optim.Optimizer], expected: Any
) -> None:
    net = foreign_nets.plain()
    run = record(net, optimizer=make(net.parameters()), batch_size=10, stop=STOP, loss=LOSS)
    recipe = run.recipe()
    if isinstance(expected, str):
        assert recipe is None
        assert run.no_recipe is not None
        assert expected in run.no_recipe
    else:
        assert recipe is not None
        assert recipe.optimizer == expected


def test_a_schedule_that_was_not_told_makes_no_recipe(tmp_path: Path) -> None:
    """A recipe with the first rate would train another setup than the one that made the file."""
    net, optimizer = net_and_optimizer()
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    run = record(net, tmp_path / "m.pt", optimizer=optimizer, batch_size=10, stop=STOP, loss=LOSS)
    train(run, net, optimizer, epochs=1)
    schedule.step()
    assert run.recipe() is None
    assert "schedule" in str(run.no_recipe)
    with pytest.warns(UserWarning, match="holds no recipe.*schedule"):
        run.save()
    found = load_bundle(tmp_path / "m.pt")
    assert found.header.recipe is None
    assert found.header.no_recipe == run.no_recipe
    found = dataclasses.replace(found, header=found.header.model_copy(update={"task": None}))
    _, why = evidence_tier(found, builder_given=True, data_given=True)
    assert str(run.no_recipe) in why  # whoever diagnoses it is told
    known = record(net, recipe=fls_bench.Recipe(optimizer=fls_bench.Sgd(lr=0.3)))
    assert known.recipe() == fls_bench.Recipe(optimizer=fls_bench.Sgd(lr=0.3))


def test_a_recipe_that_is_not_what_was_trained_is_dropped() -> None:
    def recorded(**given: Any) -> tuple[fls_bench.Recorder, nn.Module, torch.optim.Optimizer]:
        net, optimizer = net_and_optimizer()
        run = record(net, optimizer=optimizer, batch_size=10, stop=STOP, loss=LOSS, **given)
        assert run.recipe() is not None
        return run, net, optimizer

    run, net, optimizer = recorded()
    optimizer.param_groups[0]["weight_decay"] = 0.1
    assert run.recipe() is None
    # Gradients of two batches to a step: epochs and steps do not go together.
    run, net, optimizer = recorded(task=foreign_nets.blobs())
    for _ in range(3):
        optimizer.step()
    run.log(0.5)
    assert run.recipe() is None
    assert "3 optimizer steps were made in 1 epochs, and 6 are due" in str(run.no_recipe)
    # A header that is written in the middle of an epoch has its recipe.
    run, net, optimizer = recorded(task=foreign_nets.blobs())
    train(run, net, optimizer, epochs=2)
    optimizer.step()
    assert run.recipe() is not None
    # Part of the training was before the recording.
    net, optimizer = net_and_optimizer()
    train(None, net, optimizer, epochs=1)
    late = record(net, optimizer=optimizer, batch_size=10, stop=STOP, loss=LOSS)
    assert "made steps already" in str(late.no_recipe)
    frozen, optimizer = net_and_optimizer()
    next(frozen.parameters()).requires_grad_(False)
    run = record(frozen, optimizer=optimizer, batch_size=10, stop=STOP, loss=LOSS)
    assert "some are frozen" in str(run.no_recipe)


def test_what_no_file_can_hold_is_said_before_the_training(tmp_path: Path) -> None:
    net = foreign_nets.plain()
    net.register_buffer("mask", torch.full((2, 2), -torch.inf))
    with pytest.raises(InputError, match="'mask' holds NaN or infinite"):
        record(net, tmp_path / "m.pt")

    class Extra(nn.Linear):
        def get_extra_state(self) -> int:
            return 3

    with pytest.raises(InputError, match="_extra_state"):
        record(Extra(2, 2))
    # A save by hand inside of the context is the file; its end writes no second one.
    net, optimizer = net_and_optimizer()
    with record(net, tmp_path / "m.pt", optimizer=optimizer) as run:
        run.save()


def test_a_schedule_is_noticed_where_the_rate_is_again_what_it_was() -> None:
    net, optimizer = net_and_optimizer()
    run = record(net, optimizer=optimizer, batch_size=10, stop=STOP, loss=LOSS)
    assert run.recipe() is not None
    torch.optim.lr_scheduler.CyclicLR(optimizer, 0.05, 0.1, cycle_momentum=False)
    assert optimizer.param_groups[0]["lr"] == 0.05
    assert run.recipe() is None


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_net_inside_of_a_wrapper_is_recorded(tmp_path: Path) -> None:
    net, _ = net_and_optimizer()
    compiled = torch.compile(net, backend="eager")
    for wrapper in (compiled, nn.DataParallel(net), nn.DataParallel(compiled)):
        record(wrapper).save(tmp_path / "m.pt", force=True)
        assert load_bundle(tmp_path / "m.pt").final.keys() == net.state_dict().keys()
    with pytest.raises(InputError, match="is lazy"):
        record(nn.LazyLinear(3))


def test_what_is_not_given_is_said() -> None:
    assert record(foreign_nets.plain()).no_recipe == "Not given: optimizer, batch_size, stop, loss."
    with pytest.raises(InputError, match="output_multiplier"):
        record(foreign_nets.plain(), output_multiplier=0)


def test_a_diverged_loop_says_so() -> None:
    run = record(foreign_nets.plain())
    run.log(float("nan"))
    outcome = run.outcome()
    assert outcome is not None
    assert (outcome.status, outcome.train_loss) == (Outcome.DIVERGED, None)
    json.loads(run.header())


def test_a_checkpoint_of_ones_own_carries_the_header(cli: Cli, tmp_path: Path) -> None:
    """With it the file proves its data and its init, and has a recipe."""
    net, optimizer = net_and_optimizer()
    run = record(
        net,
        task=foreign_nets.blobs(),
        optimizer=optimizer,
        batch_size=10,
        stop=STOP,
        loss=LOSS,
        seed=5,
    )
    train(run, net, optimizer)
    torch.save({"model": net.state_dict(), "fls_bench": run.header()}, tmp_path / "own.pt")
    ended = cli(
        "diagnose", tmp_path / "own.pt", "--model", "foreign_nets:plain", "--data",
        "foreign_nets:blobs", "--max-seeds", "3", "-q", "--json", "-",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    made = json.loads(ended.out)
    codes = {one["code"] for one in made["diagnosis"]["findings"]}
    assert made["diagnosis"]["evidence_tier"] == "T3"
    assert {"data_proved", "init_from_seed"} <= codes
    assert not {"training_loss_differs", "data_differ", "file_unlike_setup"} & codes
    assert made["setup"]["optimizer"]["lr"] == 0.05
    assert made["input"]["claimed_train_loss"] == run.train_loss
    assert made["input"]["train_loss"] == pytest.approx(run.train_loss, rel=1e-4)
    # Other data are noticed by their fingerprint, before any loss is looked at.
    ended = cli(
        "diagnose", tmp_path / "own.pt", "--model", "foreign_nets:plain", "--data",
        foreign_nets.BLOBS, "--max-seeds", "3", "-q", "--json", "-",
    )  # fmt: skip
    codes = {one["code"] for one in json.loads(ended.out)["diagnosis"]["findings"]}
    assert "data_differ" in codes


def test_a_run_that_goes_on_from_a_checkpoint_is_recorded_whole(tmp_path: Path) -> None:
    facts: dict[str, Any] = {"batch_size": 10, "stop": STOP, "loss": LOSS, "seed": 5}
    facts |= {"task": foreign_nets.blobs(), "clip_norm": 3.0}
    net, optimizer = net_and_optimizer()
    init = {k: v.clone() for k, v in net.state_dict().items()}
    run = record(net, optimizer=optimizer, **facts)
    train(run, net, optimizer, epochs=1)
    kept = {"net": net.state_dict(), "opt": optimizer.state_dict(), "recording": run.state_dict()}
    torch.save(kept, tmp_path / "half.pt")

    def go_on(resume: Any, **changes: Any) -> tuple[fls_bench.Recorder, int]:
        net, optimizer = net_and_optimizer(seed=6)
        net.load_state_dict(half["net"])
        optimizer.load_state_dict(half["opt"])
        with record(net, optimizer=optimizer, resume=resume, **{**facts, **changes}) as run:
            steps = train(run, net, optimizer)
        return run, steps

    half = torch.load(tmp_path / "half.pt", weights_only=True)
    run, steps = go_on(half["recording"])
    run.save(tmp_path / "m.pt")
    found = load_bundle(tmp_path / "m.pt")
    assert found.init is not None
    assert all(torch.equal(found.init[k], v) for k, v in init.items())
    assert found.header.init_digest == state_digest(init)
    assert found.header.outcome is not None
    assert (found.header.outcome.steps, found.header.outcome.epochs) == (steps + 6, steps // 6 + 1)
    assert found.header.recipe is not None
    assert found.header.recipe.optimizer == fls_bench.Adam(lr=0.05, clip_norm=3.0)

    run, _ = go_on(half["recording"], batch_size=20)
    assert run.recipe() is None
    assert "other settings" in str(run.no_recipe)

    other = {**half["recording"], "init": {k: v + 1 for k, v in init.items()}}
    for wrong, reason in (
        (other, "were changed"),
        ({**other, "init": {"weight": torch.zeros(2)}}, "another net"),
        ({"steps": 3}, "not the state"),
        ("half.pt", "not the state"),
    ):
        with pytest.raises(InputError, match=reason):
            go_on(wrong)


def test_a_schedule_that_was_told_is_compared_step_by_step() -> None:
    for steps, right in ((12, True), (13, False)):
        net, optimizer = net_and_optimizer()
        rates = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: max(0.0, 1 - k / 12))
        schedule = fls_bench.PerStep(steps=steps)
        run = record(
            net, optimizer=optimizer, batch_size=10, stop=STOP, loss=LOSS, schedule=schedule
        )
        optimizer.register_step_post_hook(lambda *_, rates=rates: rates.step())
        train(run, net, optimizer, epochs=2)
        assert (run.recipe() is not None) == right
        if right:
            assert run.recipe().optimizer == fls_bench.Adam(lr=0.05, schedule=schedule)


def test_a_recording_of_a_module_around_the_net_is_read_by_the_net(tmp_path: Path) -> None:
    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = foreign_nets.plain()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.backbone(x)

    torch.manual_seed(5)
    net = Around()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.05)
    facts = {"optimizer": optimizer, "batch_size": 10, "stop": STOP, "loss": LOSS, "seed": 5}
    with record(net, tmp_path / "m.pt", task=foreign_nets.blobs(), **facts) as run:
        train(run, net, optimizer)
    subject = from_bundle(load_bundle(tmp_path / "m.pt"), Given(builder="foreign_nets:plain"))
    assert subject.tier is Tier.T3
    assert {"init_proved"} <= {one.code for one in subject.findings}
    with pytest.raises(InputError, match=r"do not fit the net.*'backbone"):
        from_bundle(load_bundle(tmp_path / "m.pt"), Given(builder="foreign_nets:with_norm"))


@pytest.mark.parametrize(("stop", "warned"), [(STOP, False), (fls_bench.FixedSteps(12), True)])
def test_a_fixed_number_of_steps_is_said_to_be_read_worse(
    tmp_path: Path, stop: fls_bench.TargetLoss | fls_bench.FixedSteps, warned: bool
) -> None:
    net, optimizer = net_and_optimizer()
    run = record(
        net, optimizer=optimizer, batch_size=10, stop=stop, loss=LOSS, task=foreign_nets.blobs()
    )
    train(run, net, optimizer, epochs=2)
    run.save(tmp_path / "m.pt")
    subject = from_bundle(load_bundle(tmp_path / "m.pt"), Given(builder="foreign_nets:plain"))
    assert ("stop_unlike" in {one.code for one in subject.findings}) == warned


@pytest.mark.parametrize(
    ("given", "doubt"),
    [
        ({"optimizer": fls_bench.Adam(lr=0.9)}, "rate is 0.9"),
        ({"optimizer": fls_bench.Sgd(lr=0.05)}, "It has sgd, and training Adam"),
        ({"optimizer": fls_bench.Adam(lr=0.05), "stop": fls_bench.FixedSteps(5)}, "after 5 steps"),
    ],
)
def test_a_given_recipe_that_is_not_that_of_the_loop_is_doubted(
    tmp_path: Path, given: dict[str, Any], doubt: str
) -> None:
    net, optimizer = net_and_optimizer()
    recipe = fls_bench.Recipe(**{"batch_size": 10, "stop": STOP, **given})
    run = record(net, optimizer=optimizer, recipe=recipe)
    train(run, net, optimizer, epochs=1)
    with pytest.warns(UserWarning, match=doubt):
        run.save(tmp_path / "m.pt")
    assert load_bundle(tmp_path / "m.pt").header.recipe == recipe


def test_a_rate_that_changes_beside_a_recipe_without_schedule_is_doubted(tmp_path: Path) -> None:
    net, optimizer = net_and_optimizer()
    recipe = fls_bench.Recipe(batch_size=10, stop=STOP, optimizer=fls_bench.Adam(lr=0.05))
    run = record(net, optimizer=optimizer, recipe=recipe)
    train(run, net, optimizer, epochs=1)
    assert run.doubts() == []
    optimizer.param_groups[0]["lr"] = 0.01
    train(run, net, optimizer, epochs=1)
    assert run.doubts() == ["The rate changes in training, and it has no schedule."]


@pytest.mark.parametrize(("share", "status"), [(1.4, "warning"), (0.6, "problem")])
def test_a_mean_over_an_epoch_is_no_problem(tmp_path: Path, share: float, status: str) -> None:
    net, optimizer = net_and_optimizer()
    task = foreign_nets.blobs()
    run = record(net, optimizer=optimizer, batch_size=10, stop=STOP, loss=LOSS, task=task)
    train(run, net, optimizer, epochs=1)
    assert run.train_loss is not None
    run.train_loss *= share
    run.save(tmp_path / "m.pt")
    subject = from_bundle(load_bundle(tmp_path / "m.pt"), Given(builder="foreign_nets:plain"))
    (found,) = [one for one in loss_facts(subject)[1] if one.code == "training_loss_differs"]
    assert found.status == status
