"""Patches of the two photographs that scikit-learn brings."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np

from fls_bench.errors import InputError
from fls_bench.schema import TaskSpec
from fls_bench.tasks.drawing import Bytes, Official, draw_official
from fls_bench.tasks.task import Task

PHOTOGRAPHS = ("china.jpg", "flower.jpg")

SIDES = (4, 32)


def photo_patches(
    seed: int, *, size: int = 8, n_train: int = 400, n_val: int = 500, n_test: int = 2000
) -> Task:
    """Patches 3 x size x size of two photographs; class = which photograph.

    The pictures are cut into squares side by side, so that no two patches share a pixel. Test patches
    are of the right third of each picture, the others of the rest.

    Args:
        seed: Of the draw of training and validation patches.
        size: Height and width, 4 .. 32.
        n_train: Training patches.
        n_val: Validation patches.
        n_test: Test patches.

    Returns:
        The task, standardised by channel over all patches that are not of the right third.

    Raises:
        InputError: An argument is out of range.
    """
    if not SIDES[0] <= size <= SIDES[1]:
        raise InputError(
            f"Task 'photo_patches': size = {size} is out of range.",
            f"Choose {SIDES[0]} .. {SIDES[1]}.",
        )
    task = draw_official(
        "photo_patches", _official(size), seed, n_train=n_train, n_val=n_val, n_test=n_test
    )
    assert task.spec is not None
    arguments = {"size": size, **task.spec.arguments}
    return replace(task, spec=TaskSpec(name="photo_patches", arguments=arguments, seed=seed))


@lru_cache(maxsize=4)
def _official(size: int) -> Official:
    from sklearn.datasets import load_sample_image

    parts: list[list[Bytes]] = [[], []]
    for name in PHOTOGRAPHS:
        picture = load_sample_image(name)
        right = 2 * picture.shape[1] // 3
        for part, region in zip(parts, (picture[:, :right], picture[:, right:]), strict=True):
            part.append(patches(region, size))
    (x_train, y_train), (x_test, y_test) = (
        (np.concatenate(part), np.repeat(np.arange(len(part)), [len(one) for one in part]))
        for part in parts
    )
    return Official(x_train, y_train, x_test, y_test)


def patches(picture: Bytes, size: int) -> Bytes:
    """Cut a picture into squares side by side; what is left at the edges is not used.

    Args:
        picture: [height, width, channels].
        size: Side of the squares.

    Returns:
        [n, channels, size, size].
    """
    rows, columns = picture.shape[0] // size, picture.shape[1] // size
    cut = picture[: rows * size, : columns * size].reshape(rows, size, columns, size, -1)
    return np.ascontiguousarray(cut.transpose(0, 2, 4, 1, 3)).reshape(
        rows * columns, -1, size, size
    )
