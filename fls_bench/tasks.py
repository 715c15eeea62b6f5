"""Data by name, and the user's own: arrays in three parts, redrawn with a seed.

What is chosen (c*, learning rates) is chosen on training or validation data; regime and gain are
measured on a test part that chose nothing. Finite data keep one fixed test part, and the seed
redraws training and validation from the rest; generated data are redrawn whole.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fls_bench.errors import InputError
from fls_bench.schema import TaskSpec

Array = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

SPLIT_SEED = 20260200827
"""Fixes which points of a finite data set are test points, for every seed and every user."""

MIN_PER_PART = 10

MAX_NUMBERS = 200_000_000
"""Most input values of generated data, all parts together (0.8 GB)."""


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
        majority = np.bincount(self.y_train, minlength=self.n_classes).argmax()
        return float(np.mean(self.y_test != majority))


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
    x_train, y_train = _checked(name, "training", *train)
    x_test, y_test = _checked(name, "test", *test)
    if validation is None:
        order = np.random.default_rng(seed).permutation(len(y_train))
        num_val = len(order) // 5
        val, rest = order[:num_val], order[num_val:]
        x_val, y_val = x_train[val], y_train[val]
        x_train, y_train = x_train[rest], y_train[rest]
        notes = (*notes, _no_validation(num_val, len(order)))
    else:
        x_val, y_val = _checked(name, "validation", *validation)
    for part, y in (("training", y_train), ("validation", y_val), ("test", y_test)):
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
    if n_classes is None:
        n_classes = int(y_train.max()) + 1
        empty = n_classes - len(np.unique(y_train))
        if empty:
            text = f"{empty} of the classes 0 .. {n_classes - 1} never occur among the training labels."
            notes = (*notes, text)
    parts = (
        ("training", x_train, y_train), ("validation", x_val, y_val), ("test", x_test, y_test),
    )  # fmt: skip
    for part, x, y in parts:
        if y.max() >= n_classes:
            raise InputError(
                f"Task {name!r}: the {part} label {int(y.max())} is out of range; the classes are "
                f"0 .. {n_classes - 1}.",
                "Number the classes 0 .. K-1 and let the largest occur in the training part.",
            )
        if x.shape[1:] != x_train.shape[1:]:
            raise InputError(
                f"Task {name!r}: {part} inputs have shape {x.shape[1:]}, training inputs "
                f"{x_train.shape[1:]}.",
                "Give all parts the same input shape.",
            )
    return Task(
        name, n_classes, x_train, y_train, x_val, y_val, x_test, y_test, spec, fixed_test, notes
    )


def _no_validation(num_val: int, num: int) -> str:
    return f"No validation part was given: {num_val} of the {num} training points serve."


def _checked(name: str, part: str, x: Any, y: Any) -> tuple[Array, Labels]:
    place = f"Task {name!r}, {part} part"
    try:
        x, y = np.asarray(x), np.asarray(y)
    except ValueError:
        raise InputError(
            f"{place}: its rows have different lengths.", "Give arrays of one shape."
        ) from None
    if not (np.issubdtype(x.dtype, np.number) or x.dtype == bool) or np.iscomplexobj(x):
        raise InputError(f"{place}: inputs have type {x.dtype}.", "Give real numbers.")
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
        y = y.clip(-1e6, 1e6).astype(np.int64)
    if not (np.issubdtype(y.dtype, np.integer) or y.dtype == bool):
        raise InputError(f"{place}: labels have type {y.dtype}.", "Give whole numbers 0 .. K-1.")
    y = y.astype(np.int64)
    if y.min() < 0 or y.max() >= 100_000:
        raise InputError(
            f"{place}: labels reach from {y.min()} to {y.max()}.",
            "Number the classes 0 .. K-1.",
        )
    return x, y


# --- finite data ----------------------------------------------------------------------------


@lru_cache(maxsize=4)
def _sklearn_arrays(name: str) -> tuple[Array, Labels]:
    from sklearn import datasets

    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    return x.astype(np.float32), y.astype(np.int64)


def _checked_seed(seed: int) -> int:
    if not 0 <= seed < 2**32:
        raise InputError(f"The data seed {seed} is out of range.", "Choose 0 .. 2^32 - 1.")
    return seed


def _part(
    y: Labels, pool: npt.NDArray[np.intp], size: int, seed: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Draw ``size`` points of a pool, each class in its share where it can be; and the others."""
    from sklearn.model_selection import train_test_split

    classes, counts = np.unique(y[pool], return_counts=True)
    shared = counts.min() >= 2 and min(size, len(pool) - size) >= len(classes)
    labels = y[pool] if shared else None
    drawn, others = train_test_split(pool, train_size=size, random_state=seed, stratify=labels)
    return drawn, others


