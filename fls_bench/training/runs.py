"""What one training run is and leaves behind, whichever engine trained it."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from fls_bench.errors import InputError
from fls_bench.metrics.alignment import class_means, nearest_class_mean
from fls_bench.metrics.kernels import effective_rank
from fls_bench.metrics.outputs import class_centered
from fls_bench.models import named_features
from fls_bench.schema import Outcome, RunConfig, RunRecord, Stop, TargetLoss
from fls_bench.tasks import Task
from fls_bench.training_setup import TrainingSetup

DIVERGENCE_FACTOR = 1e4
"""A run whose training loss exceeds this many times max(1, its loss at init) has diverged."""

PLATEAU_IMPROVEMENT = 0.01
"""Out of epochs with less relative improvement than this over the last quarter: a plateau."""


@dataclass(frozen=True)
class TrainedRun:
    """A finished run, still with its weights (never stored as it is).

    ``init`` and ``final`` are parameters and buffers by name; ``init`` has alpha applied.
    """

    config: RunConfig
    outcome: Outcome
    epochs: int
    steps: int
    train_loss: float | None
    init: Mapping[str, Tensor]
    final: Mapping[str, Tensor]
    message: str | None = None


def make_net(setup: TrainingSetup, seed: int, c: float, dtype: torch.dtype) -> nn.Module:
    """Build the setup's net for one seed, with c passed on if the route is ``factory``.

    Args:
        setup: The setup.
        seed: Passed to the builder, or to torch around the call (global state is restored).
        c: Output multiplier for a factory.
        dtype: Floating type of the parameters.

    Returns:
        The net, in training mode, without init scale.

    Raises:
        InputError: The builder returned something else than a module.
    """
    parameters = inspect.signature(setup.make_model).parameters
    arguments: dict[str, float | int] = {}
    if setup.route == "factory":
        arguments["output_multiplier"] = c
    if "seed" in parameters:
        arguments["seed"] = seed
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = setup.make_model(**arguments)
    if not isinstance(net, nn.Module):
        raise InputError(
            f"make_model returned a {type(net).__name__}, not a torch module.",
            "Return a torch.nn.Module from it.",
        )
    return net.to(dtype).train()


def batch_order(seed: int, n: int) -> Iterator[Tensor]:
    """Endless permutations [n] of the training points, one per epoch; the same for every c."""
    generator = torch.Generator().manual_seed(seed ^ 0x5EED)
    while True:
        yield torch.randperm(n, generator=generator)


def sample_losses(logits: Tensor, labels: Tensor, loss: str) -> Tensor:
    """Loss per sample: cross-entropy over K logits, or logistic loss of one logit.

    Args:
        logits: [..., n, K], or [..., n, 1] for ``logistic``.
        labels: [..., n] in 0 .. K-1 (0 or 1 for ``logistic``).
        loss: ``cross_entropy`` or ``logistic``.

    Returns:
        [..., n], in nats.
    """
    if loss == "logistic":
        sign = 2 * labels.to(logits.dtype) - 1
        return functional.softplus(-sign * logits.squeeze(-1))
    picked = logits.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
    return logits.logsumexp(-1) - picked


def correctness(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Chance of a correct answer per sample, ties broken at random, and whether there was a tie.

    Args:
        logits: [..., n, K]; one logit stands for (0, f), so that f = 0 is a tie.
        labels: [..., n].

    Returns:
        ([..., n] in 0 .. 1, [..., n] bool).
    """
    if logits.shape[-1] == 1:
        logits = torch.cat([torch.zeros_like(logits), logits], dim=-1)
    top = logits == logits.amax(-1, keepdim=True)
    num_top = top.sum(-1)
    hit = top.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
    return hit.to(logits.dtype) / num_top.clamp_min(1), num_top > 1


def reached(stop: Stop, loss: Tensor, accuracy: Tensor) -> Tensor:
    """Whether the stopping rule holds, elementwise."""
    if isinstance(stop, TargetLoss):
        return loss <= stop.target_loss
    return accuracy >= stop.target_accuracy


