"""The pages in a real browser: headless Chromium, driven through its own driver.

Needs the Debian packages chromium and chromium-driver, and selenium; skipped where they are missing.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import report_fixtures as fixtures

from fls_bench.report import charts, html, summary
from fls_bench.schema import Judgement, Report

selenium = pytest.importorskip("selenium", reason="pip install selenium")
from selenium import webdriver  # noqa: E402
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")

pytestmark = [
    pytest.mark.xdist_group("browser"),
    pytest.mark.skipif(
        CHROMIUM is None or DRIVER is None,
        reason="needs the Debian packages chromium and chromium-driver (apt-get install)",
    ),
]

WIDE, NARROW = 1280, 360
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip

# What would set a flag, or open a dialog, if any place of the page took text for markup or code.
ATTACK = "".join(
    (
        "</script><script>window.ran=1</script>",
        "</title></style><script>window.ran=1</script>",
        '"><img src=x onerror="window.ran=1"><svg onload=\'window.ran=1\'>',
        "'-(window.ran=1)-' javascript:window.ran=1 {{ 7 * 7 }} ${window.ran=1}",
        "<a href=\"javascript:window.ran=1\" onclick='window.ran=1'>x</a><!--",
    )
)


@dataclass
class Browser:
    """A browser and the pages that it may open."""

    driver: Any
    folder: Path
    written: dict[str, str] = field(default_factory=dict)

    def open(
        self, name: str, make: Callable[[], Report], width: int = WIDE, scheme: str = "light"
    ) -> None:
        """Show a page, as wide and in the colours that are asked for; its log starts empty."""
        if name not in self.written:
            path = self.folder / f"{name}.html"
            path.write_text(html.render(make()), encoding="utf-8")
            self.written[name] = path.as_uri()
        self.media("screen", scheme)
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.driver.get("about:blank")
        self.log()
        self.requests()
        self.driver.get(self.written[name])

    def media(self, media: str, scheme: str = "light") -> None:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"media": media, "features": features}
        )

    def js(self, code: str, *arguments: object) -> Any:
        return self.driver.execute_script(code, *arguments)

    def all(self, selector: str) -> list[Any]:
        """What is on the page and not hidden or folded away."""
        return self.js(
            """
            return [...document.querySelectorAll(arguments[0])].filter(
              (one) => one.checkVisibility() && one.getClientRects().length > 0);
            """,
            selector,
        )

    def log(self) -> list[dict[str, Any]]:
        """What the console said since it was last asked."""
        found: list[dict[str, Any]] = self.driver.get_log("browser")
        return found

    def requests(self) -> set[str]:
        """Addresses that were asked for since this was last asked."""
        messages = [json.loads(one["message"]) for one in self.driver.get_log("performance")]
        return {
            one["message"]["params"]["request"]["url"]
            for one in messages
            if one["message"]["method"] == "Network.requestWillBeSent"
        } - {"about:blank"}

    def use_everything(self) -> None:
        """Unfold, press, focus and point at all that the page offers."""
        self.js(
            """
            for (const one of document.querySelectorAll("details")) one.open = true;
            for (const one of document.querySelectorAll("button, a")) one.click();
            for (const one of document.querySelectorAll(".point")) {
              one.focus();
              const box = one.getBoundingClientRect();
              const at = { clientX: box.x + 2, clientY: box.y + 2, bubbles: true };
              one.dispatchEvent(new PointerEvent("pointermove", at));
            }
            """
        )


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    options = webdriver.ChromeOptions()
    assert CHROMIUM is not None
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        yield Browser(driver, tmp_path_factory.mktemp("pages"))
    finally:
        driver.quit()


# A report of each kind; of the diagnoses those whose pages differ most.
SHOWN = [name for name in fixtures.PAGES if name not in ("near_optimal", "no_signal")]


@pytest.fixture(params=SHOWN)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def swept(name: str) -> list[Judgement]:
    value: Report = fixtures.PAGES[name]()
    return [one for one in (value, *value.cases) if one.sweep is not None]


# --- safe -----------------------------------------------------------------------------------


def test_nothing_is_asked_for_and_nothing_fails(browser: Browser, name: str) -> None:
    browser.open(name, fixtures.PAGES[name])
    browser.use_everything()
    assert browser.log() == []
    assert {one.partition("#")[0] for one in browser.requests()} == {browser.written[name]}


@pytest.mark.parametrize("kind", fixtures.HOSTILE_PAGES)
def test_hostile_names_and_messages_do_not_run(browser: Browser, kind: str) -> None:
    browser.open(f"hostile-{kind}", lambda: fixtures.HOSTILE_PAGES[kind](ATTACK))
    browser.use_everything()
    assert browser.js("return window.ran") is None
    assert browser.js("return document.querySelectorAll('script').length") == 1
    assert browser.js("return document.querySelectorAll('img, [onload], [onclick]').length") == 0
    assert browser.js("return document.body.innerText").count("window.ran=1") > 20
    # Not even refused: there was nothing to refuse.
    assert browser.log() == []


def test_a_script_that_is_not_the_pages_own_is_refused(browser: Browser) -> None:
    browser.open("over_aligned", fixtures.over_aligned)
    browser.js(
        """
        const one = document.createElement("script");
        one.textContent = "window.ran = 1";
        document.body.append(one);
        const image = document.createElement("img");
        image.src = "x.png";
        document.body.append(image);
        """
    )
    assert browser.js("return window.ran") is None
    refused = " ".join(one["message"] for one in browser.log())
    assert "script-src" in refused
    assert "img-src" in refused


# --- seen -----------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_every_figure_is_there_and_nothing_sticks_out(
    browser: Browser, name: str, width: int
) -> None:
    browser.open(name, fixtures.PAGES[name], width)
    look = """
        return [...document.querySelectorAll("figure")].map((figure) =>
          [...figure.querySelectorAll("svg")].map((one) => one.getBoundingClientRect())
            .filter((box) => box.height > 0).map((box) => [box.left, box.right, box.height]));
        """
    # Every figure is drawn once for this width; those of what is folded appear with it.
    assert any(browser.js(look)) is (bool(swept(name)) or name == "compare")
    assert browser.js("return document.documentElement.scrollWidth") <= width
    browser.use_everything()
    assert browser.js("return document.documentElement.scrollWidth") <= width
    figures = browser.js(look)
    assert len(figures) >= len(swept(name))
    for drawn in figures:
        ((left, right, height),) = drawn
        assert 0 <= left < right <= width
        assert height > 250


TEXT = """
const parse = (text) => {
  const found = text.match(/^rgba?\\(([\\d.]+), ([\\d.]+), ([\\d.]+)(?:, ([\\d.]+))?\\)$/);
  if (!found) throw new Error(text);
  return [...found.slice(1, 4).map(Number), found[4] === undefined ? 1 : Number(found[4])];
};
const over = (top, under) => [0, 1, 2].map((k) => top[3] * top[k] + (1 - top[3]) * under[k]);
const behind = (one) => {
  const layers = [];
  for (let at = one; at; at = at.parentElement) layers.push(parse(getComputedStyle(at).backgroundColor));
  return layers.reverse().reduce((under, top) => over(top, under), [255, 255, 255]);
};
const luminance = (colour) => {
  const linear = colour.map((k) => k / 255).map(
    (k) => (k <= 0.04045 ? k / 12.92 : ((k + 0.055) / 1.055) ** 2.4));
  return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
};
const found = [];
for (const one of document.querySelectorAll("body *")) {
  const text = [...one.childNodes].filter((k) => k.nodeType === 3).map((k) => k.data).join("").trim();
  if (!text || ["title", "script"].includes(one.tagName) || !one.checkVisibility()) continue;
  if (one.getClientRects().length === 0) continue;
  const style = getComputedStyle(one);
  const under = behind(one);
  const ink = over(parse(one.closest("svg") ? style.fill : style.color), under);
  const [dark, light] = [luminance(ink), luminance(under)].sort((a, b) => a - b);
  found.push([text.slice(0, 40), (light + 0.05) / (dark + 0.05)]);
}
return found;
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_can_be_told_from_what_lies_behind_it(
    browser: Browser, name: str, scheme: str
) -> None:
    browser.open(name, fixtures.PAGES[name], scheme=scheme)
    browser.use_everything()
    found = browser.js(TEXT)
    assert len(found) > 20
    assert [one for one in found if one[1] < 4.5] == []
    page = browser.js("return getComputedStyle(document.body).backgroundColor")
    assert (page == "rgb(245, 246, 248)") is (scheme == "light")


