"""What one training run is and leaves behind, whichever engine trained it."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from fls_bench.errors import InputError
from fls_bench.metrics.alignment import class_means, nearest_class_mean
from fls_bench.metrics.kernels import effective_rank
from fls_bench.metrics.outputs import class_centered, point_errors, tied_points
from fls_bench.models import named_features
from fls_bench.schema import Outcome, RunConfig, RunRecord, Stop, TargetLoss
from fls_bench.tasks import Task
from fls_bench.training_setup import TrainingSetup

MEASURED_POINTS = 2000

DIVERGENCE_FACTOR = 1e4
"""A run whose training loss exceeds this many times max(1, its loss at init) has diverged."""

PLATEAU_IMPROVEMENT = 0.01
"""Out of epochs with less relative improvement than this over the last quarter: a plateau."""

POINTS_AT_ONCE = 1024
"""A convolutional net's activations on a whole data set need not fit into memory."""

_RANDOM_STATE = threading.RLock()


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


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's global random state and restore it afterwards; one thread at a time."""
    with _RANDOM_STATE, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


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
        InputError: The builder returned something else than a module, or the route is ``factory``
            and it does not take the multiplier.
    """
    parameters = setup.builder_parameters
    arguments: dict[str, float | int] = {}
    if setup.route == "factory":
        if "output_multiplier" not in parameters:
            raise InputError(
                "The multiplier's route is factory, but make_model has no output_multiplier.",
                "Give it that parameter, or choose the route wrapper.",
            )
        arguments["output_multiplier"] = c
    if "seed" in parameters:
        arguments["seed"] = seed
    with seeded(seed):
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
        return -functional.logsigmoid(sign * logits.squeeze(-1))
    picked = logits.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
    return logits.logsumexp(-1) - picked


def progress(logits: Tensor, labels: Tensor, loss: str, stop: Stop) -> tuple[Tensor, Tensor]:
    """How far training has come.

    Args:
        logits: [..., n, K] on the whole training part.
        labels: [..., n].
        loss: As ``sample_losses``.
        stop: The stopping rule.

    Returns:
        (mean loss [...], whether the stopping rule holds [...]).
    """
    value = sample_losses(logits, labels, loss).mean(-1)
    if isinstance(stop, TargetLoss):
        return value, value <= stop.target_loss
    # Hits are counted, not errors: k/n is then the very number that a target of k/n is read as.
    hits = 1 - point_errors(logits, labels)
    return value, hits.mean(-1) >= stop.target_accuracy


def divergence_bound(loss: Tensor) -> Tensor:
    """Training loss beyond which a run has diverged, from its loss at init; always finite or NaN."""
    bound = DIVERGENCE_FACTOR * loss.clamp_min(1)
    return bound.clamp_max(torch.finfo(loss.dtype).max)


def quarter_left(max_epochs: int) -> int:
    """The epoch (0 = init) against which a run that is out of epochs is compared."""
    return (3 * max_epochs) // 4


def out_of_epochs(loss: float, loss_before: float) -> Outcome:
    """Tell a plateau from a run that was still improving when its epochs ran out.

    Args:
        loss: Training loss at the end.
        loss_before: Training loss at ``quarter_left``.

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
    start_val = start_test = torch.zeros((), dtype=dtype)
    if run.config.centered:
        net.load_state_dict(dict(run.init))
        start_val, start_test = _outputs(net, x_val)[0], _outputs(net, x_test)[0]
    net.load_state_dict(dict(run.final))
    val_logits = c * (_outputs(net, x_val)[0] - start_val)
    test_output, features = _outputs(net, x_test, setup.feature_layer)
    test_logits = c * (test_output - start_test)
    if not (torch.isfinite(val_logits).all() and torch.isfinite(test_logits).all()):
        return base.model_copy(update={"outcome": Outcome.DIVERGED, "train_loss": None})
    weights = [name for name, _ in net.named_parameters()]
    return base.model_copy(
        update={
            "val_error": float(point_errors(val_logits, y_val).mean()),
            "test_error": float(point_errors(test_logits, y_test).mean()),
            "test_ties": float(tied_points(test_logits).mean()),
            "val_loss": float(sample_losses(val_logits.double(), y_val, setup.loss).mean()),
            "test_loss": float(sample_losses(test_logits.double(), y_test, setup.loss).mean()),
            "measurements": _cheap_measurements(task, run, weights, features, test_logits),
        }
    )


def _outputs(net: nn.Module, x: Tensor, layer: str | None = None) -> tuple[Tensor, Tensor | None]:
    """f(x) [n, K], and the features [n, width] of one layer (None: the last) where there are any."""
    outputs, kept = [], []
    for part in torch.split(x, POINTS_AT_ONCE):
        features, output = named_features(net, part)
        outputs.append(output)
        name = layer or next(reversed(features), "")
        kept += [features[name]] if name in features else []
    return torch.cat(outputs), torch.cat(kept) if kept else None


def _cheap_measurements(
    task: Task,
    run: TrainedRun,
    weights: Sequence[str],
    features: Tensor | None,
    test_logits: Tensor,
) -> dict[str, float]:
    """What tells the mechanisms apart, for every run of a sweep: movement, ranks, agreement.

    On the first ``MEASURED_POINTS`` test points: a sweep measures hundreds of nets.
    """
    test_logits = test_logits[:MEASURED_POINTS]
    moved = sum(float((run.final[k] - run.init[k]).double().norm() ** 2) for k in weights)
    size = sum(float(run.init[k].double().norm() ** 2) for k in weights)
    values = {"movement.relative": (moved / size) ** 0.5 if size else math.nan}
    if test_logits.shape[-1] > 2:
        values["rank.effective:logits"] = float(effective_rank(class_centered(test_logits)))
    if features is not None:
        values["rank.effective:last"] = float(effective_rank(features[:MEASURED_POINTS]))
    x_train = torch.as_tensor(task.x_train).flatten(1).double()
    means = class_means(x_train, torch.as_tensor(task.y_train), task.n_classes)
    x_test = torch.as_tensor(task.x_test[:MEASURED_POINTS]).flatten(1).double()
    centroid = nearest_class_mean(x_test, means)
    one_logit = test_logits.shape[-1] == 1
    answer = (test_logits[:, 0] > 0).long() if one_logit else test_logits.argmax(-1)
    values["agreement.nearest_class_mean"] = float((answer == centroid).double().mean())
    return {key: value for key, value in values.items() if math.isfinite(value)}
