"""Data by name and the user's own: what is drawn, what stays fixed, what is refused."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from fls_bench import tasks
from fls_bench.errors import InputError
from fls_bench.schema import TaskSpec
from fls_bench.tasks import Task, arrays_source, bundled, load_task, make_task, task_source

FINITE = {"digits": 1797, "breast_cancer": 569, "wine": 178, "diabetes": 442}
GENERATED = ("mixture", "product_of_signs", "noise")
SMALL = {"n_test": 200, "n_val": 100}

Arrays = dict[str, Any]


def draw(name: str, seed: int = 0, **arguments: Any) -> Task:
    small = SMALL if name in GENERATED else {}
    return task_source(name, {**small, **arguments})(seed)


def rows(x: Any) -> set[bytes]:
    return {row.tobytes() for row in x.reshape(len(x), -1)}


def parts(task: Task) -> list[tuple[Any, Any]]:
    return [(task.x_train, task.y_train), (task.x_val, task.y_val), (task.x_test, task.y_test)]


# --- finite data ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", FINITE)
def test_parts_of_finite_data_are_disjoint_and_exhaustive(name: str) -> None:
    for seed in (0, 1):
        task = draw(name, seed)
        sets = [rows(x) for x, _ in parts(task)]
        assert sum(len(x) for x, _ in parts(task)) == FINITE[name]
        assert sum(map(len, sets)) == FINITE[name] == len(set.union(*sets))


@pytest.mark.parametrize("name", FINITE)
def test_the_test_part_is_fixed_and_the_training_part_is_redrawn(name: str) -> None:
    first, second = draw(name, 0), draw(name, 1)
    assert first.fixed_test
    np.testing.assert_array_equal(first.x_test, second.x_test)
    np.testing.assert_array_equal(first.y_test, second.y_test)
    assert rows(first.x_train) != rows(second.x_train)
    assert not rows(second.x_train) <= rows(first.x_train) | rows(first.x_test)
    smaller = draw(name, 0, n_train=20)
    assert (smaller.n_train, smaller.x_train.dtype) == (20, np.float32)
    np.testing.assert_array_equal(smaller.x_test, first.x_test)


def test_standardisation_looks_at_no_test_point(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = bundled._sklearn_arrays("wine")
    before = draw("wine")
    rest = np.concatenate([before.x_train, before.x_val])
    np.testing.assert_allclose(rest.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(rest.std(0), 1, atol=1e-5)
    test = raw_test_points(before, x)
    moved = x.copy()
    moved[test] *= 1000
    monkeypatch.setattr(bundled, "_sklearn_arrays", lambda _: (moved, y))
    after = draw("wine")
    np.testing.assert_array_equal(after.x_train, before.x_train)
    np.testing.assert_array_equal(after.x_val, before.x_val)
    assert np.abs(after.x_test).max() > 10 * np.abs(before.x_test).max()


def raw_test_points(task: Task, x: Any) -> Any:
    """Which rows of the raw data are test points: standardising keeps the order of a column."""
    parts_x = np.concatenate([task.x_train, task.x_val, task.x_test])
    ranks, raw_ranks = (np.argsort(np.lexsort(a.T)) for a in (parts_x, x))
    where = {rank: i for i, rank in enumerate(ranks)}
    first_test = len(parts_x) - len(task.x_test)
    return np.array([where[rank] >= first_test for rank in raw_ranks])


def test_every_class_has_its_share_of_the_digits() -> None:
    task = draw("digits", 3)
    assert task.n_classes == 10
    for _, y in parts(task):
        shares = np.bincount(y, minlength=10) / len(y)
        assert np.abs(shares - 0.1).max() < 0.02
    assert task.majority_error == pytest.approx(0.9, abs=0.01)


# --- generated data -------------------------------------------------------------------------


@pytest.mark.parametrize("name", GENERATED)
def test_generated_data_are_redrawn_whole(name: str) -> None:
    first, second = draw(name, 0), draw(name, 1)
    assert not first.fixed_test
    sets = [rows(x) for task in (first, second) for x, _ in parts(task)]
    assert sum(map(len, sets)) == len(set.union(*sets))


@pytest.mark.parametrize("name", [*FINITE, *GENERATED])
def test_a_seed_is_one_draw(name: str) -> None:
    assert draw(name, 5).fingerprint == draw(name, 5).fingerprint != draw(name, 6).fingerprint


def test_the_mixture_has_its_bayes_error_along_the_first_axis() -> None:
    kappa, sigma = 1.5, 1.0
    task = task_source("mixture", {"kappa": kappa, "sigma": sigma, "n_train": 40})(3)
    x, y, n = task.x_test, task.y_test, len(task.y_test)
    assert n == 20_000
    expected = norm.cdf(-kappa / sigma)
    deviation = np.sqrt(expected * (1 - expected) / n)
    assert np.mean((x[:, 0] > 0) != y) == pytest.approx(expected, abs=4 * deviation)
    sign = 2 * y - 1
    np.testing.assert_allclose((x * sign[:, None]).mean(0), kappa * np.eye(100)[0], atol=0.035)
    np.testing.assert_allclose((x[:, 1:]).std(0), sigma, rtol=0.03)
    for _, labels in parts(task):
        assert abs(labels.mean() - 0.5) < 1e-9


@pytest.mark.parametrize("copies", [1, 2, 5])
def test_copies_stand_in_the_training_part_alone(copies: int) -> None:
    once, task = (
        task_source("mixture", {"n_train": n, "n_val": 40, "n_test": 50, **more})(3)
        for n, more in ((12, {}), (12 * copies, {"copies": copies}))
    )
    points, counts = np.unique(task.x_train, axis=0, return_counts=True)
    assert counts.tolist() == [copies] * 12
    np.testing.assert_array_equal(points, np.unique(once.x_train, axis=0))
    labels = {row.tobytes(): label for row, label in zip(once.x_train, once.y_train, strict=True)}
    assert [labels[row.tobytes()] for row in task.x_train] == task.y_train.tolist()
    for name in ("x_val", "y_val", "x_test", "y_test"):
        np.testing.assert_array_equal(getattr(task, name), getattr(once, name))
    assert task.spec is not None
    assert task.spec.arguments.get("copies", 1) == copies
    assert load_task(task.spec).fingerprint == task.fingerprint
    assert ("copies" in task.spec.arguments) is (copies > 1), "old files have no such key"


def test_a_product_of_signs_is_what_it_says_and_no_fewer_signs_tell_it() -> None:
    task = task_source("product_of_signs", {"order": 3, "input_dim": 5})(0)
    for x, y in parts(task):
        np.testing.assert_array_equal(2 * y - 1, np.sign(x[:, 0]) * np.sign(x[:, 1] * x[:, 2]))
    signs, labels = np.sign(task.x_test), 2 * task.y_test - 1
    bound = 4 / np.sqrt(len(labels))
    assert np.abs(labels @ signs / len(labels)).max() < bound
    assert abs(np.mean(labels * signs[:, 0] * signs[:, 1])) < bound


def test_noise_labels_know_nothing_of_the_inputs() -> None:
    task = task_source("noise", {"n_classes": 4, "input_dim": 6})(2)
    x, y = task.x_test, task.y_test
    assert np.bincount(y).tolist() == [500] * 4
    means = np.array([x[y == k].mean(0) for k in range(4)])
    assert np.abs(means).max() < 4.5 / np.sqrt(500)
    assert task.majority_error == pytest.approx(0.75)
    # Even a classifier that remembers everything is at chance on fresh points.
    nearest = [task.y_train[((task.x_train - row) ** 2).sum(1).argmin()] for row in x]
    deviation = np.sqrt(0.75 * 0.25 / len(y))
    assert np.mean(np.array(nearest) != y) == pytest.approx(0.75, abs=4 * deviation)


def test_a_class_that_the_draw_misses_still_counts() -> None:
    assert draw("noise", n_classes=12, n_train=10).n_classes == 12


# --- by name --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "arguments", "problem"),
    [
        ("mnst", {}, "no task named 'mnst'"),
        ("os:system", {}, "no task named"),
        ("digits", {"n": 3}, "has no argument 'n'"),
        ("digits", {"seed": 3}, "has no argument 'seed'"),
        ("digits", {"n_train": "150"}, "is not an int"),
        ("digits", {"n_train": 150.0}, "is not an int"),
        ("digits", {"n_train": True}, "is not an int"),
        ("digits", {"n_train": None}, "is not an int"),
        ("digits", {"n_train": 9}, "can't give 9 training points"),
        ("digits", {"n_train": 0}, "can't give 0 training points"),
        ("digits", {"n_train": 788}, "can't give 788 training points"),
        ("wine", {"n_train": -5}, "can't give -5"),
        ("mixture", {"n_train": 9}, "n_train = 9 is out of range"),
        ("mixture", {"n_test": 10**9}, "n_test = 1000000000 is out of range"),
        ("mixture", {"input_dim": 0}, "input_dim = 0"),
        ("mixture", {"input_dim": 100_000, "n_test": 1_000_000}, "the limit is"),
        ("mixture", {"sigma": 0}, "must be > 0"),
        ("mixture", {"sigma": float("nan")}, "must be > 0"),
        ("mixture", {"sigma": "0.3"}, "is not a float"),
        ("mixture", {"kappa": float("inf")}, "kappa = inf must lie between"),
        ("mixture", {"copies": 3}, "copies = 3 must be >= 1 and divide n_train = 20"),
        ("mixture", {"copies": 0}, "copies = 0 must be >= 1"),
        ("mixture", {"copies": -2}, "copies = -2 must be >= 1"),
        ("mixture", {"copies": 20}, "one class only"),
        ("mixture", {"copies": 2.0}, "is not an int"),
        ("mixture", {"n_train": 10**7, "copies": 10**6}, "n_train = 10000000 is out of range"),
        ("product_of_signs", {"order": 0}, "order = 0"),
        ("product_of_signs", {"order": 30}, "order = 30"),
        ("noise", {"n_classes": 1}, "n_classes = 1"),
        ("x.npz", {"n_test": 3}, "has no argument 'n_test'"),
        ("x.npz", {"n_train": "3"}, "is not an int"),
        ("x.npz", {}, "no file 'x.npz'"),
    ],
)
def test_what_can_not_be_drawn_is_refused(
    name: str, arguments: dict[str, Any], problem: str
) -> None:
    with pytest.raises(InputError, match=problem) as caught:
        task_source(name, arguments)(0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["wine", "mixture"])
@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_out_of_range_is_refused(name: str, seed: int) -> None:
    with pytest.raises(InputError, match="seed"):
        draw(name, seed)


def test_a_spec_loads_the_same_data_and_notices_others() -> None:
    for name in ("wine", "mixture"):
        task = draw(name, 4)
        assert task.spec is not None
        known = task.spec.model_copy(update={"fingerprint": task.fingerprint})
        assert load_task(known).fingerprint == task.fingerprint
        assert load_task(task.spec).fingerprint == task.fingerprint
        with pytest.raises(InputError, match="not the data that the file was made with"):
            load_task(known.model_copy(update={"seed": 5}))


# --- the user's arrays ----------------------------------------------------------------------


def labelled(n: int, d: int = 3, n_classes: int = 2, seed: int = 0) -> tuple[Any, Any]:
    rng = np.random.default_rng([seed, n])
    return rng.standard_normal((n, d)), np.arange(n) % n_classes


def whole() -> Arrays:
    x, y = labelled(60)
    return {"x": x, "y": y}


def split(validation: bool = False) -> Arrays:
    (a, b), (c, d), (e, f) = labelled(50), labelled(20), labelled(15)
    arrays = {"x_train": a, "y_train": b, "x_test": c, "y_test": d}
    return {**arrays, "x_val": e, "y_val": f} if validation else arrays


def source(arrays: Arrays, path: Path, n_train: int | None = None) -> tasks.TaskSource:
    """The same arrays, by way of a file."""
    np.savez(path / "mine.npz", **arrays)
    return tasks.npz_source(path / "mine.npz", n_train)


def test_x_and_y_alone_are_split_and_the_report_says_so(tmp_path: Path) -> None:
    make = source(whole(), tmp_path)
    first, second = make(0), make(1)
    assert [len(x) for x, _ in parts(first)] == [18, 18, 24]
    assert sum(len(rows(x)) for x, _ in parts(first)) == 60
    np.testing.assert_array_equal(first.x_test, second.x_test)
    assert rows(first.x_train) != rows(second.x_train)
    assert "24 points are the test part" in first.notes[0]
    assert (first.name, first.n_classes) == ("mine", 2)
    assert source(whole(), tmp_path, 12)(0).n_train == 12


def test_the_users_parts_are_kept(tmp_path: Path) -> None:
    arrays = split(validation=True)
    task = source(arrays, tmp_path)(3)
    for (x, y), part in zip(parts(task), ("train", "val", "test"), strict=True):
        np.testing.assert_array_equal(x, arrays[f"x_{part}"].astype(np.float32))
        np.testing.assert_array_equal(y, arrays[f"y_{part}"])
    assert task.notes == ()
    fewer = source(arrays, tmp_path, 20)
    assert fewer(0).n_train == 20
    assert rows(fewer(0).x_train) != rows(fewer(1).x_train)
    assert rows(fewer(0).x_train) < rows(task.x_train)


@pytest.mark.parametrize(("n_train", "expected"), [(None, (40, 10)), (20, (20, 30))])
def test_without_validation_data_training_points_serve_and_the_report_says_so(
    tmp_path: Path, n_train: int | None, expected: tuple[int, int]
) -> None:
    arrays = split()
    make = source(arrays, tmp_path, n_train)
    task = make(0)
    assert (len(task.y_train), len(task.y_val)) == expected
    assert rows(task.x_train) | rows(task.x_val) == rows(arrays["x_train"].astype(np.float32))
    assert rows(task.x_train) != rows(make(1).x_train)
    assert task.notes == (
        f"No validation part was given: {expected[1]} of the 50 training points serve.",
    )
    direct = make_task("t", labelled(50), labelled(20))
    assert (len(direct.y_train), len(direct.y_val)) == (40, 10)
    assert "10 of the 50 training points serve" in direct.notes[0]


def test_rare_classes_keep_the_number_of_classes_at_every_seed() -> None:
    x, y = labelled(60, n_classes=3)
    y[y == 2] = 1
    y[:1] = 5
    for arrays in ({"x": x, "y": y}, {**split(), "x_train": x, "y_train": y}):
        make = arrays_source("rare", arrays, 12, None)
        assert {make(seed).n_classes for seed in range(8)} == {6}


@given(st.integers(40, 80), st.integers(2, 12), st.integers(0, 9), st.booleans())
def test_any_sizes_give_parts_of_the_sizes_asked_for(
    n: int, n_classes: int, seed: int, whole: bool
) -> None:
    x, y = labelled(n, n_classes=n_classes)
    arrays = {"x": x, "y": y} if whole else {
        **split(), "x_train": x, "y_train": y, "y_test": np.arange(20) % n_classes
    }  # fmt: skip
    task = arrays_source("mine", arrays, 11, None)(seed)
    assert task.n_train == 11
    if whole:
        assert sum(len(rows(x)) for x, _ in parts(task)) == n
    assert min(len(y) for _, y in parts(task)) >= tasks.MIN_PER_PART


def changed(arrays: Arrays, **changes: Any) -> Arrays:
    return {k: v for k, v in {**arrays, **changes}.items() if v is not None}


def with_value(x: Any, value: Any) -> Any:
    x = x.copy()
    x.flat[3] = value
    return x


X, Y = labelled(50)
BAD: dict[str, tuple[Arrays, str]] = {
    "no test part": (changed(split(), x_test=None), "lack x_test"),
    "nothing": ({}, "lack x_train, y_train"),
    "x alone": ({"x": X}, "lack"),
    "half a validation part": (changed(split(), x_val=X[:12]), "lack y_val"),
    "NaN": (changed(split(), x_train=with_value(X, np.nan)), "1 input values are NaN"),
    "infinite": (changed(split(), x_test=with_value(labelled(20)[0], -np.inf)), "NaN or inf"),
    "too large": (changed(split(), x_train=with_value(X, 1e60)), "NaN or infinite"),
    "one class": (changed(split(), y_train=0 * Y), "one class only"),
    "test label": (changed(split(), y_test=np.arange(20) % 3), "test label 2 is out of range"),
    "negative label": (changed(split(), y_train=Y - 1), "labels reach from -1 to 0"),
    "huge label": (changed(split(), y_train=Y * 10**6), "labels reach from 0 to 1000000"),
    "infinite label": (changed(split(), y_train=with_value(Y * 1.0, np.inf)), "type float64"),
    "half label": (changed(split(), y_train=Y + 0.5), "labels have type float64"),
    "text label": (changed(split(), y_train=Y.astype(str)), "labels have type <U"),
    "text": (changed(split(), x_train=X.astype(str)), "inputs have type <U"),
    "complex": (changed(split(), x_train=X * 1j), "inputs have type complex128"),
    "lengths": (changed(split(), y_train=Y[:-1]), "labels \\(49,\\)"),
    "one axis": (changed(split(), x_train=X[:, 0]), "shape \\(50,\\)"),
    "no features": (changed(split(), x_train=X[:, :0]), "shape \\(50, 0\\)"),
    "one-hot": (changed(split(), y_train=np.eye(2)[Y]), "labels \\(50, 2\\).*multi-label"),
    "dimension": (changed(split(), x_test=np.ones((20, 4))), "test inputs have shape \\(4,\\)"),
    "small test": (changed(split(), x_test=X[:9], y_test=Y[:9]), "9 test points"),
    "small": ({"x": X[:25], "y": Y[:25]}, "25 points: too few"),
    "tiny training": (changed(split(), x_train=X[:15], y_train=Y[:15]), "Give more data"),
}


@pytest.mark.parametrize("case", BAD)
def test_arrays_that_can_not_be_used_are_refused(case: str, tmp_path: Path) -> None:
    arrays, problem = BAD[case]
    with pytest.raises(InputError, match=problem) as caught:
        source(arrays, tmp_path)(0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("n_train", [0, 9, -1, 41, 51])
@pytest.mark.parametrize("kind", ["whole", "split"])
def test_an_impossible_n_train_is_refused(kind: str, n_train: int, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"can't give {n_train} training points"):
        source(whole() if kind == "whole" else split(), tmp_path, n_train)(0)


def test_rows_of_different_lengths_are_refused() -> None:
    with pytest.raises(InputError, match="different lengths"):
        make_task("ragged", ([[1.0], [1.0, 2.0]], [0, 1]), labelled(20))


def test_lists_booleans_and_whole_floats_are_fine() -> None:
    x, y = labelled(30)
    task = make_task("t", (x.tolist(), y.tolist()), (x > 0, y == 1), (x, y * 1.0))
    assert task.y_test.dtype == task.y_val.dtype == np.int64
    assert task.x_test.dtype == np.float32


def test_images_keep_their_shape() -> None:
    images = np.zeros((60, 2, 4, 5))
    task = make_task("images", (images, np.arange(60) % 2), (images, np.arange(60) % 2))
    assert (task.x_train.shape, task.input_dim) == ((48, 2, 4, 5), 40)


# --- files that are not what they seem ------------------------------------------------------


class Payload:
    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.place),)


def object_array(path: Path, place: Path) -> None:
    _, y = labelled(60)
    np.savez(path, x=np.array([Payload(place)] * 60, dtype=object), y=y)


def raw_pickle(path: Path, place: Path) -> None:
    path.write_bytes(pickle.dumps({"x": Payload(place)}))


@pytest.mark.parametrize("write", [object_array, raw_pickle])
def test_pickles_are_refused_and_not_executed(write: Any, tmp_path: Path) -> None:
    path, place = tmp_path / "data.npz", tmp_path / "executed"
    write(path, place)
    with pytest.raises(InputError, match="it holds Python objects"):
        tasks.npz_source(path)
    assert not place.exists()
    np.load(path, allow_pickle=True)["x"]
    assert place.exists(), "the payload is harmless, so the test proves nothing"


def compressed() -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **whole())
    return stream.getvalue()


def one_array() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.ones((60, 3)))
    return stream.getvalue()


def not_numpy() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("x", b"hello")
        archive.writestr("y", b"hello")
    return stream.getvalue()


def enormous() -> bytes:
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 100), }"
    array = b"\x93NUMPY\x01\x00" + (len(header) + 1).to_bytes(2, "little") + header + b"\n"
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("x.npy", array)
        archive.writestr("y.npy", array)
    return stream.getvalue()


def damaged() -> bytes:
    data = bytearray(compressed())
    start = data.index(b"x.npy") + 40
    data[start : start + 60] = bytes(range(60, 120))
    return bytes(data)


@pytest.mark.parametrize(
    "data",
    [b"", b"\x00\x01 random", compressed()[:-200], damaged(), one_array(), not_numpy(), enormous()],
    ids=["empty", "random", "truncated", "damaged", "npy", "no arrays", "enormous"],
)
def test_a_file_that_is_no_npz_is_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        tasks.npz_source(path)(0)
    assert "\n" not in str(caught.value)


def test_a_directory_is_no_npz(tmp_path: Path) -> None:
    (tmp_path / "data.npz").mkdir()
    with pytest.raises(InputError, match="can't be read"):
        task_source(str(tmp_path / "data.npz"))


def test_a_file_is_known_by_its_path(tmp_path: Path) -> None:
    task = source(whole(), tmp_path)(0)
    assert task.spec == TaskSpec(name=str(tmp_path / "mine.npz"))
    assert arrays_source("mine", whole(), None, None)(0).fingerprint == task.fingerprint
