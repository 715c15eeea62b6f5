"""What is looked at before anything trains: the net, its data, and which rule is exact for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch

from fls_bench import models
from fls_bench.errors import FlsBenchError, InputError
from fls_bench.homogeneity import has_normalisation, measured_scaling
from fls_bench.schema import FixedSteps, LrRule, LrRuleName
from fls_bench.tasks import Task
from fls_bench.training.runs import make_net, seeded
from fls_bench.training_setup import Custom, TrainingSetup, in_one_line

IMBALANCED = 3.0
"""Beyond this ratio of the largest class to the smallest, the balanced error decides."""


def check_setup(setup: TrainingSetup, seed: int = 0) -> Task:
    """Build the net once and pass a few points through, so that a mistake shows before training.

    Args:
        setup: The setup.
        seed: Seed of the net and of the data.

    Returns:
        The task of that seed.

    Raises:
        InputError: The data or the net can't be made, or the net can't take the data, has no
            parameters, or its outputs have the wrong shape or are not finite.
    """
    with user_code("The setup's task function failed", "Correct the function."):
        task = setup.task_for(seed)
    if not task.has_test:
        raise InputError(
            f"The data of {task.name!r} have no test points, by which nets of other c could be judged.",
            "Give x_test and y_test too.",
        )
    with user_code("make_model failed", "Correct it, or its arguments."):
        net = make_net(setup, seed, setup.output_multiplier, torch.float32).eval()
    if not any(True for _ in net.parameters()):
        raise InputError("The model has no parameters.", "Return a module that can be trained.")
    if setup.rank_term is not None:
        hidden = len(net.layers) - 1 if isinstance(net, models.Mlp) else 0
        if hidden < 1 + any(one.layers == "earlier" for one in setup.rank_term.penalties):
            raise InputError(
                f"rank_term is for built-in MLPs with such hidden layers; a {type(net).__name__} of "
                f"this size has {hidden} of them.",
                "Choose the architecture mlp, or a larger depth.",
            )
    shape = list(task.x_train.shape[1:])
    with (
        user_code(
            f"The model can't take the data: on inputs of shape {shape} it failed",
            "Give data and a model of the same input dimension.",
        ),
        seeded(seed),
    ):
        also = setup.feature_layer if setup.feature_layer in dict(net.named_modules()) else None
        features, output = models.named_features(net, torch.as_tensor(task.x_train[:4]), also)
    if not isinstance(output, torch.Tensor):
        raise InputError(
            f"The model returns a {type(output).__name__}, not a tensor of logits.",
            "Return the logits alone from its forward.",
        )
    if setup.feature_layer is not None and setup.feature_layer not in features:
        raise InputError(
            f"The model has no features of a layer {setup.feature_layer!r}.",
            f"Set feature_layer to one of {', '.join(features)}, or leave it out."
            if features
            else "Leave feature_layer out.",
        )
    if setup.augmentation and task.x_train.ndim not in (3, 4):
        raise InputError(
            f"augmentation is for images, but inputs have shape {shape}.",
            "Leave it out, or give images [n, channels, height, width].",
        )
    target = getattr(setup.stop, "target_loss", 0.0)
    if setup.loss == "mse" and target >= (1 - 1 / task.n_classes) / task.n_classes:
        raise InputError(
            f"A mean squared error of {target:g} is reached by constant outputs (with "
            f"{task.n_classes} classes they reach {(1 - 1 / task.n_classes) / task.n_classes:.3g}).",
            "Choose a smaller target loss, or a target accuracy.",
        )
    wanted = 1 if setup.loss == "logistic" else task.n_classes
    if setup.loss == "logistic" and task.n_classes != 2:
        raise InputError(
            f"The loss is logistic, but task {task.name!r} has {task.n_classes} classes.",
            "Use cross_entropy with one logit per class.",
        )
    if tuple(output.shape) != (4, wanted):
        raise InputError(
            f"The model's output for 4 points has shape {list(output.shape)}; task {task.name!r} "
            f"with loss {setup.loss} needs {[4, wanted]}.",
            "Give data and a model with the same number of classes.",
        )
    if not torch.isfinite(output).all():
        raise InputError(
            "The model's outputs at init are NaN or infinite.", "Check its initial weights."
        )
    return task


@contextmanager
def user_code(problem: str, remedy: str) -> Iterator[None]:
    """Turn any error of the user's own code into an ``InputError`` of one line."""
    try:
        yield
    except FlsBenchError:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(f"{problem} with {in_one_line(error)}.", remedy) from error