def out_of_epochs(loss: float, loss_before: float) -> Outcome:
    """Tell a plateau from a run that was still improving when its epochs ran out.

    Args:
        loss: Training loss at the end.
        loss_before: Training loss when three quarters of the epochs had passed.

    Returns:
        ``PLATEAU`` or ``OUT_OF_BUDGET``.
    """
    stuck = loss > (1 - PLATEAU_IMPROVEMENT) * loss_before
    return Outcome.PLATEAU if stuck else Outcome.OUT_OF_BUDGET


@torch.no_grad()
def record(
    setup: TrainingSetup, task: Task, run: TrainedRun, net: nn.Module, dtype: torch.dtype
) -> RunRecord:
    """Measure a finished run on validation and test data.

    Args:
        setup: The setup.
        task: The run's data.
        run: The run.
        net: A net of the right shape; its parameters are overwritten.
        dtype: Floating type of the parameters.

    Returns:
        The record; for a run that diverged or failed, without errors and losses.
    """
    base = RunRecord(
        config=run.config, outcome=run.outcome, epochs=run.epochs, steps=run.steps,
        train_loss=run.train_loss, chance_error=task.majority_error, message=run.message,
    )  # fmt: skip
    if run.outcome in (Outcome.DIVERGED, Outcome.FAILED):
        return base.model_copy(update={"train_loss": None})
    net.eval()
    x_val, x_test = (torch.as_tensor(x, dtype=dtype) for x in (task.x_val, task.x_test))
    y_val, y_test = (torch.as_tensor(y) for y in (task.y_val, task.y_test))
    c = run.config.c if setup.route == "wrapper" else 1.0
    start_val = start_test = None
    if run.config.centered:
        net.load_state_dict(dict(run.init))
        start_val, start_test = net(x_val), net(x_test)
    net.load_state_dict(dict(run.final))
    val_logits = c * (net(x_val) if start_val is None else net(x_val) - start_val)
    features, test_output = named_features(net, x_test)
    test_logits = c * (test_output if start_test is None else test_output - start_test)
    if not (torch.isfinite(val_logits).all() and torch.isfinite(test_logits).all()):
        return base.model_copy(update={"outcome": Outcome.DIVERGED, "train_loss": None})
    val_right, _ = correctness(val_logits, y_val)
    test_right, ties = correctness(test_logits, y_test)
    return base.model_copy(
        update={
            "val_error": 1 - float(val_right.double().mean()),
            "test_error": 1 - float(test_right.double().mean()),
            "test_ties": float(ties.double().mean()),
            "val_loss": float(sample_losses(val_logits, y_val, setup.loss).double().mean()),
            "test_loss": float(sample_losses(test_logits, y_test, setup.loss).double().mean()),
            "measurements": _cheap_measurements(setup, task, run, features, test_logits),
        }
    )


def _cheap_measurements(
    setup: TrainingSetup,
    task: Task,
    run: TrainedRun,
    features: Mapping[str, Tensor],
    test_logits: Tensor,
) -> dict[str, float]:
    """What tells the mechanisms apart, for every run of a sweep: movement, ranks, agreement."""
    keys = [key for key, value in run.init.items() if value.is_floating_point()]
    moved = sum(float((run.final[k] - run.init[k]).double().norm() ** 2) for k in keys)
    size = sum(float(run.init[k].double().norm() ** 2) for k in keys)
    values = {"movement.relative": (moved / size) ** 0.5 if size else math.nan}
    if test_logits.shape[-1] > 2:
        values["rank.effective:logits"] = float(effective_rank(class_centered(test_logits)))
    last = setup.feature_layer or (list(features)[-1] if features else None)
    if last is not None and last in features:
        values["rank.effective:last"] = float(effective_rank(features[last].double()))
    x_train = torch.as_tensor(task.x_train).flatten(1).double()
    means = class_means(x_train, torch.as_tensor(task.y_train), task.n_classes)
    centroid = nearest_class_mean(torch.as_tensor(task.x_test).flatten(1).double(), means)
    one_logit = test_logits.shape[-1] == 1
    answer = (test_logits[:, 0] > 0).long() if one_logit else test_logits.argmax(-1)
    values["agreement.nearest_class_mean"] = float((answer == centroid).double().mean())
    return {key: value for key, value in values.items() if math.isfinite(value)}
