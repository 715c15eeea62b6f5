"""Which runs, in what order: an adaptive sweep over log2 c, paired by seed.

A coarse grid around c0 first; extended where the best validation error lies at its end; refined
around the best; more seeds where the verdict is open. Runs go to the store as they finish, so a sweep
resumes where it was interrupted. What is chosen on the way (where to extend and refine, rates) is
chosen on training behaviour or validation error; the verdict reads test errors.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from fls_bench.scaling import format_multiplier, scaled_rate
from fls_bench.schema import (
    Cell,
    Cost,
    Gain,
    LrRule,
    Outcome,
    RateComparison,
    Regime,
    RunConfig,
    RunRecord,
    SeedResult,
    Sweep,
)
from fls_bench.store import RunStore
from fls_bench.training import check_setup, resolve_lr_rule, setup_digest, train_all
from fls_bench.training_setup import TrainingSetup
from fls_bench.verdict import contrasts, regime


class Listener(Protocol):
    """What a sweep tells whoever watches it."""

    def plan(self, total_runs: int, text: str) -> None:
        """So many runs follow."""

    def done(self, runs: int, text: str) -> None:
        """So many more runs have ended."""

    def note(self, text: str) -> None:
        """Something worth a line."""


@dataclass(frozen=True)
class SweepPlan:
    """How far and how densely to sweep; offsets are in log2 of the sweep's axis, relative to c0.

    Attributes:
        seeds: Number of seeds at each look; more are trained only while the verdict is open.
        coarse: Offsets of the first grid.
        step: By how much the grid is extended at an end that holds the best validation error.
        limit: Largest offset in either direction.
        first_seed: Seeds count up from here; chosen apart from the seeds that people train with.
        confirm: Number of fresh seeds on which gains are measured; they choose nothing.
        rate_limit: Rates at c* and at c = 1 are tried in factors of 2 around the rule's, outward while
            the best lies at an end, up to this factor either way.
        budget: Most replica-epochs to spend, or None.
    """

    seeds: tuple[int, ...] = (6, 12, 20)
    coarse: tuple[float, ...] = (-4.0, -2.0, 0.0, 2.0, 4.0)
    step: float = 2.0
    limit: float = 12.0
    first_seed: int = 1000
    confirm: int = 10
    rate_limit: float = 16.0
    budget: int | None = None

    def level(self, look: int) -> float:
        """Family-wise error rate of a look: its share of ``contrasts.LEVEL``."""
        if len(self.seeds) == 1:
            return contrasts.LEVEL
        shares = contrasts.LOOKS[: len(self.seeds)]
        return contrasts.LEVEL * shares[look] / sum(shares)


@dataclass(frozen=True)
class SweepResult:
    """Everything that a diagnosis needs; plain and centered sweeps share seeds.

    Attributes:
        sweep: The sweep at the setup's own centering.
        centered: The centered sweep, where the decision is over-fitted and the setup is plain.
        decision: The verdict's test of the regime at the last look.
        star: Best multiplier by validation error, or None where c0 can't be judged.
        gain: From c0 to c*, on fresh seeds; None where c* is c0 or the budget ended before.
        rates: c* at its best rate against others at theirs.
        cost: Runs and replica-epochs, resumed ones included.
        notes: What was left out on the way and why, as (what, code, reason).
    """

    sweep: Sweep
    decision: regime.Decision | None
    star: float | None
    gain: Gain | None = None
    centered: Sweep | None = None
    rates: tuple[RateComparison, ...] = ()
    cost: Cost = Cost()
    notes: tuple[tuple[str, str, str], ...] = ()


class BudgetExhausted(Exception):
    """The next round of runs may not fit into the budget any more."""


@dataclass
class _Sweeper:
    """The state of one sweep: which runs exist, what they cost, which rates were calibrated."""

    setup: TrainingSetup
    rule: LrRule
    digest: str
    n_test: int
    plan: SweepPlan
    store: RunStore | None
    listener: Listener
    jobs: int
    known: dict[str, RunRecord] = field(default_factory=dict)
    used: dict[str, RunRecord] = field(default_factory=dict)
    rates: dict[tuple[float, bool], float] = field(default_factory=dict)
    notes: list[tuple[str, str, str]] = field(default_factory=list)

    # --- runs ---

    @property
    def c0(self) -> float:
        """The setup's own value on the axis."""
        on_scale = self.setup.axis == "init_scale"
        return self.setup.init_scale if on_scale else self.setup.output_multiplier

    def value(self, offset: float) -> float:
        """The value on the axis at an offset in octaves; exactly c0 at 0."""
        return self.c0 * 2.0**offset

    def config(self, value: float, seed: int, centered: bool, factor: float = 1.0) -> RunConfig:
        """The run at a value on the axis, its rate by the rule or as calibrated."""
        c, scale = self.setup.output_multiplier, self.setup.init_scale
        own = (c, scale)
        target = (c, value) if self.setup.axis == "init_scale" else (value, scale)
        rate = self.rates.get((value, centered))
        if rate is None:
            rate = scaled_rate(self.setup.optimizer.lr, self.rule, at=own, to=target)
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
        return sum(record.epochs for record in self.used.values())

    def expected_epochs(self, config: RunConfig) -> float:
        """Epochs that a run may take: as its like did, else as its neighbours, else the most."""
        like = [r for r in self.used.values() if r.config.centered == config.centered]
        log = math.log2(config.c * config.init_scale)
        near = [r for r in like if abs(math.log2(r.config.c * r.config.init_scale) - log) < 2.5]
        return max((float(r.epochs) for r in near), default=float(config.max_epochs))

    def train(self, configs: Sequence[RunConfig], text: str) -> None:
        """Train what is not in the store yet; refuse what may not fit into the budget."""
        wanted = [k for k in dict.fromkeys(configs) if k.digest not in self.used]
        budget = self.plan.budget
        if budget is not None and wanted:
            expected = sum(self.expected_epochs(k) for k in wanted)
            if self.replica_epochs + expected > budget:
                raise BudgetExhausted
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

        train_all(self.setup, self.rule, missing, keep, jobs=self.jobs)

    @property
    def fresh_seeds(self) -> list[int]:
        """Seeds that no choice has seen."""
        return [self.plan.first_seed + 50 + i for i in range(self.plan.confirm)]

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
            seeds=tuple(_seed_result(record) for record in runs),
        )

    def sweep(self, values: Sequence[float], centered: bool) -> Sweep:
        """The sweep's value, cells in ascending order."""
        return Sweep(
            axis=self.setup.axis,
            centered=centered,
            lr_rule=self.rule,
            n_test=self.n_test,
            cells=tuple(self.cell(value, centered) for value in sorted(values)),
        )

    def visit(self, values: Sequence[float], count: int, centered: bool, text: str) -> None:
        """Train the first ``count`` seeds at each value; calibrate the rate where the rule fails."""
        self.train([self.config(v, s, centered) for v in values for s in self.seeds(count)], text)
        for value in values:
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


