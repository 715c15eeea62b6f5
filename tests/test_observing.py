"""One trained net, looked at alone: from a file to a verdict by observation, or to why there is none."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from fls_bench import bench, report
from fls_bench.atlas import load_atlas, load_shard, save_shard, shard_path
from fls_bench.bench import Options
from fls_bench.errors import InputError
from fls_bench.schema import (
    Finding,
    Outcome,
    Placed,
    PlacedCase,
    Recipe,
    Regime,
    Report,
    RunConfig,
    SelfTest,
    Sgd,
    TargetLoss,
    Tier,
)
from fls_bench.selftesting import run_selftest
from fls_bench.subject import Given, built_in_setup
from fls_bench.subject.observing import look_at, part_of_task
from fls_bench.suite import load_suite
from fls_bench.surveying import survey
from fls_bench.tasks import arrays_source, task_source
from fls_bench.training import train_one
from fls_bench.verdict.reading.columns import COLUMNS, POINTS
from fls_bench.verdict.reading.truth import REGIMES


class Silent:
    def __init__(self):
        self.notes = []
        self.runs = 0

    def plan(self, total_runs, text):
        self.runs += total_runs

    def done(self, runs, text):
        pass

    def note(self, text):
        self.notes.append(text)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A file with everything in it: digits at the usual c."""
    path = tmp_path_factory.mktemp("observing") / "model.pt"
    recipe = Recipe(optimizer=Sgd(lr=0.1), stop=TargetLoss(0.1, max_epochs=100))
    setup = built_in_setup(
        "mlp", {"depth": 3, "width": 32}, task_source("digits", {"n_train": 150}), recipe
    )
    bench.train(setup, path, seed=0, force=False)
    return path


def options(**others):
    return Options(Silent(), jobs=1, store=False, **others)


def observed(path, **given):
    return bench.diagnose_file(path, options(), Given(observe_only=True, **given))


def test_observe_only_trains_nothing_and_says_what_it_rests_on(model):
    chosen = options()
    found = bench.diagnose_file(model, chosen, Given(observe_only=True))
    assert chosen.listener.runs == 0
    assert found.sweep is None
    assert found.diagnosis.method == "observation"
    assert found.diagnosis.evidence_tier is Tier.T2
    assert found.diagnosis.regime is found.reading.regime
    assert found.reading.evidence == "T2"
    assert found.reading.pushes
    assert [one.code for one in found.skipped if one.what == "sweep over c"] == ["observe_only"]
    assert Report.model_validate_json(report.to_json(found)) == found
    assert observed(model).reading == found.reading


def test_a_sweep_decides_and_the_reading_stands_beside_it(model):
    found = bench.diagnose_file(model, options(max_seeds=3, budget_seconds=30))
    assert found.reading is not None
    if found.sweep is not None:
        assert found.diagnosis.method == "intervention"
        codes = [one.code for one in found.diagnosis.findings]
        assert sum(code.startswith("reading_") for code in codes) == 1


def test_the_same_fixed_part_of_the_data_is_looked_at(model):
    task = task_source("mixture", {"n_train": 600, "n_test": 2000, "n_val": 500})(3)
    part = part_of_task(task)
    for name, most in POINTS.items():
        assert len(getattr(part, f"y_{name}")) == min(most, len(getattr(task, f"y_{name}")))
        own = {row.tobytes() for row in getattr(task, f"x_{name}")}
        assert all(row.tobytes() in own for row in getattr(part, f"x_{name}"))
    assert part.fingerprint == part_of_task(task).fingerprint
    small = task_source("digits", {"n_train": 60})(0)
    np.testing.assert_array_equal(part_of_task(small).x_train, small.x_train)


# --- less evidence --------------------------------------------------------------------------


def digits_arrays(n_train=150):
    task = task_source("digits", {"n_train": n_train})(0)
    return {
        f"{axis}_{part}": getattr(task, f"{axis}_{part}")
        for axis in "xy"
        for part in ("train", "val", "test")
    }


def checkpoint(tmp_path, state):
    path = tmp_path / "ckpt.pt"
    torch.save(state, path)
    return path


