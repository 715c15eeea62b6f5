import re
from xml.etree import ElementTree

import pytest
import report_fixtures as fixtures

from fls_bench.report import charts
from fls_bench.report.summary import multiplier, number, percent, plain, summarize_sweep
from fls_bench.schema import CStar, Outcome, Report, Sweep

SVG = "{http://www.w3.org/2000/svg}"


def draw(value: Report, layout: charts.Layout = "wide", prefix: str = "a-") -> str:
    assert value.sweep is not None
    assert value.diagnosis is not None
    return charts.u_curve(
        value.sweep,
        value.centered_sweep,
        value.diagnosis.c,
        value.diagnosis.c_star,
        layout=layout,
        prefix=prefix,
    )


def texts(svg: str) -> list[tuple[float, float, str]]:
    """(x, y, text) of every text in the drawing; its transform holds the place if x does not."""
    found = []
    for element in ElementTree.fromstring(svg).iter(f"{SVG}text"):
        place = element.get("transform", "")
        moved = re.search(r"translate\(([-\d.]+) ([-\d.]+)\)", place)
        x = element.get("x") or (moved[1] if moved else "nan")
        y = element.get("y") or (moved[2] if moved else "nan")
        found.append((float(x), float(y), "".join(element.itertext())))
    return found


def words(svg: str) -> str:
    return " | ".join(text for _, _, text in texts(svg))


def place(svg: str, text: str) -> float:
    (x,) = [x for x, _, shown in texts(svg) if shown == text]
    return x


@pytest.mark.parametrize("layout", ["wide", "narrow"])
def test_large_fls_is_left_and_small_fls_is_right(layout: charts.Layout) -> None:
    svg = draw(fixtures.over_aligned(), layout)
    left = place(svg, "larger FLS → over-aligned" if layout == "wide" else "larger FLS")
    right = place(svg, "smaller FLS → over-fitted" if layout == "wide" else "smaller FLS")
    assert left < right
    assert place(svg, "over-aligned side") < place(svg, "over-fitted side")
    # Ticks grow from left to right, and c lies left of c* on this over-aligned report.
    assert place(svg, "2⁻¹²") < place(svg, "2⁰")
    assert place(svg, "c now = 2⁻⁹") < place(svg, "c* = 2⁻⁴")
    over_fitted = draw(fixtures.over_fitted(), layout)
    assert place(over_fitted, "c now = 2³") > place(over_fitted, "c* = 2⁻⁴")


@pytest.mark.parametrize("layout", ["wide", "narrow"])
@pytest.mark.parametrize(
    "name", [name for name in fixtures.ALL if name not in ("suite", "hostile")]
)
def test_all_writing_lies_inside_the_drawing(name: str, layout: charts.Layout) -> None:
    value = fixtures.ALL[name]()
    if value.sweep is None:
        return
    svg = draw(value, layout)
    _, _, width, height = map(float, ElementTree.fromstring(svg).get("viewBox", "").split())
    for x, y, text in texts(svg):
        assert 0 <= x <= width, text
        assert 0 <= y <= height, text


def test_values_that_cannot_be_judged_are_drawn_and_explained() -> None:
    legend = words(draw(fixtures.over_aligned()))
    assert "not usable: target not reached" in legend
    assert "no run left a test error" in legend
    assert "not usable" not in words(draw(fixtures.near_optimal()))


def test_the_centered_sweep_is_a_second_curve() -> None:
    legend = words(draw(fixtures.over_fitted()))
    assert "test error, plain c·f" in legend
    assert "test error, centered c·(f - f₀)" in legend
    assert "centered" not in words(draw(fixtures.over_aligned()))


def test_chance_is_shown_where_the_curve_comes_near_it() -> None:
    assert "always the commonest class" in words(draw(fixtures.no_signal()))
    assert "always the commonest class" not in words(draw(fixtures.over_aligned()))


def test_the_axis_is_named_for_what_was_swept() -> None:
    assert "output multiplier c" in words(draw(fixtures.over_aligned()))
    alpha = words(draw(fixtures.near_optimal()))
    assert "init scale alpha" in alpha
    assert "alpha now = 2⁰" in alpha
    assert "output multiplier" not in alpha


def test_without_a_best_value_no_region_is_claimed() -> None:
    shown = words(draw(fixtures.no_signal()))
    assert "side" not in shown
    assert "c*" not in shown
    assert "larger FLS" in shown


def test_errors_that_differ_manyfold_share_a_logarithmic_axis() -> None:
    assert "error (%), log scale" in words(draw(fixtures.near_optimal()))
    assert "error (%)" in words(draw(fixtures.no_signal())).split(" | ")


