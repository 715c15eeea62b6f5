"""What is judged: a way to make a net, data, and a recipe. It holds callables: never stored."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from fls_bench.errors import FlsBenchError, InputError
from fls_bench.schema import (
    Adam,
    AnyOptimizer,
    ArchitectureSpec,
    Augmentation,
    Axis,
    Loss,
    LrRule,
    MultiplierRoute,
    PerStep,
    RankTerm,
    Sgd,
    Stop,
    TargetLoss,
)
from fls_bench.tasks import Task

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True)
class Custom:
    """An optimizer of your own: no rule is exact for it, rates are calibrated per c.

    Attributes:
        make: Parameter groups, each with its ``lr`` -> a ``torch.optim.Optimizer``.
        lr: The rate at the setup's own output multiplier.
        like: ``sgd`` where a step is proportional to the gradient, ``adam`` where only its direction
            counts: how the first guess of a rate follows c.
    """

    make: Callable[[list[dict[str, Any]]], torch.optim.Optimizer]
    lr: float
    like: Literal["sgd", "adam"] = "sgd"

    def as_known(self) -> AnyOptimizer:
        """The optimizer whose first guesses serve."""
        return Sgd(lr=self.lr) if self.like == "sgd" else Adam(lr=self.lr)


@dataclass(frozen=True)
class TrainingSetup:
    """A model and training setup whose output multiplier can be swept.

    c is relative to the net as its author built it: c = 1 is that net. ``optimizer.lr`` is the rate
    at the setup's own ``output_multiplier``; the rates at others follow from ``lr_rule``.
    Smaller c = larger FLS = toward over-aligned.

    Attributes:
        make_model: ``build(*, output_multiplier=1.0, seed=None) -> nn.Module``; both parameters are
            matched by name and optional. Without ``seed`` torch is seeded around the call.
        task: A task, or seed -> Task, which redraws the training part with the seed.
        loss: ``cross_entropy`` (K logits), ``logistic`` (one logit, two classes) or ``mse`` (K logits
            against one-hot labels, mean over both); batch means.
        label_smoothing: Of the cross-entropy, in training and for the stop; held-out losses are
            without.
        optimizer: ``Sgd``, ``Adam``, ``AdamW`` (with decay, clipping and schedule) or ``Custom``.
        batch_size: Training points per step; the whole set where it is at least n.
        augmentation: Of training images [channels, height, width], drawn per step and seed.
        stop: When training ends: ``TargetLoss`` and ``TargetAccuracy``, looked at after every epoch on
            the whole training part; ``ValidationLoss``, on the validation part; or ``FixedSteps``.
        lr_rule: None: the exact one where the net is measured to have one, else ``calibrated``.
        output_multiplier: c of this setup, > 0.
        multiplier_route: ``wrapper``: logits = c·module(x). ``factory``: the builder is called with
            ``output_multiplier``. ``auto``: factory where the builder has that parameter.
        centered: Whether the net computes c·(f - f_0), f_0 frozen at init.
        init_scale: alpha; all initial parameters are multiplied by it.
        axis: What a sweep varies: the multiplier, or the init scale.
        error: ``plain``, ``balanced`` (mean over classes of the error in each: decides where classes
            are of very different size), or ``auto``: balanced beyond a ratio of 3.
        feature_layer: Name of the layer whose features count as the last; None: the last hidden.
        name: For people.
        rank_term: Penalties on the ranks of hidden layers, for experiments; built-in MLPs only.
        architecture: Set where ``make_model`` builds a built-in net: these train as one batch.
    """

    make_model: Callable[..., nn.Module]
    task: Task | Callable[[int], Task]
    loss: Loss = "cross_entropy"
    label_smoothing: float = 0.0
    optimizer: AnyOptimizer | Custom = field(default_factory=Sgd)
    batch_size: int = 25
    augmentation: tuple[Augmentation, ...] = ()
    stop: Stop = field(default_factory=TargetLoss)
    lr_rule: LrRule | None = None
    output_multiplier: float = 1.0
    multiplier_route: MultiplierRoute = "auto"
    centered: bool = False
    init_scale: float = 1.0
    axis: Axis = "output_multiplier"
    error: Literal["auto", "plain", "balanced"] = "auto"
    feature_layer: str | None = None
    name: str = "setup"
    rank_term: RankTerm | None = None
    architecture: ArchitectureSpec | None = None

    def __post_init__(self) -> None:
        """Refuse values that no training could use.

        Raises:
            InputError: A multiplier or scale that is not > 0, a batch size < 1, a wrong type.
        """
        for label, value in (
            ("output_multiplier", self.output_multiplier),
            ("init_scale", self.init_scale),
        ):
            if not (isinstance(value, (int, float)) and 0 < value < float("inf")):
                raise InputError(f"{label} = {value!r} must be > 0.", "Give a positive number.")
        if not (type(self.batch_size) is int and self.batch_size >= 1):
            raise InputError(
                f"batch_size = {self.batch_size!r} must be a whole number >= 1.", "Correct it."
            )
        for label, choice, choices in (
            ("loss", self.loss, get_args(Loss)),
            ("multiplier_route", self.multiplier_route, get_args(MultiplierRoute)),
            ("axis", self.axis, get_args(Axis)),
            ("error", self.error, ("auto", "plain", "balanced")),
            *(("augmentation", one, get_args(Augmentation)) for one in self.augmentation),
        ):
            if choice not in choices:
                raise InputError(
                    f"{label} = {choice!r} is unknown.", f"Choose one of {', '.join(choices)}."
                )
        for label, right, wanted in (
            (
                "optimizer",
                isinstance(self.optimizer, AnyOptimizer | Custom),
                "an Sgd, Adam, AdamW or Custom",
            ),
            (
                "stop",
                isinstance(self.stop, Stop),
                "a TargetLoss, TargetAccuracy, ValidationLoss or FixedSteps",
            ),
            ("lr_rule", isinstance(self.lr_rule, LrRule | None), "an LrRule or None"),
        ):
            if not right:
                raise InputError(f"{label} is not {wanted}.", "Correct its type.")
        smoothing = self.label_smoothing
        if not (isinstance(smoothing, (int, float)) and 0 <= smoothing < 1) or (
            smoothing > 0 and self.loss != "cross_entropy"
        ):
            raise InputError(
                f"label_smoothing = {smoothing!r} does not go with the loss {self.loss}.",
                "It is a share in [0, 1) and belongs to cross_entropy.",
            )
        if not callable(self.make_model):
            raise InputError(
                "make_model is not callable.", "Give a function that returns a torch module."
            )
        if not (isinstance(self.task, Task) or callable(self.task)):
            raise InputError(
                "task is neither a Task nor a function of a seed.",
                "Make one with fls_bench.make_task, or give a function seed -> Task.",
            )

    def task_for(self, seed: int) -> Task:
        """The data for one seed.

        Args:
            seed: Passed to a task source; a fixed task ignores it.

        Returns:
            The task.

        Raises:
            InputError: The user's function returned something else.
        """
        task = self.task if isinstance(self.task, Task) else self.task(seed)
        if not isinstance(task, Task):
            raise InputError(
                f"The setup's task function returned {type(task).__name__}, not a Task.",
                "Return fls_bench.make_task(...) from it.",
            )
        return task

    @property
    def known_optimizer(self) -> AnyOptimizer:
        """The optimizer, or for a custom one that whose first guesses serve."""
        own = self.optimizer
        return own.as_known() if isinstance(own, Custom) else own

    def without_warmup(self) -> TrainingSetup:
        """For trials of a few steps, in which a warm-up of hundreds would leave the net as it was."""
        own = self.optimizer
        if isinstance(own, Custom) or not isinstance(own.schedule, PerStep):
            return self
        schedule = own.schedule.model_copy(update={"warmup_steps": 0})
        return replace(self, optimizer=own.model_copy(update={"schedule": schedule}))

    @property
    def route(self) -> str:
        """``wrapper`` or ``factory``: how the multiplier reaches the net."""
        if self.multiplier_route != "auto":
            return self.multiplier_route
        return "factory" if "output_multiplier" in self.builder_parameters else "wrapper"

    @property
    def builder_parameters(self) -> frozenset[str]:
        """Names of the parameters of ``make_model``; empty where it doesn't tell them."""
        try:
            return frozenset(inspect.signature(self.make_model).parameters)
        except (TypeError, ValueError):
            return frozenset()


