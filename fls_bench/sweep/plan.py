"""How a sweep is planned, what it tells a listener, and what it returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from fls_bench.schema import Cost, Gain, LrRule, RateComparison, Sweep
from fls_bench.store import RunStore
from fls_bench.training import LOCAL, Backend, Engine
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
        follow_up: Whether the decision is followed by its gain on fresh seeds, the rate question and
            the centered sweep.
    """

    seeds: tuple[int, ...] = (6, 12, 20)
    coarse: tuple[float, ...] = (-4.0, -2.0, 0.0, 2.0, 4.0)
    step: float = 2.0
    limit: float = 12.0
    first_seed: int = 1000
    confirm: int = 10
    rate_limit: float = 16.0
    budget: int | None = None
    follow_up: bool = True

    def level(self, look: int) -> float:
        """Family-wise error rate of a look: its share of ``contrasts.LEVEL``."""
        if len(self.seeds) == 1:
            return contrasts.LEVEL
        shares = contrasts.LOOKS[: len(self.seeds)]
        return contrasts.LEVEL * shares[look] / sum(shares)


@dataclass(frozen=True)
class Prepared:
    """A setup that is ready to be swept.

    Attributes:
        setup: Checked, its deciding error resolved.
        rule: Its learning-rate rule.
        engine: How it is trained.
        digest: The key of its runs.
        n_test: Number of test points.
        plan: How far and how densely to sweep, with its budget.
        offsets: A fixed grid in octaves relative to the setup's own value, in place of the adaptive.
        backend: Where its runs are trained.
    """

    setup: TrainingSetup
    rule: LrRule
    engine: Engine
    digest: str
    n_test: int
    plan: SweepPlan
    offsets: tuple[float, ...] | None = None
    backend: Backend = LOCAL

    @property
    def own(self) -> float:
        """The setup's own value on the sweep's axis."""
        on_scale = self.setup.axis == "init_scale"
        return self.setup.init_scale if on_scale else self.setup.output_multiplier


Stores = Callable[[str], RunStore | None]
"""Setup digest -> the store of its runs, or None."""


@dataclass(frozen=True)
class SweepResult:
    """Everything that a diagnosis needs; plain and centered sweeps share seeds.

    Attributes:
        sweep: The sweep at the setup's own centering.
        centered: The centered sweep, where the decision is over-fitted and the setup is plain.
        decision: The verdict's test of the regime at the last look.
        star: Best multiplier by validation error, or None where c0 can't be judged.
        complete: Whether a look was finished before the budget ended.
        plain: For normalised nets, the same c under the plain rule.
        gain: From c0 to c*, on fresh seeds; None where c* is c0 or the budget ended before.
        rates: c* at its best rate against others at theirs.
        cost: Runs and replica-epochs, resumed ones included.
        notes: What was left out on the way and why, as (what, code, reason).
    """

    sweep: Sweep
    decision: regime.Decision | None
    star: float | None
    complete: bool = True
    gain: Gain | None = None
    centered: Sweep | None = None
    plain: Sweep | None = None
    rates: tuple[RateComparison, ...] = ()
    cost: Cost = Cost()
    notes: tuple[tuple[str, str, str], ...] = ()
