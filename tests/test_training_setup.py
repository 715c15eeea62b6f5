"""What a setup refuses, and how one is found by the name that the user gave."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from labels import label
from torch import nn

from fls_bench.errors import InputError
from fls_bench.schema import (
    FixedSteps,
    LrRule,
    Sgd,
    TargetAccuracy,
    TargetLoss,
    ValidationLoss,
)
from fls_bench.tasks import Task, make_task, task_source
from fls_bench.training_setup import TrainingSetup, import_object, import_setup


def fixed_task() -> Task:
    x, y = np.eye(2, dtype=np.float32)[np.arange(60) % 2], np.arange(60) % 2
    return make_task("fixed", (x, y), (x, y))


def setup(**changes: Any) -> TrainingSetup:
    return TrainingSetup(**{"make_model": lambda: nn.Linear(2, 2), "task": fixed_task(), **changes})


# --- what a setup refuses -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"output_multiplier": 0}, "output_multiplier = 0 must be > 0"),
        ({"output_multiplier": -1.0}, "output_multiplier"),
        ({"output_multiplier": float("nan")}, "output_multiplier"),
        ({"output_multiplier": float("inf")}, "output_multiplier"),
        ({"output_multiplier": "2^-3"}, "output_multiplier"),
        ({"init_scale": 0.0}, "init_scale"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": 2.5}, "batch_size"),
        ({"batch_size": True}, "batch_size"),
        ({"make_model": "a net"}, "make_model is not callable"),
        ({"task": "digits"}, "neither a Task nor a function"),
        ({"loss": "hinge"}, "loss = 'hinge' is unknown"),
        ({"axis": "c"}, "axis = 'c' is unknown"),
        ({"multiplier_route": "inside"}, "multiplier_route = 'inside' is unknown"),
        ({"optimizer": "sgd"}, "optimizer is not an Sgd"),
        ({"stop": 0.1}, "stop is not a TargetLoss, TargetAccuracy, ValidationLoss or FixedSteps"),
        ({"lr_rule": "homogeneous"}, "lr_rule is not an LrRule or None"),
    ],
    ids=label,
)
def test_values_that_no_training_could_use_are_refused(
    changes: dict[str, Any], problem: str
) -> None:
    with pytest.raises(InputError, match=problem):
        setup(**changes)


def test_values_of_every_kind_that_training_uses_are_taken() -> None:
    setup(
        loss="logistic", axis="init_scale", multiplier_route="factory", optimizer=Sgd(momentum=0.9),
        stop=TargetAccuracy(), lr_rule=LrRule(name="calibrated", depth=3), output_multiplier=2,
    )  # fmt: skip
    setup(stop=TargetLoss(), task=task_source("wine"))
    setup(stop=ValidationLoss())
    setup(stop=FixedSteps(7))


# --- data -----------------------------------------------------------------------------------


def test_a_fixed_task_is_every_seeds_and_a_source_follows_the_seed() -> None:
    fixed = setup()
    assert fixed.task_for(0) is fixed.task_for(7) is fixed.task
    drawn = setup(task=task_source("wine"))
    assert drawn.task_for(3).fingerprint == task_source("wine")(3).fingerprint
    assert drawn.task_for(3).fingerprint != drawn.task_for(4).fingerprint


def test_a_source_that_gives_something_else_is_refused() -> None:
    with pytest.raises(InputError, match="returned tuple, not a Task"):
        setup(task=lambda seed: (seed,)).task_for(0)


# --- the multiplier's route -----------------------------------------------------------------


def plain() -> nn.Module:
    return nn.Linear(2, 2)


def wired(output_multiplier: float = 1.0, seed: int = 0) -> nn.Module:
    return nn.Linear(2, 2)


class Wired(nn.Linear):
    def __init__(self, *, output_multiplier: float) -> None:
        super().__init__(2, 2)


@pytest.mark.parametrize(
    ("builder", "asked", "route"),
    [
        (plain, "auto", "wrapper"),
        (wired, "auto", "factory"),
        (Wired, "auto", "factory"),
        (wired, "wrapper", "wrapper"),
        (plain, "factory", "factory"),
        (dict, "auto", "wrapper"),  # a builder that tells no signature
    ],
)
def test_the_multiplier_goes_where_the_builder_takes_it(
    builder: Any, asked: str, route: str
) -> None:
    made = setup(make_model=builder, multiplier_route=asked)
    assert made.route == route
    assert ("output_multiplier" in made.builder_parameters) == (builder in (wired, Wired))


# --- by name --------------------------------------------------------------------------------

MODULE = """
from fls_bench import InputError, TrainingSetup, task_source
from torch import nn

setup = TrainingSetup(make_model=lambda: nn.Linear(13, 3), task=task_source("wine"))

def make():
    return setup

def fails():
    raise KeyError("a\\nb")

def refuses():
    raise InputError("My own problem.", "My own remedy.")

def needs(argument):
    return setup

def other():
    return 3

class Space:
    inner = setup

number = 3
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on Python's path, as with PYTHONPATH."""
    (tmp_path / "users_setup.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        if name.startswith("users_"):
            del sys.modules[name]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("name", ["setup", "make", "Space.inner"])
def test_a_setup_or_a_function_that_returns_one_is_found(name: str) -> None:
    found = import_setup(f"users_setup:{name}")
    assert isinstance(found, TrainingSetup)
    assert found is import_object("users_setup:setup", "--setup")


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("reference", "problem"),
    [
        ("users_setup", "not of the form package.module:name"),
        (":setup", "not of the form"),
        ("users_setup:", "not of the form"),
        ("users_setup.py:setup", "not of the form|no module named"),
        ("../users_setup:setup", "not of the form"),
        ("users_setup:missing", "has no 'missing'"),
        ("users_setup:Space.missing", "has no 'Space.missing'"),
        ("users_setup:number", "is a int|gives a int"),
        ("users_setup:other", "is a int|gives a int"),
        ("users_setup:fails", "failed with KeyError"),
        ("users_setup:needs", "failed with TypeError"),
        ("users_setup:refuses", "My own problem"),
        ("users_nowhere:setup", "no module named 'users_nowhere'"),
    ],
)
def test_what_is_no_setup_is_refused(reference: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem) as caught:
        import_setup(reference)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("import users_missing", "no module named 'users_missing'"),
        ("1 / 0", "failed with ZeroDivisionError"),
        ("raise SystemExit('bye')", "failed with SystemExit"),
        ("def broken(:", "failed with SyntaxError"),
    ],
)
def test_a_module_that_can_not_be_imported_is_refused(
    text: str, problem: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "users_broken.py").write_text(text)
    monkeypatch.chdir(folder)
    with pytest.raises(InputError, match=problem) as caught:
        import_setup("users_broken:setup")
    assert "--pythonpath ." not in str(caught.value), "the module itself was found"


def test_a_module_in_the_current_folder_is_not_imported_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "users_here.py").write_text("raise SystemExit('executed')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", ".")])
    with pytest.raises(InputError, match=r"--pythonpath \."):
        import_setup("users_here:setup")
