"""After the decision: the gain on fresh seeds, the rate question, the centered sweep."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fls_bench.scaling import PLAIN, format_multiplier
from fls_bench.schema import Gain, Outcome, RateComparison, Regime, Sweep
from fls_bench.sweep.plan import SweepResult
from fls_bench.sweep.sweeper import BudgetExhaustedError, Sweeper
from fls_bench.training import setup_digest
from fls_bench.verdict import contrasts, regime


def follow_up(
    sweeper: Sweeper, result: SweepResult, decision: regime.Decision, star: float
) -> SweepResult:
    """Add to a decided sweep what its diagnosis needs.

    Args:
        sweeper: The sweep's state.
        result: The sweep so far.
        decision: The decision at its last look.
        star: c*.

    Returns:
        The result with the gain, the centered sweep (where over-fitted), the plain rule's sweep
        (for normalised nets) and the rate comparisons.

    Raises:
        BudgetExhaustedError: A part does not fit into the budget.
    """
    setup, c0, plan = sweeper.setup, sweeper.c0, sweeper.plan
    data = contrasts.table(result.sweep)
    if star != c0:
        result = replace(result, gain=fresh_gain(sweeper, (c0, 1.0), (star, 1.0)))
    if not contrasts.beats_chance(data):
        return result
    if decision.regime is Regime.OVER_FITTED and not setup.centered:
        usable = sorted(data.test)
        sweeper.visit(usable, plan.seeds[0], True, "centered")
        sweeper.visit(sorted({c0, star}), len(data.chance), True, "centered, more seeds")
        result = replace(result, centered=sweeper.sweep(usable, True))
    if sweeper.rule.name == "normalised":
        result = replace(result, plain=_plain_rule(sweeper, sorted(data.test)))
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


def _plain_rule(sweeper: Sweeper, values: Sequence[float]) -> Sweep | None:
    """The same c under YHL's plain eta/c; at the setup's own c both rules are one."""
    setup = sweeper.setup
    digest = setup_digest(setup, PLAIN, device=sweeper.engine.device)
    store = sweeper.stores(digest)
    plan, spent = sweeper.plan, sweeper.replica_epochs
    plain = replace(
        sweeper,
        rule=PLAIN,
        digest=digest,
        store=store,
        known=dict(store.load()) if store is not None else {},
        used={},
        rates={},
        plan=plan if plan.budget is None else replace(plan, budget=max(1, plan.budget - spent)),
    )
    for run in sweeper.runs(sweeper.c0, setup.centered):
        config = plain.config(sweeper.c0, run.config.seed, setup.centered)
        plain.used[config.digest] = run.model_copy(update={"config": config})
    try:
        for value in sorted(values, key=lambda c: abs(math.log2(c / sweeper.c0))):
            plain.visit([value], 1, setup.centered, "the plain rule eta/c, 1 seed each")
        text = "the plain rule eta/c"
        plain.visit(values, plan.seeds[0], setup.centered, text, calibrate=False)
    except BudgetExhaustedError:
        why = "The budget ended before it had as many seeds as the exact rule's first look."
        sweeper.notes.append(("the sweep under the plain rule eta/c", "budget", why))
        return None
    finally:
        for digest, run in plain.used.items():
            if run.config.c != sweeper.c0:
                sweeper.used[digest] = run  # it counts as spent
    return plain.sweep(values, setup.centered)


def fresh_gain(
    sweeper: Sweeper, before: tuple[float, float], after: tuple[float, float]
) -> Gain | None:
    """Gain from one (c, rate factor) to another on seeds that chose neither.

    Args:
        sweeper: The state of the sweep.
        before: Value on the axis, and factor on its rate.
        after: The same of what it is compared with.

    Returns:
        The gain; None where too few runs of either reached the target.

    Raises:
        BudgetExhaustedError: The runs do not fit into the budget.
    """
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


def best_rate(sweeper: Sweeper, value: float) -> tuple[float, tuple[float, ...]] | None:
    """Factor on the rule's rate with the lowest validation error, and all factors tried.

    Rates at which a run missed the target are out. Tried outward in factors of 2 while the best lies
    at an end of those tried.

    Args:
        sweeper: The state of the sweep; as many seeds as at its first look.
        value: The value on the axis.

    Returns:
        (best factor, factors tried), or None where no rate worked.

    Raises:
        BudgetExhaustedError: The runs do not fit into the budget.
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


def _compare_rates(sweeper: Sweeper, star: float, other: float) -> RateComparison | None:
    """c* at its best rate against another c at its own best: rates by validation, fresh seeds."""
    found_star, found_other = best_rate(sweeper, star), best_rate(sweeper, other)
    if found_star is None or found_other is None:
        return None
    (best, tried), (at_other, tried_other) = found_star, found_other
    found = fresh_gain(sweeper, (other, at_other), (star, best))
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
