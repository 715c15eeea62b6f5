"""The report as one HTML page: no network, one script of ours, all that a person gave escaped."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fls_bench.report import (
    charts,
    claims,
    comparison,
    evaluations,
    invariants,
    overlay,
    panels,
    readings,
    summary,
)
from fls_bench.report.summary import CellSummary
from fls_bench.schema import DIRECTION, Axis, Comparison, Judgement, Report, Sweep

LONGEST = 12
"""A list of more entries than that is folded."""

MOST_RUNS = 2000
"""A report of more runs than that is shown without its list of runs."""

MOST_CURVES = 12
"""Of judgements beyond that the page draws no curve."""


@dataclass(frozen=True)
class _View:
    """A judgement with what the page computes from it."""

    anchor: str
    name: str
    judgement: Judgement
    axis: Axis
    cells: tuple[CellSummary, ...]
    other_cells: list[tuple[Sweep, tuple[CellSummary, ...]]]
    wide_chart: Markup
    narrow_chart: Markup
    with_runs: bool
    """Whether every run is listed."""


def render(report: Report) -> str:
    """Render the whole page.

    Equal reports give equal text. The page forbids itself any request, and any script but its own.

    Args:
        report: The report, of any kind.

    Returns:
        A complete HTML document.
    """
    judgements: list[tuple[Judgement, str, str]] = [
        (report, "report", summary.title(report)),
        *((case, f"case-{i}", case.id) for i, case in enumerate(report.cases, start=1)),
    ]
    swept = [anchor for one, anchor, _ in judgements if one.sweep is not None and one.sweep.cells]
    drawn = set(swept[:MOST_CURVES])
    with_runs = summary.num_runs([one for one, _, _ in judgements]) <= MOST_RUNS
    whole, *cases = (
        _view(one, anchor, name, anchor in drawn, with_runs) for one, anchor, name in judgements
    )
    template = _pages().get_template(f"{report.kind}.html.j2")
    return template.render(
        report=report, whole=whole, cases=cases, overlays=_overlays(report.comparison),
        plots=_plots(report),
    )  # fmt: skip


def _plots(report: Report) -> list[list[tuple[str, Markup]]]:
    """For each claim its panels: (title, drawing)."""
    return [
        # Drawn by us; the names in it are escaped where they become text of the drawing.
        [
            (one.title, Markup(panels.panel(one, f"claim-{k}-{i}-")))
            for i, one in enumerate(claim.panels)
        ]
        for k, claim in enumerate(report.claims)
    ]


@dataclass(frozen=True)
class _Overlay:
    """The curves of cases that are compared, in one drawing."""

    title: str
    wide: Markup
    narrow: Markup


def _overlays(found: Comparison | None) -> list[_Overlay]:
    drawn = []
    for k, group in enumerate([] if found is None else comparison.groups(found)[:MOST_CURVES]):
        curves = [overlay.Curve(name, case) for name, case in group]
        # Drawn by us; the names in it are escaped where they become text of the drawing.
        wide, narrow = (
            Markup(overlay.overlay(curves, layout=layout, prefix=f"overlay-{k}-{layout}-"))
            for layout in ("wide", "narrow")
        )
        ids = dict.fromkeys(case.id for _, case in group)
        drawn.append(_Overlay(f"Test error over c: {' and '.join(ids)}", wide, narrow))
    return drawn


@cache
def _pages() -> Environment:
    """The templates in ``page/``: one for each kind of report, named for it, on top of ``base``."""
    environment = Environment(
        loader=PackageLoader("fls_bench.report", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Globals, so that imported macros see them too.
    script = resources.files(__package__).joinpath("page", "page.js").read_text("utf-8")
    environment.globals |= {
        "words": summary,
        "of_invariants": invariants,
        "compared": comparison,
        "of_claims": claims,
        "of_readings": readings,
        "of_evaluations": evaluations,
        "definition": DIRECTION,
        "LONGEST": LONGEST,
        "MOST_RUNS": MOST_RUNS,
        "MOST_CURVES": MOST_CURVES,
        "script": Markup(script),
        "script_hash": f"sha256-{b64encode(sha256(script.encode()).digest()).decode()}",
    }
    return environment


def _view(judgement: Judgement, anchor: str, name: str, drawn: bool, with_runs: bool) -> _View:
    sweep, others = judgement.sweep, (judgement.centered_sweep, judgement.plain_sweep)
    second = next((one for one in others if one is not None), None)
    wide = narrow = ""
    if drawn and sweep is not None:
        tuning = judgement.tuning if isinstance(judgement, Report) else None
        found = tuning or judgement.diagnosis
        c = found.c if found is not None else None
        c_star = found.c_star if found is not None else None
        wide, narrow = (
            charts.u_curve(sweep, second, c, c_star, layout=layout, prefix=f"{anchor}-{layout}-")
            for layout in ("wide", "narrow")
        )
    return _View(
        anchor=anchor,
        name=name,
        judgement=judgement,
        axis=summary.axis_of(judgement),
        cells=summary.summarize_sweep(sweep) if sweep is not None else (),
        other_cells=[
            (one, summary.summarize_sweep(one)) for one in others if one is not None and one.cells
        ],
        # Drawn by us from numbers alone; nothing that a person gave is in it.
        wide_chart=Markup(wide),
        narrow_chart=Markup(narrow),
        with_runs=with_runs,
    )
