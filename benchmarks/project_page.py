"""Makes the project page: README and docs/ as plain HTML that needs no network.

    make site        # writes site/, to open or to copy to any web server

A link to a document becomes one to its page; to any other file or folder of the repository, one to a
page that shows it. Nothing is loaded from elsewhere.
"""

from __future__ import annotations

import argparse
import html
import os
import posixpath
import re
import shutil
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import jinja2
from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

import fls_bench

ROOT = Path(__file__).resolve().parents[1]
GROUPS: dict[str, dict[str, str]] = {
    "Start": {
        "README.md": "fls-bench",
        "docs/what-to-do.md": "What to do with the verdict",
        "docs/verdict.md": "What a verdict means",
        "docs/reading.md": "Reading one checkpoint",
        "docs/checkpoints.md": "Checkpoints",
        "docs/watching.md": "Watching a run",
        "docs/data.md": "Data",
        "docs/clusters.md": "Long sweeps and clusters",
    },
    "Examples": {
        "examples/plain_pytorch/README.md": "Plain PyTorch",
        "examples/lightning/README.md": "Lightning",
        "examples/transformers/README.md": "transformers",
        "examples/resnet_cifar10/README.md": "A ResNet on CIFAR-10",
        "examples/own_net/README.md": "A setup of your own",
        "examples/tested_net/README.md": "A tested multiplier",
    },
    "Depth": {
        "docs/claims.md": "The paper's claims",
        "docs/learning-rates.md": "Learning rates",
        "docs/metrics.md": "What is measured",
        "docs/invariants.md": "Invariants",
        "docs/check.md": "Checking in CI",
        "docs/suites.md": "Suites of your own",
        "docs/rank-intervention.md": "Rank, intervened on",
        "docs/error-rates.md": "Error rates of verdicts",
        "docs/check-rates.md": "Error rates of checks",
        "docs/mutants.md": "Mutants",
        "docs/atlas-plan.md": "A plan for a large atlas",
    },
    "Project": {
        "CONTRIBUTING.md": "Contributing",
        "CHANGELOG.md": "Changes",
        "DECISIONS.md": "Decisions",
        "baselines/atlas/README.md": "The atlas",
    },
}
TITLES = {path: title for pages in GROUPS.values() for path, title in pages.items()}
AS_THEY_ARE = {".png", ".html", ".svg"}
MAX_CELL = 60
"""Characters of a cell beyond which a table is one of sentences."""
MAX_SHOWN = 200_000
"""Characters of a file that is shown; of a longer one its size is."""


def place(path: str) -> str:
    """Where the page of a document, file or folder of the repository lies in the site."""
    if path in ("README.md", "."):
        return "index.html"
    if path in TITLES:
        return re.sub(r"(^|/)README\.md$", r"\1index.html", path).removesuffix(".md") + (
            "" if path.endswith("README.md") else ".html"
        )
    if Path(path).suffix in AS_THEY_ARE:
        return path
    return f"{path}/index.html" if (ROOT / path).is_dir() else f"{path}.html"