def trained_state(setup, seed=0, c=1.0):
    task = setup.task_for(seed)
    config = RunConfig(
        setup_digest="x", c=c, init_scale=1.0, lr=0.1, seed=seed, centered=False, max_epochs=100
    )
    run, record = train_one(setup, setup.lr_rule or bench.resolve_lr_rule(setup, task), config)
    assert record.outcome is Outcome.REACHED_TARGET
    return run


def small_setup(source, **arguments):
    recipe = Recipe(optimizer=Sgd(lr=0.1), stop=TargetLoss(0.1, max_epochs=300))
    return built_in_setup("mlp", {"depth": 3, "width": 32, **arguments}, source, recipe)


def given_net(arrays, tmp_path):
    np.savez(tmp_path / "data.npz", **arrays)
    return {
        "builder": "mlp",
        "builder_arguments": {"depth": 3, "width": 32},
        "data": str(tmp_path / "data.npz"),
    }


def test_training_points_alone_can_be_looked_at_but_not_swept(tmp_path):
    arrays = digits_arrays()
    setup = small_setup(arrays_source("mine", arrays, None, None))
    path = checkpoint(tmp_path, dict(trained_state(setup).final))
    alone = {key: arrays[key] for key in ("x_train", "y_train")}
    found = observed(path, **given_net(alone, tmp_path))
    assert found.reading.evidence == "T1-train"
    assert "test points" in found.reading.reason.text or len(found.reading.regimes) == 1
    assert "error.test" not in {one.metric for one in found.measurements if one.status == "ok"}
    assert any("No test part was given" in one.text for one in found.diagnosis.findings)
    with pytest.raises(InputError, match="no test points"):
        bench.diagnose_setup(small_setup(arrays_source("mine", alone, None, None)), options())


def test_initial_weights_add_evidence(tmp_path):
    arrays = digits_arrays()
    run = trained_state(small_setup(arrays_source("mine", arrays, None, None)))
    path, given = checkpoint(tmp_path, dict(run.final)), given_net(arrays, tmp_path)
    assert observed(path, **given).reading.evidence == "T1"
    torch.save(dict(run.init), tmp_path / "init.pt")
    found = observed(path, init=tmp_path / "init.pt", **given)
    assert found.reading.evidence == "T2"
    names = {one.metric for one in found.measurements if one.status == "ok"}
    assert {"movement.relative", "kernel.change", "scale.logits_at_init"} <= names


# --- what can't be measured reaches the verdict as such ---------------------------------------


def test_a_net_that_learned_nothing_is_not_read():
    source = task_source("noise", {"n_train": 100})
    setup = small_setup(source)
    run = trained_state(setup)
    look = look_at(setup, setup.task_for(0), run.final, run.init)
    assert not look.beats_chance
    found = bench.read_regime(look)
    assert (found.regime, found.reason.code) == (Regime.INCONCLUSIVE, "no_signal")


def dead(run):
    """The last hidden layer does not vary any more: nothing about its features can be measured."""
    return {
        name: torch.zeros_like(value) if name == "layers.1.weight" else value
        for name, value in run.final.items()
    }


def test_constant_features_end_in_words_and_not_in_a_number():
    setup = small_setup(task_source("digits", {"n_train": 150}))
    run = trained_state(setup)
    look = look_at(setup, setup.task_for(0), dead(run), run.init)
    lost = {one.metric for one in look.measurements if one.status == "unavailable"}
    assert {"rank.over_classes", "probe.ridge", "collapse.variability_test"} <= lost
    assert all(one.reason for one in look.measurements if one.status == "unavailable")
    assert all(math.isfinite(value) for value in look.columns.values())
    assert "probe.ridge" not in look.columns
    found = bench.read_regime(look)
    assert found.regime is Regime.INCONCLUSIVE
    json.loads(found.model_dump_json(), parse_constant=lambda text: pytest.fail(text))


