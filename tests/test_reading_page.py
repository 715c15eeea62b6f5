"""Two pages tell the stored evaluation; the committed models are those of the committed atlas."""

import json

import numpy as np
import pytest
import reading_page

from fls_bench import report
from fls_bench.atlas import atlas_folder, load_atlas, load_models, models_digest
from fls_bench.calibrating import calibrated, differences, labelled


@pytest.mark.parametrize("page", reading_page.PAGES, ids=lambda page: page.name)
def test_a_page_tells_the_stored_evaluation(page):
    peer = json.loads((atlas_folder() / "weightwatcher.json").read_text("utf-8"))
    found = reading_page.parts(report.read(atlas_folder() / "verdict-eval.json"), peer)
    text = page.read_text("utf-8")
    assert f"{reading_page.BEGIN}\n\n{found[page.name]}\n\n{reading_page.END}" in text


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
    # Models fitted anew make the figures those of other models: run both again.
    peer = json.loads((atlas_folder() / "weightwatcher.json").read_text("utf-8"))
    assert stored.models_sha256 == peer["models_sha256"] == models_digest()
    assert all(0 < one.threshold < 1 for one in models.models.values())


@pytest.mark.slow
def test_a_refit_reproduces_the_committed_models():
    refit = calibrated(load_atlas(atlas_folder()))
    assert differences(load_models(), refit) == ()