def _draw(
    name: str,
    x: Array,
    y: Labels,
    n_train: int,
    seed: int,
    spec: TaskSpec | None,
    num_test: int,
    notes: tuple[str, ...] = (),
) -> Task:
    """Fixed test part, then n_train training points drawn by seed; the rest validates."""
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
    pool, test = _part(y, np.arange(len(y)), len(y) - num_test, SPLIT_SEED % 2**32)
    train, val = _part(y, pool, n_train, _checked_seed(seed))
    # Standardised by training and validation points together: no test point is looked at, and all
    # seeds share one input space.
    mean, std = x[pool].mean(0), x[pool].std(0)
    z = ((x - mean) / np.where(std > 0, std, 1)).astype(np.float32)
    return make_task(
        name, (z[train], y[train]), (z[test], y[test]), (z[val], y[val]),
        n_classes=int(y.max()) + 1, spec=spec, notes=notes,
    )  # fmt: skip


def _bundled(name: str, n_train: int, seed: int, num_test: int) -> Task:
    x, y = _sklearn_arrays(name)
    spec = TaskSpec(name=name, arguments={"n_train": n_train}, seed=_checked_seed(seed))
    return _draw(name, x, y, n_train, seed, spec, num_test)


def digits(seed: int, *, n_train: int = 150) -> Task:
    """Handwritten digits of scikit-learn: 1,797 x 64, 10 classes, standardised."""
    return _bundled("digits", n_train, seed, num_test=1000)


def breast_cancer(seed: int, *, n_train: int = 100) -> Task:
    """Breast cancer of scikit-learn: 569 x 30, 2 classes, standardised."""
    return _bundled("breast_cancer", n_train, seed, num_test=250)


def wine(seed: int, *, n_train: int = 50) -> Task:
    """Wine of scikit-learn: 178 x 13, 3 classes, standardised."""
    return _bundled("wine", n_train, seed, num_test=100)


# --- generated data -------------------------------------------------------------------------


def mixture(
    seed: int,
    *,
    n_train: int = 20,
    input_dim: int = 100,
    kappa: float = 1.0,
    sigma: float = 0.3,
    n_test: int = 20_000,
    n_val: int = 5_000,
) -> Task:
    """Two Gaussian classes, x = kappa·y·s + sigma·z (YHL section 5).

    The direction s is the first axis: the law of the net's weights is rotation invariant, so this
    loses nothing. Bayes error Phi(-kappa/sigma). Everything is redrawn with the seed.
    """
    arguments = {
        "n_train": n_train, "input_dim": input_dim, "kappa": kappa, "sigma": sigma,
        "n_test": n_test, "n_val": n_val,
    }  # fmt: skip
    if not sigma > 0:
        raise InputError(f"sigma = {sigma} must be > 0.", "Give a positive noise level.")

    def draw(rng: np.random.Generator, n: int) -> tuple[Array, Labels]:
        y = rng.permutation(np.arange(n) % 2)
        x = sigma * rng.standard_normal((n, input_dim), dtype=np.float32)
        x[:, 0] += kappa * (2 * y - 1)
        return x, y.astype(np.int64)

    return _generated("mixture", arguments, seed, draw)


