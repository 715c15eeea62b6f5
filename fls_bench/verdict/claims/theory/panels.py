"""The plots of C5 and C6."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fls_bench.schema import ClaimCurve, ClaimPanel, CurvePoint
from fls_bench.verdict.claims.cases import Values, t_interval
from fls_bench.verdict.claims.theory.table import MIN_SEEDS, Table

SHOWN_FACTOR = 5.0
"""A second panel leaves out the scales whose excess is more than so many times the least."""

ALPHA_LABEL = "init scale α (c = α²; ← larger FLS, smaller FLS →)"
_PERCENT = "error above the Bayes error (%)"
_ANGLE = "angle to the class mean x₊ (radians)"


def _curve(
    table: Table, name: str, values: Values, at: Sequence[int], log2: bool = False
) -> ClaimCurve | None:
    points = []
    for k in at:
        row = values[k][np.isfinite(values[k])]
        if log2:
            row = np.log2(row[row > 0])
        if len(row) < MIN_SEEDS:
            continue
        one = t_interval(row)
        points.append(
            CurvePoint(x=float(table.log2[k]), value=one.value, low=one.low, high=one.high)
        )
    return ClaimCurve(name=name, points=tuple(points)) if points else None


def _panel(
    title: str, y_label: str, curves: Sequence[ClaimCurve | None], y_log2: bool = False
) -> tuple[ClaimPanel, ...]:
    known = tuple(one for one in curves if one is not None)
    if not known:
        return ()
    return (
        ClaimPanel(title=title, x_label=ALPHA_LABEL, y_label=y_label, y_log2=y_log2, curves=known),
    )


def c5_panels(table: Table) -> tuple[ClaimPanel, ...]:
    """Errors over alpha, over all scales and where they are small, and how often the net is 0."""
    every = range(len(table.alphas))
    excess = table.of("excess_effective").mean(axis=1)
    near = [k for k in every if excess[k] <= SHOWN_FACTOR * excess.min()]
    parts = {
        "OA": "over_alignment", "OF": "over_fitting", "OA + OF": "excess_effective",
    }  # fmt: skip
    errors = {
        "effective predictor": "excess_effective",
        "net itself, ties half an error": "excess_net",
        "linear direction": "excess_linear",
    }
    panels: list[ClaimPanel] = []
    for words, at in (("", list(every)), (", where the excess is small", near)):
        for title, names in (("Over-alignment and over-fitting", parts), ("Excess error", errors)):
            panels += _panel(
                f"{title}{words}", _PERCENT,
                [_curve(table, label, 100 * table.of(name), at) for label, name in names.items()],
            )  # fmt: skip
    panels += _panel(
        "Test points on which the net is exactly 0", "share of test points (%)",
        [_curve(table, "ties", 100 * table.of("ties"), every)],
    )  # fmt: skip
    return tuple(panels)


def c6_panels(table: Table) -> tuple[ClaimPanel, ...]:
    """Angles over alpha at the moments of the flow, and what the alignment bound says of neurons."""
    every = range(len(table.alphas))
    angles = {
        "effective predictor, end of phase 1": "phase1_angle",
        "neurons in the cone, end of phase 1": "phase1_neuron_angle",
        "effective predictor, explicit phase-1 time": "time_angle",
        "effective predictor, loss gradient moved": "gradient_angle",
        "effective predictor, at the stop": "theta",
        "x₊ to the Bayes direction (φ)": "phi",
    }
    cosines = {"least ψ of a neuron in the cone": "psi_min", "its bound": "psi_bound"}
    return (
        *_panel(
            "Angle to the class mean", _ANGLE,
            [_curve(table, label, table.of(name), every, log2=True)
             for label, name in angles.items()],
            y_log2=True,
        ),
        *_panel(
            "Alignment of neurons at the end of phase 1, where the bound says something",
            "cosine with the class mean (1)",
            [_curve(table, label, table.of(name), every) for label, name in cosines.items()],
        ),
    )  # fmt: skip
