"""docs/reading.md tells the stored evaluation; the committed models are those of the committed atlas."""

from pathlib import Path

import numpy as np
import pytest

from fls_bench import report
from fls_bench.atlas import atlas_folder, load_atlas, load_models
from fls_bench.calibrating import calibrated, differences, labelled
from fls_bench.report import evaluations
from fls_bench.report.markdown import table

PAGE = Path(__file__).parents[1] / "docs" / "reading.md"


def test_the_page_has_the_stored_figures():
    stored = report.read(atlas_folder() / "verdict-eval.json").evaluation
    text = PAGE.read_text(encoding="utf-8")
    assert table(evaluations.COLUMNS, [evaluations.cells(one) for one in stored.rows]) in text
    rows = [evaluations.baseline_cells(one) for one in stored.baselines]
    assert table(evaluations.BASELINE_COLUMNS, rows) in text


def test_the_models_and_the_evaluation_are_of_the_committed_atlas():
    shards = load_atlas(atlas_folder())
    models = load_models()
    assert models.atlas["name"] == shards[0].header["suite"]["name"]
    atlas = labelled(shards)
    rows = np.flatnonzero(atlas.known & ~atlas.of_case("set_aside"))
    sizes = len(rows), len(np.unique(atlas.case[rows]))
    assert (models.atlas["nets"], models.atlas["setups"]) == sizes
    stored = report.read(atlas_folder() / "verdict-eval.json").evaluation
    assert (stored.nets, stored.setups) == sizes
    assert all(0 < one.threshold < 1 for one in models.models.values())


@pytest.mark.slow
def test_a_refit_reproduces_the_committed_models():
    refit = calibrated(load_atlas(atlas_folder()))
    assert differences(load_models(), refit) == ()