def _seed_result(record: RunRecord) -> SeedResult:
    return SeedResult(
        seed=record.config.seed,
        **record.model_dump(
            include={
                "outcome", "epochs", "train_loss", "val_error", "val_loss", "test_error",
                "test_loss", "test_ties", "chance_error", "measurements", "message",
            }
        ),
    )  # fmt: skip


def replica_epochs_for(setup: TrainingSetup, rule: LrRule, seconds: float, jobs: int) -> int:
    """Turn a wall-clock budget into replica-epochs by a trial of a few epochs at c0.

    Args:
        setup: The setup.
        rule: Its learning-rate rule.
        seconds: Wall-clock budget, > 0.
        jobs: Batches or processes at a time.

    Returns:
        Replica-epochs that fit, at the speed of the trial, >= 0.
    """
    from fls_bench.training import REPLICAS_PER_BATCH, is_batched

    count = REPLICAS_PER_BATCH * jobs if is_batched(setup) else 1
    epochs = 3 if is_batched(setup) else 1
    trial = replace(setup, stop=setup.stop.model_copy(update={"max_epochs": epochs}))
    configs = [
        RunConfig(
            setup_digest="trial", c=setup.output_multiplier, init_scale=setup.init_scale,
            lr=setup.optimizer.lr, seed=seed, centered=setup.centered, max_epochs=epochs,
        )
        for seed in range(count)
    ]  # fmt: skip
    records: list[RunRecord] = []
    start = time.perf_counter()
    train_all(trial, rule, configs, records.append, jobs=jobs)
    elapsed = time.perf_counter() - start
    per_second = sum(max(1, record.epochs) for record in records) / elapsed
    if not is_batched(setup):
        per_second *= jobs  # the trial was one process of that many
    return int(per_second * seconds)


