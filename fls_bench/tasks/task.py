"""Training, validation and test data of one draw, and what is checked of arrays before they are."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from fls_bench.errors import InputError
from fls_bench.schema import TaskSpec

Array = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

MIN_PER_PART = 10


@dataclass(frozen=True, eq=False)
class Task:
    """Training, validation and test data of one draw.

    Attributes:
        name: For people.
        n_classes: K >= 2.
        x_train: Inputs [n, ...], float32; likewise x_val, x_test.
        y_train: Labels [n] in 0 .. K-1; likewise y_val, y_test.
        spec: How to load it again by name, or None for a user's own arrays.
        fixed_test: Whether every seed has the same test part.
        notes: What a reader of a report should know, e.g. where validation data came from.
    """

    name: str
    n_classes: int
    x_train: Array
    y_train: Labels
    x_val: Array
    y_val: Labels
    x_test: Array
    y_test: Labels
    spec: TaskSpec | None = None
    fixed_test: bool = True
    notes: tuple[str, ...] = field(default=())

    @property
    def input_dim(self) -> int:
        """Number of input features, all axes after the first multiplied."""
        return int(np.prod(self.x_train.shape[1:]))

    @property
    def n_train(self) -> int:
        """Number of training points."""
        return len(self.y_train)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all arrays, in hex."""
        digest = hashlib.sha256()
        for array in (
            self.x_train, self.y_train, self.x_val, self.y_val, self.x_test, self.y_test,
        ):  # fmt: skip
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    @property
    def majority_error(self) -> float:
        """Test error of always answering the commonest training class: chance level."""
        return self.chance_error(balanced=False)

    @property
    def class_counts(self) -> Labels:
        """Training points of each class, [K]."""
        return np.bincount(self.y_train, minlength=self.n_classes)

    @property
    def has_test(self) -> bool:
        """Whether the test part holds points that the training part does not."""
        return not any(note.startswith(NO_TEST) for note in self.notes)

    @property
    def imbalance(self) -> float:
        """Points of the commonest class over those of the rarest that occurs, all parts together.

        >= 1; all parts count, so that the draw of the training part hardly matters.
        """
        counts = np.bincount(np.concatenate([self.y_train, self.y_val, self.y_test]))
        return float(counts.max() / counts[counts > 0].min())

    def chance_error(self, balanced: bool) -> float:
        """Test error of a classifier that knows the class frequencies alone.

        Args:
            balanced: Whether error is the mean over classes of each class's error.

        Returns:
            1 - 1/K over the K classes that occur in the test part where balanced; else the error of
            always answering the commonest training class.
        """
        if balanced:
            return 1 - 1 / len(np.unique(self.y_test))
        return float(np.mean(self.y_test != self.class_counts.argmax()))

    def shared_with_training(self, x: Array) -> int:
        """How many points are training points too, exactly: all their float32 values are equal.

        Args:
            x: Points [n, ...] of the shape of the training inputs.

        Returns:
            Their number, 0 .. n.
        """
        own = {row.tobytes() for row in self.x_train + np.float32(0)}  # -0.0 + 0.0 is 0.0
        return sum(row.tobytes() in own for row in x + np.float32(0))


TaskSource = Callable[[int], Task]


def make_task(
    name: str,
    train: tuple[Any, Any],
    test: tuple[Any, Any],
    validation: tuple[Any, Any] | None = None,
    *,
    seed: int = 0,
    n_classes: int | None = None,
    spec: TaskSpec | None = None,
    fixed_test: bool = True,
    notes: tuple[str, ...] = (),
) -> Task:
    """Check arrays and make a task of them.

    Args:
        name: For people.
        train: (x [n, ...], y [n]); x finite numbers, y whole numbers.
        test: Likewise.
        validation: Likewise; None takes a fifth of the training part, and the task's notes say so.
        seed: Seed of that fifth.
        n_classes: K; None: the largest training label + 1. Give it where a draw may miss a class.
        spec: How to load the task again by name.
        fixed_test: Whether every seed has the same test part.
        notes: What a reader of a report should know.

    Returns:
        The task; labels are 0 .. K-1.

    Raises:
        InputError: Wrong shapes or types, NaN or infinity, labels out of range, one class only in
            the training part, or too few points.
    """
    x_train, y_train = checked_arrays(name, "training", *train)
    x_test, y_test = checked_arrays(name, "test", *test)
    if validation is None:
        order = np.random.default_rng(seed).permutation(len(y_train))
        num_val = len(order) // 5
        val, rest = order[:num_val], order[num_val:]
        x_val, y_val = x_train[val], y_train[val]
        x_train, y_train = x_train[rest], y_train[rest]
        notes = (*notes, no_validation(num_val, len(order)))
    else:
        x_val, y_val = checked_arrays(name, "validation", *validation)
    if n_classes is None and len(y_train):
        n_classes = int(y_train.max()) + 1
        empty = n_classes - len(np.unique(y_train))
        if empty:
            text = f"{empty} of the classes 0 .. {n_classes - 1} never occur among the training labels."
            notes = (*notes, text)
    return joined(
        Task(
            name, n_classes or 0, x_train, y_train, x_val, y_val, x_test, y_test,
            spec, fixed_test, notes,
        )
    )  # fmt: skip


