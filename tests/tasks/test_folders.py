"""Folders of images: what is read, how it is cut and scaled, what is refused."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fls_bench.errors import InputError
from fls_bench.tasks import task_source

SMALL = {"size": 8}


def picture(value: int, k: int, *, mode: str = "RGB", shape: tuple[int, int] = (10, 12)) -> Any:
    pixels = np.random.default_rng([value, k]).integers(0, 20, (*shape, 3)) + value
    return Image.fromarray(pixels.astype(np.uint8)).convert(mode)


def write(root: Path, classes: dict[str, int], num: int, *, mode: str = "RGB") -> Path:
    for name, value in classes.items():
        (root / name).mkdir(parents=True)
        for k in range(num):
            picture(value, k, mode=mode).save(root / name / f"{k}.png")
    return root


TWO = {"cat": 30, "dog": 200}


def test_one_folder_per_class(tmp_path: Path) -> None:
    write(tmp_path, TWO, 30)
    first, second = (task_source(str(tmp_path), SMALL)(seed) for seed in (0, 1))
    assert first.x_train.shape == (18, 3, 8, 8)
    assert [len(first.y_val), len(first.y_test)] == [18, 24]
    np.testing.assert_array_equal(first.x_test, second.x_test)
    assert first.shared_with_training(second.x_train) < 18
    assert first.shared_with_training(first.x_val) == first.shared_with_training(first.x_test) == 0
    assert any("0 = cat, 1 = dog" in note for note in first.notes)
    assert any("24 images are the test part" in note for note in first.notes)
    for x, y in ((first.x_train, first.y_train), (first.x_test, first.y_test)):
        np.testing.assert_array_equal(x.mean((1, 2, 3)) > 0, y == 1)
    seen = np.concatenate([first.x_train, first.x_val])
    np.testing.assert_allclose(seen.mean((0, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(seen.std((0, 2, 3)), 1, atol=1e-5)


def test_train_val_and_test_folders_are_kept(tmp_path: Path) -> None:
    for part, num in (("train", 20), ("valid", 6), ("test", 9)):
        write(tmp_path / part, TWO, num)
    task = task_source(str(tmp_path), SMALL)(0)
    assert [len(y) for y in (task.y_train, task.y_val, task.y_test)] == [40, 12, 18]
    # The files of one number are the same in all parts: standardising has to be one for all.
    assert task.shared_with_training(task.x_test) == 18
    seen = np.concatenate([task.x_train, task.x_val])
    np.testing.assert_allclose(seen.mean((0, 2, 3)), 0, atol=1e-5)


def test_without_val_training_images_serve(tmp_path: Path) -> None:
    write(tmp_path / "train", TWO, 25)
    write(tmp_path / "test", TWO, 10)
    first, second = (task_source(str(tmp_path), {**SMALL, "n_train": 30})(s) for s in (0, 1))
    assert [first.n_train, len(first.y_val), len(first.y_test)] == [30, 20, 20]
    assert first.fingerprint != second.fingerprint


def test_grey_images_have_one_channel_and_mixed_ones_three(tmp_path: Path) -> None:
    write(tmp_path / "grey", TWO, 30, mode="L")
    assert task_source(str(tmp_path / "grey"), SMALL)(0).x_train.shape[1] == 1
    picture(30, 77, mode="RGBA").save(tmp_path / "grey" / "cat" / "colour.png")
    mixed = task_source(str(tmp_path / "grey"), SMALL)(0)
    assert mixed.x_train.shape[1] == 3
    assert any("60 of 61 images are grey" in note for note in mixed.notes)
    assert any("1 of 61 images have transparency" in note for note in mixed.notes)


def test_images_are_cut_to_the_square_in_the_middle_and_turned_upright(tmp_path: Path) -> None:
    write(tmp_path, TWO, 30)
    wide = np.zeros((16, 48, 3), dtype=np.uint8)
    wide[:, :16], wide[:, 16:24], wide[:, 24:32], wide[:, 32:] = 250, 100, 200, 250
    image = Image.fromarray(wide)
    exif = image.getexif()
    exif[0x0112] = 3  # lies on its head
    image.save(tmp_path / "cat" / "wide.png", exif=exif)
    task = task_source(str(tmp_path), {"size": 4, "n_train": 26})(0)
    every = np.concatenate([task.x_train, task.x_val, task.x_test])
    contrast = every[:, :, :, 0].mean((1, 2)) - every[:, :, :, -1].mean((1, 2))
    assert (contrast > 0.5).sum() == 1, "200 is to the left once the image is upright"
    assert np.ptp(every.mean((1, 3)), axis=1)[contrast.argmax()] < 0.1


def test_hidden_and_other_files_are_ignored(tmp_path: Path) -> None:
    write(tmp_path, TWO, 30)
    before = task_source(str(tmp_path), SMALL)(0).fingerprint
    (tmp_path / ".git").mkdir()
    (tmp_path / "cat" / "._0.png").write_bytes(b"resource fork")
    (tmp_path / "cat" / "notes.txt").write_text("hello")
    (tmp_path / "README.md").write_text("hello")
    assert task_source(str(tmp_path), SMALL)(0).fingerprint == before


def bomb(path: Path, width: int = 30_000, height: int = 30_000) -> None:
    """A picture of few bytes that says it has very many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)


def truncate(path: Path) -> None:
    picture(30, 5, shape=(64, 64)).save(path)
    path.write_bytes(path.read_bytes()[:-2000])


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "not an image": (lambda p: (p / "cat" / "x.png").write_bytes(b"hello"), "x.png.*not an image"),
    "empty file": (lambda p: (p / "cat" / "x.png").touch(), "x.png.*not an image"),
    "truncated": (lambda p: truncate(p / "cat" / "x.png"), "x.png.*can't be read"),
    "bomb": (lambda p: bomb(p / "cat" / "x.png"), "x.png.*far too many pixels"),
    "large": (lambda p: bomb(p / "cat" / "x.png", 10_000, 10_000), "10000 x 10000 pixels"),
    "16 bits": (
        lambda p: Image.fromarray(np.full((9, 9), 999, np.uint16)).save(p / "cat" / "x.png"),
        "mode I;16",
    ),
    "empty class": (lambda p: (p / "fox").mkdir(), "fox' holds no images"),
}


@pytest.mark.parametrize("case", BAD)
def test_images_that_can_not_be_used_are_named(case: str, tmp_path: Path) -> None:
    write(tmp_path, TWO, 30)
    change, problem = BAD[case]
    change(tmp_path)
    with pytest.raises(InputError, match=problem) as caught:
        task_source(str(tmp_path), SMALL)(0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("classes", "num", "problem"),
    [
        ({}, 0, "images of 0 classes"),
        ({"cat": 9}, 40, "images of 1 class;"),
        (TWO, 10, "20 images"),
    ],
)
def test_too_little(classes: dict[str, int], num: int, problem: str, tmp_path: Path) -> None:
    write(tmp_path, classes, num)
    with pytest.raises(InputError, match=problem):
        task_source(str(tmp_path), SMALL)(0)


def test_parts_that_do_not_fit_together(tmp_path: Path) -> None:
    write(tmp_path / "train", TWO, 20)
    with pytest.raises(InputError, match="none for testing"):
        task_source(str(tmp_path))
    write(tmp_path / "test", {**TWO, "fox": 90}, 20)
    with pytest.raises(InputError, match=r"the class 'fox', which .*train' lacks"):
        task_source(str(tmp_path))


@pytest.mark.parametrize("size", [3, 513, "8", 8.0])
def test_sizes_out_of_range(size: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"size = "):
        task_source(str(tmp_path), {"size": size})