def run_sweep(
    setup: TrainingSetup,
    *,
    plan: SweepPlan,
    store: Callable[[str], RunStore | None],
    listener: Listener,
    jobs: int,
    offsets: Sequence[float] | None = None,
) -> SweepResult:
    """Sweep the output multiplier (or init scale) around the setup's own.

    Args:
        setup: The setup; its own c is the one that is judged.
        plan: How far and how densely.
        store: Setup digest -> store of its runs, or None.
        listener: Told what happens.
        jobs: Batches or processes at a time.
        offsets: A fixed grid in octaves relative to c0, in place of the adaptive one.

    Returns:
        The sweep and what it says about the regime.

    Raises:
        InputError: The setup can't be trained.
    """
    task = check_setup(setup)
    rule = resolve_lr_rule(setup, task)
    digest = setup_digest(setup, rule)
    kept = store(digest)
    sweeper = _Sweeper(
        setup, rule, digest, len(task.y_test), plan, kept, listener, jobs,
        known=dict(kept.load()) if kept is not None else {},
    )  # fmt: skip
    return _search(sweeper, offsets)


def _search(sweeper: _Sweeper, offsets: Sequence[float] | None) -> SweepResult:
    """Looks with ever more seeds until the verdict is no longer open or the budget is spent."""
    plan, c0, own = sweeper.plan, sweeper.c0, sweeper.setup.centered
    grid = set(plan.coarse if offsets is None else {0.0, *offsets})
    decision: regime.Decision | None = None
    star: float | None = None
    bound, level = False, plan.level(0)
    try:
        focus = {sweeper.value(k) for k in grid}
        for look, count in enumerate(plan.seeds):
            sweeper.visit(sorted(focus), count, own, f"{count} seeds")
            if offsets is None:
                _extend(sweeper, grid, count)
            data = contrasts.table(sweeper.sweep([sweeper.value(k) for k in grid], own))
            if c0 not in data.test:
                break
            star = regime.best_multiplier(data, c0)
            level = plan.level(look)
            decision = regime.decide(data.test, c0, data.n_test, level=level)
            if decision.regime is not Regime.INCONCLUSIVE or not decision.open:
                break
            focus = {c0, star, *decision.open}
    except BudgetExhausted:
        bound = True
    values = [sweeper.value(k) for k in grid if sweeper.runs(sweeper.value(k), own)]
    judged = sweeper.sweep(values, own).model_copy(update={"level": level})
    result = SweepResult(judged, decision, star)
    if bound and decision is None:
        # The budget ended within the first look: judge what is there, at the whole level.
        data = contrasts.table(result.sweep)
        if c0 in data.test and len(values) > 1:
            decision = regime.decide(data.test, c0, data.n_test, level=level)
            star = regime.best_multiplier(data, c0)
        result = replace(result, decision=decision, star=star)
    if decision is not None and star is not None and not bound:
        try:
            result = _follow_up(sweeper, result, decision, star)
        except BudgetExhausted:
            bound = True
    cost = Cost(
        replica_epochs=sweeper.replica_epochs,
        num_runs=len(sweeper.used),
        budget_replica_epochs=plan.budget,
        budget_bound=bound,
    )
    return replace(result, cost=cost, notes=tuple(sweeper.notes))


def _extend(sweeper: _Sweeper, grid: set[float], count: int) -> None:
    """Extend the grid while its best validation error lies at an end; then refine around the best."""
    plan, c0, own = sweeper.plan, sweeper.c0, sweeper.setup.centered
    while True:
        data = contrasts.table(sweeper.sweep([sweeper.value(k) for k in grid], own))
        if c0 not in data.test:
            return
        star = regime.best_multiplier(data, c0)
        offset = round(math.log2(star / c0), 6)
        usable = sorted(round(math.log2(c / c0), 6) for c in data.val)
        new = set()
        if offset == usable[0] and offset - plan.step not in grid:
            new = {offset - plan.step}
        elif offset == usable[-1] and offset + plan.step not in grid:
            new = {offset + plan.step}
        new = {k for k in new if abs(k) <= plan.limit} or {
            k
            for k in (offset - plan.step / 2, offset + plan.step / 2)
            if abs(k) <= plan.limit and usable[0] < k < usable[-1]
        }
        new -= grid
        if not new:
            return
        grid |= new
        refined = any(usable[0] < k < usable[-1] for k in new)
        sweeper.visit(
            sorted(sweeper.value(k) for k in new), count, own,
            f"{'refining' if refined else 'extending'}, {count} seeds",
        )  # fmt: skip
        if refined:
            return


