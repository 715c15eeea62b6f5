"""The table of metrics as a page for people, docs/metrics.md."""

from __future__ import annotations

import math

from fls_bench.metrics.metric import Metric
from fls_bench.metrics.table import METRICS

_HEAD = """# What is measured on a net

Written from the table of metrics by `make metrics-page`; a test compares the two.

*Direction*: the side that a higher value goes with, where one is known; over-aligned = c too small,
over-fitted = c too large. *Conditions*: what has to be known, and the fewest points of each split that
give a value; otherwise the metric is unavailable, with the reason. *Cost*: floating-point operations for
one layer of width 128, 64 inputs and 1000 points per split.

| name | what it is | range | direction | conditions | cost | source |
|---|---|---|---|---|---|---|
"""
_CONDITIONS = {
    "init": "initial weights",
    "kernel": "tangent kernel",
    "train_data": "training points",
    "validation_data": "validation points",
    "test_data": "test points",
}


def page() -> str:
    """The whole page, in Markdown."""
    return _HEAD + "".join(_line(row) for row in METRICS.values())


def _line(row: Metric) -> str:
    direction = "" if row.direction is None else row.direction.value.replace("_", "-")
    needed = [words for need, words in _CONDITIONS.items() if need in row.needs]
    if row.min_samples:
        needed.append(f"n >= {row.min_samples}")
    low, high = (_number(bound) for bound in row.range)
    unit = "" if row.unit == "1" else f" {row.unit}"
    cells = (
        f"`{row.name}`",
        row.what + (", per layer" if row.per_layer else ""),
        f"{low} to {high}{unit}",
        direction,
        ", ".join(needed) or "weights",
        f"{row.cost(1000, 64, 128):.0e}",
        row.source,
    )
    return f"| {' | '.join(cells)} |\n"


def _number(bound: float) -> str:
    if math.isinf(bound):
        return "∞" if bound > 0 else "-∞"
    return f"{bound:g}"
