"""The reading is fitted to the atlas, and judged on what it was not fitted to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fls_bench.atlas import OUTCOMES, Shard
from fls_bench.schema import Outcome
from fls_bench.verdict.reading.columns import COLUMNS
from fls_bench.verdict.reading.truth import REGIMES, truth

Values = npt.NDArray[np.float64]
Labels = npt.NDArray[np.intp]

UNKNOWN = -1


@dataclass(frozen=True, eq=False)
class Labelled:
    """The nets of an atlas that reached their stop, with what is known of them.

    Attributes:
        columns: ``[R, len(COLUMNS)]``, NaN where nothing was measured.
        case: ``[R]`` which setup.
        regime: ``[R]`` index into ``REGIMES``, or ``UNKNOWN``.
        grey: ``[R]`` whether the setup lies too near the margin to be truth.
        log2_ratio: ``[R]`` log2(c / c*), NaN where c* is not known.
        facts: Of each setup, as the shards tell them.
    """

    columns: Values
    case: Labels
    regime: Labels
    grey: npt.NDArray[np.bool_]
    log2_ratio: Values
    facts: Sequence[dict[str, Any]]

    def of_case(self, key: str) -> npt.NDArray[Any]:
        """A fact of each net's setup, ``[R]``."""
        return np.array([fact[key] for fact in self.facts])[self.case]

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """Nets whose regime is truth."""
        known: npt.NDArray[np.bool_] = (self.regime != UNKNOWN) & ~self.grey
        return known

    def by_column(self, rows: npt.NDArray[Any]) -> dict[str, Values]:
        """Column -> ``[len(rows)]``."""
        return {name: self.columns[rows, k] for k, name in enumerate(COLUMNS)}


def labelled(shards: Sequence[Shard]) -> Labelled:
    """Judge every setup of an atlas at each c, and put its nets together.

    Args:
        shards: The atlas.

    Returns:
        All nets that reached their stop.
    """
    parts: dict[str, list[Any]] = {
        name: [] for name in ("columns", "case", "regime", "grey", "ratio")
    }
    facts: list[dict[str, Any]] = []
    for shard in shards:
        for k, about in enumerate(shard.header["cases"]):
            rows = np.flatnonzero(shard.case == k)
            outcomes = [OUTCOMES[o] for o in shard.outcome[rows]]
            log2_c = shard.log2_c[rows].astype(float)
            cells = truth(
                log2_c, shard.seed[rows], outcomes, shard.errors[rows].astype(float),
                about["n_test"],
            )  # fmt: skip
            for row, log, outcome in zip(rows, log2_c, outcomes, strict=True):
                if outcome is not Outcome.REACHED_TARGET:
                    continue
                cell = cells.get(log)
                known = cell is not None and cell.regime is not None
                parts["columns"].append(shard.values[row])
                parts["case"].append(len(facts))
                parts["regime"].append(
                    REGIMES.index(cell.regime) if cell and cell.regime and known else UNKNOWN
                )
                parts["grey"].append(cell is not None and cell.grey)
                ratio = None if cell is None else cell.log2_ratio
                parts["ratio"].append(np.nan if ratio is None else ratio)
            facts.append(about)
    return Labelled(
        np.array(parts["columns"], dtype=float), np.array(parts["case"]),
        np.array(parts["regime"]), np.array(parts["grey"], dtype=bool),
        np.array(parts["ratio"], dtype=float), facts,
    )  # fmt: skip
