"""The terminal: results on stdout, progress and problems on stderr; the only module that uses rich.

Text that a person gave is shown literally: it is never read as markup, and its control characters
are spelled out, so a model's name can't recolour or rewrite the screen.
"""

from __future__ import annotations

import io
import re
import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import NamedTuple, Self, TextIO

from rich.console import Console
from rich.padding import Padding
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from fls_bench.report import claims as of_claims
from fls_bench.report import comparison as of_comparison
from fls_bench.report import evaluations as of_evaluations
from fls_bench.report import invariants as of_invariants
from fls_bench.report import readings as of_readings
from fls_bench.report import summary
from fls_bench.report.summary import CellSummary
from fls_bench.schema import (
    DIRECTION,
    Axis,
    Baseline,
    CaseResult,
    ClaimResult,
    ClaimsRecord,
    Comparison,
    Diagnosis,
    Evaluation,
    Intervention,
    Invariants,
    Judgement,
    Reading,
    Regime,
    Report,
    Sweep,
    Tuning,
)

_COLOURS = {
    Regime.OVER_ALIGNED: "bold magenta",
    Regime.NEAR_OPTIMAL: "bold green",
    Regime.OVER_FITTED: "bold yellow",
    Regime.INCONCLUSIVE: "bold",
}
_STATUS_COLOURS = {"info": "cyan", "warning": "yellow", "problem": "red"}
_BAR_WIDTH = 16
_SECONDS_BEFORE_ETA = 5.0
_SECONDS_BETWEEN_LINES = 5.0

# What a stream without Unicode shows for the few signs that the views use.
_ASCII = str.maketrans(
    {"·": "*", "→": "->", "–": "-", "±": "+/-", "…": "..."}
    | dict.fromkeys("█▉▊▋▌", "#")
    | dict.fromkeys("▍▎▏", "")
)


def show(report: Report, stream: TextIO | None = None, width: int | None = None) -> None:
    """Print a report.

    Colours appear on a terminal only, and not where NO_COLOR is set. A snippet is printed from
    the first column and never wrapped, so that it can be copied.

    Args:
        report: The report, of either kind.
        stream: Where to print; standard output if None.
        width: Columns; the terminal's own, or 80, if None.
    """
    page = _Page(stream or sys.stdout, width)
    if report.kind == "suite":
        _suite(page, report)
    elif report.tuning is not None:
        page.line(summary.title(report))
        _tuning(page, report, report.tuning)
        page.flush()
        return
    elif report.comparison is not None:
        _comparison(page, report, report.comparison)
        page.flush()
        return
    elif report.invariants is not None:
        _invariants(page, summary.title(report), report.invariants)
        page.flush()
        return
    elif report.selftest is not None:
        page.line(f"{summary.title(report)}: {summary.verdict_word(report)}", "bold")
        page.pairs(of_readings.selftest_facts(report.selftest))
        columns = [_Column(one, right=k > 0) for k, one in enumerate(of_readings.CONFUSION_COLUMNS)]
        page.table(columns, of_readings.confusion_rows(report.selftest))
        page.flush()
        return
    else:
        page.line(summary.title(report))
        _judgement(page, report)
    page.heading("Provenance")
    page.pairs(summary.provenance_rows(report))
    if (stream or sys.stdout).isatty():
        # The verdict has scrolled away by now.
        page.heading("In short")
        for claim in report.claims:
            page.line(f"{of_claims.title(claim)}: {of_claims.word(claim)}. {claim.text}")
        cases = () if report.claims else report.cases
        for one in cases if report.kind == "suite" else (report,):
            if one.diagnosis is not None:
                name = f"{one.id}: " if isinstance(one, CaseResult) else ""
                page.line(
                    f"{name}{one.diagnosis.regime.label}. {one.diagnosis.recommendation.text}"
                )
    page.flush()


