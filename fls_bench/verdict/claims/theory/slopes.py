"""How an angle goes with alpha: slopes in log-log, where the theory says something."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fls_bench.schema.theory import MIN_SCALES
from fls_bench.verdict.claims.cases import Values
from fls_bench.verdict.claims.theory.table import MIN_SEEDS, Table


def where_positive(table: Table, zeta: str) -> list[int]:
    """The scales at which zeta > 0, and phase 1 was seen, for every seed."""
    usable = (table.of(zeta) > 0).all(axis=1) & np.isfinite(table.of("phase1_angle")).all(axis=1)
    return [int(k) for k in np.flatnonzero(usable)]


def slopes(table: Table, name: str, at: Sequence[int]) -> Values | None:
    """[S'] least-squares slope of log2 of a measurement against log2 alpha, one for each seed.

    Args:
        table: The table.
        name: The measurement, > 0.
        at: Indices of scales.

    Returns:
        Of the seeds that have it at all of these scales; None with fewer than three of either.
    """
    if len(at) < MIN_SCALES:
        return None
    x, values = table.log2[list(at)], table.of(name)[list(at)]
    known = (values > 0).all(axis=0)  # false for NaN as well
    if int(known.sum()) < MIN_SEEDS:
        return None
    found: Values = np.polyfit(x, np.log2(values[:, known]), 1)[0]
    return found
