"""One real file of every schema version that ever landed: all of them stay readable."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fls_bench import load_bundle, report
from fls_bench.store import RunStore

FOLDER = Path(__file__).parent / "old_formats"


@pytest.mark.parametrize("name", ["bundle-1.pt", "bundle-1.safetensors"])
def test_bundles(name: str) -> None:
    found = load_bundle(FOLDER / name)
    assert found.header.recipe is not None
    assert found.num_parameters == 30 * 4 + 4 * 2
    assert found.init is not None


def test_reports() -> None:
    found = report.read(FOLDER / "report-1.json")
    assert found.sweep is not None
    assert len(found.sweep.cells) >= 5


def test_runs(tmp_path: Path) -> None:
    shutil.copy(FOLDER / "runs-1.jsonl", tmp_path / "runs.jsonl")
    store = RunStore(tmp_path / "runs.jsonl")
    assert len(store.load()) == 4
    assert store.num_damaged == 0
