"""How often the verdict is wrong: the real sweep and verdict on simulated nets whose R(c) is known.

Only training is replaced: a simulated run's errors are R(c) plus noise, so extension, refinement,
looks, fresh seeds and judgement are the code that users run. Prints the table of docs/error-rates.md.

    python benchmarks/error_rates.py --runs 500
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from unittest.mock import patch

import numpy as np
from scipy.stats import binomtest

from fls_bench.bench import Options
from fls_bench.schema import LrRule, Outcome, Regime, RunConfig, RunRecord, Sgd, TargetLoss
from fls_bench.sweep import SweepPlan, SweepResult, sweeper
from fls_bench.sweep.search import search
from fls_bench.training import LOCAL, Backend, Engine, Observer
from fls_bench.training_setup import TrainingSetup
from fls_bench.verdict.diagnosis import diagnose
from fls_bench.verdict.evidence import Evidence

N_TEST = 1000

Curve = Callable[[float], float]


class Silent:
    """A listener that shows nothing."""

    def plan(self, total_runs: int, text: str) -> None: ...

    def done(self, runs: int, text: str) -> None: ...

    def note(self, text: str) -> None: ...


@dataclass(frozen=True)
class World:
    """A truth: mean error and seed noise as functions of log2 c.

    Attributes:
        error: R(c).
        noise: Standard deviation of one net's error around R(c) plus its seed's own level.
        shared: Standard deviation of the level that all nets of a seed share (paired away).
        heavy: Whether noise has Student-t tails (3 degrees of freedom) in place of normal ones.
    """

    error: Curve
    noise: Curve
    shared: float = 0.01
    heavy: bool = False

    def run(self, config: RunConfig, world_seed: int) -> RunRecord:
        """One simulated net; validation and test errors share most of the net's luck."""
        log2_c = math.log2(config.c)
        key = [world_seed, config.seed, round(1000 * log2_c) + 10**6, round(1e6 * config.lr)]
        own = np.random.default_rng(key)
        level = self.shared * np.random.default_rng([world_seed, config.seed]).standard_normal()
        draw = own.standard_t(3, size=3) / math.sqrt(3) if self.heavy else own.standard_normal(3)
        val, test = (0.8 * draw[0] + 0.6 * draw[k] for k in (1, 2))
        error = self.error(log2_c) + level

        def count(noise: float) -> float:
            return float(
                np.clip(round(N_TEST * (error + self.noise(log2_c) * noise)) / N_TEST, 0, 1)
            )

        return RunRecord(
            config=config, outcome=Outcome.REACHED_TARGET, epochs=1, steps=1, train_loss=0.1,
            val_error=count(val), test_error=count(test), val_loss=0.1, test_loss=0.1,
            chance_error=0.9,
        )  # fmt: skip


Train = Callable[[RunConfig], RunRecord]


def simulated(
    plan: SweepPlan, log2_c: float = -4.0, known: dict[str, RunRecord] | None = None
) -> sweeper.Sweeper:
    """The state of a sweep whose nets are never built; train under ``training_by``."""
    setup = TrainingSetup(
        make_model=lambda: None,  # type: ignore[arg-type,return-value]  # never built
        task=lambda seed: None,  # type: ignore[arg-type,return-value]
        optimizer=Sgd(lr=0.1),
        stop=TargetLoss(),
        output_multiplier=2.0**log2_c,
    )
    return sweeper.Sweeper(
        setup, LrRule(name="homogeneous", depth=4), Engine("fused"), "simulated", N_TEST, plan,
        None, Silent(), 1, known=known or {},
    )  # fmt: skip


@contextmanager
def training_by(train: Train) -> Iterator[None]:
    """Replace training by a function of the run."""

    def fake(
        setup: TrainingSetup, rule: LrRule, configs: Sequence[RunConfig],
        on_record: Callable[[RunRecord], None], *, engine: Engine, jobs: int,
        observe: Observer | None = None, backend: Backend = LOCAL,
        batches: Sequence[Sequence[RunConfig]] | None = None,
    ) -> None:  # fmt: skip
        for config in configs:
            on_record(train(config))

    with patch.object(sweeper, "train_all", fake):
        yield


def simulate(
    world: World, max_seeds: int, world_seed: int, log2_c: float = -4.0
) -> tuple[Regime, SweepResult]:
    """Diagnose one simulated setup.

    Args:
        world: The truth.
        max_seeds: As ``--max-seeds``.
        world_seed: Makes this world's draws.
        log2_c: log2 of the setup's own c.

    Returns:
        (the regime, the sweep).
    """
    plan: SweepPlan = Options(listener=Silent(), max_seeds=max_seeds).plan()
    with training_by(lambda config: world.run(config, world_seed)):
        result = search(simulated(plan, log2_c), None)
    evidence = Evidence(result.sweep, 2.0**log2_c, result.gain, result.centered, (), result.cost)
    return diagnose(evidence).regime, result


FLAT: Curve = lambda _: 0.12  # noqa: E731
EQUAL: Curve = lambda _: 0.01  # noqa: E731
RISING: Curve = lambda k: float(np.clip(0.01 * 2 ** ((k + 4) / 4), 0.001, 0.08))  # noqa: E731
FALLING: Curve = lambda k: RISING(-8 - k)  # noqa: E731


def valley(depth: float, center: float) -> Curve:
    """A U over log2 c: ``depth`` above its minimum four octaves from ``center``."""
    return lambda k: 0.10 + depth * ((k - center) / 4) ** 2


WORLDS: dict[str, tuple[World, float]] = {
    "flat, equal noise": (World(FLAT, EQUAL), -4.0),
    "flat, noise rising with c": (World(FLAT, RISING), -4.0),
    "flat, noise falling with c": (World(FLAT, FALLING), -4.0),
    "flat, heavy tails": (World(FLAT, EQUAL, heavy=True), -4.0),
    "optimum at c": (World(valley(0.02, -4), EQUAL), -4.0),
    "c 2 points above the optimum, too small": (World(valley(0.02, 0), EQUAL), -4.0),
    "c 2 points above the optimum, too large": (World(valley(0.02, -8), EQUAL), -4.0),
    "c 4 points above the optimum, too small": (World(valley(0.04, 0), EQUAL), -4.0),
}


def share(count: int, total: int) -> str:
    """A share in percent with its exact 95 % interval."""
    interval = binomtest(count, total).proportion_ci()
    return f"{100 * count / total:.1f} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 5, 10, 20])
    arguments = parser.parse_args()
    names = ("over-aligned", "near-optimal", "over-fitted", "inconclusive")
    print(f"| truth | max seeds | {' | '.join(names)} | gain interval covers the truth |")
    print("|---|---|---|---|---|---|---|")
    for name, (world, log2_c) in WORLDS.items():
        for max_seeds in arguments.seeds:
            regimes: Counter[str] = Counter()
            covered = asked = 0
            for world_seed in range(arguments.runs):
                regime, result = simulate(world, max_seeds, world_seed, log2_c)
                regimes[regime.label] += 1
                if result.gain is not None and result.star is not None:
                    true = 100 * (world.error(log2_c) - world.error(math.log2(result.star)))
                    covered += result.gain.low <= true <= result.gain.high
                    asked += 1
            cells = [share(regimes[label], arguments.runs) for label in names]
            coverage = share(covered, asked) if asked else "-"
            print(f"| {name} | {max_seeds} | {' | '.join(cells)} | {coverage} |", flush=True)


if __name__ == "__main__":
    main()
