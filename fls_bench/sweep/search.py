"""Which runs, in what order: an adaptive sweep over log2 c, paired by seed.

A coarse grid around c0 first; extended where the best validation error lies at its end; refined
around the best; more seeds where the verdict is open. Runs go to the store as they finish, so a sweep
resumes where it was interrupted. What is chosen on the way (where to extend and refine, rates) is
chosen on training behaviour or validation error; the verdict reads test errors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import lru_cache

from fls_bench.errors import InputError
from fls_bench.schema import Cost, LrRule, Outcome, Regime
from fls_bench.sweep.follow_up import follow_up
from fls_bench.sweep.plan import Listener, Prepared, Stores, SweepPlan, SweepResult
from fls_bench.sweep.sweeper import BudgetExhaustedError, Sweeper
from fls_bench.tasks import Task
from fls_bench.training import (
    LOCAL,
    Backend,
    Engine,
    check_setup,
    choose_engine,
    read_engine,
    resolve_error,
    resolve_lr_rule,
    resolve_stop,
    setup_digest,
    time_training,
)
from fls_bench.training_setup import TrainingSetup
from fls_bench.verdict import contrasts, regime

MAX_TASKS_KEPT = 32
"""Draws of the data that a sweep keeps in memory."""

MAX_KEPT_NUMBERS = 2**26
"""Input values of one draw beyond which draws are not kept (0.25 GB)."""

TRIAL_SECONDS = 0.25
"""How long a trial of the speed takes at least; below that, clocks and start-up are noise."""

TRIAL_BATCHES = 16
MAX_TRIAL_EPOCHS = 4096


def keeping_tasks(setup: TrainingSetup, engine: Engine) -> TrainingSetup:
    """The same setup; where its nets train in this process, a seed's data are drawn once."""
    if not engine.batched:
        return setup
    task = setup.task_for(0)
    size = sum(part.size for part in (task.x_train, task.x_val, task.x_test))
    kept = max(1, min(MAX_TASKS_KEPT, MAX_TASKS_KEPT * MAX_KEPT_NUMBERS // max(1, size)))
    return replace(setup, task=KeptTasks(setup.task_for, kept))


class KeptTasks:
    """Draws of the data, the last few kept; another process gets the source and keeps its own."""

    def __init__(self, source: Callable[[int], Task], most: int) -> None:
        self._source, self._most = source, most
        self._kept = lru_cache(maxsize=most)(source)

    def __call__(self, seed: int) -> Task:
        """The data of one seed."""
        return self._kept(seed)

    def __reduce__(self) -> tuple[type[KeptTasks], tuple[Callable[[int], Task], int]]:
        """What is kept stays here."""
        return KeptTasks, (self._source, self._most)


def replica_epochs_for(
    setup: TrainingSetup, rule: LrRule, engine: Engine, seconds: float, jobs: int
) -> int:
    """Turn a wall-clock budget into replica-epochs by a trial at the setup's own c.

    The trial trains on ever more minibatches, then epochs, until they take long enough to be timed;
    what a run costs once (its data, its weights, its evaluation) is not in it.

    Args:
        setup: The setup.
        rule: Its learning-rate rule.
        engine: How it is trained.
        seconds: Wall-clock budget, > 0.
        jobs: Batches or processes at a time; a GPU takes one.

    Returns:
        Replica-epochs that fit, at the speed of the trial, >= 1.
    """
    setup = keeping_tasks(setup, engine)
    every = -(-setup.task_for(0).n_train // setup.batch_size)
    batches, epochs = min(every, TRIAL_BATCHES), 1
    time_training(setup, rule, engine, batches, epochs)  # it warms up
    while True:
        done, taken = time_training(setup, rule, engine, batches, epochs)
        if taken >= TRIAL_SECONDS or epochs > MAX_TRIAL_EPOCHS:
            break
        if batches < every:
            batches = min(every, 4 * batches)
        else:
            epochs *= 4
    again, taken_again = time_training(setup, rule, engine, batches, epochs)
    speed = max(done / taken, again / taken_again)  # the machine may have been busy
    return max(1, int(seconds * (1 if engine.device == "cuda" else jobs) * speed))


def prepare(
    setup: TrainingSetup,
    plan: SweepPlan,
    *,
    stores: Stores,
    device: str = "cpu",
    offsets: Sequence[float] | None = None,
    backend: Backend = LOCAL,
) -> Prepared:
    """Check a setup, find its rule, and choose its engine (that of its stored runs, if any).

    Args:
        setup: The setup; its own c is the one that is judged.
        plan: How far and how densely.
        stores: Where runs are kept.
        device: ``cpu`` or ``cuda``.
        offsets: A fixed grid in octaves relative to its own value, in place of the adaptive one.
        backend: Where its runs are trained.

    Returns:
        The setup, ready to be swept.

    Raises:
        InputError: The setup can't be trained.
    """
    if device == "cuda" and backend.kind == "loky":
        raise InputError(
            "--backend loky is for the CPU: one GPU takes one batch at a time.",
            "Leave it out, or give --device cpu.",
        )
    task = check_setup(setup)
    setup = resolve_stop(resolve_error(setup, task), task)
    rule = resolve_lr_rule(setup, task)
    if rule.name == "normalised" and setup.axis == "init_scale":
        raise InputError(
            "The net has normalisation layers, behind which the scale of the initial weights has no "
            "effect: it can't be swept.",
            "Leave the init scale at 1, and sweep the output multiplier.",
        )
    digest = setup_digest(setup, rule, device=device)
    store = stores(digest)
    kept = None if store is None else read_engine(store.load_engine(), device)
    engine = choose_engine(setup, rule, device, kept)
    if store is not None and engine != kept:
        store.keep_engine(asdict(engine))
    return Prepared(
        keeping_tasks(setup, engine), rule, engine, digest, len(task.y_test), plan,
        None if offsets is None else tuple(offsets), backend,
    )  # fmt: skip


def run_sweep(prepared: Prepared, *, stores: Stores, listener: Listener, jobs: int) -> SweepResult:
    """Sweep the output multiplier (or init scale) around the setup's own.

    Args:
        prepared: The setup, ready to be swept.
        stores: Where runs are kept.
        listener: Told what happens.
        jobs: Batches or processes at a time.

    Returns:
        The sweep and what it says about the regime.
    """
    sweeper = Sweeper.of(prepared, stores, listener, jobs)
    return search(sweeper, prepared.offsets)


def search(sweeper: Sweeper, offsets: Sequence[float] | None) -> SweepResult:
    """Looks with ever more seeds until the verdict is no longer open or the budget is spent."""
    plan, c0, own = sweeper.plan, sweeper.c0, sweeper.setup.centered
    grid = set(plan.coarse if offsets is None else {0.0, *offsets})
    decision: regime.Decision | None = None
    star: float | None = None
    bound, level = False, plan.level(0)
    try:
        focus = {sweeper.value(k) for k in grid}
        if not sweeper.engine.batched:
            # Few seeds first: they show what a run really takes, which is mostly far less than the
            # most, so that a budget is not refused for nothing. (In batches this would cost speed.)
            for distance in sorted({abs(k) for k in grid}):
                around = sorted(sweeper.value(k) for k in grid if abs(k) == distance)
                sweeper.visit(around, 1, own, "pilot, 1 seed each, outward")
            few = contrasts.MIN_SEEDS
            sweeper.visit(sorted(focus), few, own, f"pilot, {few} seeds each")
            outcomes = [record.outcome for record in sweeper.runs(c0, own)]
            if plan.follow_up and Outcome.REACHED_TARGET not in outcomes:
                # Nothing can be compared with a c that does not train: no need to go on.
                pilot = sweeper.sweep(sorted(focus), own)
                return SweepResult(pilot, None, None, cost=_cost(sweeper, bound))
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
    except BudgetExhaustedError:
        bound = True
    values = [sweeper.value(k) for k in grid if sweeper.runs(sweeper.value(k), own)]
    judged = sweeper.sweep(values, own).model_copy(update={"level": level})
    complete = decision is not None
    if bound and decision is None:
        data = contrasts.table(judged)
        seeds = [len(sweeper.runs(value, own)) for value in values]
        if c0 in data.test and sum(count >= contrasts.MIN_SEEDS for count in seeds) > 1:
            decision = regime.decide(data.test, c0, data.n_test, level=level)
            star = regime.best_multiplier(data, c0)
    result = SweepResult(judged, decision, star, complete=complete)
    if plan.follow_up and decision is not None and star is not None and not bound:
        try:
            result = follow_up(sweeper, result, decision, star)
        except BudgetExhaustedError:
            bound = True
    return replace(result, cost=_cost(sweeper, bound), notes=tuple(sweeper.notes))


def _cost(sweeper: Sweeper, bound: bool) -> Cost:
    return Cost(
        replica_epochs=sweeper.replica_epochs,
        num_runs=len(sweeper.used),
        budget_replica_epochs=sweeper.plan.budget,
        budget_bound=bound,
    )


def _extend(sweeper: Sweeper, grid: set[float], count: int) -> None:
    """Extend the grid while its best may lie at an end or beyond; then refine around the best."""
    plan, c0, own = sweeper.plan, sweeper.c0, sweeper.setup.centered

    def octaves(value: float) -> float:
        return round(math.log2(value / c0), 6)

    def visit(new: set[float], text: str) -> None:
        grid.update(new)
        values = sorted(sweeper.value(k) for k in new)
        sweeper.visit(values, count, own, f"{text}, {count} seeds")

    while True:
        data = contrasts.table(sweeper.sweep([sweeper.value(k) for k in grid], own))
        if c0 not in data.test or not contrasts.beats_chance(data, data.val):
            return
        star = regime.best_multiplier(data, c0)
        beyond = set()
        for end in regime.open_ends(data, star):
            outward = plan.step if end == max(data.val) else -plan.step
            beyond.add(octaves(end) + outward)
        beyond = {k for k in beyond - grid if abs(k) <= plan.limit}
        if not beyond:
            break
        visit(beyond, "extending")
    low, high = octaves(min(data.val)), octaves(max(data.val))
    half = {octaves(star) - plan.step / 2, octaves(star) + plan.step / 2}
    between = {k for k in half - grid if low < k < high}
    if between:
        visit(between, "refining")
