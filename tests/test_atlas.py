"""The atlas on disk: plain arrays, whole or not at all."""

import dataclasses
import io
import json
import re

import numpy as np
import pytest

from fls_bench import calibrating, evaluating
from fls_bench.atlas import (
    ATLAS_SCHEMA,
    ERRORS,
    OUTCOMES,
    Shard,
    load_atlas,
    load_models,
    load_shard,
    save_shard,
    shard_path,
)
from fls_bench.errors import InputError
from fls_bench.evaluating import evaluate
from fls_bench.schema import EvaluationSpec, Outcome, Regime
from fls_bench.suite import load_suite
from fls_bench.verdict.reading.columns import COLUMNS
from fls_bench.verdict.reading.truth import REGIMES, truth

LOG2_C = np.arange(-8.0, 9.0, 2.0)
SEEDS = 6
REACHED = OUTCOMES.index(Outcome.REACHED_TARGET)
A, N, F = REGIMES


def errors_at(log2_c, star, rng, noise=0.003, bowl=0.002):
    """Errors around a bowl with its least at ``star``."""
    error = 0.1 + bowl * (log2_c - star) ** 2 + noise * rng.standard_normal(len(log2_c))
    return np.clip(error, 0.001, 0.95)


def setup_runs(seed, star, bowl=0.002):
    """(log2 c, seed, errors) of all runs of a setup."""
    rng = np.random.default_rng(seed)
    log2_c = np.repeat(LOG2_C, SEEDS)
    seeds = np.tile(np.arange(SEEDS), len(LOG2_C))
    test, val = (errors_at(log2_c, star, rng, bowl=bowl) for _ in range(2))
    errors = np.stack([val, 3 * val, test, 3 * test, np.full(len(test), 0.9)], axis=1)
    return log2_c, seeds, errors


def planted_shard(cases, columns=COLUMNS):
    """Nets whose scale of initial logits is c, and whose other columns say nothing."""
    parts = {key: [] for key in ("values", "case", "log2_c", "seed", "errors")}
    facts = []
    for k, (task, family, seed) in enumerate(cases):
        rng = np.random.default_rng(seed)
        star = float(rng.choice([-4.0, 0.0, 4.0]))
        log2_c, seeds, errors = setup_runs(seed, star)
        values = rng.random((len(log2_c), len(columns))).astype(np.float32)
        own = columns.index("scale.logits_at_init")
        values[:, own] = 2.0 ** (log2_c - star + 0.3 * rng.standard_normal(len(log2_c)))
        for name, value in (("depth", 3), ("n_train", 200), ("n_classes", 10)):
            values[:, columns.index(name)] = value
        for key, value in zip(
            parts, (values, np.full(len(seeds), k), log2_c, seeds, errors), strict=True
        ):
            parts[key].append(value)
        facts.append({
            "id": f"{task}-{k}", "task": task, "family": family, "n_test": 2000,
            "optimizer": {"kind": "sgd", "lr": 0.1}, "set_aside": False, "centered": False,
        })  # fmt: skip
    arrays = {key: np.concatenate(value) for key, value in parts.items()}
    header = {
        "schema": ATLAS_SCHEMA, "suite": {"name": "atlas", "version": 1}, "columns": list(columns),
        "cases": facts, "made_with": {},
    }  # fmt: skip
    return Shard(header, outcome=np.full(len(arrays["case"]), REACHED), **arrays)


@pytest.fixture(scope="module")
def planted():
    tasks = [f"task{k}" for k in range(12)]
    return planted_shard([(task, f"family{k % 3}", k) for k, task in enumerate(tasks * 2)])


FEW = ("initial_logits", "gap", "logit_rank", "last_rank", "movement_mean", "alignment_first")


@pytest.fixture
def few_observables(monkeypatch):
    """Fits of a few observables take a tenth of the time, and have little to shrink."""
    every = calibrating.available
    monkeypatch.setattr(calibrating, "STRENGTH", 0.02)
    monkeypatch.setattr(
        calibrating, "available", lambda kind: tuple(k for k in every(kind) if k.name in FEW)
    )


# --- files ----------------------------------------------------------------------------------


