"""What a finished run is measured by, whichever engine trained it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fls_bench.metrics.alignment import class_means, nearest_class_mean
from fls_bench.metrics.kernels import effective_rank
from fls_bench.metrics.outputs import class_centered, mean_error, tied_points
from fls_bench.models import named_features
from fls_bench.schema import Outcome, RunRecord
from fls_bench.tasks import Task
from fls_bench.training.ranks import batch_ranks
from fls_bench.training.runs import POINTS_AT_ONCE, TrainedRun, sample_losses
from fls_bench.training_setup import TrainingSetup

MEASURED_POINTS = 2000


@torch.no_grad()
def record(
    setup: TrainingSetup, task: Task, run: TrainedRun, net: nn.Module, dtype: torch.dtype
) -> RunRecord:
    """Measure a finished run on validation and test data.

    Args:
        setup: The setup.
        task: The run's data.
        run: The run.
        net: A net of the right shape, on any device; its parameters are overwritten.
        dtype: Floating type of the parameters.

    Returns:
        The record; for a run that diverged or failed, without errors and losses.
    """
    balanced = setup.error == "balanced"
    base = RunRecord(
        config=run.config, outcome=run.outcome, epochs=run.epochs, steps=run.steps,
        train_loss=run.train_loss, chance_error=task.chance_error(balanced), message=run.message,
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
            "val_error": float(mean_error(val_logits, y_val, balanced)),
            "test_error": float(mean_error(test_logits, y_test, balanced)),
            "test_ties": float(tied_points(test_logits).mean()),
            "val_loss": float(sample_losses(val_logits.double(), y_val, setup.loss).mean()),
            "test_loss": float(sample_losses(test_logits.double(), y_test, setup.loss).mean()),
            "measurements": {
                **_cheap_measurements(task, run, weights, features, test_logits),
                **batch_ranks(setup, task, run.config.seed, net),
            },
        }
    )


def _outputs(net: nn.Module, x: Tensor, layer: str | None = None) -> tuple[Tensor, Tensor | None]:
    """f(x) [n, K], and the features [n, width] of one layer (None: the last) where there are any."""
    outputs, kept = [], []
    device = next(net.parameters()).device
    for part in torch.split(x, POINTS_AT_ONCE):
        features, output = named_features(net, part.to(device))
        outputs.append(output.cpu())
        name = layer or next(reversed(features), "")
        kept += [features[name].cpu()] if name in features else []
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
