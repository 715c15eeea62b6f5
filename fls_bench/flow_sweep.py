"""The sweep of the two-layer theory: gradient flow over alpha, its step halved until nothing moves."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fls_bench import models, theory
from fls_bench.errors import InputError
from fls_bench.metrics.outputs import mean_error, point_losses, tied_points
from fls_bench.schema import (
    Cell,
    LrRule,
    Outcome,
    RunConfig,
    RunRecord,
    Sweep,
    TargetLoss,
    canonical_digest,
)
from fls_bench.schema.theory import FlowFacts, FlowLevel, TheorySpec
from fls_bench.store import RunStore
from fls_bench.sweep import Listener, Stores
from fls_bench.sweep.sweeper import seed_result
from fls_bench.tasks import Task
from fls_bench.training import setup_digest
from fls_bench.training.checks import resolve_lr_rule
from fls_bench.training.flow import Flow, gradient_flow, replica_step
from fls_bench.training.flow_measures import Mixture, measure_flow
from fls_bench.training_setup import TrainingSetup
from fls_bench.verdict.claims.theory.settling import flow_level
from fls_bench.verdict.claims.theory.table import MIN_SEEDS
from fls_bench.verdict.contrasts import usable

FLOW_VERSION = 1
"""Part of the key of every run: raised when the same configuration would give other numbers."""

SEEDS_AT_ONCE = 4
"""Each with all alphas: few enough to stay within a core's cache, and to lose little if interrupted."""


@dataclass
class _Runs:
    """Trains what the store does not hold, a few seeds at a time."""

    setup: TrainingSetup
    spec: TheorySpec
    seeds: tuple[int, ...]
    digest: str
    rule: LrRule
    store: RunStore | None
    listener: Listener
    known: dict[str, RunRecord] = field(default_factory=dict)

    @property
    def alphas(self) -> tuple[float, ...]:
        return self.spec.log2_alpha.values

    def config(self, alpha: float, seed: int, halvings: int) -> RunConfig:
        return RunConfig(
            setup_digest=self.digest, c=1.0, init_scale=alpha,
            lr=replica_step(self.spec.step / 2**halvings, alpha), seed=seed, centered=False,
            max_epochs=self.setup.stop.max_epochs * 2**halvings,
        )  # fmt: skip

    def sweep_at(self, halvings: int) -> Sweep:
        """All runs at one step, trained where they are missing."""
        # By their place among all seeds, not among those that are missing: an interrupted sweep then
        # goes on with the same seeds beside each other, on which last bits may depend.
        parts = [
            self.seeds[k : k + SEEDS_AT_ONCE] for k in range(0, len(self.seeds), SEEDS_AT_ONCE)
        ]
        missing = [
            part
            for part in parts
            if any(
                self.config(a, seed, halvings).digest not in self.known
                for a in self.alphas
                for seed in part
            )
        ]
        text = f"gradient flow, step {self.spec.step / 2**halvings:g}"
        if missing:
            self.listener.plan(sum(map(len, missing)) * len(self.alphas), text)
        for part in missing:
            records = list(self._train(part, halvings))
            new = [record for record in records if record.config.digest not in self.known]
            if self.store is not None:
                self.store.append(new)
            self.known.update({record.config.digest: record for record in new})
            self.listener.done(len(records), text)
        cells = []
        for alpha in self.alphas:
            configs = [self.config(alpha, seed, halvings) for seed in self.seeds]
            runs = [self.known[config.digest] for config in configs]
            reason = usable([run.outcome for run in runs])
            cells.append(
                Cell(
                    c=alpha, lr=configs[0].lr, usable=reason is None, reason=reason,
                    seeds=tuple(seed_result(run) for run in runs),
                )
            )  # fmt: skip
        n_test = len(self.setup.task_for(self.seeds[0]).y_test)
        return Sweep(axis="init_scale", lr_rule=self.rule, n_test=n_test, cells=tuple(cells))

    @torch.no_grad()
    def _train(self, seeds: Sequence[int], halvings: int) -> Iterator[RunRecord]:
        tasks = [self.setup.task_for(seed) for seed in seeds]
        net = self.setup.architecture
        assert net is not None
        assert net.name is not None
        # Built in float64: a net rounded to float32 first would be balanced to seven digits only.
        nets = [
            models.build(net.name, net.arguments, seed=seed, dtype=torch.float64).state_dict()
            for seed in seeds
        ]
        x = torch.stack([torch.as_tensor(t.x_train).flatten(1).double() for t in tasks])
        positive = torch.stack([torch.as_tensor(t.y_train) == 1 for t in tasks])
        hidden = torch.stack([state["layers.0.weight"] for state in nets])
        readout = torch.stack([state["layers.1.weight"][0] for state in nets])
        stop = self.setup.stop
        assert isinstance(stop, TargetLoss)
        flow = gradient_flow(
            x, positive, hidden, readout, self.alphas, step=self.spec.step / 2**halvings,
            target_loss=stop.target_loss, max_steps=stop.max_epochs * 2**halvings,
        )  # fmt: skip
        measured = measure_flow(flow, x, positive, hidden, self.alphas, Mixture.of(tasks[0]))
        for k, task in enumerate(tasks):
            parts = [
                (torch.as_tensor(inputs).flatten(1).double(), torch.as_tensor(labels))
                for inputs, labels in ((task.x_val, task.y_val), (task.x_test, task.y_test))
            ]
            for i, alpha in enumerate(self.alphas):
                config = self.config(alpha, seeds[k], halvings)
                yield _record(config, task, flow, i * len(seeds) + k, measured, parts)


