import re
from base64 import b64encode
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
import report_fixtures as fixtures
from hypothesis import given
from hypothesis import strategies as st
from profiles import FEW

from fls_bench import report
from fls_bench.report import html, summary
from fls_bench.schema import Judgement, Report

VOID = {"meta", "br", "link", "img", "input", "hr"}


class Page(HTMLParser):
    """Elements, attributes and visible text of a page, and where every element opened."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.open: list[str] = []
        self.parents: list[tuple[str, str]] = []
        self.inside: dict[str, list[str]] = {}
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        self.parents.append((self.open[-1] if self.open else "", tag))
        if tag not in VOID:
            self.open.append(tag)
        self.inside.setdefault(tag, []).append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag in ("td", "th", "dt"):
            self.text += " "

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.text += data
        for tag in set(self.open):
            self.inside[tag][-1] += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


def squeezed(text: str) -> str:
    return " ".join(text.split())


@cache
def page_of(name: str) -> str:
    return html.render(fixtures.PAGES[name]())


@pytest.fixture(params=fixtures.PAGES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# --- safe -----------------------------------------------------------------------------------

ALLOWED = {
    "html", "head", "meta", "title", "style", "body", "header", "main", "footer", "section", "div",
    "h1", "h2", "h3", "h4", "p", "span", "strong", "a", "ul", "li", "dl", "dt", "dd", "pre", "code",
    "table", "caption", "thead", "tbody", "tr", "th", "td", "details", "summary", "figure",
    "figcaption", "svg", "g", "path", "defs", "use", "text", "tspan", "clippath", "rect",
    "circle", "script", "br",
}  # fmt: skip


def check_nothing_foreign(source: str) -> Page:
    page = Page(source)
    assert {tag for tag, _ in page.elements} <= ALLOWED
    for tag, attributes in page.elements:
        for attribute, value in attributes.items():
            assert not attribute.startswith("on"), (tag, attribute)
            assert attribute not in ("src", "srcset", "action", "data"), (tag, attribute)
            if attribute in ("href", "xlink:href"):
                assert re.fullmatch(r"#[a-z0-9-]+", value), value
    assert page.open == []
    return page


@pytest.mark.parametrize("text", fixtures.HOSTILE)
def test_what_a_person_gave_is_shown_literally_and_does_nothing(text: str) -> None:
    page = check_nothing_foreign(html.render(fixtures.hostile(text)))
    # Places: title, headings, tables, lists, the snippet; a hyphen may stand for an underscore.
    assert page.text.count(text) > 30
    assert page.inside["title"][0].count(text) == 2


@pytest.mark.parametrize("kind", ["tune", "invariants", "intervention"])
@pytest.mark.parametrize("text", fixtures.HOSTILE)
def test_every_kind_shows_it_literally(kind: str, text: str) -> None:
    page = check_nothing_foreign(html.render(fixtures.HOSTILE_PAGES[kind](text)))
    assert page.text.count(text) > 5


@given(st.text(st.characters(codec="utf-8", exclude_characters="\r"), min_size=1, max_size=30))
@FEW
def test_no_text_adds_an_element(text: str) -> None:
    value = fixtures.weights_alone().model_copy(update={"setup": {text: text, "name": text}})
    page = check_nothing_foreign(html.render(value))
    plain = check_nothing_foreign(
        html.render(value.model_copy(update={"setup": {"x": "x", "name": "x"}}))
    )
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in plain.elements] or text == "name"
    assert text in page.text


def test_the_page_needs_and_may_load_nothing_else(name: str) -> None:
    source = page_of(name)
    page = check_nothing_foreign(source)
    policies = [m["content"] for m in page.all("meta") if "http-equiv" in m]
    assert len(policies) == 1
    assert "default-src 'none'" in policies[0]
    # One script runs: the one whose digest the policy names.
    (script,) = page.inside["script"]
    digest = b64encode(sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in policies[0]
    assert page.all("script") == [{}]
    assert "@import" not in source
    addresses = set(re.findall(r"https?://[^\s\"'<]+", source))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


def test_a_file_name_that_is_not_unicode_does_not_break_the_page(tmp_path: Path) -> None:
    value = fixtures.weights_alone().model_copy(update={"input": {"path": "caf\udce9.pt"}})
    path = report.write_html(value, tmp_path / "report.html")
    assert "caf" in path.read_text("utf-8")


# --- well made ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["over_fitted", "weights_alone"])
def test_equal_reports_give_equal_pages(kind: str) -> None:
    assert html.render(fixtures.ALL[kind]()) == page_of(kind)


def test_the_page_is_sound_and_accessible(name: str) -> None:
    page = Page(page_of(name))
    assert page.all("html")[0]["lang"] == "en"
    assert any(m.get("name") == "viewport" for m in page.all("meta"))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {a["href"][1:] for a in page.all("a")} <= set(ids)
    assert all(th.get("scope") in ("col", "row") for th in page.all("th"))
    for svg in page.all("svg"):
        assert svg["role"] == "group"
        assert "test error over" in svg["aria-label"].lower() or "best c over" in svg["aria-label"]
    drawings = [g for g in page.all("g") if "aria-label" in g]
    assert len(drawings) == len(page.all("svg"))
    assert all(g["role"] == "img" and "larger FLS" in g["aria-label"] for g in drawings)
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    # Wide things scroll by themselves: each table has its own box, reachable by keyboard.
    for parent, tag in page.parents:
        assert tag != "table" or parent == "div"
    boxes = [div for div in page.all("div") if div.get("class") == "scroll"]
    assert len(boxes) == len(page.all("table"))
    assert all(box["tabindex"] == "0" and box["aria-label"] for box in boxes)


def test_the_order_leads_from_the_verdict_to_its_grounds() -> None:
    text = page_of("over_aligned")
    parts = [
        "Feature learning is too strong", "What to do", "<pre", "<svg", "Mechanism: rank collapse",
        "Is it only the learning rate?", ">Evidence<", ">Findings<", ">The sweep<",
        "What was skipped", "The file", "The setup", ">Cost<", ">Provenance<",
    ]  # fmt: skip
    places = [text.index(part) for part in parts]
    assert places == sorted(places)


# --- complete -------------------------------------------------------------------------------


def check_complete(shown: str, value: Judgement) -> None:
    """Everything that the judgement rests on is in the text, whatever the view."""
    for one in value.measurements:
        for part in (one.metric, one.layer, one.split, one.reason):
            assert part is None or squeezed(part) in shown, part
        assert summary.measured(one) in shown
    for skip in value.skipped:
        assert squeezed(skip.what) in shown
        assert squeezed(skip.reason) in shown
    for comparison in value.rate_comparisons:
        assert squeezed(comparison.text) in shown
        assert summary.gain_text(comparison.gain) in shown
    for sweep in (value.sweep, value.centered_sweep):
        for cell in summary.summarize_sweep(sweep) if sweep else ():
            assert summary.power(cell.cell.c) in shown
            assert cell.cell.reason is None or cell.cell.reason in shown
            assert cell.ended_otherwise in shown
            assert all(message in shown for message in cell.messages)
    if value.diagnosis is not None:
        diagnosis = value.diagnosis
        assert diagnosis.regime.label in shown
        assert diagnosis.regime.sentence in shown
        assert squeezed(diagnosis.reason.text) in shown
        assert squeezed(diagnosis.recommendation.text) in shown
        for finding in diagnosis.findings:
            assert squeezed(finding.text) in shown
            assert all(name in shown for name in finding.evidence)
        if diagnosis.c is not None:
            axis = summary.axis_of(value)
            assert summary.direction(axis) in shown
    assert summary.cost_text(value.cost) in shown


NATURAL = [name for name in fixtures.ALL if name != "hostile"]


@pytest.mark.parametrize("kind", NATURAL)
def test_the_page_holds_everything(kind: str) -> None:
    value: Report = fixtures.ALL[kind]()
    page = Page(page_of(kind))
    shown = squeezed(page.text)
    for judgement in (value, *value.cases):
        check_complete(shown, judgement)
        for sweep in (judgement.sweep, judgement.centered_sweep):
            for cell in sweep.cells if sweep else ():
                for run in cell.seeds:
                    assert summary.optional_percent(run.test_error) in shown
    assert value.provenance.started in shown


def test_the_snippet_can_be_copied() -> None:
    page = Page(page_of("over_aligned"))
    diagnosis = fixtures.over_aligned().diagnosis
    assert diagnosis is not None
    assert page.inside["pre"] == [diagnosis.recommendation.snippet]


def test_codes_have_hyphens_on_screen() -> None:
    shown = Page(page_of("over_aligned")).text
    for code in ("over_aligned", "reached_target", "rank_collapse", "arms_unusable", "not_asked"):
        assert code not in shown
    assert "arms-unusable" in shown


def test_a_suite_starts_with_its_cases() -> None:
    shown = squeezed(Page(page_of("suite")).text)
    assert "3 cases: 1 as expected, 1 not, 1 without an expectation." in shown
    assert "digits-mlp-small-c over-aligned over-aligned yes" in shown
    assert "mixture over-fitted near-optimal NO" in shown
    assert "no-signal - inconclusive -" in shown
    page = Page(page_of("suite"))
    assert len(page.all("svg")) == 2 * 3


def test_an_optimum_at_the_end_of_the_range_is_said() -> None:
    shown = squeezed(Page(page_of("near_optimal")).text)
    assert "at the upper end of the range swept" in shown


def test_a_judgement_without_a_sweep_has_no_curve_and_says_why() -> None:
    page = Page(page_of("weights_alone"))
    assert page.all("svg") == []
    assert "The file holds no recipe." in page.text


def test_a_case_without_a_verdict_says_so() -> None:
    value = fixtures.suite()
    failed = value.cases[0].model_copy(update={"diagnosis": None})
    shown = squeezed(Page(html.render(value.model_copy(update={"cases": (failed,)}))).text)
    assert "There is no verdict; what was skipped below says why." in shown


# --- long -----------------------------------------------------------------------------------


def folds(page: Page) -> list[str]:
    return [squeezed(text) for text in page.inside.get("summary", [])]


def test_long_lists_fold_and_say_how_long_they_are() -> None:
    value = fixtures.over_aligned()
    assert not any("measurements, and" in text for text in folds(Page(html.render(value))))
    long = value.model_copy(
        update={
            "measurements": 2 * value.measurements,
            "skipped": 7 * value.skipped,
            "sweep": fixtures.sweep(dict.fromkeys(range(-8, 6), 0.1), seeds=2),
        }
    )
    shown = folds(Page(html.render(long)))
    assert "18 measurements, and 1 that could not be taken" in shown
    assert "14 things skipped" in shown
    assert "Sweep of c·f, plain: 14 values of c" in shown
    assert "28 runs, each by itself" in shown


def test_every_run_is_listed_up_to_a_limit_and_then_the_page_says_where_they_are() -> None:
    listed, left_out = (
        Page(html.render(fixtures.many_runs(10, seeds))) for seeds in (200, 201)
    )  # fmt: skip
    assert "2,000 runs, each by itself" in folds(listed)
    assert "each by itself" not in left_out.text
    assert "2,010 runs, not listed one by one" in left_out.text
    assert "--json runs.json" in left_out.text


@pytest.mark.parametrize("make", [fixtures.many_runs, fixtures.many_cases])
def test_a_page_of_ten_thousand_runs_stays_small(make: Callable[[], Report]) -> None:
    value = make()
    assert summary.num_runs([value, *value.cases]) >= 10_000
    source = html.render(value)
    assert len(source.encode()) < 5_000_000
    assert source.endswith("</html>")
    swept = sum(one.sweep is not None for one in (value, *value.cases))
    assert source.count("<svg ") == 2 * min(swept, html.MOST_CURVES)
    assert source.count("this one is not drawn") == max(0, swept - html.MOST_CURVES)


# --- numbers --------------------------------------------------------------------------------


def test_figures_in_large_carry_unit_interval_and_n() -> None:
    shown = squeezed(Page(page_of("over_aligned")).text)
    assert (
        "best c (c*) 2^-4 0.0625, 95 % interval from 2^-5 to 2^-3; n = 2 to 10 seeds a value"
        in shown
    )
    assert (
        "expected gain +5.70 percentage points of test accuracy, 95 % interval +4.90 to +6.50 "
        "(10 seeds, test split)" in shown
    )
    tuned = squeezed(Page(page_of("tune")).text)
    assert "expected gain +5.70 percentage points of test accuracy, 95 % interval" in tuned


def test_a_search_shows_the_interval_where_the_runs_are_known() -> None:
    value = fixtures.tune()
    assert value.tuning is not None
    assert value.sweep is not None
    cells = summary.summarize_sweep(value.sweep)
    texts = [summary.trial_error(one, cells) for one in value.tuning.trials]
    assert ["[" in text for text in texts] == [True, False] * 4
    shown = squeezed(Page(page_of("tune")).text)
    assert all(squeezed(text.replace(" [", " [")) in shown for text in texts)


def test_every_number_of_a_sorted_column_can_be_sorted_by(name: str) -> None:
    """A cell with a number in a column of numbers has the value that the column sorts by."""
    source = page_of(name)
    tables = re.findall(r"<table .*?</table>", source, re.DOTALL)
    assert len(tables) == source.count("<table")
    for table in tables:
        heads = re.findall(r"<th scope=\"col\"([^>]*)>", table)
        body = table[table.index("<tbody>") :]
        for row in re.findall(r"<tr.*?</tr>", body, re.DOTALL):
            cells = re.findall(r"<t[hd]([^>]*)>(.*?)</t[hd]>", row, re.DOTALL)
            assert len(cells) == len(heads)
            for head, (attributes, text) in zip(heads, cells, strict=True):
                if 'data-sort="number"' in head:
                    found = re.search(r'data-value="([^"]*)"', attributes)
                    assert (found is None) == (text in ("-", "undecided", "not measured")), (
                        text,
                        attributes,
                    )
                    assert found is None or float(found[1]) is not None
