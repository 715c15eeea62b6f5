"""The report as one HTML page: no network, no script, everything that a person gave escaped."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fls_bench.report import charts, invariants, summary
from fls_bench.report.summary import CellSummary
from fls_bench.schema import DIRECTION, Axis, Judgement, Report, Sweep


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


def render(report: Report) -> str:
    """Render the whole page.

    Equal reports give equal text. The page forbids itself scripts and any request.

    Args:
        report: The report, of any kind.

    Returns:
        A complete HTML document.
    """
    return (
        _pages()
        .get_template(f"{report.kind}.html.j2")
        .render(
            report=report,
            whole=_view(report, "report", summary.title(report)),
            cases=[
                _view(case, f"case-{i}", case.id) for i, case in enumerate(report.cases, start=1)
            ],
        )
    )


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
    environment.globals |= {"words": summary, "of_invariants": invariants, "definition": DIRECTION}
    return environment


def _view(judgement: Judgement, anchor: str, name: str) -> _View:
    sweep, others = judgement.sweep, (judgement.centered_sweep, judgement.plain_sweep)
    second = next((one for one in others if one is not None), None)
    wide = narrow = ""
    if sweep is not None and sweep.cells:
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
    )
