"""What is measured on a net: one table of metrics, and the function that evaluates it.

The modules beside this one hold pure functions, tensors in and tensors out, that return NaN where
a quantity is undefined. :func:`measure` alone turns their results into numbers, or into the reason
why there is none.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from fls_bench.errors import InputError
from fls_bench.metrics.metric import LOGITS, Metric, Need, Reading
from fls_bench.metrics.snapshot import SPLITS, NetState, Snapshot, SplitName, TangentKernel
from fls_bench.metrics.table import METRICS
from fls_bench.schema import Measurement

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from torch import Tensor

__all__ = [
    "LOGITS",
    "METRICS",
    "Metric",
    "NetState",
    "Snapshot",
    "SplitName",
    "TangentKernel",
    "measure",
]

# What is random in a metric is drawn from this seed, whatever else is measured.
_SEED = 0

_WORDS = {"kernel": "gradients"}


def measure(snapshot: Snapshot, names: Sequence[str] | None = None) -> tuple[Measurement, ...]:
    """Evaluate the table of metrics on a snapshot.

    What can't be computed (initial state missing, too few points, features that do not vary,
    numbers that are not finite) becomes a Measurement with status "unavailable" and the reason.
    The same snapshot and name give the same numbers, whatever else is asked for.

    Args:
        snapshot: The net with its data.
        names: Metrics to evaluate; all if None.

    Returns:
        Measurements in the order of METRICS, at least one for each name.

    Raises:
        InputError: A name is not in METRICS.
    """
    unknown = sorted(set(names or ()) - set(METRICS))
    if unknown:
        raise InputError(
            f"There is no metric named {', '.join(unknown)}.",
            f"Choose from {', '.join(METRICS)}.",
        )
    rows = [row for row in METRICS.values() if names is None or row.name in names]
    with torch.no_grad():
        not_finite = _not_finite(snapshot)
        obstacles = {row.name: _obstacle(row, snapshot, not_finite) for row in rows}
        functions = dict.fromkeys(row.compute for row in rows if obstacles[row.name] is None)
        readings = [
            reading
            for compute in functions
            for reading in compute(snapshot, torch.Generator().manual_seed(_SEED))
        ]
        return tuple(
            measurement
            for row in rows
            for measurement in _measurements(row, obstacles[row.name], readings)
        )


def _measurements(
    row: Metric, obstacle: str | None, readings: Sequence[Reading]
) -> Iterator[Measurement]:
    """The measurements of one row, at least one."""
    own = [reading for reading in readings if reading.metric == row.name]
    if obstacle is None and not own:
        obstacle = "The net has no layer that this metric applies to."
    if obstacle is not None:
        own = [Reading(row.name, None, reason=obstacle)]
    for reading in own:
        bounds = [None if b is None else float(b) for b in (reading.low, reading.high)]
        value = math.nan if reading.value is None else float(reading.value)
        reason = reading.reason
        if reason is None and reading.n is not None and reading.n < row.min_samples:
            reason = f"It needs at least {row.min_samples} points to rest on, and has {reading.n}."
        if reason is None and not all(math.isfinite(b) for b in (value, *bounds) if b is not None):
            reason = row.undefined
        yield Measurement(
            metric=row.name,
            layer=reading.layer,
            split=row.split,
            value=value if reason is None else None,
            unit=row.unit,
            direction=row.direction,
            n=reading.n,
            low=bounds[0] if reason is None else None,
            high=bounds[1] if reason is None else None,
            status="ok" if reason is None else "unavailable",
            reason=reason,
        )


def _obstacle(
    row: Metric, snapshot: Snapshot, not_finite: Mapping[tuple[str, Need, SplitName | None], str]
) -> str | None:
    """Why a row can't be computed at all on this snapshot, or None."""
    init_used = "init" in row.needs or ("outputs" in row.needs and snapshot.centered)
    if init_used and snapshot.init is None:
        return "The initial weights of the net are not known."
    if "kernel" in row.needs and (
        snapshot.final.kernel is None
        or (init_used and snapshot.init is not None and snapshot.init.kernel is None)
    ):
        return snapshot.no_kernel
    splits = [split for split in SPLITS if f"{split}_data" in row.needs]
    for split in splits:
        n = len(snapshot.labels(split))
        if n < row.min_samples:
            return f"It needs at least {row.min_samples} {split} points, and there are {n}."
    for (state, kind, at), sentence in not_finite.items():
        concerns = kind in row.needs and (at is None or at in splits)
        if concerns and (state != "initial" or init_used):
            return sentence
    return None


def _not_finite(snapshot: Snapshot) -> dict[tuple[str, Need, SplitName | None], str]:
    """Which parts of a snapshot hold NaN or infinite values, each with its sentence."""
    parts: dict[tuple[str, Need, SplitName | None], Iterable[Tensor]] = {}
    for split in SPLITS:
        parts["given", "inputs", split] = [snapshot.inputs(split)]
    for state, net in (("final", snapshot.final), ("initial", snapshot.init)):
        if net is not None:
            parts[state, "weights", None] = net.weights.values()
            for split in SPLITS:
                parts[state, "features", split] = net.features(split).values()
                parts[state, "outputs", split] = [net.outputs(split)]
            if net.kernel is not None:
                blocks = (net.kernel.train, net.kernel.test)
                parts[state, "kernel", None] = [block for block in blocks if block is not None]
    return {
        (state, kind, split): (
            f"The {state} {_WORDS.get(kind, kind)}{f' on the {split} points' if split else ''} "
            "hold NaN or infinite values."
        )
        for (state, kind, split), tensors in parts.items()
        if not all(tensor.isfinite().all() for tensor in tensors)
    }
