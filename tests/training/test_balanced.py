"""Errors where classes are of very different size: each class counts alike, if the setup says so."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from own_nets import INPUT_DIM, built_in, config
from sklearn.metrics import balanced_accuracy_score

from fls_bench.metrics.outputs import mean_error
from fls_bench.schema import LrRule, TargetLoss
from fls_bench.sweep import SweepPlan, prepare
from fls_bench.sweep.sweeper import Sweeper
from fls_bench.tasks import Task, make_task
from fls_bench.training import make_net, resolve_error, train_one


class Silent:
    def plan(self, total_runs: int, text: str) -> None: ...
    def done(self, runs: int, text: str) -> None: ...
    def note(self, text: str) -> None: ...


RULE = LrRule(name="homogeneous", depth=2)


def skewed(sizes: tuple[int, ...], n_test: int = 40) -> Task:
    """Overlapping classes of these sizes in the training part, of like shares in the others."""
    rng = np.random.default_rng(0)

    def part(counts: list[int]) -> tuple[np.ndarray, np.ndarray]:
        y = np.repeat(np.arange(len(counts)), counts)
        return np.eye(INPUT_DIM)[y] + rng.standard_normal((len(y), INPUT_DIM)), y

    held_out = [max(2, round(n_test * size / sum(sizes))) for size in sizes]
    return make_task("skewed", part(list(sizes)), part(held_out), part(held_out))


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.integers(0, 99))
def test_balanced_error_is_that_of_scikit_learn(labels: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits, y = torch.randn(len(labels), 4, generator=generator), torch.tensor(labels)
    answers = logits.argmax(-1)
    hits = [float((answers[y == k] == k).double().mean()) for k in range(4) if bool((y == k).any())]
    assert float(mean_error(logits, y, balanced=True)) == pytest.approx(1 - np.mean(hits))
    # scikit-learn warns of answers that never occur, and of one class.
    if len(set(labels)) > 1 and set(answers.tolist()) <= set(labels):
        expected = 1 - balanced_accuracy_score(y.numpy(), answers.numpy())
        assert float(mean_error(logits, y, balanced=True)) == pytest.approx(expected)
    plain = float((answers != y).double().mean())
    assert float(mean_error(logits, y)) == pytest.approx(plain)


def test_ties_are_shared_within_their_class() -> None:
    logits = torch.tensor([[1.0, 1.0], [1.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    labels = torch.tensor([0, 0, 0, 1, 1])
    # Class 0: one half wrong of three; class 1: one half wrong of two.
    assert float(mean_error(logits, labels, balanced=True)) == pytest.approx((1 / 6 + 1 / 4) / 2)
    assert float(mean_error(logits, labels)) == pytest.approx(1 / 5)
    one_logit = torch.tensor([[0.0], [-1.0], [2.0]])
    found = mean_error(one_logit, torch.tensor([0, 0, 1]), balanced=True)
    assert float(found) == pytest.approx((1 / 4 + 0) / 2)


def test_a_record_holds_the_error_that_decides() -> None:
    task = skewed((60, 20, 8))
    stop = TargetLoss(target_loss=0.4, max_epochs=20)
    nets = []
    for error in ("plain", "balanced"):
        setup = built_in(task=task, stop=stop, activation="tanh")  # no ties
        object.__setattr__(setup, "error", error)
        run, record = train_one(setup, RULE, config(setup), dtype=torch.float64)
        net = make_net(setup, 0, 1.0, torch.float64)
        net.load_state_dict(dict(run.final))
        nets.append(run.final["layers.0.weight"])
        for x, y, found in (
            (task.x_val, task.y_val, record.val_error), (task.x_test, task.y_test, record.test_error),
        ):  # fmt: skip
            answers = net(torch.as_tensor(x).double()).argmax(-1).numpy()
            wanted = (
                balanced_accuracy_score(y, answers)
                if error == "balanced"
                else (answers == y).mean()
            )
            assert found == pytest.approx(1 - wanted)
        majority = float(np.mean(task.y_test != 0))
        assert record.chance_error == pytest.approx(2 / 3 if error == "balanced" else majority)
    assert torch.equal(*nets), "how a run is judged does not change how it trains"


@pytest.mark.parametrize(
    ("sizes", "error"),
    [((20, 20, 20), "plain"), ((60, 20, 20), "plain"), ((64, 20, 20), "balanced")],
)
def test_classes_beyond_three_to_one_are_balanced(sizes: tuple[int, ...], error: str) -> None:
    task = skewed(sizes, n_test=sum(sizes))
    setup = built_in(task=task)
    assert setup.error == "auto"
    assert resolve_error(setup, task).error == error
    for given_one in ("plain", "balanced"):
        object.__setattr__(setup, "error", given_one)
        assert resolve_error(setup, task) is setup


@pytest.mark.parametrize(
    ("sizes", "error"), [((20, 20, 20), "error"), ((70, 14, 7), "balanced_error")]
)
def test_a_sweep_says_which_error_it_holds(sizes: tuple[int, ...], error: str) -> None:
    setup = built_in(task=skewed(sizes), stop=TargetLoss(target_loss=0.9, max_epochs=3))
    prepared = prepare(setup, SweepPlan(), stores=lambda _: None, offsets=[0.0])
    sweeper = Sweeper.of(prepared, lambda _: None, Silent(), 1)
    sweeper.visit([1.0], 1, False, "")
    sweep = sweeper.sweep([1.0], False)
    assert sweep.error == error
    (run,) = sweep.cells[0].seeds
    assert run.chance_error == pytest.approx(2 / 3, abs=1e-3 if error == "balanced_error" else 0.05)
