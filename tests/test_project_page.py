"""The project page works offline: every link and picture is there, nothing comes from elsewhere."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import project_page
import pytest

ROOT = Path(__file__).parents[1]
LOADED = {"img": "src", "script": "src", "link": "href", "iframe": "src", "source": "src"}


class Page(HTMLParser):
    """What a page links to, loads, and calls its places."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.places: list[str] = []
        self.headings = ""
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        if "id" in found:
            self.places.append(found["id"])
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if tag in LOADED and LOADED[tag] in found:
            self.loaded.append(found[LOADED[tag]])
        if re.fullmatch("h[1-6]", tag):
            self.headings += tag[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    project_page.Site(folder).make()
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    """All but reports, which have tests of their own."""
    return {
        path: Page(path)
        for path in sorted(site.rglob("*.html"))
        if path.with_suffix(".json.html") not in path.parent.iterdir()
    }


def test_every_document_has_a_page_in_the_navigation(pages: dict[Path, Page], site: Path) -> None:
    named = set(project_page.TITLES)
    assert {p.relative_to(ROOT).as_posix() for p in (ROOT / "docs").glob("*.md")} <= named
    written = {p.relative_to(ROOT).as_posix() for p in (ROOT / "examples").glob("*/README.md")}
    assert written <= named
    for path in named:
        page = pages[site / project_page.place(path)]
        assert page.text.count(' aria-current="page"') == 1
        assert page.headings.count("1") == 1, path
        assert 'name="viewport" content="width=device-width' in page.text


def test_every_link_and_picture_is_there(pages: dict[Path, Page], site: Path) -> None:
    assert len(pages) > 40
    num = 0
    for path, page in pages.items():
        assert len(page.places) == len(set(page.places)), path
        for target in page.links + page.loaded:
            if re.match("https?:|data:,$", target):
                continue
            file, _, anchor = target.partition("#")
            there = (path.parent / unquote(file)).resolve() if file else path
            assert there.is_relative_to(site.resolve()), (path, target)
            assert there.is_file(), (path, target)
            if anchor:
                assert unquote(anchor) in pages[site / there.relative_to(site)].places, target
            num += 1
    assert num > 1000


def test_nothing_is_loaded_from_elsewhere(pages: dict[Path, Page], site: Path) -> None:
    for path, page in pages.items():
        assert not [one for one in page.loaded if re.match("[a-z]+:(?!,$)|//", one)], path
    css = (site / "style.css").read_text(encoding="utf-8")
    assert not re.search(r"url\(|@import|https?:", css)


def project_of(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project whose only page this is."""
    monkeypatch.setattr(project_page, "ROOT", folder)
    shutil.copytree(ROOT / "docs" / "page", folder / "docs" / "page")
    monkeypatch.setattr(project_page, "TITLES", {name: "a"})
    monkeypatch.setattr(project_page, "GROUPS", {"all": {name: "a"}})


def test_text_of_files_is_no_markup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project_of("a.md", tmp_path, monkeypatch)
    (tmp_path / "a.md").write_text("# <b>x</b>\n\n<script>no</script> [c](c.txt)\n")
    (tmp_path / "c.txt").write_text("<script>no</script>")
    project_page.Site(tmp_path / "site").make()
    for name in ("a.html", "c.txt.html"):
        text = (tmp_path / "site" / name).read_text()
        assert "&lt;script&gt;no" in text
        assert "<script>no" not in text
        assert "<b>" not in text


def test_a_link_to_what_is_not_there_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project_of("a.md", tmp_path, monkeypatch)
    (tmp_path / "a.md").write_text("# a\n\n[gone](gone.md)\n")
    with pytest.raises(SystemExit, match=r"a\.md links to gone\.md"):
        project_page.Site(tmp_path / "site").make()


def test_only_a_site_that_was_written_before_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project_of("README.md", tmp_path, monkeypatch)
    (tmp_path / "README.md").write_text("# first\n")
    folder = tmp_path / "site"
    project_page.main([str(folder)])
    (tmp_path / "README.md").write_text("# second [gone](gone.md)\n")
    with pytest.raises(SystemExit, match=r"links to gone\.md"):  # a part of a site
        project_page.main([str(folder)])
    (tmp_path / "README.md").write_text("# third\n")
    project_page.main([str(folder)])
    assert "third" in (folder / "index.html").read_text()

    (folder / "mine").mkdir()
    (folder / "mine" / "notes.html").write_text("mine")
    with pytest.raises(SystemExit, match=r"holds mine/notes\.html, which is not of a site"):
        project_page.main([str(folder)])
    assert (folder / "mine" / "notes.html").read_text() == "mine"
    assert (folder / "index.html").exists()

    other = tmp_path / "other"
    other.mkdir()
    (other / "style.css").write_text("mine")
    with pytest.raises(SystemExit, match=r"holds style\.css, which is not of a site"):
        project_page.main([str(other)])
    assert [path.name for path in other.iterdir()] == ["style.css"]
    with pytest.raises(SystemExit, match="is no folder"):
        project_page.main([str(other / "style.css")])


PROBE = """
<!doctype html><body></body><script>
onload = () => {
  document.title = [...document.querySelectorAll("iframe")].map((one) => {
    const inner = one.contentDocument.documentElement;
    return inner.scrollWidth - inner.clientWidth;
  }).join(" ");
};</script>
"""


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium (apt-get install)")
def test_no_page_is_wider_than_a_phone_or_a_desk(site: Path, tmp_path: Path) -> None:
    shown_at = [(path, width) for path in project_page.TITLES for width in (360, 390, 1280)]
    frames = "".join(
        f'<iframe src="{project_page.place(path)}" style="width: {width}px; border: 0"></iframe>'
        for path, width in shown_at
    )
    probe = site / "probe.txt.html"
    probe.write_text(PROBE.replace("</body>", f"{frames}</body>"))
    try:
        shown = subprocess.run(
            ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
             "--no-first-run", "--disable-background-networking", "--disable-component-update",
             "--disable-sync", "--allow-file-access-from-files", f"--user-data-dir={tmp_path}",
             "--dump-dom", probe.as_uri()],
            capture_output=True, text=True, check=True, timeout=120,
        ).stdout  # fmt: skip
    finally:
        probe.unlink()
    (found,) = re.findall(r"<title>(.*?)</title>", shown)
    beyond = dict(zip(shown_at, map(int, found.split()), strict=True))
    assert not {place: by for place, by in beyond.items() if by > 0}
