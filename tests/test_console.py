import io
import os
import re
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from profiles import FEW

sys.path.insert(0, str(Path(__file__).resolve().parent))
import report_fixtures as fixtures

from fls_bench import console
from fls_bench.report import summary
from fls_bench.schema import Judgement, Report

NATURAL = [name for name in fixtures.ALL if name != "hostile"]


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def shown(value: Report, width: int = 80) -> str:
    stream = io.StringIO()
    console.show(value, stream, width)
    return stream.getvalue()


def squeezed(text: str) -> str:
    """The text without white space: a narrow screen may break it anywhere."""
    return "".join(text.split())


def check_complete(text: str, value: Judgement) -> None:
    screen = squeezed(text)
    wanted = [summary.cost_text(value.cost)]
    for one in value.measurements:
        wanted += [one.metric, one.layer or "", one.reason or ""]
    for skip in value.skipped:
        wanted += [f"{skip.what}: {skip.reason}"]
    for comparison in value.rate_comparisons:
        wanted += [comparison.text]
    for sweep in (value.sweep, value.centered_sweep):
        for cell in summary.summarize_sweep(sweep) if sweep else ():
            wanted += [summary.power(cell.cell.c), f"{cell.num_reached}/{cell.num_runs}"]
            wanted += [
                (cell.cell.reason or "").removesuffix("."),
                cell.ended_otherwise,
                *cell.messages,
            ]
    if value.diagnosis is not None:
        diagnosis = value.diagnosis
        wanted += [diagnosis.regime.label, diagnosis.regime.sentence, diagnosis.reason.text]
        wanted += [diagnosis.recommendation.text, summary.direction(summary.axis_of(value))]
        wanted += [finding.text for finding in diagnosis.findings]
    for text_wanted in wanted:
        assert squeezed(text_wanted) in screen, text_wanted


# --- the report -----------------------------------------------------------------------------


@pytest.mark.parametrize("width", [80, 160])
@pytest.mark.parametrize("name", NATURAL)
def test_everything_is_on_the_screen_within_its_width(name: str, width: int) -> None:
    value: Report = fixtures.ALL[name]()
    text = shown(value, width)
    for judgement in (value, *value.cases):
        check_complete(text, judgement)
    assert max(len(line) for line in text.splitlines()) <= width
    assert value.provenance.started in text


def test_a_value_and_its_number_of_samples_share_a_line() -> None:
    text = shown(fixtures.over_aligned(), 120)
    line = next(line for line in text.splitlines() if "alignment.nearest_class_mean" in line)
    assert " ".join(line.split()) == ("alignment.nearest_class_mean test 0.76 share 1000")


def test_the_direction_is_said_on_both_sides_of_the_sweep() -> None:
    text = shown(fixtures.over_aligned())
    places = [
        text.index(part)
        for part in (
            "larger FLS, toward over-aligned", "\n2^-13 ", "\n2^-9   c now", "\n2^-4   c*",
            "\n2^3 ", "smaller FLS, toward over-fitted",
        )
    ]  # fmt: skip
    assert places == sorted(places)
    assert "smaller c = larger FLS = toward over-aligned" in text


def test_bars_follow_the_error() -> None:
    lines = shown(fixtures.near_optimal()).splitlines()
    bars = {line.split()[0]: line.count("█") for line in lines if "%" in line and "2^" in line[:3]}
    assert bars["2^-8"] == max(bars.values()) == 16
    assert bars["2^-2"] < bars["2^-8"] / 2


def test_the_screen_names_the_axis_that_was_swept() -> None:
    text = shown(fixtures.near_optimal())
    assert "best alpha (alpha*)" in text
    assert "at the upper end of the range" in " ".join(text.split())


def test_a_snippet_is_printed_as_it_is_and_never_wrapped() -> None:
    snippet = "model = " + "x" * 150 + "\nif True:\n    logits = 32 * model(x)\n"
    value = fixtures.over_aligned()
    assert value.diagnosis is not None
    advice = value.diagnosis.recommendation.model_copy(update={"snippet": snippet})
    diagnosis = value.diagnosis.model_copy(update={"recommendation": advice})
    text = shown(value.model_copy(update={"diagnosis": diagnosis}))
    assert f"\n\n{snippet}\n" in text


def test_codes_have_hyphens_on_screen() -> None:
    text = shown(fixtures.over_aligned())
    for code in ("over_aligned", "reached_target", "rank_collapse", "arms_unusable", "not_asked"):
        assert code not in text


def test_a_suite_starts_with_its_cases() -> None:
    lines = [line.split() for line in shown(fixtures.suite()).splitlines()]
    assert ["digits-mlp-small-c", "over-aligned", "over-aligned", "yes"] in lines
    assert ["mixture", "over-fitted", "near-optimal", "NO"] in lines
    assert ["no-signal", "-", "inconclusive", "-"] in lines


# --- what a person gave ---------------------------------------------------------------------

CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")


@pytest.mark.parametrize("text", fixtures.HOSTILE)
def test_hostile_text_is_literal(text: str) -> None:
    screen = shown(fixtures.hostile(text), 1000)
    assert not CONTROLS.search(screen)
    literal = text.replace("\x1b", "\\x1b").replace("\x07", "\\x07")
    assert screen.count(literal) > 25