def test_paper_shows_what_is_folded_on_the_screen(browser: Browser, name: str) -> None:
    browser.open(name, fixtures.PAGES[name])
    look = """
        return [...document.querySelectorAll("details")].map((one) =>
          [...one.children].slice(1).every((k) => k.checkVisibility() && k.offsetHeight > 0));
        """
    on_screen = browser.js(look)
    browser.media("print")
    on_paper = browser.js(look)
    signs = browser.js(
        """
        return [...document.querySelectorAll("th button")].map(
          (one) => getComputedStyle(one, "::after").display);
        """
    )
    browser.media("screen")
    assert on_paper == [True] * len(on_paper)
    assert on_screen == [False] * len(on_paper)
    assert set(signs) <= {"none"}


# --- used -----------------------------------------------------------------------------------

SORT_ALL = """
for (const one of document.querySelectorAll("details")) one.open = true;
const found = [];
for (const table of document.querySelectorAll("table")) {
  for (const head of table.tHead.rows[0].cells) {
    const button = head.querySelector("button");
    if (!button) continue;
    const seen = [head.dataset.sort];
    for (const _ of [1, 2]) {
      button.click();
      seen.push(head.getAttribute("aria-sort"), [...table.tBodies[0].rows].map((row) => {
        const cell = row.cells[head.cellIndex];
        const missing = head.dataset.sort === "number"
          ? !("value" in cell.dataset) : ["", "-"].includes(cell.textContent.trim());
        return missing ? null : head.dataset.sort === "number"
          ? Number(cell.dataset.value) : cell.textContent.trim();
      }));
    }
    seen.push(table.querySelectorAll("[aria-sort]").length);
    found.push(seen);
  }
}
return found;
"""


