"""Altered tasks: what is done to labels and inputs, what stays as it was, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fls_bench import bench
from fls_bench.errors import InputError
from fls_bench.schema import Recipe
from fls_bench.subject import built_in_setup
from fls_bench.suite import load_suite
from fls_bench.tasks import Task, TaskSource, altered, make_task, task_source
from fls_bench.training import resolve_lr_rule, setup_digest

DIGITS = task_source("digits")
PARITY = [[0, 2, 4, 6, 8], [1, 3, 5, 7, 9]]
ALTERATIONS: dict[str, dict[str, Any]] = {
    "digits, 10 % label noise": {"label_noise": 0.1},
    "digits, 12.5 % label noise": {"label_noise": 0.125},
    "digits, classes 0+2+4+6+8, 1+3+5+7+9": {"classes": PARITY},
    "digits, classes 3, 8": {"classes": [[3], [8]]},
    "digits, as 1x8x8": {"shape": [1, 8, 8]},
    "digits, as 1x8x8, pooled 2x2": {"shape": [1, 8, 8], "pool": 2},
    "digits, classes 3, 8, 10 % label noise, as 8x8, pooled 4x4": {
        "classes": [[3], [8]], "label_noise": 0.1, "shape": [8, 8], "pool": 4,
    },
}  # fmt: skip


def parts(task: Task) -> list[tuple[Any, Any]]:
    return [(task.x_train, task.y_train), (task.x_val, task.y_val), (task.x_test, task.y_test)]


@pytest.mark.parametrize("name", ALTERATIONS)
def test_an_altered_task_says_so_and_can_not_be_loaded_by_name(name: str) -> None:
    source = altered(DIGITS, **ALTERATIONS[name])
    assert source(0).name == name
    assert source(0).spec is None
    assert source(0).fingerprint == source(0).fingerprint != source(1).fingerprint
    assert source(0).fingerprint != DIGITS(0).fingerprint
    assert source(0).fixed_test


def test_the_inputs_of_the_source_are_left_as_they_are() -> None:
    task = DIGITS(0)
    before = task.fingerprint
    for arguments in ALTERATIONS.values():
        altered(lambda _: task, **arguments)(0)
    assert task.fingerprint == before


def test_without_alteration_the_source_itself_is_given() -> None:
    assert altered(DIGITS) is DIGITS
    assert altered(DIGITS, label_noise=0.0, pool=1) is DIGITS


# --- labels -----------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.1, 0.3, 1.0])
def test_so_many_training_and_validation_labels_are_wrong_and_no_test_label(share: float) -> None:
    before, after = DIGITS(4), altered(DIGITS, label_noise=share)(4)
    for (x, y), (own_x, own_y) in zip(parts(after)[:2], parts(before)[:2], strict=True):
        np.testing.assert_array_equal(x, own_x)
        assert (y != own_y).sum() == round(share * len(y))
        moved = (y - own_y)[y != own_y] % 10
        if len(moved) > 200:  # each other class is as likely: five deviations of its count
            counts = np.bincount(moved, minlength=10)[1:]
            expected = len(moved) / 9
            assert np.abs(counts - expected).max() < 5 * expected**0.5
    assert after.x_test is before.x_test or np.array_equal(after.x_test, before.x_test)
    np.testing.assert_array_equal(after.y_test, before.y_test)
    assert "replaced by other classes" in after.notes[-1]


def test_which_labels_are_wrong_is_drawn_by_the_data_seed_alone() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((400, 3)), np.arange(400) % 4
    fixed = make_task("fixed", (x[:200], y[:200]), (x[200:300], y[200:300]), (x[300:], y[300:]))
    source = altered(lambda _: fixed, label_noise=0.2)
    wrong = [source(seed).y_train != fixed.y_train for seed in (0, 0, 1)]
    assert (wrong[0] == wrong[1]).all()
    assert (wrong[0] != wrong[2]).any()
    assert not (wrong[0] & wrong[2]).sum() > 25  # some 8 of 40 by chance


def test_merged_classes_and_dropped_points() -> None:
    before, after = DIGITS(2), altered(DIGITS, classes=PARITY)(2)
    assert after.n_classes == 2
    for (x, y), (own_x, own_y) in zip(parts(after), parts(before), strict=True):
        np.testing.assert_array_equal(x, own_x)
        np.testing.assert_array_equal(y, own_y % 2)
    few = altered(DIGITS, classes=[[7], [1, 4]])(2)
    for (x, y), (own_x, own_y) in zip(parts(few), parts(before), strict=True):
        kept = np.isin(own_y, [1, 4, 7])
        np.testing.assert_array_equal(x, own_x[kept])
        np.testing.assert_array_equal(y, own_y[kept] != 7)


def test_noise_of_merged_classes_turns_one_into_another() -> None:
    both = altered(DIGITS, classes=PARITY, label_noise=0.25)(2)
    merged = altered(DIGITS, classes=PARITY)(2)
    assert both.n_classes == 2
    assert (both.y_train != merged.y_train).sum() == round(0.25 * merged.n_train)
    np.testing.assert_array_equal(both.y_test, merged.y_test)


# --- inputs -----------------------------------------------------------------------------------


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.booleans())
def test_pooling_is_the_mean_over_squares(
    pool: int, rows: int, columns: int, channels: int, grey: bool
) -> None:
    rng = np.random.default_rng([pool, rows, columns, channels])
    shape = (rows * pool, columns * pool) if grey else (channels, rows * pool, columns * pool)
    x = rng.standard_normal((40, *shape)).astype(np.float32)
    y = np.arange(40) % 2
    task = make_task("t", (x[:20], y[:20]), (x[20:30], y[20:30]), (x[30:], y[30:]))
    found = altered(lambda _: task, pool=pool)(0).x_train
    assert found.shape == (20, *shape[:-2], rows, columns)
    assert found.dtype == np.float32
    for i in range(rows):
        for j in range(columns):
            square = x[:20, ..., i * pool : (i + 1) * pool, j * pool : (j + 1) * pool]
            np.testing.assert_allclose(found[..., i, j], square.mean((-2, -1)), atol=1e-6)


def test_a_shape_keeps_the_numbers_in_their_order() -> None:
    before, after = DIGITS(0), altered(DIGITS, shape=[1, 8, 8])(0)
    for (x, y), (own_x, own_y) in zip(parts(after), parts(before), strict=True):
        assert x.shape == (len(own_x), 1, 8, 8)
        np.testing.assert_array_equal(x.reshape(own_x.shape), own_x)
        np.testing.assert_array_equal(y, own_y)


# --- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"label_noise": -0.1}, "label_noise = -0.1 is out of range"),
        ({"label_noise": 1.1}, "label_noise = 1.1 is out of range"),
        ({"label_noise": float("nan")}, "label_noise = nan is out of range"),
        ({"classes": []}, "fewer than two lists"),
        ({"classes": [[0, 1]]}, "fewer than two lists"),
        ({"classes": [[0], []]}, "an empty one"),
        ({"classes": [[0], [0, 1]]}, "names the label 0 twice"),
        ({"classes": [[0], [-1]]}, "names the label -1"),
        (
            {"classes": [[0], [10]]},
            "names the label 10, and the labels of task 'digits' are 0 .. 9",
        ),
        ({"pool": 0}, "pool = 0 is out of range"),
        ({"pool": 2}, r"have the shape \[64\]: they are no images"),
        ({"pool": 3, "shape": [8, 8]}, "pool = 3 does not divide the images of 8 x 8"),
        ({"shape": []}, r"shape = \[\] is no shape"),
        ({"shape": [0, 64]}, r"shape = \[0, 64\] is no shape"),
        ({"shape": [7, 9]}, r"shape = \[7, 9\] holds 63 numbers, and an input of task 'digits' 64"),
    ],
)
def test_what_can_not_be_done_is_refused(arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError, match=problem) as caught:
        altered(DIGITS, **arguments)(0)
    assert caught.value.remedy
    assert "\n" not in str(caught.value)


def test_too_few_points_of_the_classes_that_are_left_are_refused() -> None:
    source = altered(task_source("digits", {"n_train": 20}), classes=[[3], [8]])
    with pytest.raises(InputError, match=r"has \d training points; at least 10 are needed"):
        source(0)


# --- setups and suites ------------------------------------------------------------------------


def digest(source: TaskSource, net: str = "mlp", **arguments: Any) -> str:
    setup = built_in_setup(net, {"width": 4, **arguments}, source, Recipe(), base_lr=0.1)
    return setup_digest(setup, resolve_lr_rule(setup, source(0)))


def test_setups_of_different_alterations_have_different_digests() -> None:
    sources = [DIGITS, *(altered(DIGITS, **arguments) for arguments in ALTERATIONS.values())]
    digests = [digest(source, depth=2) for source in sources]
    assert len(set(digests)) == len(digests)
    again = altered(DIGITS, **ALTERATIONS["digits, 10 % label noise"])
    assert digest(again, depth=2) == digests[1]


def test_digits_of_another_shape_are_images_for_a_net() -> None:
    assert digest(altered(DIGITS, shape=[1, 8, 8]), "cnn") != digest(
        altered(DIGITS, shape=[1, 8, 8], label_noise=0.1), "cnn"
    )


SUITE = """
schema = 1
name = "mine"
version = 1
cost = { seconds = 1, memory_mb = 1 }
sources = []
seeds = 3
[[case]]
id = "noisy"
task = { name = "digits" }
model = { name = "cnn", width = 4 }
alter = { label_noise = 0.1, classes = [[0, 1], [2, 3]], shape = [1, 8, 8], pool = 2 }
[[case]]
id = "plain"
task = { name = "digits" }
"""


def written(tmp_path: Path, changes: Mapping[str, str] = {}) -> Path:
    text = SUITE
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_case_of_a_suite_is_altered(tmp_path: Path) -> None:
    suite = load_suite(written(tmp_path))
    noisy, plain = (bench.case_setup(suite, case).task_for(0) for case in suite.cases)
    assert noisy.name == "digits, classes 0+1, 2+3, 10 % label noise, as 1x8x8, pooled 2x2"
    assert (noisy.n_classes, noisy.x_train.shape[1:]) == (2, (1, 4, 4))
    assert plain.fingerprint == DIGITS(0).fingerprint


def test_a_suite_with_alterations_validates(cli: Any, tmp_path: Path) -> None:
    assert cli("suites", "validate", written(tmp_path)).code == 0
    ended = cli("suites", "validate", written(tmp_path, {"shape = [1, 8, 8], ": ""}))
    assert (ended.code, "no images" in " ".join(ended.err.split())) == (2, True)


def test_an_alteration_is_in_the_digest_of_a_suite_that_has_one_alone(tmp_path: Path) -> None:
    alter = SUITE.splitlines()[11]
    assert alter.startswith("alter")
    first = load_suite(written(tmp_path))
    other = load_suite(written(tmp_path, {"label_noise = 0.1": "label_noise = 0.2"}))
    without = load_suite(written(tmp_path, {alter: ""}))
    assert len({one.digest for one in (first, other, without)}) == 3
    assert without.cases[0].alter is None
    shown = without.model_dump(mode="json", exclude_none=True)
    assert "alter" not in shown["cases" if "cases" in shown else "case"][0]


def test_noise_can_vary(tmp_path: Path) -> None:
    alter = SUITE.splitlines()[11]
    vary = 'log2_c = { from = -2, to = 2, step = 2 }\nvary = { "alter.label_noise" = [0.0, 0.2] }'
    suite = load_suite(
        written(
            tmp_path,
            {alter: vary, "seeds = 3": 'seeds = 3\nclaim = "C1"'}
            | {'id = "plain"': 'id = "plain"\nlog2_c = { from = 0, to = 2, step = 2 }'},
        )
    )
    assert [case.id for case in suite.cases] == [
        "noisy-label_noise0_0",
        "noisy-label_noise0_2",
        "plain",
    ]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("label_noise = 0.1", "label_noise = 2", "alter.label_noise: expected a value less than"),
        ("label_noise = 0.1", "label_nose = 0.1", "did you mean 'label_noise'?"),
        ("pool = 2", "pool = 0", "alter.pool: expected a value greater than"),
        ("pool = 2", "pool = 1.5", "alter.pool: expected a whole number"),
        ("[1, 8, 8]", "8", "alter.shape: expected an array"),
        ("[1, 8, 8]", "[1, 8.5, 8]", "alter.shape.1: expected a whole number"),
    ],
)
def test_a_wrong_alteration_in_a_suite_is_refused(
    tmp_path: Path, old: str, new: str, told: str
) -> None:
    with pytest.raises(InputError) as caught:
        load_suite(written(tmp_path, {old: new}))
    assert told in caught.value.problem
