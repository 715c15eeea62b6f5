"""The sweep of the theory on small nets: measured, halved, stored and resumed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from test_bench import Heard

from fls_bench.errors import InputError
from fls_bench.flow_sweep import SEEDS_AT_ONCE, flow_sweep
from fls_bench.models import build
from fls_bench.schema import Outcome, Recipe, Sweep, TargetAccuracy, TargetLoss
from fls_bench.schema.theory import FlowFacts, TheorySpec
from fls_bench.store import RunStore
from fls_bench.subject.setups import built_in_setup
from fls_bench.tasks import task_source
from fls_bench.training_setup import TrainingSetup
from fls_bench.verdict.claims.theory import judge_theory

SEEDS = range(6)
TASK = {"n_train": 10, "input_dim": 8, "sigma": 1.2, "n_test": 300, "n_val": 100}


def setup(model: str = "two_layer", task: str = "mixture", **others: Any) -> TrainingSetup:
    recipe = Recipe(loss="logistic", stop=TargetLoss(target_loss=0.2, max_epochs=2000))
    arguments = {"width": 8} if model == "two_layer" else {"width": 8, "depth": 2}
    source = task_source(task, TASK if task == "mixture" else {})
    made = built_in_setup(model, arguments, source, recipe, axis="init_scale")
    return replace(made, **others)


def spec(**others: Any) -> TheorySpec:
    scales = {"from": -8, "to": 1, "step": 3}
    return TheorySpec.model_validate(
        {"log2_alpha": scales, "step": 0.2, "tolerance": 1.0, **others}
    )


def swept(
    folder: Path | None, asked: TheorySpec | None = None, heard: Heard | None = None
) -> tuple[Sweep, FlowFacts]:
    def stores(digest: str) -> RunStore | None:
        return None if folder is None else RunStore(folder / f"{digest[:16]}.jsonl")

    return flow_sweep(setup(), asked or spec(), SEEDS, stores=stores, listener=heard or Heard())


@pytest.fixture(scope="module")
def whole() -> tuple[Sweep, FlowFacts]:
    return swept(None)


def test_every_run_is_measured_in_closed_form_and_on_test_data(
    whole: tuple[Sweep, FlowFacts],
) -> None:
    sweep, facts = whole
    assert sweep.axis == "init_scale"
    assert [math.log2(cell.c) for cell in sweep.cells] == [-8, -5, -2, 1]
    assert sweep.n_test == 300
    for cell in sweep.cells:
        assert [run.seed for run in cell.seeds] == list(SEEDS)
        for run in cell.seeds:
            assert run.outcome is Outcome.REACHED_TARGET
            own = {k.removeprefix("theory."): v for k, v in run.measurements.items()}
            total = own["over_alignment"] + own["over_fitting"]
            assert total == pytest.approx(own["excess_effective"], abs=1e-15)
            assert run.test_error is not None
            assert own["excess_net"] == pytest.approx(run.test_error - facts.bayes_error)
            assert own["ties"] == run.test_ties
            assert 0 <= own["theta"] <= math.pi
            assert own["zeta_mean"] < own["zeta_sum"] < 1
    small = sweep.cells[0].seeds
    assert all(run.measurements["theory.phase1_time"] > 0 for run in small)
    # Nothing is said of a phase that there was not: alpha = 2 is beyond 2/sqrt(h).
    assert not any("theory.phase1_angle" in run.measurements for run in sweep.cells[-1].seeds)
    assert facts.bayes_error == pytest.approx(0.5 * math.erfc(1 / 1.2 / math.sqrt(2)))
    assert (facts.n_train, facts.input_dim, facts.width) == (10, 8, 8)
    for claim in judge_theory(sweep, facts):
        assert claim.parts
        assert claim.panels


def test_a_run_is_the_net_of_its_seed_followed_from_its_alpha(
    whole: tuple[Sweep, FlowFacts],
) -> None:
    """One run again, by torch's own SGD on the built-in net."""
    sweep, _ = whole
    cell, seed = sweep.cells[2], 4
    task = setup().task_for(seed)
    net = build("two_layer", {"input_dim": 8, "width": 8}, seed=seed, dtype=torch.float64)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(cell.c)
    optimizer = torch.optim.SGD(net.parameters(), lr=cell.lr)
    x, y = torch.as_tensor(task.x_train).double(), torch.as_tensor(task.y_train).double()
    count = 0
    while True:
        loss = torch.nn.functional.binary_cross_entropy_with_logits(net(x)[:, 0], y)
        if loss <= 0.2:
            break
        count += 1
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    run = cell.seeds[seed]
    assert run.epochs == count
    assert run.train_loss == pytest.approx(float(loss.detach()), rel=1e-9)
    with torch.no_grad():
        logits = net(torch.as_tensor(task.x_test).double())[:, 0]
    signs = 2 * torch.as_tensor(task.y_test).double() - 1
    wrong = (logits * signs < 0).double() + 0.5 * (logits == 0)
    assert run.test_error == pytest.approx(float(wrong.mean()))
    assert run.test_ties == pytest.approx(float((logits == 0).double().mean()))