def test_a_shard_comes_back_as_it_was_written(tmp_path, planted):
    path = shard_path(tmp_path, 3)
    save_shard(path, planted)
    back = load_shard(path)
    assert back.header == planted.header
    np.testing.assert_array_equal(back.values, planted.values)
    np.testing.assert_array_equal(back.errors, planted.errors.astype(np.float32))
    for name in ("case", "log2_c", "seed", "outcome"):
        np.testing.assert_array_equal(getattr(back, name), getattr(planted, name))
    with np.load(path, allow_pickle=False) as file:
        assert all(file[key].dtype != object for key in file.files)


def test_an_older_atlas_without_a_column_has_nothing_there(tmp_path):
    fewer = tuple(name for name in COLUMNS if name != "kernel.change")
    save_shard(shard_path(tmp_path, 0), planted_shard([("task0", "mlp", 0)], fewer))
    (shard,) = load_atlas(tmp_path)
    assert tuple(shard.header["columns"]) == COLUMNS
    assert np.isnan(shard.values[:, COLUMNS.index("kernel.change")]).all()
    assert not np.isnan(shard.values[:, COLUMNS.index("error.test")]).any()


def damaged(kind, path):
    if kind == "pickle":
        buffer = io.BytesIO()
        np.savez(buffer, header=np.array([{"schema": ATLAS_SCHEMA}], dtype=object))
        path.write_bytes(buffer.getvalue())
    elif kind == "cut":
        path.write_bytes(path.read_bytes()[:500])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "schema":
        with np.load(path) as file:
            arrays = {key: file[key] for key in file.files}
        header = json.loads(arrays["header"].tobytes()) | {"schema": "fls-bench/atlas/99"}
        arrays["header"] = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)
        np.savez(path, **arrays)
    else:
        with np.load(path) as file:
            arrays = {key: file[key] for key in file.files}
        np.savez(path, **(arrays | {"seed": arrays["seed"][:-1]}))


@pytest.mark.parametrize("kind", ["pickle", "cut", "empty", "schema", "lengths"])
def test_what_is_no_shard_is_refused_in_words(tmp_path, planted, kind):
    path = shard_path(tmp_path, 0)
    save_shard(path, planted)
    damaged(kind, path)
    with pytest.raises(InputError, match=re.escape(str(path))):
        load_shard(path)


def test_shards_of_different_suites_are_refused(tmp_path, planted):
    save_shard(shard_path(tmp_path, 0), planted)
    other = planted_shard([("task0", "mlp", 0)])
    other.header["suite"] = {"name": "atlas", "version": 2}
    save_shard(shard_path(tmp_path, 1), other)
    with pytest.raises(InputError, match="different suites"):
        load_atlas(tmp_path)
    with pytest.raises(InputError, match="no shard"):
        load_atlas(tmp_path / "none")


# --- truth ----------------------------------------------------------------------------------


def judged(star, seed=0, bowl=0.002, **changes):
    log2_c, seeds, errors = setup_runs(seed, star, bowl)
    outcome = [Outcome.REACHED_TARGET] * len(log2_c)
    for where, what in changes.get("outcomes", {}).items():
        outcome = [what if log == where else one for log, one in zip(log2_c, outcome, strict=True)]
    if "chance" in changes:
        errors[:, 4] = changes["chance"]
    return truth(log2_c, seeds, outcome, errors, 2000)


def test_the_truth_of_a_bowl_is_its_side_of_the_optimum():
    found = judged(0.0)
    assert [found[c].regime for c in (-8.0, -6.0, -4.0)] == [A] * 3
    assert [found[c].regime for c in (4.0, 6.0, 8.0)] == [F] * 3
    assert found[0.0].regime is N
    assert found[-6.0].log2_ratio == -6.0
    assert found[8.0].log2_ratio == 8.0


def test_a_setup_near_the_margin_is_marked_grey():
    # At two octaves from c* the difference is the margin itself: a tenth of the error is 0.01.
    found = judged(0.0, bowl=0.0025)
    assert found[2.0].grey
    assert found[-2.0].grey
    assert not found[6.0].grey


