"""A frugal search for c* on validation data, and a verification of its gain on data that chose nothing.

A line search over log2 c: outward in coarse steps while that is better, then half steps around the
best, few seeds first and more for what is still in question; the same over learning rates at both
ends. It assumes one valley where the full grid does not; what it finds is verified, so a wrong valley
costs a gain and never claims one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

import numpy as np

from fls_bench.scaling import format_multiplier
from fls_bench.schema import Code, Cost, CStar, Gain, Outcome, RunRecord, Sweep, Trial, Tuning
from fls_bench.sweep.follow_up import fresh_gain
from fls_bench.sweep.plan import Listener, Prepared, Stores, SweepPlan
from fls_bench.sweep.sweeper import BudgetExhaustedError, Sweeper
from fls_bench.verdict import contrasts, regime
from fls_bench.verdict.evidence import points_of

FINEST_STEP = 1.0
"""In octaves of c: finer steps can't be told apart by the seeds that are affordable."""

SEEDS = (3, 4, 12)
"""For a first look, for half steps and rates, and for what is still in question at the end."""

Place = tuple[float, float]
"""A value on the axis, and a factor on the rate that the rule (or a calibration) gives there."""


def tune_plan(plan: SweepPlan, confirm: int) -> SweepPlan:
    """The plan of a tuning, from that of a diagnosis.

    Args:
        plan: Carries the most seeds per multiplier and where seeds count from.
        confirm: Number of fresh seeds for the verification.

    Returns:
        First the setup's own c and one four octaves above, from there in steps of four.
    """
    most = plan.seeds[-1]
    return SweepPlan(
        seeds=tuple(sorted({min(count, most) for count in SEEDS})),
        coarse=(0.0, 4.0),
        step=4.0,
        first_seed=plan.first_seed,
        confirm=confirm,
    )


@dataclass(frozen=True)
class TuneResult:
    """What a tuning found.

    Attributes:
        tuning: The result, without its snippet.
        sweep: The runs of the search at the rule's rates.
        cost: Runs and replica-epochs, resumed ones and the verification included.
        rate_factor: The tuned rate over the one that the rule gives there.
    """

    tuning: Tuning
    sweep: Sweep
    cost: Cost
    rate_factor: float = 1.0


def tune(prepared: Prepared, *, stores: Stores, listener: Listener, jobs: int) -> TuneResult:
    """Find c* and its rate on validation data; verify their gain on fresh seeds and test data.

    Args:
        prepared: The setup, ready, with a plan from ``tune_plan``.
        stores: Where runs are kept.
        listener: Told what happens.
        jobs: Batches or processes at a time.

    Returns:
        The result; ``change`` is ``none`` wherever a gain was not confirmed.
    """
    return search_and_verify(Sweeper.of(prepared, stores, listener, jobs))


def search_and_verify(sweeper: Sweeper) -> TuneResult:
    """The same for the state of a sweep that has begun.

    Args:
        sweeper: Its plan is from ``tune_plan``.

    Returns:
        The result.
    """
    return _Search(sweeper).tune()


def descend(
    probe: Callable[[float], None],
    better: Callable[[float, float], bool],
    step: float,
    limit: float,
) -> float:
    """Go up from 0 while that is better; where it is not, go down likewise.

    Args:
        probe: Makes a place known before it is compared.
        better: Whether its first place is better than its second.
        step: Length of a step.
        limit: Largest distance from 0.

    Returns:
        The best place found; both its neighbours at that step are known, but at a limit.
    """
    best = 0.0
    for outward in (step, -step):
        while abs(best + outward) <= limit:
            probe(best + outward)
            if not better(best + outward, best):
                break
            best += outward
        if best != 0:
            break
    return best


