"""The committed reports of reports/example: what make example-reports makes, and nothing private."""

import re
import runpy
from pathlib import Path

import pytest
from PIL import Image

from fls_bench import report
from fls_bench.report import html

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = runpy.run_path(str(ROOT / "examples" / "reports.py"))
FOLDER: Path = SCRIPT["FOLDER"]
NAMES = [name for name, _ in SCRIPT["COMMANDS"] if name]


def test_every_report_of_the_script_is_there_and_no_other() -> None:
    made = {f"{name}.{kind}" for name in NAMES for kind in ("json", "html")}
    assert {path.name for path in FOLDER.iterdir()} == made | {f"{SCRIPT['PICTURE']}.png"}


@pytest.mark.parametrize("name", NAMES)
def test_an_example_can_be_read_and_shown_again(name: str) -> None:
    stored = FOLDER / f"{name}.json"
    value = report.read(stored)
    assert value.kind == name
    assert report.to_json(value) == stored.read_text("utf-8")
    page = (FOLDER / f"{name}.html").read_text("utf-8")
    again = html.render(value)
    # The page was made of this report.
    headline = re.compile(r"<title>.*?</title>|<h1>.*?</h1>")
    assert headline.findall(page)[:2] == headline.findall(again)[:2]
    assert value.provenance.started in page


@pytest.mark.parametrize("name", NAMES)
def test_an_example_says_nothing_of_who_made_it(name: str) -> None:
    for kind in ("json", "html"):
        text = (FOLDER / f"{name}.{kind}").read_text("utf-8")
        assert not re.search(r"(?<![\w<])/(home|root|tmp|Users|work|mnt|var)/", text)


def test_the_picture_is_small_enough_for_a_readme() -> None:
    picture = FOLDER / f"{SCRIPT['PICTURE']}.png"
    assert picture.stat().st_size <= SCRIPT["MOST_BYTES"]
    with Image.open(picture) as opened:
        assert opened.size == (SCRIPT["WIDTH"], SCRIPT["HEIGHT"])