def slug(text: str) -> str:
    """A heading's name in links, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")


def label_cells(tokens: list[Token]) -> None:
    """Tell each cell of a table with sentences its column, so that a phone can show row by row."""
    names: list[str] = []
    table, cells, column = None, [], 0
    for one, inner in pairwise(tokens):
        if one.type == "table_open":
            table, names, cells = one, [], []
        elif one.type == "tr_open":
            column = 0
        elif one.type == "th_open":
            names.append("".join(child.content for child in inner.children or []))
        elif one.type == "td_open":
            cells.append((one, names[column], len(inner.content)))
            column += 1
        elif one.type == "table_close" and max((n for *_, n in cells), default=0) > MAX_CELL:
            assert table is not None
            table.attrSet("class", "told")
            for cell, name, _ in cells:
                cell.attrSet("data-column", name)


class Site:
    """The pages made so far.

    Args:
        folder: Where they are written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._made: set[str] = set()
        self._markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
        self._template = jinja2.Environment(
            loader=jinja2.FileSystemLoader(ROOT / "docs" / "page"), autoescape=True,
            undefined=jinja2.StrictUndefined, trim_blocks=True,
        ).get_template("page.html.j2")  # fmt: skip

    def make(self) -> None:
        """Write all documents, and what they link to."""
        self.folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "docs" / "page" / "style.css", self.folder / "style.css")
        for path in TITLES:
            self._document(path)

    def _document(self, path: str) -> None:
        text = re.sub(r"<!--.*?-->\n*", "", (ROOT / path).read_text("utf-8"), flags=re.DOTALL)
        tokens = self._markdown.parse(text)
        taken: dict[str, int] = {}
        for one, inner in pairwise(tokens):
            if one.type == "heading_open":
                name = slug("".join(child.content for child in inner.children or []))
                taken[name] = taken.get(name, -1) + 1
                one.attrSet("id", f"{name}-{taken[name]}" if taken[name] else name)
        for one in tokens:
            for child in one.children or []:
                self._link(child, path)
        label_cells(tokens)
        body = self._markdown.renderer.render(tokens, self._markdown.options, {})
        body = re.sub(r"<table( class=\"told\")?>", r'<div class="wide"><table\1>', body)
        body = body.replace("</table>", "</table></div>")
        if path.startswith("examples/"):
            body += self._files(path)
        first = next((one.content for one in tokens if one.type == "inline"), "")
        self._write(place(path), path, first.replace("`", ""), body, self._description(tokens))

    def _files(self, path: str) -> str:
        """The code of an example, below its text."""
        found = sorted((ROOT / path).parent.rglob("*.py"))
        rows = []
        for one in (file for file in found if file.name != "__init__.py"):
            full = one.relative_to(ROOT).as_posix()
            self._shown(full)
            there = posixpath.relpath(place(full), posixpath.dirname(place(path)))
            shown = one.relative_to((ROOT / path).parent).as_posix()
            rows.append(f'<li><a href="{there}">{shown}</a></li>')
        return f"<h2>Files</h2>\n<ul>{''.join(rows)}</ul>\n"

    @staticmethod
    def _description(tokens: list[Token]) -> str:
        for opened, one in pairwise(tokens):
            if opened.type == "paragraph_open":
                words = "".join(c.content or " " for c in one.children or [])
                return " ".join(words.split())[:160]
        return "fls-bench"

    def _link(self, token: Token, source: str) -> None:
        name = {"link_open": "href", "image": "src"}.get(token.type)
        if name is None:
            return
        target = str(token.attrGet(name))
        if re.match(r"[a-z]+:", target) or target.startswith("#"):
            return
        path, _, anchor = target.partition("#")
        full = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        if full.startswith("..") or not (ROOT / full).exists():
            raise SystemExit(f"{source} links to {target}, which is not in the repository")
        if f"{full}/README.md" in TITLES:
            full = f"{full}/README.md"
        self._shown(full)
        there = posixpath.relpath(place(full), posixpath.dirname(place(source)) or ".")
        token.attrSet(name, there + (f"#{anchor}" if anchor else ""))

    def _shown(self, path: str) -> None:
        """A page for what is no document: a file as it stands, a folder as a list."""
        if path in TITLES or path in self._made:
            return
        self._made.add(path)
        whole, target = ROOT / path, self.folder / place(path)
        if whole.suffix in AS_THEY_ARE:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(whole, target)
        elif whole.is_dir():
            rows = []
            for one in sorted(whole.iterdir()):
                if one.name.startswith((".", "__")) or (one.is_dir() and not any(one.iterdir())):
                    continue
                inside = f"{path}/{one.name}"
                self._shown(inside)
                there = posixpath.relpath(place(inside), path)
                rows.append(f'<li><a href="{html.escape(there)}">{html.escape(one.name)}</a></li>')
            body = f"<h1>{html.escape(path)}</h1>\n<ul>{''.join(rows)}</ul>"
            self._write(place(path), path, path, body, f"The folder {path}")
        else:
            size = whole.stat().st_size
            try:
                text = whole.read_text("utf-8") if size <= MAX_SHOWN else f"({size:,} bytes)"
            except UnicodeDecodeError:
                text = f"({size:,} bytes)"
            body = f"<h1>{html.escape(path)}</h1>\n<pre><code>{html.escape(text)}</code></pre>"
            self._write(place(path), path, path, body, f"The file {path}")

    def _write(self, target: str, source: str, title: str, body: str, description: str) -> None:
        here = posixpath.dirname(target) or "."
        groups: list[tuple[str, list[dict[str, Any]]]] = [
            (
                group,
                [
                    {"title": name, "here": path == source, "href": posixpath.relpath(place(path), here)}
                    for path, name in pages.items()
                ],
            )
            for group, pages in GROUPS.items()
        ]  # fmt: skip
        up = "" if here == "." else posixpath.relpath(".", here) + "/"
        page = self._template.render(
            title=title, body=Markup(body), groups=groups, up=up, source=source,
            description=description, version=fls_bench.__version__,
        )  # fmt: skip
        path = self.folder / target
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page + "\n", encoding="utf-8")


WRITTEN = "written-files.txt"
"""Lies in a site and lists its files: such a folder may be written anew, if it holds nothing else."""


def files_in(folder: Path) -> set[str]:
    """All that lies in a folder and its folders."""
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_symlink() or not path.is_dir()
    }


def clear(folder: Path) -> None:
    """Remove a site that was made before, and nothing else."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise SystemExit(f"{folder} is no folder: name another one.")
    if not folder.exists():
        return
    listed = folder / WRITTEN
    known = set(listed.read_text("utf-8").splitlines()) if listed.is_file() else set()
    others = sorted(files_in(folder) - known)
    if others:
        raise SystemExit(
            f"{folder} holds {others[0]}, which is not of a site that was written there before. Name "
            "another folder, or remove this one yourself."
        )
    shutil.rmtree(folder)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the site."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "site")
    folder = parser.parse_args(arguments).folder
    clear(folder)
    try:
        Site(folder).make()
    finally:  # also of a part of it: the next call may clear that
        folder.mkdir(parents=True, exist_ok=True)
        files = "\n".join(sorted({*files_in(folder), WRITTEN}))
        (folder / WRITTEN).write_text(f"{files}\n", encoding="utf-8")
    pages = sum(1 for _ in folder.rglob("*.html"))
    print(f"{pages} pages: open {os.path.relpath(folder / 'index.html')}")


if __name__ == "__main__":
    main()