@pytest.mark.parametrize(
    "sweep",
    [
        fixtures.sweep({0: 0.2}, 1),
        fixtures.sweep({0: 0.0, 1: 0.0}, 3),
        fixtures.sweep({-3: 1.0, 2: 1.0}, 2),
        fixtures.sweep({}, 1, extra=(fixtures.cell(2, 0.1, 3, usable=False, reached=0,
                                                   outcome=Outcome.FAILED),)),
        fixtures.sweep({}, 1, extra=(fixtures.cell(0.5, 0.1, 0, usable=False, reached=0),)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("c_star", [None, CStar(value=1e-4, low=None, high=0.5, at_edge="low")])
def test_poor_sweeps_are_drawn_too(sweep: Sweep, c_star: CStar | None) -> None:
    svg = charts.u_curve(sweep, None, 3.0, c_star, layout="wide", prefix="a-")
    assert "larger FLS" in words(svg)


def test_the_drawing_is_the_same_every_time_and_takes_no_settings_from_outside() -> None:
    import matplotlib

    first = draw(fixtures.over_aligned())
    with matplotlib.rc_context(
        {"font.size": 30.0, "svg.hashsalt": "other", "xtick.major.size": 20.0}
    ):
        assert draw(fixtures.over_aligned()) == first
    assert "<dc:date>" not in first


def test_the_drawing_can_stand_beside_others_in_a_page() -> None:
    svg = draw(fixtures.over_aligned(), prefix="case-1-")
    root = ElementTree.fromstring(svg)
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    assert all(name is not None and name.startswith("case-1-") for name in ids)
    used = re.findall(r'(?:href="#|url\(#)([^")]+)', svg)
    assert used
    assert set(used) <= set(ids)
    assert "<style" not in svg
    assert "DejaVu" not in svg


def test_colours_follow_the_page() -> None:
    svg = draw(fixtures.over_aligned())
    for role in ("ink", "muted", "grid", "curve", "now", "best", "aligned", "fitted"):
        assert f"var(--chart-{role}, #" in svg
    bare = re.sub(r"var\([^)]*\)", "", svg)
    assert set(re.findall(r"#[0-9a-f]{6}\b", bare)) == set()


def test_the_drawing_says_in_words_what_it_shows() -> None:
    root = ElementTree.fromstring(draw(fixtures.over_aligned()))
    assert root.get("aria-label") == root.findtext(f"{SVG}title")
    label = root.findall(f"{SVG}g")[0].get("aria-label") or ""
    assert "2^-13 on the left (larger FLS → over-aligned)" in label
    assert "2^6 on the right (smaller FLS → over-fitted)" in label
    assert "c now is 2^-9" in label
    assert "c* is 2^-4" in label
    assert "c = 2^-13: 21.23 % [19.46, 23.01] (not usable)" in label


@pytest.mark.parametrize("layout", ["wide", "narrow"])
def test_every_value_has_a_mark_at_its_place_with_its_numbers(layout: charts.Layout) -> None:
    value = fixtures.over_fitted()
    svg = draw(value, layout)
    marks = [
        one for one in ElementTree.fromstring(svg).iter(f"{SVG}g") if one.get("class") == "point"
    ]
    assert value.sweep is not None
    assert value.centered_sweep is not None
    cells = [
        one
        for sweep in (value.sweep, value.centered_sweep)
        for one in summarize_sweep(sweep)
    ]  # fmt: skip
    assert len(marks) == len(cells)
    for mark, one in zip(marks, cells, strict=True):
        words = mark.findtext(f"{SVG}title") or ""
        assert words.startswith(f"c = {multiplier(one.cell.c)}")
        for part in (
            f"test error {percent(one.test_error)}; ",
            f"target reached by {one.num_reached} of {one.num_runs} runs; ",
            f"n = {one.test_error.n if one.test_error else 0}",
            f"learning rate {number(one.cell.lr)}; ",
            f"validation error {percent(one.val_error)}; ",
            f"test loss {plain(one.test_loss)}",
        ):
            assert part in words
        assert mark.get("tabindex") == "0"
    # Where the drawing puts them: c* lies on its line, and less error lies lower.
    x, y = (
        [float(mark[1].get(name, "nan")) for mark in marks[: len(value.sweep.cells)]]
        for name in ("cx", "cy")
    )
    assert x == sorted(x)
    exact = [one.cell.c for one in cells].index(2.0**-4)
    assert abs(x[exact] - place(svg, "c* = 2⁻⁴")) < 1
    errors = [one.test_error.value for one in cells[: len(y)] if one.test_error]
    assert sorted(range(len(y)), key=lambda k: -y[k]) == sorted(
        range(len(y)), key=errors.__getitem__
    )


def test_a_value_without_a_test_error_has_its_mark_at_its_cross() -> None:
    svg = draw(fixtures.over_aligned())
    lost = [
        one
        for one in ElementTree.fromstring(svg).iter(f"{SVG}g")
        if one.get("class") == "point" and "test error -" in (one.findtext(f"{SVG}title") or "")
    ]
    assert len(lost) == 2
    assert all("n = 0, can't be judged" in (one.findtext(f"{SVG}title") or "") for one in lost)
    assert len({one[1].get("cy") for one in lost}) == 1
