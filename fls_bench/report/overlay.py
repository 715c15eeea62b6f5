"""The U-curves of several setups in one drawing, with c* and its interval of each."""

from __future__ import annotations

import html
import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from fls_bench.report import charts
from fls_bench.report.charts import LEFT_WORDS, RIGHT_WORDS, Layout
from fls_bench.report.comparison import Point, curve_points
from fls_bench.report.summary import axis_name, percent, power, symbol
from fls_bench.schema import RecordedCase

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Curve(NamedTuple):
    """One side's case."""

    name: str
    case: RecordedCase


def overlay(curves: Sequence[Curve], *, layout: Layout, prefix: str) -> str:
    """Draw test error over c for several setups.

    Bars are 95 % Student-t intervals over the seeds that reached the target. Below the curves stands
    a line for each setup: c* as a mark, the values that may be the best as a bar. A ring is the
    setup's own c.

    Args:
        curves: One or more, on one axis.
        layout: ``wide`` for a page, ``narrow`` for a phone.
        prefix: Put before every id in the drawing; unique within the page.

    Returns:
        An ``<svg>`` element; equal arguments give equal text. Empty where nothing was measured.
    """
    import matplotlib
    from matplotlib.figure import Figure

    points = [curve_points(curve.case) for curve in curves]
    everything = [point for row in points for point in row]
    if not everything:
        return ""
    axis = curves[0].case.axis
    width, height = charts.SIZES[layout]
    height += 17 * max(0, len(curves) - 4)
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(charts.STYLE)
        figure = Figure(figsize=(width / 72, height / 72))
        errors, stars = figure.subplots(
            2, 1, sharex=True,
            gridspec_kw={"height_ratios": (8, 0.6 + 0.5 * len(curves)), "hspace": 0.06},
        )  # fmt: skip
        charts.scale(errors, [point.error for point in everything], 100.0)
        marks: list[str] = []
        for k, (curve, row) in enumerate(zip(curves, points, strict=True)):
            _draw(errors, curve, row, k)
            _draw_star(stars, curve.case, k)
        low, high = (f(math.log2(point.c) for point in everything) for f in (min, max))
        margin = max(0.04 * (high - low), 0.35)
        errors.set_xlim(low - margin, high + margin)
        errors.grid(visible=True, axis="y")
        errors.set_axisbelow(True)
        errors.tick_params(axis="x", length=0)
        errors.set_ylabel("test error (%)" + (", log" if errors.get_yscale() == "log" else ""))
        stars.set_ylim(len(curves) - 0.4, -0.6)
        stars.set_yticks([0] if len(curves) == 1 else [])
        stars.set_ylabel(f"{symbol(axis)}*", rotation=0, ha="right", va="center")
        charts.power_ticks(stars, low - margin, high + margin, axis, layout)
        columns = 2 if layout == "wide" else 1
        rows = math.ceil(len(curves) / columns)
        figure.subplots_adjust(
            left=54 / width, right=1 - 14 / width, bottom=(62 if layout == "wide" else 74) / height,
            top=1 - (22 + 17 * rows) / height,
        )  # fmt: skip
        handles, labels = errors.get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="upper left", ncols=columns, frameon=False, fontsize=11,
            bbox_to_anchor=(40 / width, 1 - 2 / height), borderaxespad=0, handlelength=3.2,
            labelspacing=0.35, columnspacing=2.0,
        )  # fmt: skip
        text = io.StringIO()
        metadata = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(text, format="svg", metadata=metadata)
        across = figure.transFigure.inverted().transform
        for curve, row in zip(curves, points, strict=True):
            for point in row:
                x, y = across(
                    errors.transData.transform((math.log2(point.c), 100 * point.error.value))
                )
                words = html.escape(_reading(curve, point))
                marks.append(
                    f'<g class="point" role="img" tabindex="0"><title>{words}</title>'
                    f'<circle cx="{width * x:.1f}" cy="{height * (1 - y):.1f}" r="10"/></g>'
                )
    title = f"Test error over the {axis_name(axis)} of {len(curves)} setups"
    return charts.inline(text.getvalue(), prefix, title, description(curves), "\n".join(marks))


def description(curves: Sequence[Curve]) -> str:
    """What the drawing shows, in words, for those who can't see it."""
    axis = curves[0].case.axis
    parts = [
        f"Test error over the {axis_name(axis)} on a logarithmic axis; left {LEFT_WORDS}, right "
        f"{RIGHT_WORDS}."
    ]
    for curve in curves:
        row = "; ".join(
            f"{symbol(axis)} = {power(point.c)}: {percent(point.error)}"
            for point in curve_points(curve.case)
        )
        star = curve.case.c_star
        best = "" if star is None else f"; {symbol(axis)}* is {power(star.value)}"
        parts.append(f"{curve.name}: {row or 'nothing measured'}{best}.")
    return " ".join(parts)


def _reading(curve: Curve, point: Point) -> str:
    name = symbol(curve.case.axis)
    own = ", its own c" if point.c == curve.case.c else ""
    return (
        f"{curve.name}; {name} = {power(point.c)}{own}, n = {point.error.n}; test error "
        f"{percent(point.error)}; learning rate {point.lr:.4g}"
    )


def _label(name: str) -> str:
    """A name short enough for the legend; its end tells files of one folder apart."""
    short = name if len(name) < 40 else f"{name[:16]}...{name[-20:]}"
    # What begins with an underscore is left out of a legend.
    return f"\u200b{short}" if short.startswith("_") else short


def _draw(panel: Axes, curve: Curve, row: Sequence[Point], k: int) -> None:
    if not row:
        return
    colour, marker, dash = charts.look(k)
    values = [100 * point.error.value for point in row]
    bounds = [
        [100 * abs(point.error.value - (point.error.value if end is None else end)) for point, end
         in ((point, getattr(point.error, side)) for point in row)]
        for side in ("low", "high")
    ]  # fmt: skip
    panel.errorbar(
        [math.log2(point.c) for point in row], values, yerr=bounds, color=colour, linewidth=2.0,
        linestyle=dash, elinewidth=1.1, capsize=3,
        marker=marker, markersize=5.5, label=_label(curve.name),
    )  # fmt: skip
    own = [point for point in row if point.c == curve.case.c]
    panel.plot(
        [math.log2(point.c) for point in own], [100 * point.error.value for point in own],
        linestyle="none", marker="o", markersize=13, markerfacecolor="none",
        markeredgecolor=colour, markeredgewidth=1.6,
    )  # fmt: skip


def _draw_star(panel: Axes, case: RecordedCase, k: int) -> None:
    star = case.c_star
    if star is None:
        return
    colour, marker, _ = charts.look(k)
    cells = [cell.c for cell in case.cells]
    low, high = star.low or min(cells), star.high or max(cells)
    panel.plot([math.log2(low), math.log2(high)], [k, k], color=colour, linewidth=3, alpha=0.55)
    panel.plot(
        [math.log2(star.value)], [k], color=colour, marker=marker,
        markersize=7, linestyle="none",
    )  # fmt: skip
