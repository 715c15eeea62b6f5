"""The plots of a claim: any number of curves over one axis, each point with its interval."""

from __future__ import annotations

import html
import io
import math
from typing import TYPE_CHECKING

from fls_bench.report import charts
from fls_bench.schema import ClaimCurve, ClaimPanel, CurvePoint

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT = 380.0, 330.0
"""One size for a phone and, several in a row, for a wide page."""

MOST_TICKS = 7


def panel(found: ClaimPanel, prefix: str) -> str:
    """Draw one panel; bars are 95 % intervals over seeds.

    Args:
        found: Its curves, and its axes with units and direction in words.
        prefix: Put before every id in the drawing; unique within the page.

    Returns:
        An ``<svg>`` element; equal arguments give equal text.
    """
    import matplotlib
    from matplotlib.figure import Figure

    rows = len(found.curves) if len(found.curves) > 1 else 0
    height = HEIGHT + 15 * rows
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(charts.STYLE)
        figure = Figure(figsize=(WIDTH / 72, height / 72))
        axes = figure.subplots()
        for k, curve in enumerate(found.curves):
            _draw(axes, curve, k)
        axes.grid(visible=True, axis="y")
        axes.set_axisbelow(True)
        axes.set_xlabel(found.x_label, fontsize=10)
        axes.set_ylabel(found.y_label, fontsize=10)
        xs = sorted({point.x for curve in found.curves for point in curve.points})
        if found.x_log2 and xs:
            ticks = xs[:: -(-len(xs) // MOST_TICKS)]
            axes.set_xticks(ticks, [_power(x, counts=xs[0] >= 0) for x in ticks])
        if found.y_log2:
            axes.yaxis.set_major_formatter(lambda y, _: _power(y, counts=False))
        figure.subplots_adjust(
            left=60 / WIDTH,
            right=1 - 10 / WIDTH,
            bottom=46 / height,
            top=1 - (8 + 15 * rows) / height,
        )
        if rows:
            handles, labels = axes.get_legend_handles_labels()
            figure.legend(
                handles, labels, loc="upper left", frameon=False, fontsize=9.5, handlelength=3.0,
                bbox_to_anchor=(52 / WIDTH, 1 - 2 / height), borderaxespad=0, labelspacing=0.25,
            )  # fmt: skip
        text = io.StringIO()
        metadata = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(text, format="svg", metadata=metadata)
        across = figure.transFigure.inverted().transform
        marks = []
        for curve in found.curves:
            for point in curve.points:
                x, y = across(axes.transData.transform((point.x, point.value)))
                words = html.escape(f"{curve.name}; {reading(found, point)}")
                marks.append(
                    f'<g class="point" role="img" tabindex="0"><title>{words}</title>'
                    f'<circle cx="{WIDTH * x:.1f}" cy="{height * (1 - y):.1f}" r="9"/></g>'
                )
    title = html.escape(found.title)
    return charts.inline(text.getvalue(), prefix, title, description(found), "\n".join(marks))


def reading(found: ClaimPanel, point: CurvePoint) -> str:
    """A point in words."""
    x = _plain_power(point.x) if found.x_log2 else f"{point.x:.4g}"

    def value(y: float) -> str:
        return _plain_power(y) if found.y_log2 else f"{y:.4g}"

    interval = ""
    if point.low is not None and point.high is not None:
        interval = f" [{value(point.low)}, {value(point.high)}]"
    return f"at {x}: {value(point.value)}{interval}"


def description(found: ClaimPanel) -> str:
    """What the drawing shows, in words, for those who can't see it."""
    parts = [f"{found.title}. {found.y_label} over {found.x_label}."]
    for curve in found.curves:
        parts.append(f"{curve.name}: {'; '.join(reading(found, point) for point in curve.points)}.")
    return " ".join(parts)


def _draw(axes: Axes, curve: ClaimCurve, k: int) -> None:
    values = [point.value for point in curve.points]
    bounds = [
        [point.value - (point.value if point.low is None else point.low) for point in curve.points],
        [
            (point.value if point.high is None else point.high) - point.value
            for point in curve.points
        ],
    ]
    colour, marker, dash = charts.look(k)
    axes.errorbar(
        [point.x for point in curve.points], values, yerr=[[max(0.0, v) for v in row] for row in bounds],
        color=colour, linewidth=1.8,
        linestyle=dash, elinewidth=1.0, capsize=2.5,
        marker=marker, markersize=4.5,
        label=f"\u200b{curve.name}" if curve.name.startswith("_") else curve.name,
    )  # fmt: skip


def _power(exponent: float, counts: bool) -> str:
    """2 to a power; sizes and counts, which are whole, as the number that they are."""
    if counts and exponent < 30:
        return f"{2**exponent:.5g}"
    return charts.two_to(round(exponent, 2))


def _plain_power(exponent: float) -> str:
    whole = math.isclose(exponent, round(exponent), abs_tol=1e-9)
    return f"2^{round(exponent)}" if whole else f"2^{exponent:.2f}"