def joined(task: Task) -> Task:
    """Check that the parts of a task fit together.

    Args:
        task: Of arrays that ``checked_arrays`` has seen. They are not copied, so that all seeds'
            tasks may share one test part.

    Returns:
        The same task.

    Raises:
        InputError: One class only in the training part, too few points, labels out of range, or
            inputs of different shapes.
    """
    name, y_train, n_classes = task.name, task.y_train, task.n_classes
    parts = (
        ("training", task.x_train, y_train),
        ("validation", task.x_val, task.y_val),
        ("test", task.x_test, task.y_test),
    )
    for part, _, y in parts:
        if len(y) < MIN_PER_PART:
            raise InputError(
                f"Task {name!r} has {len(y)} {part} points; at least {MIN_PER_PART} are needed.",
                "Give more data, or a smaller n_train so that more is left for the other parts.",
            )
    if len(np.unique(y_train)) < 2:
        raise InputError(
            f"Task {name!r} has one class only among its training labels.",
            "A classification task needs at least two classes.",
        )
    for part, x, y in parts:
        if y.max() >= n_classes:
            raise InputError(
                f"Task {name!r}: the {part} label {int(y.max())} is out of range; the classes are "
                f"0 .. {n_classes - 1}.",
                "Number the classes 0 .. K-1 and let the largest occur in the training part.",
            )
        if x.shape[1:] != task.x_train.shape[1:]:
            raise InputError(
                f"Task {name!r}: {part} inputs have shape {x.shape[1:]}, training inputs "
                f"{task.x_train.shape[1:]}.",
                "Give all parts the same input shape.",
            )
    return task


NO_TEST = "No test part was given"
"""How the note of a task begins whose test part repeats its training part."""

NO_VALIDATION = "No validation part was given"
"""How the note of a task begins whose validation part we cut from its training part."""


def no_validation(num_val: int, num: int) -> str:
    """The note that training points serve as the validation part."""
    return f"{NO_VALIDATION}: {num_val} of the {num} training points serve."


def checked_arrays(name: str, part: str, x: Any, y: Any) -> tuple[Array, Labels]:
    """Check one part of a task.

    Args:
        name: The task's name, for messages.
        part: Which part, for messages.
        x: Inputs [n, ...], finite numbers.
        y: Labels [n], whole numbers from 0.

    Returns:
        Copies of both, float32 and int64.

    Raises:
        InputError: Wrong shapes or types, NaN or infinity, labels out of range.
    """
    place = f"Task {name!r}, {part} part"
    try:
        x, y = np.asarray(x), np.asarray(y)
    except ValueError:
        raise InputError(
            f"{place}: its rows have different lengths.", "Give arrays of one shape."
        ) from None
    if not (np.issubdtype(x.dtype, np.number) or x.dtype == bool) or np.iscomplexobj(x):
        raise InputError(f"{place}: inputs have type {x.dtype}.", "Give real numbers.")
    if y.ndim == 2 and len(x) == len(y) and y.shape[1] > 1:
        raise InputError(
            f"{place}: labels {y.shape} are one row per point, as of several labels per point "
            "(multi-label), which fls-bench does not judge.",
            "Give one whole number per point, [n]; of one-hot rows that is y.argmax(axis=1).",
        )
    if x.ndim < 2 or 0 in x.shape or y.ndim != 1 or len(x) != len(y):
        raise InputError(
            f"{place}: inputs have shape {x.shape} and labels {y.shape}.",
            "Give inputs [n, ...] and one label for each, [n], none of them empty.",
        )
    with np.errstate(over="ignore"):
        x = x.astype(np.float32)
    if not np.isfinite(x).all():
        raise InputError(
            f"{place}: {int((~np.isfinite(x)).sum())} input values are NaN or infinite.",
            "Remove or fill them before you pass the data.",
        )
    if np.issubdtype(y.dtype, np.floating) and np.isfinite(y).all() and (y == np.floor(y)).all():
        y = y.astype(np.float64).clip(-1e6, 1e6).astype(np.int64)
    if not (np.issubdtype(y.dtype, np.integer) or y.dtype == bool):
        raise InputError(f"{place}: labels have type {y.dtype}.", "Give whole numbers 0 .. K-1.")
    y = y.astype(np.int64)
    if y.min() < 0 or y.max() >= 100_000:
        raise InputError(
            f"{place}: labels reach from {y.min()} to {y.max()}.",
            "Number the classes 0 .. K-1.",
        )
    return x, y
