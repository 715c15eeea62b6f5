"""The U-curve as inline SVG: test error over the output multiplier, with what the verdict marks.

The drawing names its colours as CSS variables (``--chart-...``) with light-page values to fall
back on, so one drawing serves a light page, a dark page and paper.
"""

from __future__ import annotations

import html
import io
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from fls_bench.report.summary import (
    CellSummary,
    Mean,
    axis_name,
    multiplier,
    number,
    percent,
    plain,
    power,
    summarize_sweep,
    symbol,
)
from fls_bench.schema import Axis, CStar, Sweep

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Layout = Literal["wide", "narrow"]

LEFT_WORDS = "larger FLS → over-aligned"
RIGHT_WORDS = "smaller FLS → over-fitted"

# Every role has a value of its own, so that each can be told apart when it becomes a variable.
COLOURS = {
    "ink": "#1b2430",
    "muted": "#5a6675",
    "grid": "#dde2e9",
    "curve": "#1f5fd0",
    "companion": "#7f9fd6",
    "centered": "#0b7a6f",
    "now": "#c2185b",
    "best": "#237a35",
    "aligned": "#6d3fc4",
    "fitted": "#d9660a",
}

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "svg.hashsalt": "fls-bench",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 11.0,
    "axes.linewidth": 0.8,
    "axes.edgecolor": COLOURS["muted"],
    "axes.labelcolor": COLOURS["ink"],
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "none",
    "grid.color": COLOURS["grid"],
    "grid.linewidth": 0.8,
    "text.color": COLOURS["ink"],
    "xtick.color": COLOURS["muted"],
    "ytick.color": COLOURS["muted"],
    "xtick.labelcolor": COLOURS["ink"],
    "ytick.labelcolor": COLOURS["ink"],
}

# Points (1/72 inch), which are the units of the SVG's own coordinates.
SIZES: dict[Layout, tuple[float, float]] = {"wide": (760.0, 440.0), "narrow": (340.0, 460.0)}
_SUPERSCRIPTS = str.maketrans("-.0123456789", "⁻·⁰¹²³⁴⁵⁶⁷⁸⁹")


# Roles that a page gives colours on light and on dark; beyond six the dashes tell curves apart.
_ROLES = ("curve", "fitted", "centered", "now", "aligned", "best")
_MARKERS = ("o", "s", "^", "D", "v", "P")
_DASHES = ((0, ()), (0, (4, 2)), (0, (1, 1.5)))


class Look(NamedTuple):
    """How one of several curves is drawn."""

    colour: str
    marker: str
    dash: tuple[float, tuple[float, ...]]