def _follow_up(
    sweeper: _Sweeper, result: SweepResult, decision: regime.Decision, star: float
) -> SweepResult:
    """After the decision: the gain on fresh seeds, the rate question, the centered sweep."""
    setup, c0, plan = sweeper.setup, sweeper.c0, sweeper.plan
    data = contrasts.table(result.sweep)
    if star != c0:
        result = replace(result, gain=_fresh_gain(sweeper, (c0, 1.0), (star, 1.0)))
    if not contrasts.beats_chance(data):
        return result
    if decision.regime is Regime.OVER_FITTED and not setup.centered:
        usable = sorted(data.test)
        sweeper.visit(usable, plan.seeds[0], True, "centered")
        sweeper.visit(sorted({c0, star}), len(data.chance), True, "centered, more seeds")
        result = replace(result, centered=sweeper.sweep(usable, True))
    if decision.regime is Regime.INCONCLUSIVE:
        return result
    against = {1.0} if decision.regime is Regime.NEAR_OPTIMAL else {c0, 1.0}
    comparisons = []
    for other in sorted(against - {star}):
        found = _compare_rates(sweeper, star, other)
        if found is None:
            what = f"learning rates at {format_multiplier(other)}"
            sweeper.notes.append((what, "no_rate_worked", "No rate reached the target there."))
        else:
            comparisons.append(found)
    return replace(result, rates=tuple(comparisons))


def _fresh_gain(
    sweeper: _Sweeper, before: tuple[float, float], after: tuple[float, float]
) -> Gain | None:
    """Gain from one (c, rate factor) to another on seeds that chose neither."""
    own, seeds = sweeper.setup.centered, sweeper.fresh_seeds
    rows = []
    for value, factor in (before, after):
        sweeper.train(
            [sweeper.config(value, seed, own, factor) for seed in seeds], "gain on fresh seeds"
        )
        runs = [sweeper.used[sweeper.config(value, s, own, factor).digest] for s in seeds]
        if contrasts.usable([run.outcome for run in runs]) is not None:
            return None
        rows.append(
            np.array(
                [
                    run.test_error if run.outcome is Outcome.REACHED_TARGET else math.nan
                    for run in runs
                ],
                dtype=float,
            )
        )
    return regime.gain(rows[0], rows[1], sweeper.n_test)


def _best_rate(sweeper: _Sweeper, value: float) -> tuple[float, tuple[float, ...]] | None:
    """Factor on the rule's rate with the lowest validation error, and all factors tried.

    Rates at which a run missed the target are out. Tried outward in factors of 2 while the best lies
    at an end of those tried.
    """
    own, seeds = sweeper.setup.centered, sweeper.seeds(sweeper.plan.seeds[0])
    errors: dict[float, float] = {}
    new = {0.5, 1.0, 2.0}
    while new:
        sweeper.train(
            [sweeper.config(value, seed, own, factor) for factor in sorted(new) for seed in seeds],
            "is it only the learning rate?",
        )
        for factor in new:
            runs = [sweeper.used[sweeper.config(value, s, own, factor).digest] for s in seeds]
            worked = all(run.outcome is Outcome.REACHED_TARGET for run in runs)
            errors[factor] = sum(run.val_error or 0.0 for run in runs) if worked else math.inf
        best = min(errors, key=lambda k: (errors[k], abs(math.log2(k))))
        new = {best / 2, best * 2} - set(errors)
        limit = sweeper.plan.rate_limit
        new = {k for k in new if 1 / limit <= k <= limit and math.isfinite(errors[best])}
    return (best, tuple(sorted(errors))) if math.isfinite(errors[best]) else None


def _compare_rates(sweeper: _Sweeper, star: float, other: float) -> RateComparison | None:
    """c* at its best rate against another c at its own best: rates by validation, fresh seeds."""
    found_star, found_other = _best_rate(sweeper, star), _best_rate(sweeper, other)
    if found_star is None or found_other is None:
        return None
    (best, tried), (at_other, tried_other) = found_star, found_other
    found = _fresh_gain(sweeper, (other, at_other), (star, best))
    if found is None:
        return None
    if found.low > 0:
        clear, meaning = "beats", "the learning rate alone does not give this gain"
    elif found.high < 0:
        clear, meaning = "is worse than", "tuning the learning rate does more than the multiplier"
    else:
        clear = "is not told from"
        meaning = "a difference, if there is one, may come from the learning rate"
    own = sweeper.setup.centered
    return RateComparison(
        c=other,
        c_star=star,
        lr_at_c=sweeper.config(other, 0, own, at_other).lr,
        lr_at_c_star=sweeper.config(star, 0, own, best).lr,
        rates_tried=tuple(sorted({*tried, *tried_other})),
        gain=found,
        text=f"{format_multiplier(star)} at its best rate {clear} {format_multiplier(other)} at its "
        f"best rate ({found.value:+.2g} points [{found.low:+.2g}, {found.high:+.2g}], "
        f"{found.num_seeds} fresh seeds): {meaning}.",
    )
