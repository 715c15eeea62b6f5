"""fls-bench: is a training setup over-aligned, near-optimal or over-fitted?

The public names below are loaded when they are first used: importing the package loads no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0.dev0"

if TYPE_CHECKING:
    from fls_bench.bundle import load_bundle, save_bundle, state_digest
    from fls_bench.errors import FlsBenchError, InputError
    from fls_bench.recorder import Recorder, record
    from fls_bench.schema import (
        Adam,
        AdamW,
        Cosine,
        FixedSteps,
        LrRule,
        PerStep,
        Recipe,
        Report,
        Sgd,
        StepDecay,
        TargetAccuracy,
        TargetLoss,
        ValidationLoss,
    )
    from fls_bench.tasks import Task, make_task, task_source
    from fls_bench.training_setup import Custom, TrainingSetup
    from fls_bench.watching import Watch

_PUBLIC = {
    "Adam": "schema",
    "AdamW": "schema",
    "Cosine": "schema",
    "Custom": "training_setup",
    "FixedSteps": "schema",
    "FlsBenchError": "errors",
    "InputError": "errors",
    "LrRule": "schema",
    "PerStep": "schema",
    "Recipe": "schema",
    "Recorder": "recorder",
    "Report": "schema",
    "Sgd": "schema",
    "StepDecay": "schema",
    "TargetAccuracy": "schema",
    "TargetLoss": "schema",
    "Task": "tasks",
    "TrainingSetup": "training_setup",
    "ValidationLoss": "schema",
    "Watch": "watching",
    "load_bundle": "bundle",
    "make_task": "tasks",
    "record": "recorder",
    "save_bundle": "bundle",
    "state_digest": "bundle",
    "task_source": "tasks",
}

__all__ = [
    "Adam",
    "AdamW",
    "Cosine",
    "Custom",
    "FixedSteps",
    "FlsBenchError",
    "InputError",
    "LrRule",
    "PerStep",
    "Recipe",
    "Recorder",
    "Report",
    "Sgd",
    "StepDecay",
    "TargetAccuracy",
    "TargetLoss",
    "Task",
    "TrainingSetup",
    "ValidationLoss",
    "Watch",
    "load_bundle",
    "make_task",
    "record",
    "save_bundle",
    "state_digest",
    "task_source",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
