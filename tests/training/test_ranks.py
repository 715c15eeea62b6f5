"""Penalties on ranks: both engines train alike, each does what it says, and nothing else moves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from own_nets import blobs, built_in, config, distance, in_one_batch, normed, own, rule_of
from torch.func import functional_call

from fls_bench.errors import InputError
from fls_bench.schema import RankPenalty, RankTerm, Sgd, TargetLoss
from fls_bench.training import check_setup, choose_engine, rank_name, setup_digest, train_one
from fls_bench.training.runs import TrainedRun, make_net, sample_losses
from fls_bench.training_setup import TrainingSetup

ALL = RankPenalty(layers="hidden", side="hold", strength=1.0)
TARGETS = {seed: (1.5 + 0.1 * seed, 1.4, 1.3) for seed in range(3)}
LOW = {seed: (0.2, 0.1, 0.1 * seed) for seed in range(3)}
TERMS = {
    "hold all": RankTerm(penalties=(ALL,), targets={"hold": TARGETS}),
    "participation": RankTerm(measure="participation", penalties=(ALL,), targets={"hold": TARGETS}),
    "hold earlier, lower last": RankTerm(
        penalties=(
            RankPenalty(layers="earlier", side="hold", strength=0.5),
            RankPenalty(layers="last", side="lower", strength=0.3),
        ),
        targets={"hold": TARGETS, "lower": LOW},
    ),
    "misdirected": RankTerm(
        penalties=(RankPenalty(strength=0.05),), targets={"hold": TARGETS}, misdirected=True
    ),
}


def setup(term: RankTerm | None, **changes: Any) -> TrainingSetup:
    return replace(built_in(task=lambda seed: blobs(seed, n_train=25)), rank_term=term, **changes)


@pytest.mark.parametrize("name", TERMS)
def test_a_batch_trains_as_one_net_does(name: str) -> None:
    """Seeds have their own targets and leave the batch at different epochs."""
    chosen = setup(TERMS[name], stop=TargetLoss(target_loss=0.6, max_epochs=12))
    assert choose_engine(chosen, rule_of(chosen)).kind == "vmapped"
    configs = [config(chosen, seed=s, c=c, lr=0.1 / c**0.5) for s in range(3) for c in (1.0, 0.2)][
        :5
    ]
    together = in_one_batch(chosen, configs, kind="vmapped")
    assert len({run.epochs for run in together}) > 1
    for run in together:
        alone, _ = train_one(chosen, rule_of(chosen), run.config, dtype=torch.float64)
        assert (alone.epochs, alone.outcome) == (run.epochs, run.outcome)
        assert distance(dict(run.final), dict(alone.final)) < 1e-9
        without, _ = train_one(setup(None, stop=chosen.stop), rule_of(chosen), run.config)
        assert distance(dict(alone.final), {k: v.double() for k, v in without.final.items()}) > 1e-3


def ranks(term: RankTerm) -> list[float]:
    stop = TargetLoss(target_loss=1e-9, max_epochs=100)
    chosen = setup(term, stop=stop, batch_size=25)  # the ranks of the whole training part
    _, record = train_one(chosen, rule_of(chosen), config(chosen))
    return [record.measurements[rank_name(layer)] for layer in range(3)]


def test_a_penalty_moves_the_rank_of_the_layers_that_it_is_on() -> None:
    plain = ranks(RankTerm())
    goal = {0: tuple(value + 0.2 for value in plain)}
    held = ranks(RankTerm(penalties=(RankPenalty(strength=3),), targets={"hold": goal}))
    down = {0: tuple(value - 0.2 for value in plain)}
    lower = RankPenalty(side="lower", strength=3)
    lowered = ranks(RankTerm(penalties=(lower,), targets={"lower": down}))
    assert all(a > b + 0.1 for a, b in zip(held, plain, strict=True))
    assert all(a < b - 0.1 for a, b in zip(lowered, plain, strict=True))
    # A target that is met already adds nothing: the hinge.
    idle = {0: tuple(value - 2.0 for value in plain)}
    assert ranks(RankTerm(penalties=(RankPenalty(),), targets={"hold": idle})) == plain


def test_the_loss_that_stops_and_is_reported_is_without_the_penalty() -> None:
    far = {0: (9.0, 9.0, 9.0)}
    term = RankTerm(penalties=(RankPenalty(strength=0.1),), targets={"hold": far})
    chosen = setup(term, stop=TargetLoss(target_loss=0.3, max_epochs=60))
    run, _ = train_one(chosen, rule_of(chosen), config(chosen), dtype=torch.float64)
    task = chosen.task_for(0)
    net = make_net(chosen, 0, 1.0, torch.float64)
    x = torch.as_tensor(task.x_train, dtype=torch.float64)
    logits = functional_call(net, dict(run.final), (x,))
    loss = sample_losses(logits, torch.as_tensor(task.y_train), "cross_entropy").mean()
    assert run.outcome.value == "reached_target"
    assert run.train_loss == pytest.approx(loss.item(), rel=1e-9)


@pytest.mark.parametrize("name", TERMS)
@pytest.mark.parametrize("batched", [False, True])
def test_scaled_parameters_and_multiplier_give_one_function(name: str, batched: bool) -> None:
    """c = alpha^L as in test_identity, the strength of the penalty unchanged; 75 steps."""
    alpha, depth = 0.6, 4
    base = setup(
        TERMS[name], optimizer=Sgd(lr=0.05), stop=TargetLoss(target_loss=1e-9, max_epochs=15)
    )
    lr = 0.05

    def smaller(seed: int | None = None) -> torch.nn.Module:
        net = base.make_model(seed=seed).double()
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.mul_(alpha)
        return net

    both = (
        (replace(base, make_model=smaller), config(base, lr=lr)),
        (base, config(base, c=alpha**depth, lr=lr / alpha**2)),
    )
    runs: list[TrainedRun] = [
        in_one_batch(s, [k], kind="vmapped")[0]
        if batched
        else train_one(s, rule_of(base), k, dtype=torch.float64)[0]
        for s, k in both
    ]
    assert runs[0].steps == 75
    for key, value in runs[0].final.items():
        assert torch.allclose(value, alpha * runs[1].final[key], rtol=1e-7, atol=1e-9)


def test_runs_under_other_targets_are_stored_apart_and_others_stay_where_they_were() -> None:
    def digest(term: RankTerm | None) -> str:
        return setup_digest(setup(term), rule_of(setup(None)))

    other = RankTerm(penalties=(ALL,), targets={"hold": {**TARGETS, 2: (1.0, 1.0, 1.0)}})
    digests = [digest(term) for term in (None, RankTerm(), other, *TERMS.values())]
    assert len(set(digests)) == len(digests)


def test_a_net_without_such_layers_is_refused() -> None:
    earlier = RankTerm(penalties=(RankPenalty(layers="earlier"),))
    shallow = replace(built_in(depth=2), rank_term=earlier)
    for chosen in (replace(own(normed), rank_term=RankTerm()), shallow):
        with pytest.raises(InputError, match="rank_term is for built-in MLPs"):
            check_setup(chosen)
