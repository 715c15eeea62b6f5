"""What one training run is and leaves behind, whichever engine trained it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from fls_bench.errors import InputError
from fls_bench.metrics.outputs import point_errors
from fls_bench.schema import (
    Augmentation,
    FixedSteps,
    Outcome,
    RunConfig,
    Stop,
    TargetAccuracy,
    TargetLoss,
    ValidationLoss,
)
from fls_bench.training_setup import TrainingSetup

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

    ``init`` and ``final`` are parameters and buffers by name; ``init`` has alpha applied. Under
    ``ValidationLoss`` epochs, steps and training loss are those of ``final``, the net that is kept.
    Under ``FixedSteps`` the last of the epochs may be a part of one.
    """

    config: RunConfig
    outcome: Outcome
    epochs: int
    steps: int
    train_loss: float | None
    init: Mapping[str, Tensor]
    final: Mapping[str, Tensor]
    message: str | None = None


def _on_gpu() -> bool:
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's global random state and restore it afterwards; one thread at a time."""
    # Asking for a GPU's state would start CUDA where nothing uses it.
    devices = [torch.cuda.current_device()] if _on_gpu() else []
    with _RANDOM_STATE, torch.random.fork_rng(devices=devices):
        if torch.cuda.is_available():
            torch.manual_seed(seed)
        else:  # torch would note each seed, with a stack trace, for a GPU that will not come: 3 ms
            torch.default_generator.manual_seed(seed)
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


CROP_PIXELS = 4


def augment(x: Tensor, names: Sequence[Augmentation], generator: torch.Generator) -> Tensor:
    """Disturb training images.

    Args:
        x: Images [n, channels, height, width] or [n, height, width].
        names: What to do; in this order.
        generator: Drawn from in any case alike, so that every c sees the same images.

    Returns:
        Images of the same shape.
    """
    if "flip" in names:
        mirrored = torch.rand(len(x), generator=generator) < 0.5
        x = torch.where(mirrored.to(x.device).view(-1, *[1] * (x.ndim - 1)), x.flip(-1), x)
    if "crop" in names:
        height, width = x.shape[-2:]
        padded = functional.pad(x, [CROP_PIXELS] * 4)
        corner = torch.randint(0, 2 * CROP_PIXELS + 1, (2, len(x)), generator=generator)
        corner = corner.to(x.device)
        rows = (corner[0].unsqueeze(1) + torch.arange(height, device=x.device)).unsqueeze(2)
        columns = (corner[1].unsqueeze(1) + torch.arange(width, device=x.device)).unsqueeze(1)
        moved = padded.movedim((-2, -1), (1, 2))  # [n, height, width, ...]
        picked = moved[torch.arange(len(x), device=x.device).view(-1, 1, 1), rows, columns]
        x = picked.movedim((1, 2), (-2, -1))
    return x


def augmentations(seed: int) -> torch.Generator:
    """What a seed's augmentation is drawn from; the same for every c."""
    return torch.Generator().manual_seed(seed ^ 0xF11B)


def sample_losses(
    logits: Tensor, labels: Tensor, loss: str, label_smoothing: float = 0.0
) -> Tensor:
    """Loss per sample.

    Args:
        logits: [..., n, K], or [..., n, 1] for ``logistic``.
        labels: [..., n] in 0 .. K-1 (0 or 1 for ``logistic``).
        loss: ``cross_entropy``; ``logistic`` of one logit; ``mse``, the mean over the K logits of
            the squared difference from the one-hot label.
        label_smoothing: s in [0, 1) of the cross-entropy: the label weighs 1 - s + s/K, every other
            class s/K.

    Returns:
        [..., n]; in nats but for ``mse``.
    """
    if loss == "logistic":
        sign = 2 * labels.to(logits.dtype) - 1
        return -functional.logsigmoid(sign * logits.squeeze(-1))
    if loss == "mse":
        wanted = functional.one_hot(labels, logits.shape[-1]).to(logits.dtype)
        return (logits - wanted).square().mean(-1)
    picked = logits.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
    if label_smoothing:
        picked = (1 - label_smoothing) * picked + label_smoothing * logits.mean(-1)
    return logits.logsumexp(-1) - picked


def training_losses(setup: TrainingSetup, logits: Tensor, labels: Tensor) -> Tensor:
    """What is trained on, per sample: ``sample_losses`` with the setup's loss and smoothing."""
    return sample_losses(logits, labels, setup.loss, setup.label_smoothing)


def progress(logits: Tensor, labels: Tensor, setup: TrainingSetup) -> tuple[Tensor, Tensor]:
    """How far training has come.

    Args:
        logits: [..., n, K] on the whole training part.
        labels: [..., n].
        setup: Its loss and its stopping rule.

    Returns:
        (mean loss [...], whether the stopping rule holds [...], as far as the training part tells).
    """
    value = training_losses(setup, logits, labels).mean(-1)
    if isinstance(setup.stop, TargetLoss):
        return value, value <= setup.stop.target_loss
    if isinstance(setup.stop, TargetAccuracy):
        # Hits are counted, not errors: k/n is then the very number that a target of k/n is read as.
        hits = 1 - point_errors(logits, labels)
        return value, hits.mean(-1) >= setup.stop.target_accuracy
    return value, torch.zeros_like(value, dtype=torch.bool)


def validation_losses(setup: TrainingSetup, logits: Tensor, labels: Tensor) -> Tensor:
    """What ``ValidationLoss`` looks at: the mean held-out loss, as it stands in a run's record.

    Args:
        setup: Its loss.
        logits: [..., n, K] on the whole validation part.
        labels: [..., n].

    Returns:
        [...] in float64.
    """
    return sample_losses(logits.double(), labels, setup.loss).mean(-1)


def steps_after(stop: Stop, epoch: int, per_epoch: int) -> int:
    """Optimizer steps that have been made after an epoch, the last one cut short by ``FixedSteps``."""
    steps = epoch * per_epoch
    return min(steps, stop.steps) if isinstance(stop, FixedSteps) else steps


def epochs_trained(stop: Stop, outcome: Outcome, epochs: int, max_epochs: int) -> int:
    """How many epochs a run took, those beyond the net that was kept included.

    Args:
        stop: Its stopping rule.
        outcome: How it ended.
        epochs: Of the net that was kept.
        max_epochs: The most that it was allowed.

    Returns:
        At least ``epochs``.
    """
    if not isinstance(stop, ValidationLoss):
        return epochs
    if outcome is Outcome.REACHED_TARGET:
        return epochs + stop.validation_patience
    return epochs if outcome in (Outcome.DIVERGED, Outcome.FAILED) else max_epochs


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


def out_of_patience(best_epoch: int, max_epochs: int) -> Outcome:
    """As ``out_of_epochs`` under ``ValidationLoss``: improving is a new lowest since ``quarter_left``.

    By however little: it is what the patience goes by.
    """
    new = best_epoch > quarter_left(max_epochs)
    return Outcome.OUT_OF_BUDGET if new else Outcome.PLATEAU