def test_steps_are_halved_until_nothing_moves(whole: tuple[Sweep, FlowFacts]) -> None:
    _, loose = whole
    assert loose.settled
    steps = [level.step for level in loose.levels]
    assert steps == [0.2 / 2**k for k in range(len(steps))]
    assert len(steps) > 1
    assert loose.levels[0].change is None
    assert all((level.change or 0) > 1 for level in loose.levels[1:-1])
    assert (loose.levels[-1].change or 9) <= 1
    assert f"step of {steps[-1]:g}" in loose.sentence
    sweep, _ = whole
    last = sum(run.epochs for cell in sweep.cells for run in cell.seeds)
    assert loose.levels[-1].replica_steps == last
    assert loose.num_runs == len(steps) * 4 * len(SEEDS)
    assert loose.replica_steps == sum(level.replica_steps for level in loose.levels) > last
    _, strict = swept(None, spec(tolerance=0.001, max_halvings=1, step=0.4))
    assert [level.step for level in strict.levels] == [0.4, 0.2]
    assert not strict.settled
    assert strict.sentence.startswith("No step sufficed")
    assert strict.levels[-1].changed
    (c5, c6) = judge_theory(*swept(None, spec(tolerance=0.001, max_halvings=1, step=0.4)))
    assert c5.outcome == c6.outcome == "undecided"


class Interrupted(Heard):
    """Presses Ctrl-C once the first runs are stored."""

    def done(self, runs: int, text: str) -> None:
        raise KeyboardInterrupt


def test_an_interrupted_sweep_resumes(tmp_path: Path, whole: tuple[Sweep, FlowFacts]) -> None:
    with pytest.raises(KeyboardInterrupt):
        swept(tmp_path, heard=Interrupted())
    heard = Heard()
    again = swept(tmp_path, heard=heard)
    assert heard.plans[0] == (len(SEEDS) - SEEDS_AT_ONCE) * 4
    assert again == whole
    silent = Heard()
    assert swept(tmp_path, heard=silent) == whole
    assert silent.plans == []
    # A kill in the middle of a write leaves a part of what was trained together: the same seeds are
    # trained together again, since others beside them might change last bits.
    path = next(tmp_path.glob("*.jsonl"))
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:5]))
    cut = Heard()
    assert swept(tmp_path, heard=cut) == whole
    assert cut.plans[0] == len(SEEDS) * 4


@pytest.mark.parametrize(
    ("made", "problem"),
    [
        (lambda: setup("mlp"), "built-in net 'two_layer'"),
        (lambda: setup(task="breast_cancer"), "two Gaussian classes"),
        (lambda: setup(loss="cross_entropy"), "logistic loss"),
        (lambda: setup(stop=TargetAccuracy()), "stop at a training loss"),
        (lambda: setup(output_multiplier=0.5), "multiplier of 1"),
        (lambda: setup(centered=True), "without centring"),
    ],
)
def test_what_the_theory_is_not_about_is_refused(
    made: Callable[[], TrainingSetup], problem: str
) -> None:
    with pytest.raises(InputError, match=problem):
        flow_sweep(made(), spec(), SEEDS, stores=lambda _: None, listener=Heard())


@pytest.mark.parametrize("seeds", [[1, 2], [1, 2, 2, 3]])
def test_too_few_seeds_are_refused(seeds: list[int]) -> None:
    with pytest.raises(InputError, match="seeds"):
        flow_sweep(setup(), spec(), seeds, stores=lambda _: None, listener=Heard())


@pytest.mark.parametrize(
    "bad",
    [
        {"log2_alpha": {"from": -40, "to": 1}},
        {"log2_alpha": {"from": -4, "to": 20}},
        {"log2_alpha": {"from": 1, "to": -4}},
        {"log2_alpha": {"from": -1, "to": 0, "step": 1}},
        {"step": 0},
        {"step": 2},
        {"max_halvings": 0},
        {"tolerance": 0},
        {"tolerence": 0.1},
    ],
)
def test_bad_values_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TheorySpec.model_validate(bad)
