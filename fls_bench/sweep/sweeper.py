"""The state of a sweep: its runs, cells and rates; trains what the store does not hold yet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from fls_bench.scaling import format_multiplier, rate_power, scaled_rate
from fls_bench.schema import Cell, LrRule, Outcome, RunConfig, RunRecord, SeedResult, Sweep
from fls_bench.store import RunStore
from fls_bench.sweep.plan import Listener, Prepared, Stores, SweepPlan
from fls_bench.training import (
    LOCAL,
    Backend,
    Engine,
    Observer,
    batches_of,
    epochs_trained,
    train_all,
)
from fls_bench.training_setup import TrainingSetup
from fls_bench.verdict import contrasts

FRESH_SEEDS_FROM = 500
"""Beyond the most seeds that a sweep can have."""


NEIGHBOURS = 2.5
"""Octaves within which runs take about as long; coarse grids have steps of two."""


class BudgetExhaustedError(Exception):
    """The next round of runs may not fit into the budget any more."""


@dataclass
class Sweeper:
    """The state of one sweep: which runs exist, what they cost, which rates were calibrated."""

    setup: TrainingSetup
    rule: LrRule
    engine: Engine
    digest: str
    n_test: int
    plan: SweepPlan
    store: RunStore | None
    listener: Listener
    jobs: int
    known: dict[str, RunRecord] = field(default_factory=dict)
    stores: Stores = field(default=lambda _: None)
    used: dict[str, RunRecord] = field(default_factory=dict)
    rates: dict[tuple[float, bool], float] = field(default_factory=dict)
    notes: list[tuple[str, str, str]] = field(default_factory=list)
    observe: Observer | None = None
    backend: Backend = LOCAL

    @classmethod
    def of(
        cls,
        prepared: Prepared,
        stores: Stores,
        listener: Listener,
        jobs: int,
        observe: Observer | None = None,
    ) -> Sweeper:
        """A sweep of a prepared setup, with the runs that its store holds."""
        store = stores(prepared.digest)
        return cls(
            prepared.setup, prepared.rule, prepared.engine, prepared.digest, prepared.n_test,
            prepared.plan, store, listener, jobs,
            known=dict(store.load()) if store is not None else {},
            stores=stores,
            observe=observe,
            backend=prepared.backend,
        )  # fmt: skip

    # --- runs ---

    @property
    def c0(self) -> float:
        """The setup's own value on the axis."""
        on_scale = self.setup.axis == "init_scale"
        return self.setup.init_scale if on_scale else self.setup.output_multiplier

    def value(self, offset: float) -> float:
        """The value on the axis at an offset in octaves; exactly c0 at 0."""
        return float(self.c0 * 2.0**offset)

    def at(self, value: float) -> tuple[float, float]:
        """Output multiplier and init scale at a value on the axis."""
        c, scale = self.setup.output_multiplier, self.setup.init_scale
        return (c, value) if self.setup.axis == "init_scale" else (value, scale)

    def rule_rate(self, value: float) -> float:
        """The rate that the rule gives at a value on the axis."""
        optimizer, own = self.setup.known_optimizer, self.at(self.c0)
        power = rate_power(optimizer)
        return scaled_rate(optimizer.lr, self.rule, power, at=own, to=self.at(value))

    def config(self, value: float, seed: int, centered: bool, factor: float = 1.0) -> RunConfig:
        """The run at a value on the axis, its rate by the rule or as calibrated."""
        target = self.at(value)
        rate = self.rates.get((value, centered))
        if rate is None:
            rate = self.rule_rate(value)
        return RunConfig(
            setup_digest=self.digest,
            c=target[0],
            init_scale=target[1],
            lr=rate * factor,
            seed=seed,
            centered=centered,
            max_epochs=self.setup.stop.max_epochs,
        )

    def seeds(self, count: int) -> list[int]:
        """The first so many seeds."""
        return [self.plan.first_seed + i for i in range(count)]

    @property
    def replica_epochs(self) -> int:
        """Epochs of all runs that this sweep rests on, resumed ones included."""
        return sum(map(self._epochs_trained, self.used.values()))

    def _epochs_trained(self, run: RunRecord) -> int:
        return epochs_trained(self.setup.stop, run.outcome, run.epochs, run.config.max_epochs)

    def expected_epochs(self, config: RunConfig) -> float:
        """Epochs that a run may take: as its neighbours, else four times the nearest, else the most."""
        like = [r for r in self.used.values() if r.config.centered == config.centered]
        if not like:
            return float(config.max_epochs)
        log = math.log2(config.c * config.init_scale)

        def apart(run: RunRecord) -> float:
            return abs(math.log2(run.config.c * run.config.init_scale) - log)

        nearest = min(apart(run) for run in like)
        reach = max(NEIGHBOURS, nearest)
        most = max(self._epochs_trained(run) for run in like if apart(run) <= reach)
        return float(min(config.max_epochs, most if nearest <= NEIGHBOURS else 4 * most))

    def train(self, configs: Sequence[RunConfig], text: str) -> None:
        """Train what is not in the store yet; refuse what may not fit into the budget."""
        wanted = [k for k in dict.fromkeys(configs) if k.digest not in self.used]
        budget = self.plan.budget
        if budget is not None and wanted:
            expected = sum(self.expected_epochs(k) for k in wanted)
            if self.replica_epochs + expected > budget:
                raise BudgetExhaustedError
        missing = []
        for config in wanted:
            record = self.known.get(config.digest)
            if record is None:
                missing.append(config)
            else:
                self.used[config.digest] = record
        if not missing:
            return
        self.listener.plan(len(missing), text)

        def keep(record: RunRecord) -> None:
            if self.store is not None:
                self.store.append([record])
            self.used[record.config.digest] = self.known[record.config.digest] = record
            self.listener.done(1, text)

        train_all(
            self.setup, self.rule, missing, keep,
            engine=self.engine, jobs=self.jobs, observe=self.observe, backend=self.backend,
            batches=self._batches(wanted, missing),
        )  # fmt: skip

    def _batches(
        self, wanted: Sequence[RunConfig], missing: Sequence[RunConfig]
    ) -> list[Sequence[RunConfig]]:
        """Batches that hold the missing runs: those that were begun before, whole, and new ones.

        A run's last bits may depend on which others are in its batch. One that a crash cut short is
        trained again with the same runs, those included that ended before it.
        """
        if not self.engine.batched or self.store is None:
            return batches_of(missing, self.jobs, self.engine)
        asked = {config.digest: config for config in wanted}
        left = {config.digest: config for config in missing}
        again: list[Sequence[RunConfig]] = []
        for batch in self.store.load_batches():
            if not left.keys().isdisjoint(batch) and asked.keys() >= set(batch):
                again.append([asked[digest] for digest in batch])
                for digest in batch:
                    left.pop(digest, None)
        new = batches_of(list(left.values()), self.jobs, self.engine) if left else []
        self.store.keep_batches([[config.digest for config in batch] for batch in new])
        return [*again, *new]

    @property
    def fresh_seeds(self) -> list[int]:
        """Seeds that no choice has seen."""
        return [self.plan.first_seed + FRESH_SEEDS_FROM + i for i in range(self.plan.confirm)]

    def runs(self, value: float, centered: bool, factor: float = 1.0) -> list[RunRecord]:
        """Finished runs at a value on the axis, by seed."""
        found = (
            self.used.get(self.config(value, seed, centered, factor).digest)
            for seed in self.seeds(self.plan.seeds[-1])
        )
        return [record for record in found if record is not None]

    # --- cells ---

    def cell(self, value: float, centered: bool) -> Cell:
        """All runs at a value, and whether they can be judged."""
        runs = self.runs(value, centered)
        reason = contrasts.usable([record.outcome for record in runs])
        return Cell(
            c=value,
            lr=self.config(value, 0, centered).lr,
            lr_calibrated=(value, centered) in self.rates,
            usable=reason is None,
            reason=reason,
            seeds=tuple(seed_result(record) for record in runs),
        )

    def sweep(self, values: Sequence[float], centered: bool) -> Sweep:
        """The sweep's value, cells in ascending order."""
        return Sweep(
            axis=self.setup.axis,
            centered=centered,
            lr_rule=self.rule,
            error="balanced_error" if self.setup.error == "balanced" else "error",
            n_test=self.n_test,
            cells=tuple(self.cell(value, centered) for value in sorted(values)),
        )

    def visit(
        self,
        values: Sequence[float],
        count: int,
        centered: bool,
        text: str,
        *,
        calibrate: bool = True,
    ) -> None:
        """Train the first ``count`` seeds at each value; calibrate the rate where the rule fails."""
        self.train([self.config(v, s, centered) for v in values for s in self.seeds(count)], text)
        for value in values if calibrate and count >= contrasts.MIN_SEEDS else ():
            if value != self.c0 and (value, centered) not in self.rates:
                self._calibrate(value, count, centered, text)

    def _calibrate(self, value: float, count: int, centered: bool, text: str) -> None:
        """Where the rule's rate fails, find one on training behaviour: the largest that works.

        The rule fails where most runs missed the target. Diverged or stuck: smaller rates, largest
        first. Still improving when the epochs ran out: larger rates, smallest first. Two seeds pilot
        each; the setup's own c keeps its own rate.
        """
        runs = self.runs(value, centered)
        worked = sum(record.outcome is Outcome.REACHED_TARGET for record in runs)
        if 2 * worked >= len(runs):
            return  # the rule works; a straggler does not make it fail
        slow = sum(record.outcome is Outcome.OUT_OF_BUDGET for record in runs)
        factors = (2.0, 4.0) if 2 * slow >= len(runs) else (0.25, 0.0625)
        base = self.config(value, 0, centered).lr
        for factor in factors:
            pilots = [self.config(value, s, centered, factor) for s in self.seeds(2)]
            self.train(pilots, f"{text}: calibrating the rate at {format_multiplier(value)}")
            outcomes = [self.used[k.digest].outcome for k in pilots]
            if all(outcome is Outcome.REACHED_TARGET for outcome in outcomes):
                self.rates[value, centered] = base * factor
                self.train([self.config(value, s, centered) for s in self.seeds(count)], text)
                return


def seed_result(record: RunRecord) -> SeedResult:
    """A run as it is listed in a report."""
    return SeedResult(
        seed=record.config.seed,
        **record.model_dump(
            include={
                "outcome", "epochs", "train_loss", "val_error", "val_loss", "test_error",
                "test_loss", "test_ties", "chance_error", "measurements", "message",
            }
        ),
    )  # fmt: skip
