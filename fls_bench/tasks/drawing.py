"""How points are drawn: a test part that is the same for every seed, the rest by seed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt

from fls_bench.errors import InputError
from fls_bench.schema import TaskSpec
from fls_bench.tasks.task import MIN_PER_PART, Array, Labels, Task, joined, make_task

Indices = npt.NDArray[np.intp]
Bytes = npt.NDArray[np.uint8]

SPLIT_SEED = 20260200827
"""Fixes which points of a finite data set are test points, for every seed and every user."""


def checked_seed(seed: int) -> int:
    """The seed of a draw.

    Args:
        seed: 0 .. 2^32 - 1.

    Returns:
        The same seed.

    Raises:
        InputError: It is out of range.
    """
    if not 0 <= seed < 2**32:
        raise InputError(f"The data seed {seed} is out of range.", "Choose 0 .. 2^32 - 1.")
    return seed


def part_of(y: Labels, pool: Indices, size: int, seed: int) -> tuple[Indices, Indices]:
    """Draw ``size`` points of a pool, each class in its share where it can be; and the others."""
    if size == len(pool):
        return pool, pool[:0]
    from sklearn.model_selection import train_test_split

    classes, counts = np.unique(y[pool], return_counts=True)
    shared = counts.min() >= 2 and min(size, len(pool) - size) >= len(classes)
    labels = y[pool] if shared else None
    drawn, others = train_test_split(pool, train_size=size, random_state=seed, stratify=labels)
    return drawn, others


# --- one pile of points ----------------------------------------------------------------------


def draw_whole(
    name: str,
    x: Array,
    y: Labels,
    n_train: int,
    seed: int,
    spec: TaskSpec | None,
    num_test: int,
    notes: tuple[str, ...] = (),
) -> Task:
    """Fixed test part, then n_train training points drawn by seed; the rest validates.

    Args:
        name: For people.
        x: Inputs [n, ...].
        y: Labels [n].
        n_train: Training points.
        seed: Of the draw of training points.
        spec: Recorded with the task.
        num_test: Test points.
        notes: Recorded with the task.

    Returns:
        The task, standardised by all points that are not test points.

    Raises:
        InputError: Too few points for three parts.
    """
    room = len(y) - num_test - MIN_PER_PART
    if min(room, num_test) < MIN_PER_PART:
        raise InputError(
            f"Task {name!r} has {len(y)} points: too few for three parts.",
            f"Give more data; each part needs at least {MIN_PER_PART}.",
        )
    if not MIN_PER_PART <= n_train <= room:
        raise InputError(
            f"Task {name!r} can't give {n_train} training points: of {len(y)} points {num_test} "
            "are for testing and the rest must also validate.",
            f"Choose n_train between {MIN_PER_PART} and {room}.",
        )
    pool, test = part_of(y, np.arange(len(y)), len(y) - num_test, SPLIT_SEED % 2**32)
    train, val = part_of(y, pool, n_train, checked_seed(seed))
    # Standardised by training and validation points together: no test point is looked at, and all
    # seeds share one input space.
    mean, std = x[pool].mean(0), x[pool].std(0)
    z = ((x - mean) / np.where(std > 0, std, 1)).astype(np.float32)
    return make_task(
        name, (z[train], y[train]), (z[test], y[test]), (z[val], y[val]),
        n_classes=int(y.max()) + 1, spec=spec, notes=notes,
    )  # fmt: skip


# --- data with an official test part ---------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Official:
    """Data in the two parts that their authors gave them.

    Attributes:
        x_train: Images [n, channels, height, width], 0 .. 255; or float32 features [n, d]. Likewise
            x_test.
        y_train: [n] in 0 .. K-1; likewise y_test.
    """

    x_train: Bytes | Array
    y_train: Labels
    x_test: Bytes | Array
    y_test: Labels

    @cached_property
    def _moments(self) -> tuple[Array, Array]:
        """Mean and deviation over the training part, of each channel or of each feature."""
        if self.x_train.dtype != np.uint8:
            mean, std = self.x_train.mean(0), self.x_train.std(0)
            return mean, np.where(std > 0, std, np.float32(1))
        values, moments = np.arange(256.0), []
        for k in range(self.x_train.shape[1]):
            # In pieces, as numpy counts on a copy that is eight times as large.
            pieces = np.array_split(self.x_train[:, k], max(1, len(self.x_train) // 1000))
            counts = sum(np.bincount(piece.reshape(-1), minlength=256) for piece in pieces)
            mean = np.average(values, weights=counts)
            moments.append((mean, np.sqrt(np.average((values - mean) ** 2, weights=counts)) or 1.0))
        both = np.array(moments, dtype=np.float32)
        return both[:, :1, None], both[:, 1:, None]

    def scaled(self, x: Bytes | Array) -> Array:
        """Standardise by the training part: images by channel, features one by one.

        Args:
            x: [n, ...] of the shape of the parts.

        Returns:
            float32 of the same shape.
        """
        mean, std = self._moments
        scaled: Array = (x - mean) / std
        return scaled


@lru_cache(maxsize=8)
def _test_part(data: Official, n_test: int) -> tuple[Array, Labels]:
    drawn, _ = part_of(data.y_test, np.arange(len(data.y_test)), n_test, SPLIT_SEED % 2**32)
    return data.scaled(data.x_test[drawn]), data.y_test[drawn]


def draw_official(
    name: str, data: Official, seed: int, *, n_train: int, n_val: int, n_test: int
) -> Task:
    """A fixed part of the official test points; training and validation points drawn by seed.

    Args:
        name: Name of the task, recorded with its sizes.
        data: All points.
        seed: Of the draw.
        n_train: Training points, out of the official training part.
        n_val: Validation points, out of the rest of it.
        n_test: Test points, out of the official test part.

    Returns:
        The task. All draws of one size share the arrays of their test part.

    Raises:
        InputError: A size that can't be drawn.
    """
    pool = len(data.y_train)
    for key, value, most in (
        ("n_train", n_train, pool - MIN_PER_PART),
        ("n_val", n_val, pool - n_train),
        ("n_test", n_test, len(data.y_test)),
    ):
        if not MIN_PER_PART <= value <= most:
            raise InputError(
                f"Task {name!r} can't give {key} = {value}: it has {pool} points to train and "
                f"validate on and {len(data.y_test)} to test on.",
                f"Choose {key} between {MIN_PER_PART} and {most}.",
            )
    drawn, _ = part_of(data.y_train, np.arange(pool), n_train + n_val, checked_seed(seed))
    train, val = part_of(data.y_train, drawn, n_train, seed)
    x_test, y_test = _test_part(data, n_test)
    arguments = {"n_train": n_train, "n_val": n_val, "n_test": n_test}
    return joined(
        Task(
            name, int(data.y_train.max()) + 1,
            data.scaled(data.x_train[train]), data.y_train[train],
            data.scaled(data.x_train[val]), data.y_train[val],
            x_test, y_test, TaskSpec(name=name, arguments=arguments, seed=seed),
        )
    )  # fmt: skip