def product_of_signs(
    seed: int,
    *,
    n_train: int = 400,
    input_dim: int = 20,
    order: int = 2,
    n_test: int = 20_000,
    n_val: int = 5_000,
) -> Task:
    """Label = sign of the product of the first ``order`` of ``input_dim`` Gaussians (parity)."""
    arguments = {
        "n_train": n_train, "input_dim": input_dim, "order": order,
        "n_test": n_test, "n_val": n_val,
    }  # fmt: skip
    if not 1 <= order <= input_dim:
        raise InputError(
            f"order = {order} must lie between 1 and input_dim = {input_dim}.", "Change either."
        )

    def draw(rng: np.random.Generator, n: int) -> tuple[Array, Labels]:
        x = rng.standard_normal((n, input_dim), dtype=np.float32)
        return x, (np.prod(np.sign(x[:, :order]), axis=1) > 0).astype(np.int64)

    return _generated("product_of_signs", arguments, seed, draw)


def noise(
    seed: int,
    *,
    n_train: int = 150,
    input_dim: int = 64,
    n_classes: int = 10,
    n_test: int = 2_000,
    n_val: int = 1_000,
) -> Task:
    """Gaussian inputs with random labels: the negative control. R(c) is 1 - 1/K for every c."""
    arguments = {
        "n_train": n_train, "input_dim": input_dim, "n_classes": n_classes,
        "n_test": n_test, "n_val": n_val,
    }  # fmt: skip

    def draw(rng: np.random.Generator, n: int) -> tuple[Array, Labels]:
        y = rng.permutation(np.arange(n) % n_classes)
        return rng.standard_normal((n, input_dim), dtype=np.float32), y.astype(np.int64)

    return _generated("noise", arguments, seed, draw)


def _generated(
    name: str,
    arguments: Mapping[str, Any],
    seed: int,
    draw: Callable[[np.random.Generator, int], tuple[Array, Labels]],
) -> Task:
    for key, low, high in (
        ("n_train", MIN_PER_PART, 1_000_000),
        ("n_test", MIN_PER_PART, 1_000_000),
        ("n_val", MIN_PER_PART, 1_000_000),
        ("input_dim", 1, 100_000),
        ("n_classes", 2, 1_000),
    ):
        value = arguments.get(key, low)
        if not low <= value <= high:
            raise InputError(
                f"Task {name!r}: {key} = {value} is out of range.", f"Choose {low} .. {high}."
            )
    sizes = [int(arguments[key]) for key in ("n_train", "n_val", "n_test")]
    if sum(sizes) * arguments["input_dim"] > MAX_NUMBERS:
        raise InputError(
            f"Task {name!r} would draw {sum(sizes) * arguments['input_dim']:,} numbers; the limit is "
            f"{MAX_NUMBERS:,}.",
            "Choose a smaller input_dim, n_train, n_val or n_test.",
        )
    rng = np.random.default_rng([SPLIT_SEED, _checked_seed(seed)])
    train, validation, test = (draw(rng, size) for size in sizes)
    return make_task(
        name, train, test, validation, n_classes=arguments.get("n_classes", 2),
        spec=TaskSpec(name=name, arguments=dict(arguments), seed=seed), fixed_test=False,
    )  # fmt: skip


TASKS: Mapping[str, Callable[..., Task]] = {
    "digits": digits,
    "breast_cancer": breast_cancer,
    "wine": wine,
    "mixture": mixture,
    "product_of_signs": product_of_signs,
    "noise": noise,
}