def test_every_column_sorts_both_ways(browser: Browser, name: str) -> None:
    browser.open(name, fixtures.PAGES[name])
    found = browser.js(SORT_ALL)
    assert found or name in ("weights_alone", "intervention")
    for kind, first, upward, second, downward, num_sorted in found:
        assert (first, second, num_sorted) == ("ascending", "descending", 1)
        up = [one for one in upward if one is not None]
        down = [one for one in downward if one is not None]
        # What is missing comes last, both ways.
        assert upward[: len(up)] == up
        assert downward[: len(down)] == down
        if kind == "number":
            assert up == sorted(up)
            assert down == sorted(up, reverse=True)
        else:
            assert [text for text, _ in groupby(up)] == list(dict.fromkeys(up))
            assert list(dict.fromkeys(up)) == list(dict.fromkeys(down))[::-1]


def head(browser: Browser, table: str, words: str) -> Any:
    buttons = browser.all(f'[aria-label="{table}"] th button')
    texts = browser.js("return arguments[0].map((one) => one.textContent)", buttons)
    return buttons[[text.replace("\u00a0", " ") for text in texts].index(words)]


def column(browser: Browser, table: str, number: int) -> list[str]:
    rows = browser.all(f'[aria-label="{table}"] tbody tr')
    texts = browser.js(
        "return arguments[0].map((row) => row.cells[arguments[1]].innerText)", rows, number
    )
    return [text.split()[0] for text in texts]