def test_one_c_in_the_noise_of_its_neighbours_is_marked_grey():
    log2_c, seeds, errors = setup_runs(0, 0.0, 0.0)
    errors[log2_c == -2.0, 2] += 0.03  # beyond noise against every larger c
    errors[log2_c < -2.0, 2] += np.where(seeds[log2_c < -2.0] % 2, 0.05, -0.05)
    outcome = [Outcome.REACHED_TARGET] * len(log2_c)
    found = truth(log2_c, seeds, outcome, errors, 2000)
    assert found[-2.0].regime is A  # smaller ones do as well as larger ones, but not beyond noise
    assert found[-2.0].grey


def test_an_end_counts_only_where_the_c_beside_it_says_the_same():
    found = judged(-8.0)
    assert found[-8.0].regime is not A
    assert found[8.0].regime is F


def test_without_signal_or_without_its_target_nothing_is_truth():
    assert all(one.regime is None for one in judged(0.0, chance=0.05).values())
    found = judged(0.0, outcomes={-8.0: Outcome.DIVERGED})
    assert -8.0 not in found
    assert found[-6.0].regime is A  # now the end, and -4 says the same


def test_c_star_at_an_end_or_not_known_gives_no_ratio():
    assert all(one.log2_ratio is None for one in judged(8.0).values())
    assert all(one.log2_ratio is None for one in judged(0.0, bowl=0.0).values())


# --- fitting --------------------------------------------------------------------------------


@pytest.mark.usefixtures("few_observables")
def test_the_fit_finds_the_planted_observable_and_covers(planted):
    atlas = calibrating.labelled([planted])
    rows = np.flatnonzero(atlas.known)
    assert len(rows) > 700
    model, held = calibrating.calibrate(atlas, "T2", rows)
    regime = atlas.regime[rows]
    called = held.probabilities.argmax(axis=1)
    assert (called == regime).mean() > 0.9
    own = held.probabilities[np.arange(len(rows)), regime]
    assert (own >= model.threshold).mean() >= 0.88
    strongest = max(model.curves, key=lambda k: np.ptp(np.array(k.scores), axis=0).max())
    assert strongest.observable == "initial_logits"


@pytest.mark.usefixtures("few_observables")
def test_evidence_without_init_does_not_see_what_was_planted_there(planted):
    atlas = calibrating.labelled([planted])
    rows = np.flatnonzero(atlas.known)
    _, held = calibrating.calibrate(atlas, "T1", rows)
    likeliest = held.probabilities.argmax(axis=1)
    commonest = np.bincount(atlas.regime[rows]).max() / len(rows)
    assert (likeliest == atlas.regime[rows]).mean() < commonest + 0.1


@pytest.mark.usefixtures("few_observables")
def test_a_refit_reproduces_the_file(tmp_path, planted):
    first = calibrating.calibrated([planted])
    path = tmp_path / "reading.json"
    path.write_text(first.model_dump_json(by_alias=True, exclude_none=True))
    stored = load_models(path)
    assert calibrating.differences(stored, calibrating.calibrated([planted])) == ()
    model = stored.models["T2"]
    curve = model.curves[0]
    spoilt = [
        {"correlation": tuple(tuple(2 * x for x in row) for row in model.correlation)},
        {"ratio_width": 0.1},
        {"centre": model.centre[:-1]},
        {"curves": (curve.model_copy(update={"ratios": tuple(-x - 1 for x in curve.ratios)}),
                    *model.curves[1:])},
        {"curves": (curve.model_copy(update={"low": curve.low - 1}), *model.curves[1:])},
    ]  # fmt: skip
    for change in spoilt:
        other = {**stored.models, "T2": model.model_copy(update=change)}
        assert calibrating.differences(stored.model_copy(update={"models": other}), first)
    assert calibrating.differences(stored.model_copy(update={"groups": ()}), first)


@pytest.mark.parametrize("num", [9, 19, 39])
def test_the_group_quantile_covers_a_new_group(num):
    # Scores with a part that a group shares: pooled quantiles would cover too little.
    rng = np.random.default_rng(num)
    covered = []
    for _ in range(300):
        shared = rng.standard_normal(num + 1)
        scores = shared[:, None] + 0.2 * rng.standard_normal((num + 1, 20))
        groups = np.repeat(np.arange(num), 20)
        bound = calibrating.group_quantile(scores[:num].ravel(), groups, 0.9)
        covered.append((scores[num] <= bound).mean())
    # Standard error below 0.018.
    assert np.mean(covered) > 0.9 - 0.04
    assert num < 19 or np.mean(covered) < 0.97


