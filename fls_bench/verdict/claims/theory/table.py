"""What a sweep of the theory measured, by init scale and seed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fls_bench.schema import Sweep
from fls_bench.verdict.claims.cases import Values, errors_of

MIN_SEEDS = 3
_PREFIX = "theory."


@dataclass(frozen=True)
class Table:
    """Measurements of the runs that reached the target at every scale that can be judged.

    Attributes:
        alphas: [A], ascending.
        seeds: [S].
        runs: [A][S] measurements by name, without ``theory.``.
    """

    alphas: tuple[float, ...]
    seeds: tuple[int, ...]
    runs: tuple[tuple[Mapping[str, float], ...], ...]

    def only(self, chosen: npt.NDArray[np.bool_]) -> Table:
        """The same of some of the seeds, [S] bool."""
        keep = [int(k) for k in np.flatnonzero(chosen)]
        return Table(
            self.alphas,
            tuple(self.seeds[k] for k in keep),
            tuple(tuple(row[k] for k in keep) for row in self.runs),
        )

    def of(self, name: str) -> Values:
        """[A, S] of one measurement; NaN where a run has none."""
        rows = [[run.get(name, math.nan) for run in row] for row in self.runs]
        return np.array(rows, dtype=np.float64)

    @property
    def log2(self) -> Values:
        """[A] log2 alpha."""
        return np.log2(self.alphas)

    def power(self, k: int) -> str:
        """A scale for people: ``2^-3``."""
        return f"2^{self.log2[k]:.3g}"


def table_of(sweep: Sweep) -> Table | None:
    """The table of a sweep, over the scales and seeds that ``errors_of`` keeps.

    Args:
        sweep: Of the theory, over alpha.

    Returns:
        The table; None with fewer than three scales or seeds.
    """
    kept = errors_of(sweep)
    if kept is None:
        return None
    by_alpha = {cell.c: {run.seed: run.measurements for run in cell.seeds} for cell in sweep.cells}
    runs = tuple(
        tuple(
            {name.removeprefix(_PREFIX): value for name, value in by_alpha[c][seed].items()}
            for seed in kept.seeds
        )
        for c in kept.c
    )
    return Table(kept.c, kept.seeds, runs)
