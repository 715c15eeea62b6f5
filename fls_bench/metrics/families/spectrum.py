"""Spectra of the weight matrices; they need no data."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from fls_bench.metrics.metric import OF_THE_KERNEL, Metric, Need, Reading
from fls_bench.metrics.snapshot import Snapshot
from fls_bench.metrics.spectra import (
    MIN_EIGENVALUES,
    MIN_P,
    MIN_TAIL,
    eigenvalues,
    fit_tail,
    stable_rank,
    tail_plausibility,
)
from fls_bench.schema import Regime

MAX_EIGENVALUES = 2048


def read_stable_rank(snapshot: Snapshot, _: torch.Generator) -> Iterator[Reading]:
    """Stable rank of each weight matrix, at the end and at init.

    It rises toward over-fitted, where it stays at its value at init: strong feature learning adds a
    few large directions.
    """
    for name, state in (("", snapshot.final), ("_at_init", snapshot.init)):
        for layer, weights in {} if state is None else state.weights.items():
            yield Reading(f"spectrum.stable_rank{name}", stable_rank(weights), layer)


def read_tail(snapshot: Snapshot, generator: torch.Generator) -> Iterator[Reading]:
    """Tail exponent of each weight matrix.

    It is no number where the fit is none: too few eigenvalues, the best tail the shortest that is
    tried, or a distance from the power law that less than a tenth of synthetic power laws reach. It
    rises toward over-fitted, where it stays at its value at init.
    """
    for layer, weights in snapshot.final.weights.items():
        reason, exponent = _tail(weights, generator)
        yield Reading("spectrum.tail_exponent", exponent, layer, reason=reason)


def _tail(weights: Tensor, generator: torch.Generator) -> tuple[str | None, Tensor | None]:
    if min(weights.shape) > MAX_EIGENVALUES:
        return (
            f"The matrix has more than {MAX_EIGENVALUES} eigenvalues; the fit takes r^2 steps.",
            None,
        )
    values = eigenvalues(weights)
    r = len(values)
    if r < MIN_EIGENVALUES:
        return (
            f"The matrix has {r} eigenvalues above rounding; a fit needs {MIN_EIGENVALUES}.",
            None,
        )
    tail = fit_tail(values)
    if not bool(tail.exponent.isfinite()):
        return "The eigenvalues are all equal.", None
    if int(tail.size) <= MIN_TAIL:
        return (
            f"The fit runs to the border: the best tail is the shortest tried, {MIN_TAIL} of {r}.",
            None,
        )
    p = float(tail_plausibility(values, tail, generator))
    if p < MIN_P:
        return (
            f"The tail of {int(tail.size)} of {r} eigenvalues is no power law: goodness of fit p = "
            f"{p:.2f}, below {MIN_P}."
        ), None
    return None, tail.exponent


def _stable_rank(
    name: str, what: str, direction: Regime | None, undefined: str, *needs: Need
) -> Metric:
    return Metric(
        name=f"spectrum.{name}",
        what=what,
        source="Rudelson, Vershynin 2007, sec. 1.1",
        compute=read_stable_rank,
        split=None,
        needs=frozenset({"weights", *needs}),
        per_layer=True,
        direction=direction,
        min_effect=0.5,
        min_samples=0,
        cost=lambda _n, d, h: 10.0 * d * h * min(d, h),
        invariant_to=OF_THE_KERNEL,
        undefined=undefined,
        unit="dimensions",
        range=(1.0, math.inf),
    )


ROWS: tuple[Metric, ...] = (
    _stable_rank(
        "stable_rank",
        "squared Frobenius norm of a weight matrix over its squared spectral norm",
        Regime.OVER_FITTED,
        "The weights of this layer are all 0.",
    ),
    _stable_rank(
        "stable_rank_at_init",
        "the same before training",
        None,
        "The initial weights of this layer are all 0.",
        "init",
    ),
    Metric(
        name="spectrum.tail_exponent",
        what="exponent of the power-law tail of the eigenvalues of W W^T",
        source="Clauset, Shalizi, Newman 2009, eq. 3.1, 3.9, sec. 4.1",
        compute=read_tail,
        split=None,
        needs=frozenset({"weights"}),
        per_layer=True,
        direction=Regime.OVER_FITTED,
        min_effect=0.5,
        min_samples=0,
        cost=lambda _n, d, h: 10.0 * d * h * min(d, h) + 500.0 * min(d, h) ** 2,
        invariant_to=OF_THE_KERNEL,
        range=(1.0, math.inf),
    ),
)
