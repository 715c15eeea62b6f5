"""One real file of every schema version that ever landed: all of them stay readable."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fls_bench import baselines, load_bundle, report
from fls_bench.errors import InputError
from fls_bench.schema import BASELINE_SCHEMA, BUNDLE_SCHEMA, REPORT_SCHEMA
from fls_bench.store import RUNS_SCHEMA, RunStore

FOLDER = Path(__file__).parent / "old_formats"


@pytest.mark.parametrize(
    "name", [f"bundle-{k}.{kind}" for k in (1, 2) for kind in ("pt", "safetensors")]
)
def test_bundles(name: str) -> None:
    found = load_bundle(FOLDER / name)
    assert found.header.recipe is not None
    assert found.num_parameters == 30 * 4 + 4 * 2
    assert found.init is not None


def test_reports() -> None:
    found = report.read(FOLDER / "report-1.json")
    assert found.sweep is not None
    assert len(found.sweep.cells) >= 5


def test_baselines() -> None:
    found = baselines.read(FOLDER / "baseline-1.json")
    assert found.suite is not None
    (case,) = found.cases
    own = case.own
    assert own is not None
    assert len(own.values["test_error"]) == len(own.seeds) == 8


def test_every_schema_number_that_is_written_has_a_file_of_its_own() -> None:
    """A new number comes with a file of the old one; see CONTRIBUTING."""
    written = (BUNDLE_SCHEMA, REPORT_SCHEMA, BASELINE_SCHEMA, RUNS_SCHEMA)
    for name in written:
        _, kind, number = name.split("/")
        for old in range(1, int(number) + 1):
            assert list(FOLDER.glob(f"{kind}-{old}.*")), name


@pytest.mark.parametrize("name", ["baseline-1.json", "report-1.json"])
def test_a_newer_file_says_upgrade_and_a_damaged_one_what_is_wrong(
    name: str, tmp_path: Path
) -> None:
    text = (FOLDER / name).read_text(encoding="utf-8")
    read = baselines.read if name.startswith("baseline") else report.read
    path = tmp_path / name
    for change, said in (
        (lambda t: t.replace('/1"', '/2"', 1) if '/1"' in t else t, "Upgrade"),
        (lambda t: t[: len(t) // 2], "cut off"),
        (lambda t: t.replace('"seeds"', '"seedz"', 1), "damaged"),
    ):
        path.write_text(change(text), encoding="utf-8")
        with pytest.raises(InputError, match=said):
            read(path)


def test_runs(tmp_path: Path) -> None:
    shutil.copy(FOLDER / "runs-1.jsonl", tmp_path / "runs.jsonl")
    store = RunStore(tmp_path / "runs.jsonl")
    assert len(store.load()) == 4
    assert store.num_damaged == 0
