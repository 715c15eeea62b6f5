"""A task by name, by the path of a file or a folder, or by the name of the user's function."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fls_bench.errors import FlsBenchError, InputError
from fls_bench.schema import TaskSpec
from fls_bench.tasks.arrays import arrays_source, npz_source
from fls_bench.tasks.bundled import breast_cancer, diabetes, digits, wine
from fls_bench.tasks.folders import folder_source
from fls_bench.tasks.generated import mixture, noise, product_of_signs
from fls_bench.tasks.images import cifar10, cifar100, fashion_mnist, mnist
from fls_bench.tasks.latent import latent_images
from fls_bench.tasks.photos import photo_patches
from fls_bench.tasks.signals import mnist1d
from fls_bench.tasks.sprites import dsprites
from fls_bench.tasks.synthetic import (
    clusters,
    hastie,
    piecewise,
    quantiles,
    single_index,
    spirals,
    teacher,
    waveform,
    xor_mixture,
)
from fls_bench.tasks.tables import table_source
from fls_bench.tasks.task import Task, TaskSource

TASKS: Mapping[str, Callable[..., Task]] = {
    "digits": digits,
    "breast_cancer": breast_cancer,
    "wine": wine,
    "diabetes": diabetes,
    "photo_patches": photo_patches,
    "mixture": mixture,
    "product_of_signs": product_of_signs,
    "noise": noise,
    "teacher": teacher,
    "single_index": single_index,
    "clusters": clusters,
    "quantiles": quantiles,
    "hastie": hastie,
    "waveform": waveform,
    "xor_mixture": xor_mixture,
    "spirals": spirals,
    "piecewise": piecewise,
    "latent_images": latent_images,
    "fashion_mnist": fashion_mnist,
    "mnist": mnist,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "dsprites": dsprites,
    "mnist1d": mnist1d,
}

FILES: Mapping[str, Callable[..., TaskSource]] = {
    ".npz": npz_source,
    ".csv": table_source,
    ".parquet": table_source,
}
"""Readers by the end of a file's name."""

_TYPES: Mapping[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,)}


def task_source(
    name: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    code: Callable[[str], Any] | None = None,
) -> TaskSource:
    """Find a task, and check its arguments.

    Args:
        name: A key of ``TASKS``; the path of an .npz, .csv or .parquet file, or of a folder of
            images; or ``package.module:function``.
        arguments: Plain values for the task's keyword parameters.
        code: Imports ``package.module:function``. Given only where the user typed the name: without
            it, as for names in files, no code is imported.

    Returns:
        seed -> Task.

    Raises:
        InputError: Unknown name, unknown argument or wrong type; bad file; code without ``code``.
    """
    path = Path(name)
    reader = FILES.get(path.suffix.lower())
    if name in TASKS:
        return named_source(name, arguments)
    if reader is None and os.path.isdir(name):  # "no" where pathlib raises
        reader = folder_source
    if reader is not None:
        return reader(path, **_checked_arguments(name, reader, arguments))
    if ":" not in name:
        return named_source(name, arguments)
    if code is None:
        raise InputError(
            f"There is no task named {name[:80]!r}: it looks like code to import, which is done only "
            "where you name it on the command line yourself.",
            "Name a task that comes with fls-bench, or a file of data.",
        )
    given = dict(arguments or {})
    n_train = given.pop("n_train", None)
    if given:
        raise InputError(
            f"Task {name!r} has no argument {next(iter(given))[:60]!r}.", "It takes n_train only."
        )
    return function_source(name, code(name), n_train)


def named_source(name: str, arguments: Mapping[str, Any] | None = None) -> TaskSource:
    """Find a task that comes with fls-bench; no file of the user's is opened, no code imported.

    Args:
        name: A key of ``TASKS``.
        arguments: Plain values for the task's keyword parameters.

    Returns:
        seed -> Task.

    Raises:
        InputError: Unknown name, unknown argument or wrong type.
    """
    if name not in TASKS:
        raise InputError(
            f"There is no task named {name[:80]!r}.",
            f"Tasks are {', '.join(TASKS)}; or give an .npz, .csv or .parquet file, or a folder of "
            "images.",
        )
    function = TASKS[name]
    checked = _checked_arguments(name, function, arguments)
    return lambda seed: function(seed, **checked)


