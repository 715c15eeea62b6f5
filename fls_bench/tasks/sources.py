"""A task by name or by path."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fls_bench.errors import InputError
from fls_bench.schema import TaskSpec
from fls_bench.tasks.arrays import npz_source
from fls_bench.tasks.bundled import breast_cancer, digits, wine
from fls_bench.tasks.generated import mixture, noise, product_of_signs
from fls_bench.tasks.task import Task, TaskSource

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