def test_sorting_is_by_number_and_keeps_the_order_of_equals(browser: Browser) -> None:
    browser.open("over_aligned", fixtures.over_aligned)
    table = "Sweep of c·f, plain"
    head(browser, table, "c").click()
    # 2^-13 is the smallest; as text it would follow 2^-1.
    upward = [f"2^{k}" for k in (-13, -11, -9, -7, -5, -4, -3, -1, 1, 3, 5, 6)]
    assert column(browser, table, 0) == upward
    head(browser, table, "c").click()
    assert column(browser, table, 0) == upward[::-1]
    head(browser, table, "n, seeds").click()
    # 2^5 and 2^6 left no test error, 2^-13 has three runs, all others have ten.
    assert column(browser, table, 0) == ["2^6", "2^5", "2^-13", *upward[1:-2][::-1]]
    head(browser, table, "test error [95 %]").click()
    shown = column(browser, table, 1)
    assert shown[-2:] == ["-", "-"]
    assert [float(one) for one in shown[:-2]] == sorted(float(one) for one in shown[:-2])
    head(browser, "measurements", "metric").click()
    names = column(browser, "measurements", 0)
    assert (names[0], names[-1]) == ("alignment.nearest_class_mean", "probes.linear")


def expected_words(name: str) -> list[list[str]]:
    """The values at each mark, in the order of the page, as the report has them."""
    found = []
    for one in swept(name):
        others = (one.centered_sweep, one.plain_sweep)
        second = next((other for other in others if other is not None), None)
        names = ("", "") if second is None else (", plain c·f", ", centered c·(f - f₀)")
        for sweep, suffix in ((one.sweep, names[0]), (second, names[1])):
            for cell in summary.summarize_sweep(sweep) if sweep is not None else ():
                found.append(charts.reading(cell, sweep.axis, suffix).split("; "))  # type: ignore[union-attr]
    return found


TIP = 'return [...document.querySelectorAll(".tip:not([hidden]) > div")].map((k) => k.textContent)'


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("name", ["over_aligned", "over_fitted", "suite", "tune"])
def test_every_mark_shows_the_values_of_the_report(browser: Browser, name: str, width: int) -> None:
    browser.open(name, fixtures.PAGES[name], width)
    # By keyboard: a pointer that rests on the page hides nothing then.
    ActionChains(browser.driver, 0).send_keys(Keys.TAB).perform()
    shown = []
    for mark in browser.all(".point"):
        browser.js("arguments[0].focus()", mark)
        lines = browser.js(TIP)
        assert mark.accessible_name == "; ".join(lines)
        shown.append(lines)
        left, right, top = browser.js(
            """
            const box = document.querySelector(".tip:not([hidden])").getBoundingClientRect();
            return [box.left, box.right, box.top + window.scrollY];
            """
        )
        assert left >= 0
        assert right <= width
        assert top >= 0
    assert shown == expected_words(name)


def test_values_come_with_the_pointer_and_go_with_it(browser: Browser) -> None:
    browser.open("over_fitted", fixtures.over_fitted)
    expected = expected_words("over_fitted")
    marks = browser.all(".point")
    for k in (0, len(marks) - 1):
        browser.js("arguments[0].scrollIntoView({block: 'center'})", marks[k])
        ActionChains(browser.driver, 0).move_to_element_with_offset(marks[k], 4, 3).perform()
        assert browser.js(TIP) == expected[k]
        # The browser's own tooltip would lie over ours.
        assert marks[k].find_element(By.CSS_SELECTOR, "title").get_attribute("textContent") == ""
    ActionChains(browser.driver, 0).send_keys(Keys.ESCAPE).perform()
    assert browser.js(TIP) == []
    ActionChains(browser.driver, 0).move_by_offset(-3, 0).perform()
    assert browser.js(TIP) == expected[-1]
    caption = browser.all("figcaption")[0]
    ActionChains(browser.driver, 0).move_to_element(caption).perform()
    assert browser.js(TIP) == []
    # What the keyboard stands on comes back when the pointer goes.
    ActionChains(browser.driver, 0).send_keys(Keys.TAB).perform()
    browser.js("arguments[0].focus()", marks[1])
    ActionChains(browser.driver, 0).move_to_element_with_offset(marks[-1], 4, 3).perform()
    assert browser.js(TIP) == expected[-1]
    ActionChains(browser.driver, 0).move_to_element(caption).perform()
    assert browser.js(TIP) == expected[1]


