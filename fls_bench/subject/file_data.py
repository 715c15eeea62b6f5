"""The data that a checkpoint is measured on: are they those that it was trained on?"""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np

from fls_bench.errors import InputError
from fls_bench.schema import BundleHeader, Finding
from fls_bench.subject.given import Given
from fls_bench.tasks import NO_VALIDATION, ONLY_WHOLE, Task, TaskSource
from fls_bench.training import user_code
from fls_bench.training_setup import TrainingSetup


def file_task(
    setup: TrainingSetup, header: BundleHeader | None, given: Given, source: TaskSource | None
) -> Task:
    """The data that a file is measured on, where they do not lie in it.

    Args:
        setup: Brings data where the user names none beside the file.
        header: May note which draw the file was trained on.
        given: What the user gives.
        source: The data that the user names, opened.

    Returns:
        The task; its training part is what the net was trained on, as far as that is known.

    Raises:
        InputError: The data don't say what the net was trained on, or can't be had.
    """
    seed = draw_of(header, given)
    with user_code("The setup's task function failed", "Correct the function."):
        task = setup.task_for(seed) if source is None else source(seed)
    # Arrays can say which points are which; of a table or a folder it is only warned.
    arrays = ":" in str(given.data) or str(given.data).lower().endswith(".npz")
    if arrays and any(note.startswith(ONLY_WHOLE) for note in task.notes):
        raise InputError(
            f"The data {given.data} hold x and y alone, so it is not known which points the net was "
            "trained on.",
            "Give x_train, y_train, x_test and y_test (and x_val, y_val if there were any), with "
            "inputs scaled as the net saw them.",
        )
    noted = header.task.fingerprint if header is not None and header.task is not None else None
    cut = any(note.startswith(NO_VALIDATION) for note in task.notes)
    return _rejoined(task) if source is not None and cut and noted != task.fingerprint else task


def _rejoined(task: Task) -> Task:
    """All points that the net was trained on, where a part of them was cut off to validate.

    That part still serves to choose the strength of probes, on points that the net has seen.
    """
    note = (
        f"No validation part was given: {len(task.y_val)} of the training points, which the net has "
        "seen, choose the strength of probes."
    )
    return replace(
        task,
        x_train=np.concatenate([task.x_train, task.x_val]),
        y_train=np.concatenate([task.y_train, task.y_val]),
        notes=(*(one for one in task.notes if not one.startswith(NO_VALIDATION)), note),
    )


def data_findings(task: Task, header: BundleHeader | None, given: Given) -> list[Finding]:
    """Whether these are the data of training, as far as anything tells.

    Args:
        task: From ``file_task``.
        header: May note the fingerprint of its data.
        given: What the user gives.

    Returns:
        The findings.
    """
    findings = [Finding(code="data", status="info", text=note) for note in task.notes]
    noted = header.task if header is not None else None
    if noted is not None and noted.fingerprint is not None:
        if noted.fingerprint == task.fingerprint:
            text = "The data are those of training: they have the fingerprint that the file notes."
            return [*findings, Finding(code="data_proved", status="info", text=text)]
        text = (
            f"The data are not those that the file was trained on, {noted.name!r}: their fingerprint "
            "differs (parts, order, scaling or draw)."
        )
        return [*findings, Finding(code="data_differ", status="problem", text=text)]
    if given.setup is not None and given.data is None:
        return findings + _draw_findings(header, given)
    if given.data is None or ":" in given.data or str(given.data).lower().endswith(".npz"):
        return findings
    text = (
        f"The data {os.path.basename(str(given.data))} were scaled and split here. If the net was "
        "trained on other points, or on inputs scaled otherwise, what is measured on them is wrong: an "
        ".npz with x_train ... y_test as the net saw them leaves no doubt."
    )
    return [*findings, Finding(code="data_prepared_here", status="warning", text=text)]


def draw_of(header: BundleHeader | None, given: Given) -> int:
    """Which draw of its data a file was trained on: as the user says, as the file notes, or 0."""
    noted = header.recipe.data_seed if header is not None and header.recipe is not None else 0
    return noted if given.data_seed is None else given.data_seed


def _draw_findings(header: BundleHeader | None, given: Given) -> list[Finding]:
    """Whether it is known which points of a setup's task the file was trained on."""
    setup = given.setup
    known = given.data_seed is not None or (header is not None and header.recipe is not None)
    if setup is None or known or isinstance(setup.task, Task):
        return []
    if len({setup.task_for(seed).fingerprint for seed in (0, 1)}) == 1:
        return []
    text = (
        "The setup draws its training points by seed, and it is not known which draw the file was "
        "trained on: it was measured on draw 0. --data-seed says another, --data gives the very points."
    )
    return [Finding(code="draw_not_known", status="warning", text=text)]
