import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import report_fixtures as fixtures
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fls_bench import report
from fls_bench.errors import InputError
from fls_bench.schema import Baseline, Report

ROOT = Path(__file__).resolve().parents[2]
Writer = Callable[..., Path]
WRITERS = pytest.mark.parametrize("write", [report.write_json, report.write_html])


@pytest.mark.parametrize("name", fixtures.ALL)
def test_reading_what_was_written_gives_the_same_report(name: str, tmp_path: Path) -> None:
    value = fixtures.ALL[name]()
    path = report.write_json(value, tmp_path / "report.json")
    again = report.read(path)
    assert again == value
    assert report.to_json(again).encode() == path.read_bytes()


@given(st.text(st.characters(codec="utf-8"), max_size=40))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_survives_the_round_trip(tmp_path: Path, text: str) -> None:
    value = fixtures.hostile(text)
    path = report.write_json(value, tmp_path / "report.json", force=True)
    assert report.read(path) == value


def test_json_is_plain_stable_and_ends_with_a_newline() -> None:
    text = report.to_json(fixtures.over_aligned())
    assert text == report.to_json(fixtures.over_aligned())
    assert text.endswith("}\n")
    assert text.isascii()
    value = json.loads(text)
    assert value["schema"] == "fls-bench/report/1"
    assert value["diagnosis"]["regime"] == "over_aligned"
    assert value["sweep"]["cells"][0]["seeds"][0]["outcome"] == "reached_target"
    assert "NaN" not in text
    assert "Infinity" not in text


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_json_lacks_is_never_written(bad: float, tmp_path: Path) -> None:
    value = fixtures.over_aligned().model_copy(update={"input": {"train_loss": bad}})
    with pytest.raises(ValueError, match="JSON"):
        report.write_json(value, tmp_path / "report.json")
    assert list(tmp_path.iterdir()) == []


# --- the published schema -------------------------------------------------------------------


def valid(value: Any) -> bool:
    validator = jsonschema.Draft202012Validator(report.json_schema())
    return not list(validator.iter_errors(value))


@pytest.mark.parametrize(("kind", "model"), [("report", Report), ("baseline", Baseline)])
def test_the_published_schemas_are_valid_current_and_printed_by_the_documented_command(
    kind: str, model: type[Report | Baseline]
) -> None:
    jsonschema.Draft202012Validator.check_schema(report.json_schema(model))
    published = (ROOT / "docs" / f"{kind}.schema.json").read_text()
    assert published == report.json_schema_text(model), "run: make schema"
    assert f"python -m fls_bench.report {kind} " in report.json_schema(model)["$comment"]
    command = [sys.executable, "-m", "fls_bench.report", kind]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == published


def test_the_committed_baseline_fits_the_published_schema() -> None:
    validator = jsonschema.Draft202012Validator(report.json_schema(Baseline))
    for path in (ROOT / "baselines").glob("*.json"):
        assert not list(validator.iter_errors(json.loads(path.read_text())))


@pytest.mark.parametrize("name", fixtures.PAGES)
def test_every_report_fits_the_published_schema(name: str) -> None:
    assert valid(json.loads(report.to_json(fixtures.PAGES[name]())))


def damage(*path: str | int, to: Any) -> Any:
    value = json.loads(report.to_json(fixtures.over_aligned()))
    inner = value
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = to
    return value


DAMAGED = [
    damage("schema", to="fls-bench/bundle/1"),
    damage("kind", to="guess"),
    damage("diagnosis", "regime", to="over-aligned"),
    damage("diagnosis", "c_star", "value", to="NaN"),
    damage("diagnosis", "c_star", "value", to=None),
    damage("measurements", 0, "value", to="3.2"),
    damage("sweep", "cells", 0, "seeds", 0, "outcome", to="done"),
    damage("surprise", to=1),
    damage("provenance", to={}),
]


@pytest.mark.parametrize("value", DAMAGED)
def test_the_schema_rejects_what_is_not_a_report(value: Any) -> None:
    assert not valid(value)


# --- reading --------------------------------------------------------------------------------