def test_a_finger_shows_values_until_it_touches_elsewhere(browser: Browser) -> None:
    browser.open("over_aligned", fixtures.over_aligned, NARROW)
    expected = expected_words("over_aligned")
    mark = browser.all(".point")[3]
    browser.js("arguments[0].scrollIntoView({block: 'center'})", mark)
    x, y = browser.js(
        """
        const box = arguments[0].getBoundingClientRect();
        return [box.x + box.width / 2, box.y + box.height / 2];
        """,
        mark,
    )

    def touch(x: float, y: float) -> None:
        send = browser.driver.execute_cdp_cmd
        send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": x, "y": y}]})
        send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

    touch(x + 2, y + 24)  # beside it, as fingers do: near enough, but it does not take the focus
    assert browser.js(TIP) == expected[3]
    touch(5, 5)
    assert browser.js(TIP) == []


def test_the_keyboard_reaches_what_sorts_and_what_has_values(browser: Browser) -> None:
    browser.open("over_aligned", fixtures.over_aligned)
    wanted = {one.id for one in browser.all("th button, .point, summary, .scroll, pre")}
    assert len(wanted) > 30
    reached = []
    for _ in range(len(wanted) + 5):
        ActionChains(browser.driver, 0).send_keys(Keys.TAB).perform()
        active = browser.driver.switch_to.active_element
        reached.append(active.id)
        if active.tag_name == "g":
            assert browser.js(TIP)[0] == active.accessible_name.split("; ")[0]
    assert wanted <= set(reached)
    button = head(browser, "Sweep of c·f, plain", "learning rate")
    for key, order in ((Keys.ENTER, "ascending"), (Keys.SPACE, "descending")):
        browser.js("arguments[0].focus()", button)
        button.send_keys(key)
        assert button.find_element(By.XPATH, "..").get_attribute("aria-sort") == order


def test_a_screen_reader_finds_names_and_heads(browser: Browser, name: str) -> None:
    browser.open(name, fixtures.PAGES[name])
    browser.js("for (const one of document.querySelectorAll('details')) one.open = true")
    tables = browser.all("table")
    scopes = browser.js(
        """
        return arguments[0].map((table) => [
          [...table.querySelectorAll("thead th")].every((k) => k.scope === "col"),
          [...table.querySelectorAll("tbody tr")].every(
            (k) => k.querySelectorAll("th[scope=row]").length === 1),
        ]);
        """,
        tables,
    )
    assert scopes == [[True, True]] * len(tables)
    for table in browser.all(".scroll")[:12]:
        assert table.aria_role == "region"
        assert table.accessible_name
    pictures = browser.all("svg")
    assert len(pictures) == len(browser.all("figure")) >= len(swept(name))
    for one in pictures:
        assert " over " in one.accessible_name
    for one in browser.all("svg > g[aria-label]")[:12]:
        assert one.aria_role in ("img", "image")
        assert one.accessible_name


def test_ten_thousand_runs_are_shown_too(browser: Browser) -> None:
    browser.open("many", fixtures.many_runs, NARROW)
    assert browser.log() == []
    assert len(browser.all(".point")) == 50
    assert "10,000 runs, not listed one by one" in browser.js("return document.body.innerText")
    assert browser.js("return document.documentElement.scrollWidth") <= NARROW