def show_baseline(baseline: Baseline, place: str) -> None:
    """Print what a baseline holds: its verdicts and, for each case, the means at the setup's own c."""
    page = _Page(sys.stdout, None)
    suite = baseline.suite or {}
    page.line(f"baseline {place}", "bold")
    rows = [("suite", f"{suite.get('name')}, version {suite.get('version')}")]
    rows += [
        ("digest", str(suite.get("digest"))),
        ("setup", baseline.setup or "the suite's own cases"),
    ]
    page.pairs([*rows, ("recorded", baseline.recorded), *baseline.environment.items()])
    for case in baseline.cases:
        page.heading(of_comparison.case_label(case))
        shown = of_comparison.case_rows(case)
        page.table([_Column(k) for k in of_comparison.CASE_COLUMNS], shown)
    if baseline.claims:
        page.heading("Claims of the paper")
        columns = [_Column(k) for k in of_comparison.RECORDED_COLUMNS]
        page.table(columns, of_comparison.recorded_rows(baseline.claims))
    page.flush()


def table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    stream: TextIO | None = None,
    width: int | None = None,
) -> None:
    """Print a table; long cells are folded, never cut.

    Args:
        title: A line above the table.
        columns: Names of the columns.
        rows: One text per column.
        stream: Where to print; standard output if None.
        width: Columns of the screen; the terminal's own, or 80, if None.
    """
    page = _Page(stream or sys.stdout, width)
    page.line(title, "bold")
    page.table([_Column(name) for name in columns], rows)
    page.flush()


def fail(problem: str, remedy: str, stream: TextIO | None = None) -> None:
    """Print what is wrong and what to do next.

    Args:
        problem: One sentence.
        remedy: One sentence.
        stream: Where to print; standard error if None.
    """
    page = _Page(stream or sys.stderr, None)
    # Input that is quoted may bring empty lines; an error is one paragraph.
    text = re.sub(r"\n\s*\n", "\n", _literal(f"{problem} {remedy}"))
    page.write(Text.assemble(("error: ", "bold red"), text))
    page.flush()


def note(text: str, stdout: bool = False) -> None:
    """Print one line, as it is: on standard error, or as a command's result."""
    stream = sys.stdout if stdout else sys.stderr
    print(_encodable(_literal(text), stream), file=stream, flush=True)