GOOD = report.to_json(fixtures.no_signal())
BAD_FILES = {
    "empty": (b"", "not JSON"),
    "random bytes": (bytes(range(256)), "not JSON"),
    "a page": (b"<!doctype html>", "not JSON"),
    "cut off": (GOOD[: len(GOOD) // 2].encode(), "cut off"),
    "NaN": (GOOD.replace('"random-labels"', "NaN").encode(), "not JSON"),
    "infinity": (GOOD.replace('"random-labels"', "1e999").encode(), "not JSON"),
    "deeply nested": (b"[" * 200_000, "not JSON"),
    "a list": (b"[]", "not an fls-bench report"),
    "no schema": (b"{}", "not an fls-bench report"),
    "another schema": (b'{"schema": "fls-bench/bundle/1"}', "not an fls-bench report"),
    "odd schema": (b'{"schema": ["fls-bench/report/1"]}', "not an fls-bench report"),
    "newer": (GOOD.replace("report/1", "report/2").encode(), "newer"),
    "damaged": (GOOD.replace('"inconclusive"', '"maybe"').encode(), "damaged"),
    "missing part": (b'{"schema": "fls-bench/report/1", "kind": "diagnose"}', "damaged"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_named_with_what_to_do(name: str, tmp_path: Path) -> None:
    content, problem = BAD_FILES[name]
    path = tmp_path / "report.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=problem) as caught:
        report.read(path)
    assert str(path) in caught.value.problem
    assert caught.value.remedy.endswith(".")
    if name == "newer":
        assert "Upgrade" in caught.value.remedy
    if name == "damaged":
        assert "diagnosis.regime" in caught.value.problem


def test_a_missing_file_and_a_folder_are_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file"):
        report.read(tmp_path / "nothing.json")
    with pytest.raises(InputError, match="folder"):
        report.read(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="can't be read"):
        report.read(tmp_path / "file" / "report.json")


# --- writing --------------------------------------------------------------------------------


@WRITERS
def test_an_existing_file_is_kept_unless_forced(write: Writer, tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_text("precious")
    with pytest.raises(InputError) as caught:
        write(fixtures.no_signal(), path)
    assert "--force" in caught.value.remedy
    assert path.read_text() == "precious"
    assert write(fixtures.no_signal(), path, force=True) == path
    assert "no-signal" in path.read_text() or "no_signal" in path.read_text()
    assert list(tmp_path.iterdir()) == [path]


@WRITERS
@pytest.mark.parametrize("fails", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_no_other(
    write: Writer, fails: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "out"
    path.write_text("precious")
    monkeypatch.setattr(os, fails, full)
    with pytest.raises(InputError, match="No space left"):
        write(fixtures.no_signal(), path, force=True)
    assert path.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [path]


@WRITERS
def test_a_place_that_cannot_be_written_is_said(write: Writer, tmp_path: Path) -> None:
    value = fixtures.weights_alone()
    with pytest.raises(InputError, match="no folder"):
        write(value, tmp_path / "no" / "such" / "folder")
    with pytest.raises(InputError, match="no folder"):
        write(value, Path(__file__) / "report.json")
    with pytest.raises(InputError, match="folder"):
        write(value, tmp_path, force=True)
    with pytest.raises(InputError, match="can't be written"):
        write(value, tmp_path / ("x" * 300))
    with pytest.raises(InputError, match="not an ordinary file"):
        write(value, os.devnull, force=True)
    assert list(tmp_path.iterdir()) == []


def test_a_link_is_written_through(tmp_path: Path) -> None:
    target, link = tmp_path / "target.json", tmp_path / "link.json"
    target.write_text("old")
    link.symlink_to(target)
    report.write_json(fixtures.no_signal(), link, force=True)
    assert link.is_symlink()
    assert report.read(target) == fixtures.no_signal()


def test_a_file_gets_the_rights_that_any_new_file_gets(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    path = report.write_json(fixtures.no_signal(), tmp_path / "report.json")
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


# --- what is loaded -------------------------------------------------------------------------

LOADED = """
import sys
from fls_bench import console, report
value = report.read(sys.argv[1])
console.show(value)
early = [name for name in ("matplotlib", "jinja2") if name in sys.modules]
assert not early, early
report.write_html(value, sys.argv[2])
heavy = [name for name in ("torch", "scipy", "sklearn", "matplotlib.pyplot") if name in sys.modules]
assert not heavy, heavy
"""


def test_views_load_no_heavy_library(tmp_path: Path) -> None:
    path = report.write_json(fixtures.over_aligned(), tmp_path / "report.json")
    command = [sys.executable, "-c", LOADED, str(path), str(tmp_path / "report.html")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
