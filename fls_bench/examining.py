"""The whole path of ``invariants``: a builder, setup or model file -> many draws -> a Report."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fls_bench.bench import Options, make_report
from fls_bench.bundle import load_bundle
from fls_bench.errors import FlsBenchError, InputError
from fls_bench.invariants import Examined, OptimizerFactory
from fls_bench.invariants.multiplier import exponents_in_words
from fls_bench.invariants.search import applicable, examine
from fls_bench.schema import (
    AnyOptimizer,
    InvariantFinding,
    Invariants,
    Judgement,
    Loss,
    Report,
    Sgd,
)
from fls_bench.subject import bundle_setup
from fls_bench.tasks import Task, TaskSource, make_task
from fls_bench.training import user_code
from fls_bench.training.runs import make_net, seeded
from fls_bench.training_setup import Custom, TrainingSetup, import_object, in_one_line

DEFAULT_OPTIMIZER = Sgd(lr=0.05)

SIDES = (8, 16, 28, 32, 64, 96, 128, 224)
"""Images of these sides are tried on a net whose inputs are not given."""
TOKENS = 6

NUM_RANDOM = 64
"""Random points where no data are given; draws take a few of them."""


@dataclass(frozen=True)
class Wanted:
    """What a user says of a net beside its name; None: as the net or its file has it.

    Attributes:
        optimizer: A built-in one with its settings, or the user's own that is told the multiplier.
        task: Data.
        input_shape: Shape of one input, for random data.
        loss: Of training.
    """

    optimizer: AnyOptimizer | OptimizerFactory | None = None
    task: TaskSource | None = None
    input_shape: tuple[int, ...] | None = None
    loss: Loss | None = None


def examine_target(
    target: str,
    options: Options,
    wanted: Wanted,
    *,
    examples: int,
    names: Sequence[str] | None = None,
    builder: str | None = None,
    command: str | None = None,
) -> Report:
    """Check the scaling invariants of what a command line names.

    Args:
        target: A model file, or ``package.module:name`` of a builder, a ``TrainingSetup``, or a function
            that returns one (imports and runs the user's code).
        options: Seed and listener.
        wanted: What the user says beside.
        examples: Draws per invariant.
        names: Only these invariants.
        builder: ``package.module:function`` of a file's net that is not built in.
        command: What gives the same findings again, for the report.

    Returns:
        A report of kind ``invariants``.

    Raises:
        InputError: The target can't be used.
    """
    setup = _from_file(Path(target), builder) if Path(target).is_file() else None
    if setup is None:
        if builder is not None:
            raise InputError("--model goes with a model file.", "Leave it out.")
        if ":" not in target:
            raise InputError(
                f"There is no file {target}.",
                "Give a model file, or package.module:name of a builder or TrainingSetup.",
            )
        setup = as_setup(import_object(target, "invariants"), wanted, name=target)
    return examine_setup(
        setup, options, wanted, examples=examples, names=names, command=command
    )  # fmt: skip


def examine_setup(
    setup: TrainingSetup,
    options: Options,
    wanted: Wanted,
    *,
    examples: int,
    names: Sequence[str] | None = None,
    command: str | None = None,
) -> Report:
    """Check the scaling invariants of a setup.

    Args:
        setup: The setup.
        options: Seed and listener.
        wanted: What replaces its own optimizer, data and loss.
        examples: Draws per invariant.
        names: Only these invariants.
        command: For the report.

    Returns:
        A report of kind ``invariants``.

    Raises:
        InputError: The net can't be made or run.
    """
    examined = examined_setup(setup, wanted)
    rows = applicable(examined, names)
    assert examined.task is not None  # mistakes of the setup show before the progress begins
    options.listener.plan(len(rows), "invariants")

    def tell(finding: InvariantFinding) -> None:
        options.listener.done(1, f"{finding.invariant.replace('_', '-')}: {finding.status}")

    findings = examine(
        examined, examples=examples, base_seed=options.seed, names=names, on_finding=tell
    )
    judged = Judgement(setup={"name": examined.setup.name})
    found = Invariants(
        findings=findings,
        seed=options.seed,
        examples=examples,
        net=_facts(examined),
        command=command,
    )
    return make_report(options, "invariants", judged, invariants=found)


def examined_setup(setup: TrainingSetup, wanted: Wanted) -> Examined:
    """What is examined: a setup with what the user says beside.

    Raises:
        InputError: The user's optimizer can't be told the multiplier.
    """
    factory: OptimizerFactory | None = None
    if wanted.loss is not None:
        setup = replace(setup, loss=wanted.loss)
    if wanted.task is not None:
        setup = replace(setup, task=wanted.task)
    if isinstance(wanted.optimizer, AnyOptimizer):
        setup = replace(setup, optimizer=wanted.optimizer, lr_rule=None)
    elif wanted.optimizer is not None:
        factory = wanted.optimizer
    return Examined(setup, factory)


# --- what a target is -----------------------------------------------------------------------


def _from_file(path: Path, builder: str | None) -> TrainingSetup:
    bundle = load_bundle(path)
    setup = bundle_setup(bundle, builder=builder, source=None)
    if setup is None:
        hint = bundle.header.architecture.hint
        raise InputError(
            f"{path} does not hold what its net and its data are"
            + (f"; it was built by {hint}." if hint else "."),
            "Give --model package.module:builder for the net; data have to be in the file, or by name.",
        )
    return setup


def as_setup(target: Any, wanted: Wanted, name: str = "") -> TrainingSetup:
    """A setup of what a user names: itself, or a builder on random points.

    Args:
        target: A ``TrainingSetup``, a function that returns one, or a builder of a module.
        wanted: Inputs, data and loss for a builder.
        name: For people.

    Returns:
        The setup.

    Raises:
        InputError: It is something else, or takes inputs that can't be guessed.
    """
    if isinstance(target, TrainingSetup):
        return target
    name = name or getattr(target, "__qualname__", type(target).__name__)
    if not callable(target):
        raise InputError(
            f"{name} is a {type(target).__name__}, not a builder or TrainingSetup.",
            "Name a function that returns a torch module.",
        )
    setup = TrainingSetup(
        make_model=target, task=_no_task, optimizer=DEFAULT_OPTIMIZER, name=name
    )  # fmt: skip
    try:
        made = _made(setup)
    except FlsBenchError:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(
            f"Calling {name} failed with {in_one_line(error)}.",
            "Name a builder whose only parameters without defaults are output_multiplier and seed.",
        ) from error
    if isinstance(made, TrainingSetup):
        return made
    if wanted.task is not None:
        task: Task | TaskSource = wanted.task
        outputs = wanted.task(0).n_classes
        loss: Loss = wanted.loss or "cross_entropy"
    else:
        shape, outputs = _input_and_outputs(made, wanted.input_shape)
        loss = wanted.loss or ("logistic" if outputs == 1 else "cross_entropy")
        task = random_points(shape, max(2, outputs))
    return replace(setup, task=task, loss=loss)


def _no_task(_: int) -> Task:
    raise InputError("The builder has no data.", "Give --task or --input-shape.")


def _made(setup: TrainingSetup) -> nn.Module | TrainingSetup:
    """What the user's function returns: a module, or a setup."""
    parameters = setup.builder_parameters
    arguments: dict[str, Any] = {}
    if "output_multiplier" in parameters:
        arguments["output_multiplier"] = 1.0
    if "seed" in parameters:
        arguments["seed"] = 0
    with seeded(0):
        value = setup.make_model(**arguments)
    if isinstance(value, TrainingSetup):
        return value
    return make_net(setup, 0, 1.0, torch.float64)


def _input_and_outputs(
    net: nn.Module, shape: tuple[int, ...] | None
) -> tuple[tuple[int, ...], int]:
    """Shape of one input, and how many logits come out."""
    tried = [shape] if shape is not None else _guesses(net)
    for one in tried:
        try:
            x = torch.zeros((2, *one), dtype=torch.float64)
            with torch.no_grad(), seeded(0):
                output = net.eval()(x)
        except Exception as error:
            if shape is not None:
                raise InputError(
                    f"On inputs of shape {list(one)} the net failed with {in_one_line(error)}.",
                    "Correct --input-shape; inputs are numbers of type float64.",
                ) from error
            continue
        if isinstance(output, torch.Tensor) and output.ndim == 2 and len(output) == 2:
            return one, output.shape[1]
        if shape is not None:
            made = list(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
            raise InputError(
                f"For two inputs of shape {list(one)} the net gives {made}, not [2, classes].",
                "Return the logits [n, classes] alone from its forward.",
            )
    raise InputError(
        "What inputs the net takes can't be told from its layers.",
        "Give --input-shape, for example --input-shape 3,32,32 (without the batch), or --task.",
    )


def _guesses(net: nn.Module) -> list[tuple[int, ...]]:
    """Shapes that the first weight layer of a net might take."""
    for module in net.modules():
        if isinstance(module, nn.Linear):
            return [(module.in_features,), (TOKENS, module.in_features)]
        if isinstance(module, nn.Conv1d):
            return [(module.in_channels, side) for side in SIDES]
        if isinstance(module, nn.Conv2d):
            return [(module.in_channels, side, side) for side in SIDES]
    return []


def random_points(shape: tuple[int, ...], n_classes: int) -> TaskSource:
    """Normal inputs with labels that say nothing of them: an invariant asks for no signal."""

    def task(seed: int) -> Task:
        rng = np.random.default_rng(seed)

        def part(n: int) -> tuple[Any, Any]:
            y = rng.permutation(np.arange(n) % n_classes)
            return rng.standard_normal((n, *shape)), y

        n = max(NUM_RANDOM, 4 * n_classes)
        return make_task("random points", part(n), part(n), part(n), n_classes=n_classes)

    return task


# --- facts ----------------------------------------------------------------------------------


def _facts(examined: Examined) -> dict[str, Any]:
    """What was examined, in plain values."""
    setup, task = examined.setup, examined.task
    with user_code("make_model failed", "Correct it, or its arguments."):
        net = make_net(setup, 0, setup.output_multiplier, torch.float32)
    scaling = examined.scaling
    factory = examined.optimizer_factory
    if factory is not None:
        optimizer = f"own: {getattr(factory, '__qualname__', type(factory).__name__)}"
    elif isinstance(setup.optimizer, Custom):
        optimizer = f"custom, like {setup.optimizer.like}, lr = {setup.optimizer.lr:g}"
    else:
        own = setup.optimizer.model_dump(exclude_defaults=True)
        parts = [f"{k} = {v}" for k, v in {"lr": setup.optimizer.lr, **own}.items()]
        optimizer = ", ".join([setup.optimizer.kind, *parts])
    return {
        "net": setup.name,
        "parameters": sum(p.numel() for p in net.parameters()),
        "inputs": f"{' x '.join(map(str, task.x_train.shape[1:]))}, from {task.name}",
        "outputs": 1 if setup.loss == "logistic" else task.n_classes,
        "loss": setup.loss,
        "optimizer": optimizer,
        "multiplier route": setup.route,
        "output multiplier": setup.output_multiplier,
        **({"centered": True} if setup.centered else {}),
        "scale of parameters": "not quasi-homogeneous"
        if scaling is None
        else f"{scaling.kind}, L = {scaling.depth}; {exponents_in_words(scaling.exponents)}",
    }


def told_multiplier(value: Any, option: str) -> OptimizerFactory:
    """A user's optimizer, checked for the parameter by which it is told the multiplier.

    Raises:
        InputError: It is no function of ``(net, output_multiplier)``.
    """
    try:
        parameters = inspect.signature(value).parameters
    except (TypeError, ValueError):
        parameters = {}  # type: ignore[assignment]
    if not callable(value) or "output_multiplier" not in parameters:
        raise InputError(
            f"{option} does not name a function with a parameter output_multiplier.",
            "Give make(net, *, output_multiplier) -> torch.optim.Optimizer, or a built-in one such as "
            "sgd,momentum=0.9.",
        )

    def make(net: nn.Module, *, output_multiplier: float) -> torch.optim.Optimizer:
        with user_code(f"{option}: your optimizer failed", "Correct it."):
            made = value(net, output_multiplier=output_multiplier)
        if not isinstance(made, torch.optim.Optimizer):
            raise InputError(
                f"{option} returned a {type(made).__name__}, not a torch.optim.Optimizer.",
                "Return the optimizer from it.",
            )
        return made

    make.__qualname__ = getattr(value, "__qualname__", "optimizer")
    return make