@given(st.text(max_size=30))
@FEW
def test_no_text_can_control_the_terminal(text: str) -> None:
    stream = Terminal()
    console.table(text, [text], [[text]], stream, 80)
    console.fail(text, text, stream)
    visible = re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue())
    assert not CONTROLS.search(visible)
    styles = set(re.findall(r"\x1b\[[0-9;]*m", stream.getvalue()))
    assert styles <= {"\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[1;31m"}


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
@pytest.mark.parametrize("name", fixtures.ALL)
def test_every_encoding_gets_a_readable_report(name: str, encoding: str) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    console.show(fixtures.ALL[name](), stream, 80)
    text = raw.getvalue().decode(encoding)
    assert "over-aligned" in text
    if encoding == "ascii" and name == "over_aligned":
        assert "################" in text
        assert "?" not in text.replace("rate?", "")


def test_a_file_name_that_is_not_unicode_is_printed() -> None:
    name = os.fsdecode(b"caf\xe9.pt")
    value = fixtures.weights_alone().model_copy(update={"input": {"path": name}})
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="utf-8")
    console.show(value, stream, 80)
    assert b"caf" in raw.getvalue()


# --- colours --------------------------------------------------------------------------------


def test_a_pipe_gets_no_colours_and_a_terminal_does(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b" not in shown(fixtures.over_aligned())
    terminal = Terminal()
    console.show(fixtures.over_aligned(), terminal, 80)
    assert "\x1b[1;35mover-aligned" in terminal.getvalue()
    monkeypatch.setenv("NO_COLOR", "1")
    terminal = Terminal()
    console.show(fixtures.over_aligned(), terminal, 80)
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", terminal.getvalue())
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    terminal = Terminal()
    console.show(fixtures.over_aligned(), terminal, 80)
    assert "\x1b" not in terminal.getvalue()


def test_results_go_to_stdout_and_problems_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    console.show(fixtures.no_signal())
    console.table("Suites", ["name", "cost"], [["quick", "20 s"]])
    console.fail("There is no file x.pt.", "Check the path.")
    console.note("[b]written[/b] \x1b[31m")
    console.note("made x.pt", stdout=True)
    out, err = capsys.readouterr()
    assert "random-labels" in out
    assert out.endswith("made x.pt\n")
    assert "quick  20 s" in out
    assert err == ("error: There is no file x.pt. Check the path.\n[b]written[/b] \\x1b[31m\n")


def test_a_long_problem_is_one_line_for_a_program() -> None:
    stream = io.StringIO()
    console.fail("There is no file " + "x" * 300 + ".", "Check the path.", stream)
    assert stream.getvalue().count("\n") == 1


def test_a_table_keeps_all_its_text() -> None:
    stream = io.StringIO()
    long = "word " * 60
    console.table("Title", ["name", "what"], [["quick", long], ["[b]", "y" * 200]], stream, 60)
    text = stream.getvalue()
    assert squeezed(text).count("word") == 60
    assert squeezed(text).count("y" * 50) >= 1
    assert text.count("y") == 200
    assert "[b]" in text
    assert max(len(line) for line in text.splitlines()) <= 60


# --- progress -------------------------------------------------------------------------------


def run_progress(stream: io.StringIO, quiet: bool = False) -> None:
    with console.Progress(quiet, stream) as listen:
        listen.plan(8, "coarse grid [red]")
        for _ in range(8):
            listen.done(1, "coarse grid [red]")
        listen.plan(2, "more seeds")
        listen.note("extended to 2^-11 \x1b[31m")
        listen.done(2, "more seeds")


def test_quiet_shows_nothing() -> None:
    for stream in (io.StringIO(), Terminal()):
        run_progress(stream, quiet=True)
        assert stream.getvalue() == ""


def test_a_pipe_gets_few_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    run_progress(stream)
    assert stream.getvalue().splitlines() == [
        "coarse grid [red]: 8 more runs",
        "more seeds: 2 more runs",
        "extended to 2^-11 \\x1b[31m",
        "10 of 10 runs done in 0 s",
    ]
    clock = iter(range(0, 1000, 2))
    monkeypatch.setattr("fls_bench.console.time.monotonic", lambda: float(next(clock)))
    stream = io.StringIO()
    run_progress(stream)
    lines = stream.getvalue().splitlines()
    # Two seconds pass at every look at the clock; what is left is foreseen from what was done.
    found = [
        re.fullmatch(
            r"coarse grid \[red\]: ([1-7]) of 8 runs done, about (\d+) s left of these", line
        )
        for line in lines
    ]
    told = [(int(one[1]), int(one[2])) for one in found if one is not None]
    assert told
    assert told == sorted(told, key=lambda one: -one[1])
    assert len(lines) < 4 + 8


def test_a_terminal_gets_a_bar_that_vanishes() -> None:
    stream = Terminal()
    run_progress(stream)
    text = stream.getvalue()
    assert "10/10" in text
    assert "coarse grid [red]" in text
    assert "\x1b[31m" not in text
    assert "extended to 2^-11 \\x1b[31m" in text
    assert text.rstrip().endswith("\x1b[2K")
    assert "\x1b[?25h" in text


def test_an_error_inside_is_not_hidden_and_leaves_no_line() -> None:
    stream = io.StringIO()

    def interrupted() -> None:
        with console.Progress(False, stream) as listen:
            listen.plan(3, "grid")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert stream.getvalue() == "grid: 3 more runs\n"