def _record(
    config: RunConfig,
    task: Task,
    flow: Flow,
    row: int,
    measured: Mapping[str, Tensor],
    parts: Sequence[tuple[Tensor, Tensor]],
) -> RunRecord:
    outcome = Outcome.REACHED_TARGET if flow.reached[row] else Outcome.OUT_OF_BUDGET
    steps = int(flow.steps[row])
    if flow.diverged[row]:
        outcome = Outcome.DIVERGED
    base = RunRecord(
        config=config, outcome=outcome, epochs=steps, steps=steps,
        chance_error=task.chance_error(balanced=False),
    )  # fmt: skip
    if outcome is Outcome.DIVERGED:
        return base
    (x_val, y_val), (x_test, y_test) = parts
    val, test = (
        ((x @ flow.hidden[row].T).clamp_min_(0) @ flow.readout[row])[:, None]
        for x in (x_val, x_test)
    )
    own = {name: float(values[row]) for name, values in measured.items()}
    test_error, ties = float(mean_error(test, y_test)), float(tied_points(test).mean())
    own["excess_net"] = test_error - own.pop("bayes")
    own["ties"] = ties
    return base.model_copy(
        update={
            "train_loss": float(flow.loss[row]),
            "val_error": float(mean_error(val, y_val)),
            "val_loss": float(point_losses(val, y_val).mean()),
            "test_error": test_error,
            "test_loss": float(point_losses(test, y_test).mean()),
            "test_ties": ties,
            "measurements": {
                f"theory.{name}": value for name, value in own.items() if math.isfinite(value)
            },
        }
    )


def flow_sweep(
    setup: TrainingSetup,
    spec: TheorySpec,
    seeds: Sequence[int],
    *,
    stores: Stores,
    listener: Listener,
) -> tuple[Sweep, FlowFacts]:
    """Sweep alpha under gradient flow, with ever smaller steps until the outcome no longer moves.

    The outcome has stopped moving when a halving of the step leaves what C5 and C6 are judged by as it
    was: see ``fls_bench.verdict.claims.theory.settling``. Every run is stored under its step, so that an
    interrupted sweep resumes.

    Args:
        setup: ``two_layer`` on ``mixture`` with the logistic loss; ``stop.max_epochs`` is the most steps
            at the first step (twice as many with every halving); its optimizer is not used.
        spec: Which alphas, and how fine.
        seeds: Of data and weights, at least 3.
        stores: Where runs are kept.
        listener: Told what happens.

    Returns:
        (the runs at the last step, what they rest on).

    Raises:
        InputError: The setup is not that of the theory, or there are too few seeds.
    """
    task = _checked(setup, seeds)
    rule = resolve_lr_rule(setup, task)
    own = setup_digest(setup, rule, dtype=torch.float64)
    digest = canonical_digest({"flow": FLOW_VERSION, "setup": own})
    store = stores(digest)
    runs = _Runs(
        setup, spec, tuple(seeds), digest, rule, store, listener,
        known=dict(store.load()) if store is not None else {},
    )  # fmt: skip
    mixture, stop = Mixture.of(task), setup.stop
    assert isinstance(stop, TargetLoss)
    levels: list[FlowLevel] = []
    before: Sweep | None = None
    settled = False
    for halvings in range(spec.max_halvings + 1):
        sweep = runs.sweep_at(halvings)
        level = flow_level(spec.step / 2**halvings, before, sweep, spec.tolerance)
        levels.append(level)
        if level.change is not None:
            listener.note(f"step {level.step:g}: {level.sentence}")
            settled = level.change <= 1
        before = sweep
        if settled:
            break
    if not settled:
        listener.note(f"the outcome still moves at a step of {levels[-1].step:g}")
    assert setup.architecture is not None
    facts = FlowFacts(
        levels=tuple(levels), settled=settled, tolerance=spec.tolerance, n_train=task.n_train,
        input_dim=task.input_dim, width=int(setup.architecture.arguments["width"]),
        kappa=mixture.kappa, sigma=mixture.sigma,
        bayes_error=float(theory.bayes_error(mixture.kappa, mixture.sigma)),
        target_loss=stop.target_loss,
    )  # fmt: skip
    return sweep, facts


def _checked(setup: TrainingSetup, seeds: Sequence[int]) -> Task:
    problem = None
    if setup.architecture is None or setup.architecture.name != "two_layer":
        problem = "the built-in net 'two_layer'", "Choose model.name = 'two_layer'."
    elif setup.loss != "logistic":
        problem = "the logistic loss", "Choose loss = 'logistic'."
    elif not isinstance(setup.stop, TargetLoss):
        problem = "a stop at a training loss", "Give stop = { target_loss = 0.1 }."
    elif setup.output_multiplier != 1 or setup.centered:
        problem = "a multiplier of 1 without centring", "Leave both out: alpha is swept instead."
    if problem is not None:
        raise InputError(
            f"The theory is about {problem[0]}, and {setup.name!r} differs.", problem[1]
        )
    if len(set(seeds)) < MIN_SEEDS or len(set(seeds)) < len(seeds):
        raise InputError(
            f"{len(set(seeds))} different seeds of {len(seeds)} are too few.",
            f"Give at least {MIN_SEEDS}, each once.",
        )
    task = setup.task_for(seeds[0])
    Mixture.of(task)
    return task