def _checked_arguments(
    name: str, function: Callable[..., Any], arguments: Mapping[str, Any] | None
) -> dict[str, Any]:
    # The first parameter is the seed, or the path.
    parameters = dict(list(inspect.signature(function).parameters.items())[1:])
    for key, value in (arguments or {}).items():
        if key not in parameters:
            raise InputError(
                f"Task {name!r} has no argument {key[:60]!r}.",
                f"Its arguments are {', '.join(parameters)}.",
            )
        wanted = str(parameters[key].annotation).partition(" ")[0]  # "int" of "int | None"
        if isinstance(value, bool) or not isinstance(value, _TYPES[wanted]):
            article = "an" if wanted == "int" else "a"
            raise InputError(
                f"Task {name!r}: {key} = {value!r} is not {article} {wanted}.", "Correct its type."
            )
    return dict(arguments or {})


def load_task(spec: TaskSpec) -> Task:
    """Load a task by its spec, and check that it is the data that the spec's author had.

    Args:
        spec: Name, arguments and seed. Only tasks that come with fls-bench are loaded: a spec may
            come out of a file, which may not choose what is opened or imported.

    Returns:
        The task.

    Raises:
        InputError: As ``named_source``, or the data differ from the fingerprint.
    """
    task = named_source(spec.name, spec.arguments)(spec.seed)
    if spec.fingerprint is not None and spec.fingerprint != task.fingerprint:
        raise InputError(
            f"Task {spec.name!r} is not the data that the file was made with (its fingerprint "
            "differs).",
            "Install the versions that the file names, or give the data with --data FILE.npz.",
        )
    return task


# --- the user's function ----------------------------------------------------------------------


def function_source(name: str, function: Any, n_train: int | None = None) -> TaskSource:
    """Turn a function of the user's into a task source.

    A function with a parameter is called with each seed, one without once. It returns a ``Task``;
    arrays by name (as in an .npz); ``(x, y)``; or ``(x, y)`` of training, test and, if there are
    three, validation.

    Args:
        name: What the user called it.
        function: The function.
        n_train: Training points per draw, where it returns arrays.

    Returns:
        seed -> Task.

    Raises:
        InputError: It is no function, fails, or returns something else.
    """
    if not callable(function):
        raise InputError(
            f"{name!r} is of type {type(function).__name__}, not a function.",
            "Name a function seed -> fls_bench.Task.",
        )
    try:
        takes_seed = bool(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        takes_seed = True

    def called(*arguments: int) -> TaskSource:
        try:
            returned = function(*arguments)
        except FlsBenchError:
            raise
        except Exception as error:
            text = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300].rstrip(".: ")
            raise InputError(f"{name!r} failed with {text}.", "Correct it.") from error
        if isinstance(returned, Task):
            if n_train is not None:
                raise InputError(
                    f"{name!r} returns a Task, whose training points it chooses itself.",
                    "Leave out n_train.",
                )
            return lambda _: returned
        return arrays_source(name, _by_name(name, returned), n_train, TaskSpec(name=name))

    if not takes_seed:
        return called()

    def source(seed: int) -> Task:
        task = called(seed)(seed)
        return task if task.spec is None else replace(task, fixed_test=False)

    return source


def _by_name(name: str, returned: Any) -> Mapping[str, Any]:
    if isinstance(returned, Mapping):
        return returned
    if isinstance(returned, tuple | list):
        pairs = [tuple(one) if isinstance(one, tuple | list) else one for one in returned]
        if len(pairs) in (2, 3) and all(isinstance(one, tuple) and len(one) == 2 for one in pairs):
            parts = ("train", "test", "val")[: len(pairs)]
            return {
                f"{axis}_{part}": np.asarray(values)
                for part, pair in zip(parts, pairs, strict=True)
                for axis, values in zip("xy", pair, strict=True)
            }
        if len(returned) == 2:
            return {"x": np.asarray(returned[0]), "y": np.asarray(returned[1])}
    raise InputError(
        f"{name!r} returned {type(returned).__name__}, which is no data.",
        "Return a fls_bench.Task, (x, y), ((x, y), (x, y)) of training and test, or arrays by name.",
    )