def test_too_few_groups_bound_nothing():
    assert calibrating.group_quantile(np.arange(8.0), np.repeat([0, 1, 2, 3], 2), 0.9) == np.inf


# --- evaluation -----------------------------------------------------------------------------


@pytest.mark.usefixtures("few_observables")
def test_intervals_without_bounds_hold_nothing(monkeypatch):
    """Below nine setups no width is known: those nets are not counted as held."""
    monkeypatch.setattr(evaluating, "RESAMPLES", 2)
    few = planted_shard([(f"task{k}", "family", k) for k in range(8)])
    atlas = calibrating.labelled([few])
    judged, _ = evaluating.leave_out(atlas, "T2", np.flatnonzero(atlas.known), "task")
    assert np.isinf(judged.width).all()
    row = evaluating.row_of(judged, "T2", "task", 0.9)
    assert (row.num_ratios, row.ratio_coverage, row.ratio_width) == (0, None, None)


@pytest.mark.usefixtures("few_observables")
def test_nets_near_the_margin_are_judged_and_fitted_to_by_nothing(planted):
    atlas = calibrating.labelled([planted])
    rows = np.flatnonzero(atlas.known)
    others = rows[::7]
    kept = np.setdiff1d(rows, others)
    alone, nothing = evaluating.leave_out(atlas, "T2", kept, "task")
    again, more = evaluating.leave_out(atlas, "T2", kept, "task", others=others)
    assert len(nothing.regime) == 0
    assert len(more.regime) == len(others)
    np.testing.assert_array_equal(again.probabilities, alone.probabilities)
    assert (more.probabilities.argmax(axis=1) == more.regime).mean() > 0.7


def test_the_area_of_a_number_as_it_is_does_not_ask_for_its_direction():
    mine = np.array([True] * 6 + [False] * 6)
    value = np.arange(12.0)
    assert evaluating.raw_auc(value, mine) == evaluating.raw_auc(-value, mine) == 1
    assert np.isnan(evaluating.raw_auc(value, np.zeros(12, dtype=bool)))
    value[0] = np.nan
    assert evaluating.raw_auc(value, mine) == 1