def look(k: int) -> Look:
    """How the k-th of several curves in one drawing looks."""
    num = len(_ROLES)
    dash = _DASHES[(k // num) % len(_DASHES)]
    return Look(COLOURS[_ROLES[k % num]], _MARKERS[k % len(_MARKERS)], dash)


def u_curve(
    sweep: Sweep,
    second: Sweep | None,
    c: float | None,
    c_star: CStar | None,
    *,
    layout: Layout,
    prefix: str,
) -> str:
    """Draw test error (with validation error beside it) and test loss over c.

    Left is small c: larger FLS, toward over-aligned. Right is large c: smaller FLS, toward
    over-fitted. Bars are 95 % Student-t intervals over seeds. Values of c that can't be judged
    are drawn hollow, or as a cross at the top where no run left a number.

    Args:
        sweep: The sweep; at least one cell.
        second: The same c once more, of c·(f - f_0) or by the plain rule, as a second curve; or None.
        c: The value under judgement, a vertical line.
        c_star: The best value, a line with its interval as a band; the regions on both sides of
            the interval are shaded and named.
        layout: ``wide`` for a page, ``narrow`` for a phone.
        prefix: Put before every id in the drawing; unique within the page.

    Returns:
        An ``<svg>`` element; equal arguments give equal text.
    """
    import matplotlib
    from matplotlib.figure import Figure

    cells = summarize_sweep(sweep)
    second_cells = summarize_sweep(second) if second is not None else ()
    axis = sweep.axis
    width, height = SIZES[layout]
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        figure = Figure(figsize=(width / 72, height / 72))
        errors, losses = figure.subplots(
            2, 1, sharex=True, gridspec_kw={"height_ratios": (5, 2), "hspace": 0.09}
        )
        everything = (*cells, *second_cells)
        scale(errors, _means(everything, "test_error"), 100.0)
        scale(losses, _means(everything, "test_loss"), 1.0)
        names = ("", "")
        if second is not None:
            names = (", exact rule", ", plain rule η/c")
            if second.centered:
                names = (", plain c·f", ", centered c·(f - f₀)")
        _curves(errors, losses, cells, "curve", "o", names[0])
        if second_cells:
            _curves(errors, losses, second_cells, "centered", "s", names[1])
        _chance(errors, cells)
        _x_axis(losses, everything, c, c_star, axis, layout)
        for panel in (errors, losses):
            _regions(panel, c_star)
            _markers(panel, c, c_star)
            panel.grid(visible=True, axis="y")
            panel.set_axisbelow(True)
        errors.tick_params(axis="x", length=0)
        errors.set_ylabel("error (%)" + _log_note(errors))
        losses.set_ylabel("test loss")
        _region_names(errors, c_star, width)
        _marker_names(errors, c, c_star, axis)
        handles, labels = errors.get_legend_handles_labels()
        order = sorted(range(len(labels)), key=lambda i: (not labels[i].startswith("test"), i))
        handles, labels = [handles[i] for i in order], [labels[i] for i in order]
        columns = 2 if layout == "wide" else 1
        rows = math.ceil(len(labels) / columns)
        top = 10 + 17 * rows + 34
        figure.subplots_adjust(
            left=54 / width,
            right=1 - 14 / width,
            bottom=(62 if layout == "wide" else 74) / height,
            top=1 - top / height,
        )
        figure.legend(
            handles, labels, loc="upper left", ncols=columns, frameon=False, fontsize=11,
            bbox_to_anchor=(40 / width, 1 - 2 / height), borderaxespad=0, handlelength=2.4,
            labelspacing=0.35, columnspacing=2.0,
        )  # fmt: skip
        text = io.StringIO()
        figure.savefig(
            text,
            format="svg",
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
        marks = "\n".join(
            (
                *_marks(errors, width, height, cells, axis, names[0]),
                *_marks(errors, width, height, second_cells, axis, names[1]),
            )
        )
    title = f"Test error over the {axis_name(axis)}"
    return inline(text.getvalue(), prefix, title, description(cells, c, c_star, axis), marks)


def description(
    cells: Sequence[CellSummary], c: float | None, c_star: CStar | None, axis: Axis
) -> str:
    """What the drawing shows, in words, for those who can't see it."""
    name = symbol(axis)
    parts = [
        f"Test error over the {axis_name(axis)} on a logarithmic axis, from "
        f"{power(cells[0].cell.c)} on the left ({LEFT_WORDS}) to {power(cells[-1].cell.c)} on the "
        f"right ({RIGHT_WORDS})."
    ]
    judged = [cell for cell in cells if cell.test_error is not None]
    if judged:
        parts.append(
            "; ".join(
                f"{name} = {power(cell.cell.c)}: {percent(cell.test_error)}"
                + ("" if cell.cell.usable else " (not usable)")
                for cell in judged
            )
            + "."
        )
    if c is not None:
        parts.append(f"{name} now is {power(c)}.")
    if c_star is not None:
        parts.append(f"{name}* is {power(c_star.value)}.")
    return " ".join(parts)


def reading(one: CellSummary, axis: Axis, suffix: str = "") -> str:
    """One cell in words, as it is shown and read out at its mark; parts are joined by ``; ``."""
    unusable = "" if one.cell.usable else ", can't be judged"

    n = 0 if one.test_error is None else one.test_error.n

    def with_n(text: str, mean: Mean | None) -> str:
        return text if mean is None or mean.n == n else f"{text} (n = {mean.n})"

    parts = [
        f"{symbol(axis)} = {multiplier(one.cell.c)}{suffix}, n = {n}{unusable}",
        f"test error {percent(one.test_error)}",
        f"target reached by {one.num_reached} of {one.num_runs} runs",
        f"learning rate {number(one.cell.lr)}",
        f"validation error {with_n(percent(one.val_error), one.val_error)}",
        f"test loss {with_n(plain(one.test_loss), one.test_loss)}",
    ]
    return "; ".join(parts)


def _marks(
    panel: Axes,
    width: float,
    height: float,
    cells: Sequence[CellSummary],
    axis: Axis,
    suffix: str,
) -> Iterator[str]:
    """A target that can be pointed at and focused at the place of every cell's mark."""
    # From the data's coordinates to shares of the drawing, whose own go down from the top.
    to_shares = panel.figure.transFigure.inverted().transform
    low, high = panel.get_ylim()
    for one in cells:
        # Where nothing was measured stands a cross at the top, and a mean may lie beyond the axis.
        y = high if one.test_error is None else min(max(100 * one.test_error.value, low), high)
        across, up = to_shares(panel.transData.transform((math.log2(one.cell.c), y)))
        if one.test_error is None:
            up = to_shares(panel.transAxes.transform((0, 0.95)))[1]
        words = html.escape(reading(one, axis, suffix))
        yield (
            f'<g class="point" role="img" tabindex="0"><title>{words}</title>'
            f'<circle cx="{width * across:.1f}" cy="{height * (1 - up):.1f}" r="10"/></g>'
        )


def _means(cells: Iterable[CellSummary], name: str) -> list[Mean]:
    return [mean for cell in cells if (mean := getattr(cell, name)) is not None]


def scale(panel: Axes, means: Sequence[Mean], factor: float) -> None:
    """Show every mean, its interval as far as it helps, and both sides of a lopsided U."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    values = [factor * mean.value for mean in means] or [0.0, 1.0]
    low, high = min(values), max(values)
    # An interval from two seeds can be wider than the whole curve and would flatten it.
    reach = max(high - low, 0.1 * high)
    lowest = max(min([low, *(factor * m.low for m in means if m.low is not None)]), low - reach)
    highest = min(
        max([high, *(factor * m.high for m in means if m.high is not None)]), high + reach
    )
    if low > 0 and high > 4 * low:
        panel.set_yscale("log")
        panel.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        panel.yaxis.set_minor_locator(NullLocator())
        panel.set_ylim(max(lowest, low / 2) * 0.75, highest * 1.25)
    else:
        margin = 0.15 * (highest - lowest) or 1.0
        panel.set_ylim(max(lowest - margin, 0.0), highest + margin)
        panel.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _log_note(panel: Axes) -> str:
    return ", log scale" if panel.get_yscale() == "log" else ""


def _curves(
    errors: Axes, losses: Axes, cells: Sequence[CellSummary], role: str, marker: str, suffix: str
) -> None:
    _curve(errors, cells, "test_error", 100.0, role, marker, f"test error{suffix}")
    usable = [cell for cell in cells if cell.cell.usable and cell.val_error is not None]
    if usable:
        errors.plot(
            [math.log2(cell.cell.c) for cell in usable],
            [100 * mean.value for mean in _means(usable, "val_error")],
            color=COLOURS["companion" if role == "curve" else role],
            linewidth=1.5,
            linestyle=(0, (4, 2)),
            label=f"validation error{suffix}",
        )
    _curve(losses, cells, "test_loss", 1.0, role, marker, "")
    lost = [math.log2(cell.cell.c) for cell in cells if cell.test_error is None]
    if lost:
        errors.plot(
            lost,
            [0.95] * len(lost),
            transform=errors.get_xaxis_transform(),
            linestyle="none",
            marker="x",
            markersize=9,
            markeredgewidth=2,
            color=COLOURS[role],
            label=f"no run left a test error{suffix}",
        )


def _chance(panel: Axes, cells: Sequence[CellSummary]) -> None:
    """The error of a net that learned nothing, where the curve comes near it."""
    means = _means(cells, "chance_error")
    if not means:
        return
    chance = 100 * sum(mean.value for mean in means) / len(means)
    bottom, top = panel.get_ylim()
    if bottom <= chance <= 1.1 * top:
        panel.set_ylim(bottom, max(top, 1.02 * chance))
        panel.axhline(
            chance,
            color=COLOURS["muted"],
            linewidth=1.2,
            linestyle=(0, (1, 2)),
            label="always the commonest class",
        )


def _curve(
    panel: Axes,
    cells: Sequence[CellSummary],
    name: str,
    factor: float,
    role: str,
    marker: str,
    label: str,
) -> None:
    for usable in (True, False):
        shown = [cell for cell in cells if cell.cell.usable is usable and getattr(cell, name)]
        if not shown:
            continue
        means = _means(shown, name)
        values = [factor * mean.value for mean in means]
        below = [
            factor * (mean.value - (mean.value if mean.low is None else mean.low)) for mean in means
        ]
        above = [
            factor * ((mean.value if mean.high is None else mean.high) - mean.value)
            for mean in means
        ]
        panel.errorbar(
            [math.log2(cell.cell.c) for cell in shown],
            values,
            yerr=(below, above),
            color=COLOURS[role],
            linestyle="-" if usable else "none",
            linewidth=2.2,
            elinewidth=1.2,
            capsize=3,
            marker=marker,
            markersize=6,
            markerfacecolor=COLOURS[role] if usable else "none",
            markeredgewidth=1.6,
            label=label
            if usable
            else f"not usable: target not reached{label.removeprefix('test error')}",
        )


def _x_axis(
    panel: Axes,
    cells: Sequence[CellSummary],
    c: float | None,
    c_star: CStar | None,
    axis: Axis,
    layout: Layout,
) -> None:
    shown = [cell.cell.c for cell in cells]
    shown += [value for value in (c, c_star.value if c_star else None) if value is not None]
    low, high = math.log2(min(shown)), math.log2(max(shown))
    margin = max(0.04 * (high - low), 0.35)
    panel.set_xlim(low - margin, high + margin)
    power_ticks(panel, low - margin, high + margin, axis, layout)


def power_ticks(panel: Axes, low: float, high: float, axis: Axis, layout: Layout) -> None:
    """Ticks at powers of two between two exponents, and which way is which below them."""
    step = max(1, math.ceil((high - low) / (17 if layout == "wide" else 7.5)))
    ticks = range(math.ceil(low), math.floor(high) + 1)
    ticks_shown = [tick for tick in ticks if tick % step == 0]
    panel.set_xticks(ticks_shown, [two_to(tick) for tick in ticks_shown])
    panel.set_xlabel(f"{axis_name(axis)} (logarithmic)", labelpad=3)
    ends = ((LEFT_WORDS, 0.0, "left"), (RIGHT_WORDS, 1.0, "right"))
    for words, x, side in ends:
        text = words if layout == "wide" else words.replace(" → ", "\n→ ")
        panel.annotate(
            text,
            (x, 0),
            xycoords="axes fraction",
            xytext=(0, -41),
            textcoords="offset points",
            ha=side,
            va="top",
            fontsize=11,
            fontweight="bold",
            color=COLOURS["aligned" if side == "left" else "fitted"],
        )


def two_to(exponent: float) -> str:
    """2 to a power, with raised figures."""
    return "2" + f"{exponent:g}".translate(_SUPERSCRIPTS)


def _band(panel: Axes, c_star: CStar) -> tuple[float, float]:
    left, right = panel.get_xlim()
    low = left if c_star.low is None else max(math.log2(c_star.low), left)
    high = right if c_star.high is None else min(math.log2(c_star.high), right)
    return low, high


def _regions(panel: Axes, c_star: CStar | None) -> None:
    if c_star is None:
        return
    left, right = panel.get_xlim()
    low, high = _band(panel, c_star)
    for start, end, role, alpha in (
        (left, low, "aligned", 0.10),
        (low, high, "best", 0.16),
        (high, right, "fitted", 0.10),
    ):
        if end > start:
            panel.axvspan(start, end, color=COLOURS[role], alpha=alpha, linewidth=0, zorder=0)


def _region_names(panel: Axes, c_star: CStar | None, width: float) -> None:
    """Names at the bottom corners, which a U leaves free; left out where they would not fit."""
    if c_star is None:
        return
    left, right = panel.get_xlim()
    low, high = _band(panel, c_star)
    for share, x, side, name, role in (
        (low - left, 0.0, "left", "over-aligned side", "aligned"),
        (right - high, 1.0, "right", "over-fitted side", "fitted"),
    ):
        if share / (right - left) * (width - 68) > 105:
            panel.annotate(
                name,
                (x, 0),
                xycoords="axes fraction",
                xytext=(6 if side == "left" else -6, 6),
                textcoords="offset points",
                ha=side,
                va="bottom",
                fontsize=10.5,
                color=COLOURS[role],
            )


def _markers(panel: Axes, c: float | None, c_star: CStar | None) -> None:
    if c_star is not None:
        panel.axvline(math.log2(c_star.value), color=COLOURS["best"], linewidth=1.6, zorder=1)
    if c is not None:
        panel.axvline(
            math.log2(c), color=COLOURS["now"], linewidth=1.6, linestyle=(0, (5, 2)), zorder=1
        )


def _marker_names(panel: Axes, c: float | None, c_star: CStar | None, axis: Axis) -> None:
    name = symbol(axis)
    left, right = panel.get_xlim()
    c_best = None if c_star is None else c_star.value
    for value, text, role, height in (
        (c_best, f"{name}*", "best", 3),
        (c, f"{name} now", "now", 17),
    ):
        if value is None:
            continue
        exponent = math.log2(value)
        share = (exponent - left) / (right - left)
        panel.annotate(
            f"{text} = {two_to(round(exponent, 2))}",
            (exponent, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, height),
            textcoords="offset points",
            ha="left" if share < 0.15 else "right" if share > 0.85 else "center",
            va="bottom",
            fontsize=11,
            fontweight="bold",
            color=COLOURS[role],
        )


def inline(document: str, prefix: str, title: str, words: str, marks: str) -> str:
    """The bare element, for a page that holds several: own ids, no page-wide style, no fonts.

    The drawing is one image with a description; beside it stand the marks, each with its own words.
    """
    svg = document[document.index("<svg") :]
    svg = re.sub(r"\s*<defs>\s*<style.*?</style>\s*</defs>", "", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r' width="[^"]*" height="[^"]*"', "", svg, count=1)
    svg = svg.replace("<svg ", '<svg role="group" style="stroke-linejoin: round" ', 1)
    opening, _, drawing = svg.partition(">")
    drawing = drawing.rstrip().removesuffix("</svg>").rstrip()
    svg = (
        f'{opening} aria-label="{title}">\n<title>{title}</title>\n'
        f'<g role="img" aria-label="{html.escape(words)}">{drawing}\n</g>\n{marks}\n</svg>'
    )
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}\1"', svg)
    svg = re.sub(r'href="#([^"]+)"', rf'href="#{prefix}\1"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}\1)", svg)
    svg = svg.replace("'DejaVu Sans', sans-serif", "system-ui, sans-serif")
    for role, value in COLOURS.items():
        svg = svg.replace(value, f"var(--chart-{role}, {value})")
    return svg.rstrip()