def resolve_error(setup: TrainingSetup, task: Task) -> TrainingSetup:
    """The setup with the error that decides: balanced where the classes are of very different size.

    Args:
        setup: The setup.
        task: Its data for one seed.

    Returns:
        The setup, its ``error`` no longer ``auto``.
    """
    if setup.error != "auto":
        return setup
    return replace(setup, error="balanced" if task.imbalance > IMBALANCED else "plain")


def resolve_stop(setup: TrainingSetup, task: Task) -> TrainingSetup:
    """The setup with no more epochs than its ``FixedSteps`` take: plans and schedules count on them.

    Args:
        setup: The setup.
        task: Its data for one seed.

    Returns:
        The setup; with another stop the same.
    """
    if not isinstance(setup.stop, FixedSteps):
        return setup
    needed = -(-setup.stop.steps // -(-task.n_train // setup.batch_size))
    most = min(setup.stop.max_epochs, needed)
    return replace(setup, stop=setup.stop.model_copy(update={"max_epochs": most}))


def resolve_lr_rule(setup: TrainingSetup, task: Task) -> LrRule:
    """The setup's rule, or the one that its net is measured to allow.

    Args:
        setup: The setup.
        task: Its data, for a few inputs.

    Returns:
        ``homogeneous`` or ``normalised`` with the measured L and exponents, which are exact; else
        ``calibrated`` with the number of weight layers. A rule that the setup names without
        exponents gets those that were measured.
    """
    given = setup.lr_rule
    if given is not None and (given.name in ("plain", "calibrated") or given.exponents):
        return given
    net = make_net(setup, 0, 1.0, torch.float32)
    guess = LrRule(name="calibrated", depth=max(1, len(models.weight_matrices(net))))
    found = None
    # How a user's own optimizer answers a common scale of its gradients is not known.
    if not isinstance(setup.optimizer, Custom):
        with one_thread():
            try:
                found = measured_scaling(net, torch.as_tensor(task.x_train[:64]))
            except Exception:  # e.g. a module that can't run in float64: no exact rule is claimed
                found = None
    if given is not None and (
        found is None or (found.kind, found.depth) != (given.name, given.depth)
    ):
        if given.name == "normalised":
            raise InputError(
                "lr_rule is normalised, but the net is not measured to scale so.",
                "Leave lr_rule out: the rule that the net allows is then found.",
            )
        # The rates are those that were asked for, but they are exact for another net.
        return LrRule(name="calibrated", depth=given.depth)
    if found is None:
        return guess
    usual = 0.0 if found.kind == "normalised" else 1.0
    exponents = {name: e for name, e in found.exponents.items() if e != usual}
    name: LrRuleName = "normalised" if found.kind == "normalised" else "homogeneous"
    return LrRule(name=name, depth=found.depth, exponents=exponents)


def is_normalised(setup: TrainingSetup) -> bool:
    """Whether the setup's net has normalisation layers."""
    return has_normalisation(make_net(setup, 0, 1.0, torch.float32))


@contextmanager
def exact_arithmetic(device: str) -> Iterator[None]:
    """On a GPU: float32 as float32, and the same result every time."""
    if device != "cuda":
        yield
        return
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = matmul.fp32_precision
    with cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        matmul.fp32_precision = "ieee"
        try:
            yield
        finally:
            matmul.fp32_precision = before


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread per job: splitting a small product over threads is slower, and rounds otherwise.

    The number is one of the calling thread's own: jobs beside each other do not undo each other's.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