def test_too_few_points_end_in_words():
    arrays = digits_arrays(60)
    for part, few in (("train", 20), ("val", 12), ("test", 12)):
        for axis in "xy":
            arrays[f"{axis}_{part}"] = arrays[f"{axis}_{part}"][:few]
    source = arrays_source("few", arrays, None, None, 10)
    setup = small_setup(source)
    run = trained_state(setup)
    look = look_at(setup, setup.task_for(0), run.final, run.init)
    assert "kernel.change" not in look.columns
    found = bench.read_regime(look)
    assert (found.regime, found.reason.code) == (Regime.INCONCLUSIVE, "too_few_points")
    assert "100 test points (there are 12)" in found.reason.text
    assert "(there are 20)" in found.reason.text


@pytest.mark.parametrize("centered", [False, True])
def test_an_init_that_is_hardly_this_runs_is_not_read_by(centered):
    setup = dataclasses.replace(
        small_setup(task_source("digits", {"n_train": 150})), centered=centered
    )
    run = trained_state(setup)
    look = look_at(setup, setup.task_for(0), run.final, run.init)
    other = {name: value.flip(0) for name, value in run.init.items()}
    wrong = look_at(setup, setup.task_for(0), run.final, other)
    doubt = Finding(code="init_unlike", status="problem", text="It is another's.")
    assert bench.read_regime(look).evidence == "T2"
    found = bench.read_regime(wrong, [doubt])
    assert "those given are hardly its own" in found.reason.text or found.regime in REGIMES
    if centered:
        assert (found.regime, found.reason.code) == (Regime.INCONCLUSIVE, "init_doubted")
        assert found.probabilities == {}
    else:
        without = look_at(setup, setup.task_for(0), run.final, None)
        assert found.evidence == "T1"
        assert found.probabilities == bench.read_regime(without).probabilities != {}


def test_weights_that_are_not_finite_are_refused_or_inconclusive(tmp_path):
    setup = small_setup(task_source("digits", {"n_train": 150}))
    run = trained_state(setup)
    spoilt = {name: value * math.nan for name, value in run.final.items()}
    look = look_at(setup, setup.task_for(0), spoilt, run.init)
    assert not any(name.startswith("rank.") for name in look.columns)
    assert bench.read_regime(look).regime is Regime.INCONCLUSIVE


# --- the atlas is trained ---------------------------------------------------------------------

TINY = """
schema = 1
name = "tiny-atlas"
version = 1
cost = { seconds = 5, memory_mb = 500 }
sources = ["none"]
seeds = 3
[defaults]
stop = { target_loss = 0.1, max_epochs = 200 }
[atlas]
shard = 1
set_aside_tasks = ["clusters"]
[[case]]
id = "one"
family = "mlp"
task = { name = "mixture", n_train = 30, input_dim = 20, n_test = 200, n_val = 100 }
model = { name = "mlp", depth = 2, width = 16 }
log2_c = { from = -4, to = 4, step = 4 }
[[case]]
id = "two"
family = "mlp"
task = { name = "clusters", n_train = 60, n_test = 200, n_val = 100 }
alter = { label_noise = 0.1 }
model = { name = "mlp", depth = 2, width = 16 }
log2_c = { from = -4, to = 4, step = 4 }
"""


@pytest.fixture
def tiny(tmp_path):
    path = tmp_path / "tiny-atlas.toml"
    path.write_text(TINY)
    return load_suite(path)


def test_a_survey_measures_every_net_and_keeps_what_is_there(tmp_path: Path, tiny):
    folder = tmp_path / "atlas"
    folder.mkdir()
    chosen = Options(Silent(), jobs=1, store=tmp_path / "store")
    survey(tiny, folder, chosen, only=(0,))
    assert not shard_path(folder, 1).exists()
    before = shard_path(folder, 0).read_bytes()
    survey(tiny, folder, chosen)
    assert shard_path(folder, 0).read_bytes() == before
    first, second = load_atlas(folder)
    for shard, aside in ((first, False), (second, True)):
        assert shard.values.shape == (9, len(COLUMNS))
        assert sorted(set(shard.log2_c.tolist())) == [-4.0, 0.0, 4.0]
        (about,) = shard.header["cases"]
        assert about["set_aside"] is aside
        reached = shard.outcome == 0
        assert reached.any()
        own = shard.values[reached][:, COLUMNS.index("error.test")]
        # The look's test part is the whole one here.
        np.testing.assert_allclose(own, shard.errors[reached, 2], atol=1e-6)
        assert np.isnan(shard.values[~reached]).all()
    assert second.header["cases"][0]["alter"] == {"label_noise": 0.1}
    survey(tiny.model_copy(update={"version": 2}), folder, chosen, only=(0,))
    assert load_shard(shard_path(folder, 0)).header["suite"]["version"] == 2


