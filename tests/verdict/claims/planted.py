"""Sweeps with planted errors, for the judges of claims."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from fls_bench.schema import Axis, Cell, LrRule, Outcome, SeedResult, Stop, Sweep, TargetLoss
from fls_bench.verdict.claims.cases import ClaimCase

Curve = Callable[[float], float]
GRID = tuple(float(k) for k in range(-8, 5))


def bowl(at: float, depth: float = 0.004, least: float = 0.1) -> Curve:
    """An error whose least value lies at 2^at."""
    return lambda k: least + depth * (k - at) ** 2


def planted_sweep(
    error: Curve,
    *,
    seeds: int = 10,
    noise: float = 0.005,
    rng: int = 0,
    grid: Sequence[float] = GRID,
    missed: Sequence[float] = (),
    axis: Axis = "output_multiplier",
    depth: int = 2,
    n_test: int = 1000,
) -> Sweep:
    """One cell per value of log2 of the axis: errors of a seed share a part of their noise."""
    draw = np.random.default_rng(rng)
    shared = noise * draw.standard_normal(seeds)
    cells = []
    for k in grid:
        runs = []
        for seed in range(seeds):
            val, test = np.clip(
                error(k) + shared[seed] + 0.5 * noise * draw.standard_normal(2), 0, 1
            )
            runs.append(
                SeedResult(
                    seed=1000 + seed, outcome=Outcome.PLATEAU if k in missed else Outcome.REACHED_TARGET,
                    epochs=10, val_error=val, test_error=test, val_loss=3 * val, test_loss=3 * test,
                    chance_error=0.9,
                )
            )  # fmt: skip
        cells.append(
            Cell(
                c=2.0**k, lr=0.1, seeds=tuple(runs), usable=k not in missed,
                reason="no run reached the target" if k in missed else None,
            )
        )  # fmt: skip
    rule = LrRule(name="homogeneous", depth=depth)
    return Sweep(axis=axis, lr_rule=rule, n_test=n_test, cells=tuple(cells))


def planted_case(
    name: str,
    sweep: Sweep,
    *,
    family: str | None = None,
    factors: Mapping[str, float] | None = None,
    difficulty: float | None = None,
    stop: Stop | None = None,
    beside: bool = False,
    control: bool = False,
    shift: float = 0.0,
) -> ClaimCase:
    return ClaimCase(
        id=name, family=family or name, setting=f"data of {name}, net", data="data",
        factors=factors or {}, sweep=sweep, own=1.0, stop=stop or TargetLoss(0.1),
        difficulty=difficulty, beside=beside, control=control, shift=shift,
    )  # fmt: skip