_EXAMPLES = {"--model": "my_pkg.my_net:build", "--data": "my_pkg.my_data:task"}


def import_object(reference: str, option: str) -> Any:
    """Import ``package.module:name`` that the user gave on the command line.

    This runs the user's own code. The current folder is not searched unless --pythonpath, or
    PYTHONPATH, says so.

    Args:
        reference: ``package.module:name``.
        option: The option that it came from, for messages.

    Returns:
        The object.

    Raises:
        InputError: It can't be imported or found.
    """
    module_name, _, attribute = reference.partition(":")
    parts = f"{module_name}.{attribute}".split(".")
    if not all(part.isidentifier() for part in parts) or module_name.endswith(".py"):
        raise InputError(
            f"{option} {reference!r} is not of the form package.module:name.",
            f"Give for example {option} {_EXAMPLES.get(option, 'my_pkg.my_setup:setup')}.",
        )
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        own = error.name is not None and f"{module_name}.".startswith(f"{error.name}.")
        hint = "Install the package that holds it, or name its folder with --pythonpath."
        place = Path(*module_name.split("."))
        if own and (place.with_suffix(".py").exists() or place.is_dir()):
            hint = "It lies in the current folder, from which code is imported with --pythonpath . only."
        raise InputError(f"{option}: there is no module named {error.name!r}.", hint) from None
    except FlsBenchError:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(
            f"{option}: importing {module_name!r} failed with {in_one_line(error)}.",
            f"Run {Path(sys.executable).name} -c 'import {module_name}' to see where.",
        ) from error
    value: Any = module
    for part in attribute.split("."):
        if not hasattr(value, part):
            raise InputError(
                f"{option}: the module {module_name!r} has no {attribute!r}.", "Check the name."
            )
        value = getattr(value, part)
    return value


def import_setup(reference: str) -> TrainingSetup:
    """Import a ``TrainingSetup``, or call the function that returns one.

    Args:
        reference: ``package.module:name``.

    Returns:
        The setup.

    Raises:
        InputError: It can't be imported, or is something else.
    """
    value = import_object(reference, "--setup")
    if callable(value) and not isinstance(value, TrainingSetup):
        try:
            value = value()
        except FlsBenchError:
            raise
        except (Exception, SystemExit) as error:
            raise InputError(
                f"--setup {reference!r}: calling it failed with {in_one_line(error)}.",
                "Name a fls_bench.TrainingSetup, or a function without arguments that returns one.",
            ) from error
    if not isinstance(value, TrainingSetup):
        raise InputError(
            f"--setup {reference!r} gives a {type(value).__name__}, not a TrainingSetup.",
            "Name a fls_bench.TrainingSetup, or a function without arguments that returns one.",
        )
    return value


def in_one_line(error: BaseException) -> str:
    """Kind and message of an error of the user's own code."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300].rstrip(".: ")