@dataclass
class _Search:
    sweeper: Sweeper
    visited: dict[float, int] = field(default_factory=dict)
    """Value on the axis -> seeds that were asked for, at the rule's or a calibrated rate."""
    rated: dict[Place, int] = field(default_factory=dict)
    """The same for other rates."""

    def tune(self) -> TuneResult:
        sweeper, plan = self.sweeper, self.sweeper.plan
        c0, found, spent = sweeper.c0, _Found(), [0]
        try:
            self.ask((c0, 1.0), plan.seeds[0], "the setup as it is")
            if (why := self.problem((c0, 1.0))) is not None:
                name = "alpha" if sweeper.setup.axis == "init_scale" else "c"
                text = (
                    f"At the setup's own {name} = {format_multiplier(c0)} {why}, so no gain over it can "
                    "be measured. Raise max_epochs, or change the learning rate or the target."
                )
                return self.result(found, spent, Code(code="target_not_reached", text=text))
            star = self.best_value()
            found.star = star
            spent.append(sweeper.replica_epochs)
            data = contrasts.table(self.sweep())
            if missing := [c for c in (c0, star) if c not in data.val]:
                text = (
                    f"With more seeds too many runs missed the target at "
                    f"{format_multiplier(missing[0])}. Raise max_epochs, or change the target."
                )
                return self.result(found, spent, Code(code="target_not_reached", text=text))
            found.c_star = regime.c_star(data, c0, value=star)
            if not contrasts.beats_chance(data, {star: data.val[star]}):
                text = (
                    f"Not even {format_multiplier(star)}, the best found, beats the majority class by "
                    "more than noise: there is no signal to tune by."
                )
                return self.result(found, spent, Code(code="no_signal", text=text))
            found.factor_at_c = self.best_factor(c0)
            found.factor_at_star = found.factor_at_c if star == c0 else self.best_factor(star)
            spent.append(sweeper.replica_epochs)
            self.verify(found)
            spent.append(sweeper.replica_epochs)
        except BudgetExhaustedError:
            text = (
                f"The budget of {plan.budget:,} replica-epochs ended before a gain was verified "
                f"({sweeper.replica_epochs:,} are spent). Raise --budget; finished runs that are stored "
                "are used again."
            )
            return self.result(found, spent, Code(code="budget", text=text), bound=True)
        return self.result(found, spent, self.reason(found))

    # --- runs ---

    def ask(self, place: Place, count: int, text: str) -> None:
        """Train the first ``count`` seeds at a place."""
        value, factor = place
        own, sweeper = self.sweeper.setup.centered, self.sweeper
        if factor == 1:
            self.visited[value] = max(count, self.visited.get(value, 0))
            sweeper.visit([value], count, own, f"{text}, {count} seeds")
        else:
            self.rated[place] = max(count, self.rated.get(place, 0))
            configs = [sweeper.config(value, seed, own, factor) for seed in sweeper.seeds(count)]
            sweeper.train(configs, f"{text}, {count} seeds")

    def runs(self, place: Place) -> list[RunRecord]:
        value, factor = place
        return self.sweeper.runs(value, self.sweeper.setup.centered, factor)

    def problem(self, place: Place) -> str | None:
        """Why a place can't be used, or None."""
        return contrasts.usable([run.outcome for run in self.runs(place)])

    def difference(self, one: Place, other: Place, name: str) -> tuple[float, float]:
        """Mean over shared seeds of one's validation figure less the other's; standard error."""
        rows = []
        for place in (one, other):
            rows.append(
                {
                    run.config.seed: value
                    for run in self.runs(place)
                    if run.outcome is Outcome.REACHED_TARGET
                    and (value := getattr(run, name)) is not None
                }
            )
        shared = sorted(rows[0].keys() & rows[1].keys())
        if len(shared) < 2:
            return math.nan, math.nan
        found = np.array([rows[0][seed] - rows[1][seed] for seed in shared])
        return float(found.mean()), float(found.std(ddof=1)) / math.sqrt(len(shared))

    def better(self, one: Place, other: Place) -> bool:
        """Whether one place has the lower validation error; where noise hides that, validation loss.

        A place whose runs miss the target is worse than any other. Losses have less noise.
        """
        if self.problem(one) is not None:
            return False
        if self.problem(other) is not None:
            return True
        mean, error = self.difference(one, other, "val_error")
        if abs(mean) > error:
            return mean < 0
        return self.difference(one, other, "val_loss")[0] < 0

    # --- search ---

    def best_value(self) -> float:
        """c*: coarse steps, half steps, then more seeds for what is not clearly worse."""
        sweeper, plan = self.sweeper, self.sweeper.plan
        few, more = plan.seeds[0], plan.seeds[min(1, len(plan.seeds) - 1)]

        def place(offset: float) -> Place:
            return sweeper.value(offset), 1.0

        def better(one: float, other: float) -> bool:
            return self.better(place(one), place(other))

        def known(offset: float) -> bool:
            return sweeper.value(offset) in self.visited

        best = descend(lambda k: self.ask(place(k), few, "coarse"), better, plan.step, plan.limit)
        step = plan.step
        while step > FINEST_STEP:
            step /= 2
            self.ask(place(best), more, f"step {step:g}")
            sides = [best + step, best - step]
            outer = [best + 2 * step, best - 2 * step]
            if all(map(known, outer)) and better(outer[1], outer[0]):
                sides.reverse()  # the side that looks better first: it mostly saves the other
            for offset in (k for k in sides if abs(k) <= plan.limit):
                self.ask(place(offset), more, f"step {step:g}")
                if better(offset, best):
                    best = offset
                    break
        return self.settled([(value, 1.0) for value in self.visited], place(best), plan.seeds[-1])[
            0
        ]

    def best_factor(self, value: float) -> float:
        """Factor on the rate at a value: outward in factors of 2, then more seeds likewise."""
        plan = self.sweeper.plan
        few, more = plan.seeds[0], plan.seeds[min(1, len(plan.seeds) - 1)]
        text = f"rates at {format_multiplier(value)}"

        def place(octaves: float) -> Place:
            return value, 2.0**octaves

        best = descend(
            lambda k: self.ask(place(k), few, text),
            lambda one, other: self.better(place(one), place(other)),
            1.0,
            math.log2(plan.rate_limit),
        )
        known = [(value, 1.0), *(k for k in self.rated if k[0] == value)]
        return self.settled(known, place(best), more)[1]

    def settled(self, places: Iterable[Place], best: Place, count: int) -> Place:
        """The better of the best place and its nearest rival, after more seeds for both."""
        self.ask(best, count, "the best once more")
        usable = [other for other in places if self.problem(other) is None]
        if self.problem(best) is not None and usable:
            # More seeds showed that too many of its runs miss the target.
            best = min(usable, key=lambda k: self.difference(k, usable[0], "val_error")[0])
        rivals = {}
        for other in usable:
            if other != best:
                mean, error = self.difference(other, best, "val_error")
                if mean <= error:  # not clearly worse
                    rivals[other] = mean
        if not rivals:
            return best
        rival = min(rivals, key=lambda k: rivals[k])
        self.ask(rival, count, "its nearest rival")
        return rival if self.better(rival, best) else best

    # --- verification ---

    def verify(self, found: _Found) -> None:
        """Gains on fresh seeds and test data, of both ends at their best rates and of each change."""
        sweeper, c0, star = self.sweeper, self.sweeper.c0, found.star
        as_it_is, rate_alone = (c0, 1.0), (c0, found.factor_at_c)
        both, multiplier_alone = (star, found.factor_at_star), (star, 1.0)
        if rate_alone != as_it_is:
            found.gain_of_rate = fresh_gain(sweeper, as_it_is, rate_alone)
        if star != c0:
            found.gain = fresh_gain(sweeper, rate_alone, both)
            found.gain_in_all = fresh_gain(sweeper, as_it_is, both)
            found.gain_at_rule = fresh_gain(sweeper, as_it_is, multiplier_alone)

    def reason(self, found: _Found) -> Code:
        """What was confirmed, and what was not."""
        c0, star = self.sweeper.c0, found.star
        if found.change == "multiplier":
            assert found.gain is not None
            text = (
                f"{format_multiplier(star)} does better than {format_multiplier(c0)}, each at its best "
                f"learning rate: {points_of(found.gain)} of test accuracy on {found.gain.num_seeds} "
                "fresh seeds."
            )
            return Code(code="gain_confirmed", text=text)
        multiplier = (
            f"{format_multiplier(c0)} is the best multiplier found"
            if star == c0
            else f"A gain of {format_multiplier(star)} over {format_multiplier(c0)}, each at its best "
            "learning rate, is not confirmed"
            + (
                ": too few runs reached the target on fresh seeds"
                if found.gain is None
                else f" ({points_of(found.gain)} on {found.gain.num_seeds} fresh seeds)"
            )
        )
        if found.change == "rate":
            assert found.gain_of_rate is not None
            text = (
                f"{multiplier}; another learning rate does better: {points_of(found.gain_of_rate)} of "
                f"test accuracy on {found.gain_of_rate.num_seeds} fresh seeds."
            )
            return Code(code="gain_of_rate_confirmed", text=text)
        if found.factor_at_c == 1:
            rate = "and its learning rate the best of those tried"
        elif found.gain_of_rate is None:
            rate = "and no gain by its learning rate could be measured"
        else:
            rate = f"nor is a gain by another learning rate ({points_of(found.gain_of_rate)})"
        return Code(code="not_confirmed", text=f"{multiplier}, {rate}.")

    # --- result ---

    def sweep(self) -> Sweep:
        return self.sweeper.sweep(list(self.visited), self.sweeper.setup.centered)

    def result(
        self, found: _Found, spent: list[int], reason: Code, *, bound: bool = False
    ) -> TuneResult:
        sweeper, c0 = self.sweeper, self.sweeper.c0
        own = sweeper.setup.centered
        spent = spent + [sweeper.replica_epochs] * (4 - len(spent))
        parts = [after - before for before, after in pairwise(spent)]

        def rate(value: float, factor: float) -> float:
            return sweeper.config(value, 0, own, factor).lr

        changes = {
            "multiplier": (found.star, found.factor_at_star),
            "rate": (c0, found.factor_at_c),
        }
        tuned = changes.get(found.change)
        searched = found.c_star is not None
        rated = found.factor_at_c > 0
        text = f"Keep the setup as it is: {reason.text}"
        if tuned is not None:
            symbol = "alpha" if sweeper.setup.axis == "init_scale" else "c"
            keep = "" if tuned[0] != c0 else " (as before)"
            text = (
                f"Train with {symbol} = {format_multiplier(tuned[0])}{keep} and a learning rate of "
                f"{rate(*tuned):.4g} (was {rate(c0, 1.0):.4g}). {reason.text}"
            )
        tuning = Tuning(
            change=found.change,
            reason=reason,
            axis=sweeper.setup.axis,
            c=c0,
            lr=rate(c0, 1.0),
            c_star=found.c_star,
            lr_at_c=rate(c0, found.factor_at_c) if rated else None,
            lr_at_c_star=rate(found.star, found.factor_at_star) if searched and rated else None,
            gain=found.gain,
            gain_of_rate=found.gain_of_rate,
            gain_at_rule=found.gain_at_rule,
            gain_in_all=found.gain_in_all,
            tuned_c=None if tuned is None else tuned[0],
            tuned_lr=None if tuned is None else rate(*tuned),
            trials=self.trials(),
            search_replica_epochs=parts[0],
            rates_replica_epochs=parts[1],
            verification_replica_epochs=parts[2],
            text=text,
        )
        cost = Cost(
            replica_epochs=sweeper.replica_epochs,
            num_runs=len(sweeper.used),
            budget_replica_epochs=sweeper.plan.budget,
            budget_bound=bound,
        )
        factor = 1.0 if tuned is None else rate(*tuned) / sweeper.rule_rate(tuned[0])
        return TuneResult(tuning, self.sweep(), cost, factor)

    def trials(self) -> tuple[Trial, ...]:
        """Every place that was tried, in ascending order."""
        places: dict[Place, int] = {(value, 1.0): n for value, n in self.visited.items()}
        rows = []
        for places_, most in ((places, self.sweeper.plan.seeds[-1]), (self.rated, self.last_rates)):
            for place, count in places_.items():
                runs = self.runs(place)
                reached = [run for run in runs if run.outcome is Outcome.REACHED_TARGET]
                rows.append(
                    Trial(
                        c=place[0],
                        lr=self.sweeper.config(
                            place[0], 0, self.sweeper.setup.centered, place[1]
                        ).lr,
                        num_seeds=len(runs),
                        num_reached=len(reached),
                        val_error=_mean([run.val_error for run in reached]),
                        val_loss=_mean([run.val_loss for run in reached]),
                        kept=count >= most and self.problem(place) is None,
                    )
                )
        return tuple(sorted(rows, key=lambda row: (row.c, row.lr)))

    @property
    def last_rates(self) -> int:
        """Seeds of the last look at learning rates."""
        seeds = self.sweeper.plan.seeds
        return seeds[min(1, len(seeds) - 1)]


@dataclass
class _Found:
    """What a search has found so far."""

    star: float = math.nan
    c_star: CStar | None = None
    factor_at_c: float = 0.0
    factor_at_star: float = 0.0
    gain: Gain | None = None
    gain_of_rate: Gain | None = None
    gain_at_rule: Gain | None = None
    gain_in_all: Gain | None = None

    @property
    def change(self) -> Literal["multiplier", "rate", "none"]:
        """What fresh seeds confirm; each gain's interval must lie above 0."""
        if all(gain is not None and gain.low > 0 for gain in (self.gain, self.gain_in_all)):
            return "multiplier"
        if self.gain_of_rate is not None and self.gain_of_rate.low > 0:
            return "rate"
        return "none"


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None