@pytest.mark.usefixtures("few_observables")
def test_the_evaluation_leaves_groups_out_and_counts(monkeypatch, planted):
    monkeypatch.setattr(evaluating, "RESAMPLES", 40)
    values = planted.values.copy()
    values[::40, planted.header["columns"].index("scale.logits_at_init")] = np.nan
    atlas = calibrating.labelled([dataclasses.replace(planted, values=values)])
    lacking = np.isnan(atlas.by_column(np.flatnonzero(atlas.known))["scale.logits_at_init"])
    spec = EvaluationSpec(
        evidence=("T2",),
        leave_out=("task", "family"),
        single={"scale": "initial_logits", "gap": "gap"},
    )
    found = evaluate(atlas, spec)
    by_task, grey, by_family = found.rows
    assert (grey.left_out, grey.n) == ("task, grey", int((atlas.grey & (atlas.regime >= 0)).sum()))
    assert (by_task.num_groups, by_family.num_groups) == (12, 3)
    assert by_task.n == int(atlas.known.sum()) == sum(one.n for one in by_task.groups)
    # What lacks a measurement is not read: no verdict, and no figure of its probabilities.
    assert lacking.sum() > 10
    assert (
        by_task.n - lacking.sum() - 0.05 * by_task.n < by_task.num_read <= by_task.n - lacking.sum()
    )
    assert by_task.num_read == sum(one.read for one in by_task.groups)
    assert by_task.num_verdicts <= by_task.num_read
    assert by_task.abstained.value == pytest.approx(1 - by_task.num_verdicts / by_task.n, abs=1e-4)
    assert by_task.auc_over_aligned.value > 0.95
    assert by_task.auc_over_aligned.low <= by_task.auc_over_aligned.value
    assert by_task.coverage.value > 0.85
    assert (by_task.opposite.value, by_task.opposite.low) == (0.0, 0.0)
    # Nets of one setup err together: the bound is that of so many setups, not of so many nets.
    setups = len(np.unique(atlas.case[atlas.known]))
    assert by_task.opposite.high == pytest.approx(1 - 0.025 ** (1 / setups), abs=1e-5)
    assert setups < by_task.num_verdicts
    # Setups that were seen to err make the bound larger, not smaller.
    (judged, _) = evaluating.leave_out(atlas, "T2", np.flatnonzero(atlas.known), "task")
    bounds = []
    for bad in (0, 1, 2, 4):
        wrong = np.isin(judged.setups, np.unique(judged.setups)[:bad])
        regime = np.where(wrong & judged.emitted, 2 - judged.called, judged.regime)
        spoilt = dataclasses.replace(judged, regime=regime)
        bounds.append(evaluating._opposite_share(spoilt).high)
    assert bounds == sorted(set(bounds))
    # Three families drawn again would say too little of what a fourth does.
    assert (by_family.auc_over_aligned.low, by_family.auc_over_aligned.high) == (None, None)
    assert by_task.num_ratios > 0.9 * by_task.num_read
    for row in found.rows:
        assert sum(one.n for one in row.regimes) == row.num_read
        assert sum(one.called for one in row.regimes) == row.num_verdicts
        right = sum(one.called * (one.right or 0) for one in row.regimes)
        assert right / row.num_verdicts == pytest.approx(row.emitted_accuracy.value, abs=1e-4)
        held = sum(one.n * (one.coverage or 0) for one in row.regimes)
        assert held / row.num_read == pytest.approx(row.coverage.value, abs=1e-4)
    assert by_task.num_verdicts == sum(one.emitted for one in by_task.groups)
    assert by_task.calibration_error.value < 0.1
    planted_one, nothing = (
        next(one for one in found.baselines if one.name == name) for name in ("scale", "gap")
    )
    assert planted_one.auc_over_fitted > 0.95
    assert nothing.auc_over_fitted < 0.65
    assert sum(found.truth.values()) == by_task.n == found.nets
    assert found.setups == 24
    assert set(found.truth) == {one.value for one in REGIMES}
    assert Regime.INCONCLUSIVE.value not in found.truth


def test_errors_are_named_as_they_are_stored():
    assert ERRORS == ("val_error", "val_loss", "test_error", "test_loss", "chance_error")


REAL = {
    "digits", "breast_cancer", "wine", "diabetes", "mnist", "fashion_mnist", "cifar10", "photo_patches",
}  # fmt: skip


def test_the_atlas_is_no_crowd_of_small_nets():
    """What its suite promises, setup by setup; drawing it again must not lose one of these unseen."""
    suite = load_suite("atlas")
    cases = suite.cases
    recipes = [suite.recipe(case) for case in cases]

    def share(holds):
        return np.mean([bool(holds(*pair)) for pair in zip(cases, recipes, strict=True)])

    def arguments(case):
        return case.model.arguments

    assert len({case.task.name for case in cases}) >= 20
    assert len({case.task.name for case in cases} & REAL) >= 8
    residual = ("resmlp", "resnet")
    norms = {arguments(case).get("norm") for case in cases if case.model.name in residual}
    assert {"none"} < norms
    for least, holds in (
        (0.1, lambda case, _: case.model.name == "cnn"),
        (0.1, lambda case, _: case.model.name in residual),
        (0.05, lambda _, recipe: recipe.optimizer.kind in ("adam", "adamw")),
        (0.05, lambda _, recipe: getattr(recipe.optimizer, "momentum", 0) > 0),
        (0.1, lambda case, _: arguments(case).get("width", 0) >= 512),
        (0.1, lambda case, _: case.task.arguments.get("n_train", 0) >= 2000),
        (0.1, lambda case, _: case.alter is not None and case.alter.label_noise > 0),
        (0.02, lambda case, _: arguments(case).get("activation") == "gelu"),
        (0.02, lambda case, _: arguments(case).get("activation") == "tanh"),
        (0.02, lambda case, _: arguments(case).get("bias")),
        (0.02, lambda case, _: case.model.centered),
    ):
        assert share(holds) >= least
    depths = {arguments(case)["depth"] for case in cases if "depth" in arguments(case)}
    assert {2, 3, 4, 6, 8} <= depths
