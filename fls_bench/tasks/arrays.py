"""A user's arrays, by themselves or in an ``.npz`` file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fls_bench.errors import InputError
from fls_bench.schema import TaskSpec
from fls_bench.tasks.drawing import checked_seed, draw_whole, part_of
from fls_bench.tasks.task import (
    MIN_PER_PART,
    NO_TEST,
    Task,
    TaskSource,
    checked_arrays,
    joined,
    no_validation,
)

_PARTS = ("train", "val", "test")
ONLY_WHOLE = "Only x and y were given"
"""How the note of a task begins whose test part we cut."""


def _read_npz(path: Path) -> dict[str, npt.NDArray[Any]]:
    remedy = "Write it with numpy.savez(x_train=..., y_train=..., x_test=..., y_test=...)."
    if not os.path.exists(path):  # "no" where pathlib raises
        raise InputError(f"There is no file {str(path)!r}.", "Check the path.")
    known = {f"{a}_{p}" for a in "xy" for p in _PARTS} | {"x", "y"}
    try:
        with path.open("rb") as stream:  # numpy leaves a file open that it fails to read
            start = stream.read(6)
            stream.seek(0)
            if not start.startswith((b"PK", b"\x93NUMPY", b"\x80")):
                # numpy takes any other file for a pickle, and says so.
                raise ValueError("it is no numpy archive" if start else "it is empty")
            archive = np.load(stream, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise InputError(f"{str(path)!r} is not an .npz archive.", remedy)
            with archive:
                return {key: archive[key] for key in archive.files if key in known}
    except InputError:
        raise
    except Exception as error:  # a damaged archive fails in zipfile, zlib or numpy, in many ways
        detail = "it holds Python objects" if "allow_pickle" in str(error) else str(error)[:200]
        raise InputError(f"{str(path)!r} can't be read as .npz: {detail}.", remedy) from None


def npz_source(path: Path, n_train: int | None = None) -> TaskSource:
    """Turn a user's ``.npz`` into a task source.

    With ``x``, ``y`` alone, 40 % (at most 1,000) points are a fixed test part. With ``x_train``,
    ``y_train``, ``x_test``, ``y_test``, and ``x_val``, ``y_val`` if you have them, your parts are
    kept; without validation data a part of the training points serves, redrawn with the seed. Without
    test data a trained net can be looked at, but nothing can be swept.

    Args:
        path: An .npz file without Python objects.
        n_train: Training points per draw; None takes all of the training part, or half of the
            points that are not for testing.

    Returns:
        seed -> Task.

    Raises:
        InputError: Missing file or arrays, Python objects in it, or arrays that ``make_task``
            refuses.
    """
    arrays = _read_npz(path)
    return arrays_source(path.stem, arrays, n_train, TaskSpec(name=str(path)))


def arrays_source(
    name: str,
    arrays: Mapping[str, Any],
    n_train: int | None,
    spec: TaskSpec | None,
    n_classes: int | None = None,
    notes: tuple[str, ...] = (),
) -> TaskSource:
    """Turn arrays by name (see ``npz_source``) into a task source.

    Args:
        name: For people.
        arrays: ``x``, ``y`` or ``x_train`` .. ``y_test``.
        n_train: Training points per draw, or None.
        spec: Recorded with the task; None for arrays that have no name to load them by.
        n_classes: K where it is known; None: one more than the largest label.
        notes: Recorded with each task.

    Returns:
        seed -> Task.

    Raises:
        InputError: Missing arrays, or arrays that ``make_task`` refuses.
    """
    given = set(arrays)
    if {"x", "y"} <= given and not given & {"x_train", "y_train"}:
        x, y = checked_arrays(name, "whole", arrays["x"], arrays["y"])
        num_test = min(1000, int(0.4 * len(y)))
        wanted = (len(y) - num_test) // 2 if n_train is None else n_train
        drawn_notes = (
            *notes,
            f"{ONLY_WHOLE}: {num_test} points are the test part for every seed, and "
            "inputs are standardised by the other points.",
        )
        return lambda seed: draw_whole(name, x, y, wanted, seed, spec, num_test, drawn_notes)
    alone = not given & {"x_test", "y_test"}
    needed = ["x_train", "y_train", *([] if alone else ["x_test", "y_test"])]
    if given & {"x_val", "y_val"}:
        needed += ["x_val", "y_val"]
    missing = [key for key in needed if key not in given]
    if missing:
        raise InputError(
            f"The data of {name!r} lack {', '.join(missing)}.",
            "Give x and y, or x_train, y_train, x_test, y_test (and x_val, y_val).",
        )
    x, y = checked_arrays(name, "training", arrays["x_train"], arrays["y_train"])
    test = (x, y) if alone else checked_arrays(name, "test", arrays["x_test"], arrays["y_test"])
    if alone:
        text = f"{NO_TEST}: nothing is measured on points that the net has not seen."
        notes = (*notes, text)
    validation = checked_arrays(name, "validation", arrays["x_val"], arrays["y_val"]) if (
        "x_val" in given
    ) else None  # fmt: skip
    most = len(y) if validation is not None else len(y) - MIN_PER_PART
    if n_train is None:
        n_train = most if validation is not None else len(y) - max(len(y) // 5, MIN_PER_PART)
    if not MIN_PER_PART <= n_train <= most:
        raise InputError(
            f"Task {name!r} can't give {n_train} training points: its training part has {len(y)}"
            + (", and some of them must validate." if validation is None else "."),
            f"Choose n_train between {MIN_PER_PART} and {most}."
            if most >= MIN_PER_PART
            else "Give more data.",
        )

    def source(seed: int) -> Task:
        drawn, others = part_of(y, np.arange(len(y)), n_train, checked_seed(seed))
        x_val, y_val = validation or (x[others], y[others])
        text = () if validation is not None else (no_validation(len(others), len(y)),)
        return joined(
            Task(
                name, n_classes or int(y.max()) + 1, x[drawn], y[drawn], x_val, y_val, *test,
                spec=spec, notes=(*notes, *text),
            )
        )  # fmt: skip

    return source