def task_source(name: str, arguments: Mapping[str, Any] | None = None) -> TaskSource:
    """Find a task by name, or an ``.npz`` file by path, and check its arguments.

    Args:
        name: A key of ``TASKS``, or the path of an ``.npz`` file.
        arguments: Plain values for the task's keyword parameters.

    Returns:
        seed -> Task.

    Raises:
        InputError: Unknown name, unknown argument or wrong type; bad file.
    """
    arguments = dict(arguments or {})
    if name.endswith(".npz"):
        n_train = arguments.pop("n_train", None)
        if arguments:
            raise InputError(
                f"An .npz task takes n_train only, not {', '.join(arguments)[:80]}.",
                "Leave it out.",
            )
        if not (n_train is None or type(n_train) is int):
            raise InputError(
                f"Task {name!r}: n_train = {n_train!r} is not an int.", "Correct its type."
            )
        return npz_source(Path(name), n_train)
    if name not in TASKS:
        raise InputError(
            f"There is no task named {name[:80]!r}.",
            f"Tasks are {', '.join(TASKS)}, or the path of an .npz file.",
        )
    function = TASKS[name]
    parameters = {
        key: parameter
        for key, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    for key, value in arguments.items():
        if key not in parameters:
            raise InputError(
                f"Task {name!r} has no argument {key[:60]!r}.",
                f"Its arguments are {', '.join(parameters)}.",
            )
        wanted = type(parameters[key].default)
        if isinstance(value, bool) or not isinstance(
            value, (int, float) if wanted is float else wanted
        ):
            raise InputError(
                f"Task {name!r}: {key} = {value!r} is not a {wanted.__name__}.", "Correct its type."
            )
    return lambda seed: function(seed, **arguments)


def load_task(spec: TaskSpec) -> Task:
    """Load a task by its spec, and check that it is the data that the spec's author had.

    Args:
        spec: Name, arguments and seed.

    Returns:
        The task.

    Raises:
        InputError: As ``task_source``, or the data differ from the fingerprint.
    """
    task = task_source(spec.name, spec.arguments)(spec.seed)
    if spec.fingerprint is not None and spec.fingerprint != task.fingerprint:
        raise InputError(
            f"Task {spec.name!r} is not the data that the file was made with (its fingerprint "
            "differs).",
            "Install the versions that the file names, or give the data with --data FILE.npz.",
        )
    return task


# --- the user's arrays ----------------------------------------------------------------------

_PARTS = ("train", "val", "test")


def _read_npz(path: Path) -> dict[str, npt.NDArray[Any]]:
    remedy = "Write it with numpy.savez(x_train=..., y_train=..., x_test=..., y_test=...)."
    if not path.exists():
        raise InputError(f"There is no file {str(path)!r}.", "Check the path.")
    known = {f"{a}_{p}" for a in "xy" for p in _PARTS} | {"x", "y"}
    try:
        with path.open("rb") as stream:  # numpy leaves a file open that it fails to read
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
    kept; without validation data a part of the training points serves, redrawn with the seed.

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
) -> TaskSource:
    """Turn arrays by name (see ``npz_source``) into a task source.

    Args:
        name: For people.
        arrays: ``x``, ``y`` or ``x_train`` .. ``y_test``.
        n_train: Training points per draw, or None.
        spec: Recorded with the task; None for arrays that have no name to load them by.
        n_classes: K where it is known; None: one more than the largest label.

    Returns:
        seed -> Task.

    Raises:
        InputError: Missing arrays, or arrays that ``make_task`` refuses.
    """
    given = set(arrays)
    if {"x", "y"} <= given and not given & {"x_train", "y_train"}:
        x, y = _checked(name, "whole", arrays["x"], arrays["y"])
        num_test = min(1000, int(0.4 * len(y)))
        wanted = (len(y) - num_test) // 2 if n_train is None else n_train
        notes = (
            f"Only x and y were given: {num_test} points are the test part for every seed, and "
            "inputs are standardised by the other points.",
        )
        return lambda seed: _draw(name, x, y, wanted, seed, spec, num_test, notes)
    needed = ["x_train", "y_train", "x_test", "y_test"]
    if given & {"x_val", "y_val"}:
        needed += ["x_val", "y_val"]
    missing = [key for key in needed if key not in given]
    if missing:
        raise InputError(
            f"The data of {name!r} lack {', '.join(missing)}.",
            "Give x and y, or x_train, y_train, x_test, y_test (and x_val, y_val).",
        )
    x, y = _checked(name, "training", arrays["x_train"], arrays["y_train"])
    test = _checked(name, "test", arrays["x_test"], arrays["y_test"])
    validation = _checked(name, "validation", arrays["x_val"], arrays["y_val"]) if (
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
        drawn, others = np.arange(len(y)), np.arange(0)
        if n_train < len(y):
            drawn, others = _part(y, drawn, n_train, _checked_seed(seed))
        notes = () if validation is not None else (_no_validation(len(others), len(y)),)
        return make_task(
            name, (x[drawn], y[drawn]), test, validation or (x[others], y[others]),
            n_classes=n_classes or int(y.max()) + 1, spec=spec, notes=notes,
        )  # fmt: skip

    return source
