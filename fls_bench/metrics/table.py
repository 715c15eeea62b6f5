"""The table of metrics: what each needs, means and costs."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from fls_bench.metrics.families import (
    agreement,
    alignment,
    collapse,
    kernel,
    movement,
    probing,
    rank,
    reference,
    risk,
    spectrum,
)
from fls_bench.metrics.metric import Metric

_FAMILIES = (
    risk,
    movement,
    alignment,
    agreement,
    rank,
    collapse,
    kernel,
    spectrum,
    probing,
    reference,
)

METRICS: Mapping[str, Metric] = MappingProxyType(
    {row.name: row for family in _FAMILIES for row in family.ROWS}
)
"""Every metric by name, in the order in which they are shown."""