@pytest.mark.parametrize("change", ["another net", "columns that it lacks"])
def test_a_survey_trains_again_what_is_no_longer_the_same(change, tmp_path: Path, tiny):
    folder, chosen = tmp_path / "atlas", Options(Silent(), jobs=1, store=tmp_path / "store")
    folder.mkdir()
    survey(tiny, folder, chosen, only=(0,))
    path, suite = shard_path(folder, 0), tiny
    whole = load_shard(path)
    if change == "another net":
        other = tmp_path / "other.toml"
        other.write_text(TINY.replace("width = 16", "width = 12"))
        suite = load_suite(other)
    else:
        header = {**whole.header, "columns": list(COLUMNS[1:])}
        save_shard(path, dataclasses.replace(whole, header=header, values=whole.values[:, 1:]))
    survey(suite, folder, chosen, only=(0,))
    again = load_shard(path)
    assert tuple(again.header["columns"]) == COLUMNS
    widths = [one["model"]["width"] for one in again.header["cases"]]
    assert widths == [12 if change == "another net" else 16]


def test_an_atlas_is_not_run_as_a_suite_of_verdicts(tiny):
    with pytest.raises(InputError, match="--survey"):
        bench.run(tiny, options())
    with pytest.raises(InputError, match="makes no atlas"):
        survey(load_suite("quick"), Path(), options())


# --- the self-test ----------------------------------------------------------------------------


def placed(*called):
    """Three nets at a place in each regime, called so."""
    places = (Regime.OVER_ALIGNED, Regime.NEAR_OPTIMAL, Regime.OVER_FITTED, Regime.INCONCLUSIVE)
    return SelfTest(
        cases=tuple(
            PlacedCase(
                id=place.value,
                regime=place,
                nets=tuple(Placed(seed=k, regime=one, probabilities={}) for k in range(3)),
            )
            for place, one in zip(places, called, strict=True)
        )
    )


A, N, F, OPEN = (
    Regime.OVER_ALIGNED, Regime.NEAR_OPTIMAL, Regime.OVER_FITTED, Regime.INCONCLUSIVE,
)  # fmt: skip


def test_a_selftest_fails_by_opposites_false_alarms_and_silence():
    assert placed(A, N, F, OPEN).failures == ()
    (opposite, silent) = placed(F, N, F, OPEN).failures
    assert "opposite" in opposite
    assert "no over-aligned net" in silent
    assert any("without a side" in text for text in placed(A, F, F, OPEN).failures)
    assert len(placed(OPEN, OPEN, OPEN, OPEN).failures) == 3


@pytest.mark.slow
def test_the_committed_reading_passes_its_self_test():
    found = run_selftest(options(fixed_seeds=2)).selftest
    assert found.failures == ()
    # What the placed nets have can be measured: they are read, and none is beyond reach.
    for case in found.cases:
        assert all(net.probabilities for net in case.nets) or case.regime is Regime.INCONCLUSIVE


def test_layers_that_the_atlas_lacks_are_named():
    from fls_bench import models
    from fls_bench.subject.observing import foreign_layers

    image = {"input_shape": (3, 32, 32), "n_outputs": 3}
    for name, arguments in (
        ("mlp", {"input_dim": 8, "n_outputs": 3, "depth": 3, "width": 8, "bias": True}),
        ("resmlp", {"input_dim": 8, "n_outputs": 3}),
        ("cnn", {**image, "norm": "batch"}),
        ("resnet", {**image, "norm": "batch"}),
        ("resnet18", image),
    ):
        assert foreign_layers(models.build(name, arguments, seed=0)) == ()
    assert foreign_layers(models.build("vit", image, seed=0)) == ("Vit",)
    recurrent = torch.nn.Sequential(torch.nn.Embedding(4, 3), torch.nn.LSTM(3, 3))
    assert foreign_layers(recurrent) == ("Embedding", "LSTM")
