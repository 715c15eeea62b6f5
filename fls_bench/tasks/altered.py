"""A task made harder or smaller: wrong labels, merged classes, coarser images, another shape."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from fls_bench.errors import InputError
from fls_bench.tasks.drawing import SPLIT_SEED, checked_seed
from fls_bench.tasks.task import Array, Labels, Task, TaskSource, joined

LONGEST_LIST = 60
"""Letters of the list of merged classes in the name of a task; more are only counted."""


def altered(
    source: TaskSource,
    *,
    label_noise: float = 0.0,
    classes: Sequence[Sequence[int]] | None = None,
    pool: int = 1,
    shape: Sequence[int] | None = None,
) -> TaskSource:
    """Alter every draw of a task, in this order: classes, label noise, shape, pooling.

    Args:
        source: seed -> Task.
        label_noise: Share of the training and of the validation labels that are replaced by one of the
            other classes, each as likely; which, the data seed draws. Test labels stay as they are.
        classes: For each new class the old labels that it is made of. Points of labels that are not
            named are left out of all parts.
        pool: Images are averaged over squares of so many pixels a side.
        shape: Each input takes this shape, such as [1, 8, 8] for 64 numbers.

    Returns:
        seed -> Task, with a name that says what was done and, unless nothing was, no spec.

    Raises:
        InputError: A value is out of range; from the source, also where it does not fit the task.
    """
    groups = None if classes is None else [[*map(int, group)] for group in classes]
    sides = None if shape is None else tuple(map(int, shape))
    if not 0 <= label_noise <= 1:
        raise InputError(f"label_noise = {label_noise} is out of range.", "Choose 0 .. 1.")
    if pool < 1:
        raise InputError(f"pool = {pool} is out of range.", "Choose 1 (as it is) or more.")
    if sides is not None and (not sides or min(sides) < 1):
        raise InputError(
            f"shape = {list(sides)} is no shape of an input.",
            "Give whole numbers such as [1, 8, 8].",
        )
    if groups is not None:
        _check_groups(groups)

    parts = []
    if groups is not None:
        listed = ", ".join("+".join(map(str, group)) for group in groups)
        parts.append(
            f"classes {listed}" if len(listed) <= LONGEST_LIST else f"{len(groups)} merged classes"
        )
    if label_noise:
        parts.append(f"{100 * label_noise:g} % label noise")
    if sides is not None:
        parts.append(f"as {'x'.join(map(str, sides))}")
    if pool > 1:
        parts.append(f"pooled {pool}x{pool}")
    if not parts:
        return source

    def draw(seed: int) -> Task:
        task = source(seed)
        notes: tuple[str, ...] = ()
        name = ", ".join([task.name, *parts])
        if groups is not None:
            task = _merged(task, groups)
        if label_noise:
            rng = np.random.default_rng([SPLIT_SEED, checked_seed(seed), *b"label noise"])
            y_train, y_val = (
                _noisy(y, task.n_classes, label_noise, rng) for y in (task.y_train, task.y_val)
            )
            task = replace(task, y_train=y_train, y_val=y_val)
            notes = (
                f"{100 * label_noise:g} % of the training and validation labels were replaced by "
                "other classes; test labels are as they were.",
            )
        if sides is not None:
            task = _with_inputs(task, lambda x: _shaped(task.name, x, sides))
        if pool > 1:
            task = _with_inputs(task, lambda x: _pooled(task.name, x, pool))
        return joined(replace(task, name=name, spec=None, notes=(*task.notes, *notes)))

    return draw


def _check_groups(groups: list[list[int]]) -> None:
    remedy = "Give one list of old labels for each new class, such as [[0, 2], [1, 3]]."
    if len(groups) < 2 or not all(groups):
        raise InputError("classes has fewer than two lists, or an empty one.", remedy)
    labels = [label for group in groups for label in group]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise InputError(f"classes names the label {twice[0]} twice.", remedy)
    if min(labels) < 0:
        raise InputError(f"classes names the label {min(labels)}.", "Labels are 0 .. K-1.")


def _merged(task: Task, groups: list[list[int]]) -> Task:
    largest = max(label for group in groups for label in group)
    if largest >= task.n_classes:
        raise InputError(
            f"classes names the label {largest}, and the labels of task {task.name!r} are "
            f"0 .. {task.n_classes - 1}.",
            "Name labels that it has.",
        )
    new = np.full(task.n_classes, -1, dtype=np.int64)
    for label, group in enumerate(groups):
        new[group] = label

    def part(x: Array, y: Labels) -> tuple[Array, Labels]:
        kept = new[y] >= 0
        # Not copied where nothing is left out: all seeds' tasks may share one test part.
        return (x if kept.all() else x[kept]), new[y][kept]

    (x_train, y_train), (x_val, y_val), (x_test, y_test) = (
        part(task.x_train, task.y_train), part(task.x_val, task.y_val),
        part(task.x_test, task.y_test),
    )  # fmt: skip
    return replace(
        task, n_classes=len(groups), x_train=x_train, y_train=y_train, x_val=x_val, y_val=y_val,
        x_test=x_test, y_test=y_test,
    )  # fmt: skip


def _noisy(y: Labels, n_classes: int, share: float, rng: np.random.Generator) -> Labels:
    which = rng.choice(len(y), round(share * len(y)), replace=False)
    noisy = y.copy()
    noisy[which] = (y[which] + rng.integers(1, n_classes, len(which))) % n_classes
    return noisy


def _with_inputs(task: Task, change: Callable[[Array], Array]) -> Task:
    return replace(
        task, x_train=change(task.x_train), x_val=change(task.x_val), x_test=change(task.x_test)
    )


def _shaped(name: str, x: Array, shape: tuple[int, ...]) -> Array:
    size = math.prod(x.shape[1:])
    if math.prod(shape) != size:
        raise InputError(
            f"shape = {list(shape)} holds {math.prod(shape)} numbers, and an input of task {name!r} "
            f"{size}.",
            "Give a shape of as many.",
        )
    return x.reshape(len(x), *shape)


def _pooled(name: str, x: Array, pool: int) -> Array:
    if x.ndim not in (3, 4):
        raise InputError(
            f"The inputs of task {name!r} have the shape {list(x.shape[1:])}: they are no images, and "
            "can't be pooled.",
            "Leave pool out, or give the shape of the images that they are, such as [1, 8, 8].",
        )
    *rest, height, width = x.shape
    if height % pool or width % pool:
        raise InputError(
            f"pool = {pool} does not divide the images of {height} x {width} of task {name!r}.",
            "Choose one that divides height and width.",
        )
    cut = x.reshape(*rest, height // pool, pool, width // pool, pool)
    pooled: Array = cut.mean((-3, -1), dtype=np.float64).astype(np.float32)
    return pooled