class Progress:
    """Shows how far a sweep is: a bar on a terminal, a line now and then elsewhere.

    Use as ``with Progress(quiet) as listen:``. The bar vanishes at the end, so that only the result
    stays on the screen.

    Args:
        quiet: Show nothing at all.
        stream: Where to print; standard error if None.
        unit: What is counted.
    """

    def __init__(
        self, quiet: bool = False, stream: TextIO | None = None, unit: str = "runs"
    ) -> None:
        self._quiet = quiet
        self._unit = unit
        self._stream = stream or sys.stderr
        self._total = 0
        self._finished = 0
        self._started = self._last_line = 0.0
        self._bar: Bar | None = None

    def __enter__(self) -> Self:
        self._started = time.monotonic()
        console = _console(self._stream, None)
        if not self._quiet and self._stream.isatty() and console.is_interactive:
            self._bar = Bar(
                TextColumn("{task.fields[shown]}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn(self._unit),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("left"),
                console=console,
                transient=True,
            )
            self._task = self._bar.add_task("", total=None, shown="", start=True)
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif kind is None and self._total:
            self._say(f"{self._count()} in {time.monotonic() - self._started:.0f} s")

    def plan(self, total_runs: int, text: str) -> None:
        """So many more runs follow, for the reason in ``text``."""
        self._total += total_runs
        if self._bar is not None:
            shown = self._safe(text)
            self._bar.update(self._task, total=self._total, shown=shown, refresh=True)
        else:
            self._say(f"{text}: {total_runs} more {self._unit}")

    def done(self, runs: int, text: str) -> None:
        """So many more runs have ended."""
        self._finished += runs
        if self._bar is not None:
            self._bar.update(self._task, completed=self._finished, shown=self._safe(text))
        elif time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._say(f"{text}: {self._count()}")

    def note(self, text: str) -> None:
        """Something worth a line of its own; always printed, so keep it rare."""
        if self._bar is not None:
            self._bar.console.print(self._safe(text))
        else:
            self._say(text)

    def _count(self) -> str:
        text = f"{self._finished} of {self._total} {self._unit} done"
        elapsed = time.monotonic() - self._started
        left = self._total - self._finished
        if self._finished and left and elapsed >= _SECONDS_BEFORE_ETA:
            text += f", about {elapsed / self._finished * left:.0f} s left of these"
        return text

    def _safe(self, text: str) -> str:
        return _encodable(_literal(text), self._stream)

    def _say(self, text: str) -> None:
        if self._quiet:
            return
        self._last_line = time.monotonic()
        print(self._safe(text), file=self._stream, flush=True)


# --- the page -------------------------------------------------------------------------------


def _literal(text: str) -> str:
    """The text with control characters spelled out; line breaks stay."""
    return "".join(
        char if char.isprintable() or char == "\n" else char.encode("unicode_escape").decode()
        for char in text.replace("\t", "    ")
    )


def _folded(name: str, width: int) -> str:
    """A long dotted name on several lines, broken after a dot or an underscore."""
    cut = max(name.rfind(".", 0, width), name.rfind("_", 0, width)) + 1
    if len(name) <= width or cut <= 4:
        return name
    return f"{name[:cut]}\n{_folded(f'    {name[cut:]}', width)}"


def _encodable(text: str, stream: TextIO) -> str:
    """The text in what the stream can write."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(_ASCII).encode(encoding, "replace").decode(encoding)
    return text


def _console(stream: TextIO, width: int | None) -> Console:
    return Console(file=stream, width=width, markup=False, emoji=False, highlight=False)


class _Column(NamedTuple):
    """A column of a table; ``max_width`` leaves room for the others, longer cells are folded."""

    name: str
    right: bool = False
    max_width: int | None = None


class _Page:
    """Collects what is printed and writes it at once."""

    def __init__(self, stream: TextIO, width: int | None) -> None:
        self._stream = stream
        outer = _console(stream, width)
        self._text = io.StringIO()
        self._console = Console(
            file=self._text,
            width=outer.width,
            force_terminal=outer.is_terminal,
            color_system=outer.color_system,  # type: ignore[arg-type]
            no_color=outer.no_color,
            markup=False,
            emoji=False,
            highlight=False,
        )

    @property
    def width(self) -> int:
        """Columns of the screen."""
        return self._console.width

    def flush(self) -> None:
        """Write all that was collected."""
        text = re.sub(" +$", "", self._text.getvalue(), flags=re.MULTILINE)
        self._stream.write(_encodable(text, self._stream))
        self._stream.flush()

    def write(self, text: Text) -> None:
        """A paragraph; wrapped on a terminal, left in one line for a pipe."""
        wrap = self._console.is_terminal
        self._console.print(text, soft_wrap=not wrap, overflow="fold" if wrap else "ignore")

    def line(self, text: str, style: str = "") -> None:
        """A paragraph wrapped to the width."""
        self._console.print(Text(_literal(text), style=style, overflow="fold"))

    def heading(self, text: str) -> None:
        """A heading with an empty line before it."""
        self._console.print()
        self.line(text, "bold underline")

    def verbatim(self, text: str) -> None:
        """Text to copy: from the first column, never wrapped."""
        self._console.print(Text(_literal(text.rstrip("\n"))), soft_wrap=True)

    def pairs(self, rows: Sequence[tuple[str, str]], indent: int = 0) -> None:
        """Names and texts in two columns."""
        if not rows:
            return
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="dim", overflow="fold", max_width=max(26, self.width // 2))
        grid.add_column(overflow="fold")
        for name, text in rows:
            grid.add_row(Text(_literal(name)), Text(_literal(text)))
        self._console.print(Padding(grid, (0, 0, 0, indent), expand=False))

    def table(self, columns: Sequence[_Column], rows: Sequence[Sequence[str | Text]]) -> None:
        """A table without borders; cells are folded, never cut."""
        shown = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
        for column in columns:
            shown.add_column(
                Text(_literal(column.name)),
                justify="right" if column.right else "left",
                overflow="fold",
                max_width=column.max_width,
            )
        for row in rows:
            shown.add_row(
                *(cell if isinstance(cell, Text) else Text(_literal(cell)) for cell in row)
            )
        self._console.print(shown)


# --- parts of a report ----------------------------------------------------------------------


def _suite(page: _Page, report: Report) -> None:
    page.line(summary.title(report), "bold")
    for claim in report.claims:
        _claim(page, claim)
    if report.evaluation is not None:
        _evaluation(page, report.evaluation)
    if report.claims or report.evaluation is not None:
        return
    page.line(summary.met_text(report))
    page.table(
        [_Column("case"), _Column("expected"), _Column("verdict"), _Column("as expected")],
        [
            (
                case.id,
                summary.expectation(case),
                _verdict_word(case),
                Text(summary.met_word(case), style="bold red" if case.met is False else ""),
            )
            for case in report.cases
        ],
    )
    for case in report.cases:
        page.heading(f"Case {case.id}")
        _judgement(page, case)
    page.heading("The suite as a whole")
    page.pairs(summary.flat(report.suite or {}))
    if report.diagnosis is not None or report.sweep is not None or report.measurements:
        _judgement(page, report)
    else:
        _rest(page, report)


def _evaluation(page: _Page, found: Evaluation) -> None:
    page.line(of_evaluations.headline(found))
    for one in found.rows:
        page.heading(f"{one.evidence}, by {one.left_out}")
        values = of_evaluations.cells(one)[2:] + of_evaluations.ratio_cells(one)[2:]
        names = of_evaluations.COLUMNS[2:] + of_evaluations.RATIO_COLUMNS[2:]
        page.pairs(tuple(zip(names, values, strict=True)))
        columns = [_Column(n, right=k > 0) for k, n in enumerate(of_evaluations.GROUP_COLUMNS)]
        page.table(columns, [of_evaluations.group_cells(k) for k in of_evaluations.worst(one)])
    if found.baselines:
        page.heading("One number alone")
        columns = [_Column(n, right=k > 1) for k, n in enumerate(of_evaluations.BASELINE_COLUMNS)]
        page.table(columns, [of_evaluations.baseline_cells(one) for one in found.baselines])


def _claim(page: _Page, claim: ClaimResult) -> None:
    colour = {"reproduced": "green", "not_reproduced": "red"}.get(claim.outcome, "yellow")
    page.heading(f"{of_claims.title(claim)}: {of_claims.word(claim)}")
    page.line(claim.text, f"bold {colour}")
    page.line(f"The authors claim: {claim.statement}")
    page.line(claim.reported, "dim")
    for part in of_claims.deciding(claim):
        page.line(f"{of_claims.word(part)}: {part.name}, {part.setting}: {part.text}")
    for line in claim.cautions:
        page.line(f"note: {line}")
    for one in claim.not_run:
        page.line(f"not run or not judged: {one.what}: {one.reason}")
    if others := len(of_claims.beside(claim)):
        more = summary.counted(others, "more number")
        page.line(f"{more}, and the plots: --html, --md or --json.", "dim")


def show_claims(records: Sequence[ClaimsRecord]) -> None:
    """Print the table of all claims."""
    page = _Page(sys.stdout, None)
    page.line("The claims of arXiv 2602.00827, tested here; intervals are 95 %.", "bold")
    page.line("What was measured, and what to read with care: docs/claims.md, or --html FILE.")
    for row in of_claims.rows(records):
        cells = dict(zip(of_claims.COLUMNS, row, strict=True))
        page.heading(f"{cells['claim']}: {cells['outcome']}")
        if cells["in numbers"] == "-":
            page.line(f"fls-bench run {of_claims.SUITES[cells['claim'][:2]]} tests it.")
            continue
        page.line(cells["in numbers"])
        rest = [k for k in ("data", "seeds", "suite", "date", "hardware") if cells[k] != "-"]
        page.pairs([(k, cells[k]) for k in rest])
    page.flush()


def _verdict_word(judgement: Judgement) -> Text:
    style = "" if judgement.diagnosis is None else _COLOURS[judgement.diagnosis.regime]
    return Text(summary.verdict_word(judgement), style=style)


def _judgement(page: _Page, judgement: Judgement) -> None:
    axis = summary.axis_of(judgement)
    diagnosis = judgement.diagnosis
    if judgement.intervention is not None:
        _intervention(page, judgement.intervention)
    elif diagnosis is None:
        page.line("There is no verdict; what was skipped below says why.", "bold")
    else:
        _verdict(page, diagnosis, axis)
    if judgement.reading is not None:
        _reading(page, judgement.reading)
    if judgement.sweep is not None:
        _sweep(page, judgement.sweep, diagnosis)
    for other in (judgement.centered_sweep, judgement.plain_sweep):
        if other is not None:
            _sweep(page, other, diagnosis)
    if judgement.rate_comparisons:
        page.heading(summary.RATES_QUESTION)
        page.line(summary.RATES_NOTE)
        for one in judgement.rate_comparisons:
            page.line(one.text)
            page.pairs(summary.comparison_facts(one, axis), indent=2)
    _evidence(page, judgement, axis)
    if diagnosis is not None:
        _findings(page, diagnosis)
    _rest(page, judgement)


def _reading(page: _Page, reading: Reading) -> None:
    page.heading(of_readings.HEADING)
    page.line(of_readings.sentence(reading))
    page.pairs(of_readings.facts(reading))
    shown = of_readings.PUSH_COLUMNS if page.width > 100 else of_readings.PUSH_COLUMNS[:4]
    columns = [_Column(name, right=k in (1, 3)) for k, name in enumerate(shown)]
    if reading.pushes:
        page.table(columns, [of_readings.push_cells(one)[: len(shown)] for one in reading.pushes])
        page.line(of_readings.note(reading), "dim")
        if len(shown) < len(of_readings.PUSH_COLUMNS):
            page.line("Those ranges are left out here: --html, --json, or a wider terminal.", "dim")
    if reading.out_of_range:
        page.line(of_readings.outside_note(reading))
        page.table(
            [_Column(name) for name in of_readings.OUTSIDE_COLUMNS],
            of_readings.outside_rows(reading),
        )


def _intervention(page: _Page, intervention: Intervention) -> None:
    page.line(intervention.text, "bold")
    page.line(summary.intervention_note(intervention))
    page.table(
        [_Column(name) for name in summary.INTERVENTION_COLUMNS],
        [summary.intervention_cells(row) for row in intervention.rows],
    )
    page.pairs([(f"{row.name} at {summary.power(row.c)}", row.text) for row in intervention.rows])


def _verdict(page: _Page, diagnosis: Diagnosis, axis: Axis) -> None:
    style = _COLOURS[diagnosis.regime]
    page.line(f"{diagnosis.regime.label}: {summary.verdict_sentence(diagnosis)}", style)
    page.line(f"{diagnosis.reason.text} ({summary.hyphens(diagnosis.reason.code)})")
    page.pairs(summary.facts(diagnosis, axis))
    page.heading("What to do")
    page.line(diagnosis.recommendation.text)
    page.pairs(summary.recommendation_facts(diagnosis))
    if diagnosis.recommendation.snippet:
        page.line("")
        page.verbatim(diagnosis.recommendation.snippet)
    if diagnosis.mechanism is not None:
        page.heading(f"Mechanism: {summary.mechanism_name(diagnosis.mechanism.code)}")
        page.line(summary.mechanism_text(diagnosis.mechanism))


def _tuning(page: _Page, report: Report, tuning: Tuning) -> None:
    style = "bold" if tuning.change == "none" else "bold green"
    page.line(f"{summary.verdict_word(report)}: {tuning.text}", style)
    if tuning.snippet:
        page.line("")
        page.verbatim(tuning.snippet)
        page.line("")
    page.pairs(summary.tuning_facts(tuning))
    page.heading("The search")
    page.line(summary.TRIALS_NOTE)
    columns = [_Column(name, right=k > 0) for k, name in enumerate(summary.trial_columns(tuning))]
    page.table(columns, summary.trial_rows(tuning))
    for one in tuning.findings:
        page.line(
            f"{one.status}: {one.text} ({summary.hyphens(one.code)})", _STATUS_COLOURS[one.status]
        )
    for left in report.skipped:
        page.line(f"{left.what}: {left.reason} ({summary.hyphens(left.code)})")
    page.line(summary.cost_text(report.cost))


_STATUS = {"held": "green", "broken": "bold red", "void": "dim"}


def _invariants(page: _Page, name: str, found: Invariants) -> None:
    broken = of_invariants.of_status(found, "broken")
    page.line(
        f"scaling invariants of {name}: {of_invariants.headline(found)}",
        "bold red" if broken else "bold",
    )
    page.pairs(summary.flat(found.net))
    page.line("")
    columns = [_Column(n, right=k in (2, 3, 4)) for k, n in enumerate(of_invariants.COLUMNS)]
    rows: list[list[str | Text]] = []
    for one in found.findings:
        cells: list[str | Text] = [*of_invariants.row(one)]
        cells[1] = Text(one.status, style=_STATUS[one.status])
        rows.append(cells)
    wide = page.width >= 110
    page.table(columns if wide else columns[:-1], rows if wide else [r[:-1] for r in rows])
    page.line(of_invariants.NOTE, "dim")
    changed = [(of_invariants.name(one), one.rule) for one in found.findings if one.rule]
    if changed:
        page.heading("Held under a changed rule")
        page.pairs([(name, rule) for name, rule in changed if rule])
    voids = of_invariants.of_status(found, "void")
    if voids:
        page.heading("Void, and why")
        page.pairs([(of_invariants.name(one), of_invariants.why(one)) for one in voids])
    exponents = of_invariants.exponent_rows(found)
    if exponents:
        page.heading("Measured exponents")
        names = of_invariants.EXPONENT_COLUMNS
        page.table([_Column(n, right=k > 1) for k, n in enumerate(names)], exponents)
    if broken:
        page.heading("Broken")
        for one in broken:
            page.line(f"{of_invariants.name(one)}: {of_invariants.why(one)}", "red")
            page.line(f"  {one.statement}", "dim")
            page.line(f"  smallest counter-example: {of_invariants.counter_example(one)}")
    if found.command:
        page.line("")
        page.line("The same again:")
        page.verbatim(found.command)


_COMPARED = {
    "regression": "bold red", "no_regression": "bold green", "regressed": "red", "changed": "red",
    "improved": "green", "inconclusive": "yellow",
}  # fmt: skip


def _comparison(page: _Page, report: Report, found: Comparison) -> None:
    """A check or a comparison: the verdict, what matters, the rest in short."""
    name = "comparison" if report.kind == "compare" else f"check of {summary.title(report)}"
    page.line(f"{name}: {of_comparison.word(found.status)}", _COMPARED.get(found.status, "bold"))
    page.line(found.text)
    if found.baseline is not None:
        page.line(f"baseline: {found.baseline}", "dim")
    for line in of_comparison.warnings(found):
        page.line(f"warning: {line}", "yellow")
    if report.kind == "compare" or not found.pairs:
        page.heading("Sides")
        page.table([_Column(k) for k in of_comparison.SIDE_COLUMNS], of_comparison.side_rows(found))
        page.line(f"c: {DIRECTION}", "dim")
    for pair in found.pairs:
        if len(found.pairs) > 1:
            about = f"{pair.name} against {found.sides[0].name}"
            page.heading(f"{about}: {of_comparison.word(pair.status)}")
        for regime in pair.regimes:
            page.heading(f"{regime.case}: {regime.text}")
            rows: list[list[str | Text]] = []
            for one in pair.metrics if report.kind == "compare" else of_comparison.gated(pair):
                if one.case == regime.case:
                    *cells, verdict = of_comparison.short_cells(one)
                    rows.append([*cells, Text(verdict, style=_COMPARED.get(one.status, ""))])
            if rows:
                page.table([_Column(k) for k in of_comparison.SHORT_COLUMNS], rows)
        if pair.claims:
            page.heading("Claims of the paper")
            rows = []
            for claim in pair.claims:
                *cells, verdict = of_comparison.claim_cells(claim)
                style = _COMPARED.get(claim.status, "")
                rows.append([*cells, Text(of_comparison.word(claim.status), style=style)])
            page.table([_Column(k) for k in of_comparison.CLAIM_COLUMNS], rows)
        if sentences := of_comparison.undecided(pair):
            page.heading("What did not simply hold")
            for text in sentences:
                page.line(text)
        if pair.metrics:
            page.line("")
            page.line(of_comparison.note(pair), "dim")
    if (step := of_comparison.next_words(report)) is not None:
        page.line("")
        page.line(step)


def _sweep(page: _Page, sweep: Sweep, diagnosis: Diagnosis | None) -> None:
    cells = summary.summarize_sweep(sweep)
    page.heading(summary.sweep_title(sweep))
    page.line(summary.sweep_note(sweep))
    page.line("  larger FLS, toward over-aligned", "magenta")
    errors = [cell.test_error.value for cell in cells if cell.test_error is not None]
    largest = max(errors, default=0.0)
    page.table(
        [
            _Column(summary.symbol(sweep.axis)),
            _Column(""),
            _Column("rate", right=True),
            _Column("reached", right=True),
            _Column("test error [95 %]", right=True),
            _Column(""),
        ],
        [
            (
                summary.power(cell.cell.c),
                _marks(cell, diagnosis, summary.symbol(sweep.axis)),
                summary.number(cell.cell.lr) + ("*" if cell.cell.lr_calibrated else ""),
                f"{cell.num_reached}/{cell.num_runs}",
                summary.percent(cell.test_error),
                _bar(cell, largest),
            )
            for cell in cells
        ],
    )
    page.line("  smaller FLS, toward over-fitted", "yellow")
    if any(cell.cell.lr_calibrated for cell in cells):
        page.line("* this rate was calibrated on training behaviour.")
    for cell in cells:
        _remarks(page, cell, summary.symbol(sweep.axis))


def _remarks(page: _Page, cell: CellSummary, name: str) -> None:
    """What a cell's numbers leave out: why it can't be judged, how runs ended, what failed."""
    parts = []
    if not cell.cell.usable:
        parts.append("can't be judged")
    if cell.cell.reason:
        parts.append(cell.cell.reason.removesuffix("."))
    if cell.ended_otherwise:
        parts.append(f"ended otherwise: {cell.ended_otherwise}")
    parts.extend(cell.messages)
    if parts:
        page.line(f"{name} = {summary.power(cell.cell.c)}: {'; '.join(parts)}")


def _marks(cell: CellSummary, diagnosis: Diagnosis | None, name: str) -> str:
    if diagnosis is None:
        return ""
    marks = []
    shown = summary.power(cell.cell.c)
    if diagnosis.c is not None and shown == summary.power(diagnosis.c):
        marks.append(f"{name} now")
    if diagnosis.c_star is not None and shown == summary.power(diagnosis.c_star.value):
        marks.append(f"{name}*")
    return ", ".join(marks)


def _bar(cell: CellSummary, largest: float) -> str:
    if cell.test_error is None:
        return "no error known"
    if not cell.cell.usable:
        return "not usable"
    share = cell.test_error.value / largest if largest > 0 else 0.0
    eighths = max(1, round(8 * _BAR_WIDTH * share))
    return "█" * (eighths // 8) + "▏▎▍▌▋▊▉"[eighths % 8 - 1 : eighths % 8]


def _evidence(page: _Page, judgement: Judgement, axis: Axis) -> None:
    page.heading("Evidence")
    if not judgement.measurements:
        page.line("Nothing was measured.")
        return
    shown, left_out = summary.in_short(judgement.measurements)
    rows: list[tuple[str | Text, ...]] = []
    for subject in dict.fromkeys(one.subject for one in shown):
        group = [one for one in shown if one.subject == subject]
        rows.append((Text(summary.subject(group[0], axis), style="bold"), "", "", ""))
        rows.extend(
            (
                _folded(f"  {one.metric}", page.width - 50),
                ", ".join(part for part in (one.layer, one.split) if part) or "-",
                summary.measured(one) + ("" if one.unit == "1" else f" {one.unit}"),
                "-" if one.n is None else str(one.n),
            )
            for one in group
        )
    page.table(
        [
            _Column("metric"),
            _Column("of"),
            _Column("value", right=True, max_width=23 if page.width <= 100 else None),
            _Column("n", right=True),
        ],
        rows,
    )
    for sentence in summary.directions(judgement):
        page.line(sentence, "dim")
    for what, reason in summary.unavailable_ones(judgement.measurements):
        page.line(f"{what}: unavailable: {reason}", "dim")
    if left_out:
        page.line(
            f"{left_out} more rows, of layers between the first and the last: --html or --json.",
            "dim",
        )


def _findings(page: _Page, diagnosis: Diagnosis) -> None:
    page.heading("Findings")
    if not diagnosis.findings:
        page.line("None beside the verdict.")
    for one in diagnosis.findings:
        page.line(
            f"{one.status}: {one.text} ({summary.hyphens(one.code)})", _STATUS_COLOURS[one.status]
        )
        page.pairs(summary.flat(one.evidence), indent=2)


def _rest(page: _Page, judgement: Judgement) -> None:
    page.heading("What was skipped, and why")
    for one in judgement.skipped:
        page.line(f"{one.what}: {one.reason} ({summary.hyphens(one.code)})")
    if not judgement.skipped:
        page.line("Nothing.")
    for title, value in (("The file", judgement.input), ("The setup", judgement.setup)):
        if value:
            page.heading(title)
            page.pairs(summary.flat(value))
    page.heading("Cost")
    page.line(summary.cost_text(judgement.cost))
