"""One net at a time: any module, by autograd and torch.optim. The plain reference of the engines."""

from __future__ import annotations

import copy
import math
from itertools import count, islice

import torch
from torch import Tensor

from fls_bench.scaling import schedule_factors
from fls_bench.schema import FixedSteps, LrRule, Outcome, RunConfig, ValidationLoss
from fls_bench.tasks import Task
from fls_bench.training.optimizers import SingleOptimizer
from fls_bench.training.ranks import rank_penalties
from fls_bench.training.runs import (
    POINTS_AT_ONCE,
    TrainedRun,
    augment,
    augmentations,
    batch_order,
    divergence_bound,
    make_net,
    out_of_epochs,
    out_of_patience,
    progress,
    quarter_left,
    seeded,
    steps_after,
    training_losses,
    validation_losses,
)
from fls_bench.training_setup import TrainingSetup


def train_single(
    setup: TrainingSetup,
    rule: LrRule,
    task: Task,
    config: RunConfig,
    *,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> TrainedRun:
    """Train one net until the stopping rule holds.

    Dropout and the like draw from torch's global random state: it is seeded with the run's seed and
    restored afterwards.

    Args:
        setup: Any setup.
        rule: Its learning-rate rule.
        task: The run's data.
        config: The run.
        dtype: Floating type of weights and data.
        device: Where to train.

    Returns:
        The run, its weights on the CPU.
    """
    with seeded(config.seed):
        return _train(setup, rule, task, config, dtype, device)


def _train(
    setup: TrainingSetup,
    rule: LrRule,
    task: Task,
    config: RunConfig,
    dtype: torch.dtype,
    device: str,
) -> TrainedRun:
    net = make_net(setup, config.seed, config.c, dtype)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(config.init_scale)
    init = {key: value.detach().cpu().clone() for key, value in net.state_dict().items()}
    net.to(device)
    built_in = setup.architecture is not None and setup.architecture.name is not None
    if built_in and device == "cpu" and torch.get_num_threads() == 1:
        # Small convolutions are 1.3 to 1.7 times as fast in this order. A user's own net may rely on
        # the usual one, and with two threads torch 2.13 was seen to crash in the backward pass.
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    origin = copy.deepcopy(net).eval().requires_grad_(False) if config.centered else None
    c = config.c if setup.route == "wrapper" else 1.0
    x = torch.as_tensor(task.x_train, dtype=dtype).to(device)
    y = torch.as_tensor(task.y_train).to(device)
    optimizer = SingleOptimizer(setup, rule, config, net)

    ranks = rank_penalties(setup.rank_term, [config.seed], dtype, device)
    weights = [parameter for parameter in net.parameters() if parameter.requires_grad]

    def logits(inputs: Tensor, hidden: list[Tensor] | None = None) -> Tensor:
        output: Tensor = net(inputs) if hidden is None else net(inputs, hidden)
        return c * (output if origin is None else output - origin(inputs))

    @torch.no_grad()
    def outputs(points: Tensor) -> Tensor:
        net.eval()
        output = torch.cat([logits(part) for part in torch.split(points, POINTS_AT_ONCE)])
        net.train()
        return output

    def measured() -> tuple[Tensor, Tensor]:
        return progress(outputs(x), y, setup)

    def validation_loss() -> float:
        return float(validation_losses(setup, outputs(x_val), y_val))

    def state() -> dict[str, Tensor]:
        return {
            key: value.detach().cpu().clone(memory_format=torch.contiguous_format)
            for key, value in net.state_dict().items()
        }

    stop, per_epoch = setup.stop, -(-len(y) // setup.batch_size)
    order, disturbances = batch_order(config.seed, len(y)), augmentations(config.seed)
    loss, _ = measured()
    loss_before, bound = float(loss), divergence_bound(loss)
    if isinstance(stop, ValidationLoss):
        x_val = torch.as_tensor(task.x_val, dtype=dtype).to(device)
        y_val = torch.as_tensor(task.y_val).to(device)
    lowest, kept = math.inf, None
    for epoch in count(1):
        steps = steps_after(stop, epoch, per_epoch)
        factors = schedule_factors(
            setup.known_optimizer, stop,
            epoch=epoch - 1, per_epoch=per_epoch, max_epochs=config.max_epochs,
        )  # fmt: skip
        batches, last = torch.split(next(order).to(device), setup.batch_size), None
        due = steps - steps_after(stop, epoch - 1, per_epoch)
        for picked, factor in islice(zip(batches, factors, strict=True), due):
            if factor != last:  # within an epoch an optimizer of the user's may move its own rates
                optimizer.scale_rates(factor)
                last = factor
            inputs = augment(x[picked], setup.augmentation, disturbances)
            hidden: list[Tensor] | None = None if ranks is None else []
            loss = training_losses(setup, logits(inputs, hidden), y[picked]).mean()
            if ranks is not None and hidden is not None:
                loss = loss + ranks.loss(
                    [one.unsqueeze(0) for one in hidden], weights, stacked=False
                )
            optimizer.step(loss)
        loss, target_met = measured()
        if epoch == quarter_left(config.max_epochs):
            loss_before = float(loss)
        diverged, over = not loss <= bound, bool(target_met)
        if isinstance(stop, FixedSteps):
            over = steps == stop.steps
        elif isinstance(stop, ValidationLoss):
            value = validation_loss()
            diverged = diverged or not math.isfinite(value)
            if value < lowest:
                lowest, kept = value, (epoch, steps, float(loss), state())
            over = kept is not None and epoch - kept[0] >= stop.validation_patience
        if diverged:
            outcome = Outcome.DIVERGED
        elif over:
            outcome = Outcome.REACHED_TARGET
        elif epoch >= config.max_epochs:
            outcome = out_of_epochs(float(loss), loss_before)
            if kept is not None:
                outcome = out_of_patience(kept[0], config.max_epochs)
        else:
            continue
        break
    if kept is None or outcome is Outcome.DIVERGED:
        kept = epoch, steps, float(loss), state()
    return TrainedRun(
        config=config,
        outcome=outcome,
        epochs=kept[0],
        steps=kept[1],
        train_loss=None if outcome is Outcome.DIVERGED else kept[2],
        init=init,
        final=kept[3],
    )
